#!/usr/bin/env python3
"""Records when Debian's own cron fires, for the test `debian_cron.rs`.

Fetches the source of Debian's package cron with apt-get (lists and files of its own, nothing is installed), compiles
its parser and its main loop with a clock that we move (driver.c), gives it thousands of expressions, and writes
firings.txt. Needs python3, apt-get, dpkg-dev, gcc, tzdata. The expressions are random, but always the same.

usage: record.py                      writes firings.txt anew
       record.py show ZONE EXPRESSION when one expression fires, for a closer look
"""

import datetime
import os
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
WORK = HERE.parents[2] / "target" / "debian-cron"
SUITE = "bookworm"
# Half an hour of summer time in the south; midnight skipped and 23:00 doubled in the south; both great northern rules.
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"]
FIRST = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
LAST = datetime.datetime(2034, 1, 1, tzinfo=datetime.timezone.utc)

KNOWN = """
@hourly
@daily
@midnight
@weekly
@monthly
@yearly
@annually
0 2 * * *
30 2 * * *
15,45 2 * * *
0 1,2,3 * * *
0 2-3 * * *
0,30 0-4 * * *
59 1 * * *
0 3 * * *
5 0 * * *
55 23 * * *
0 0 * * *
30 0 * * *
30 23 * * *
*/30 2 * * *
*/30 1-3 * * *
0 */2 * * *
30 */3 * * *
0 * * * *
30 * * * *
0 0-23 * * *
*,30 2 * * *
30 4 1,15 * 5
0 0 1 * *
0 0 */2 * 1
0 0 1,15 * */2
0 0 * * */2
0 0 */2 * */3
0 0 13 * fri
0 0 29 2 *
0 0 29 2 */7
0 0 31 * *
0 0 30 2 1
0 12 * jan-mar,Sep MON-fri
0 12 * * 0
0 12 * * 7
0 12 * * 5-7
0 12 * * 0-7/3
0 12 * * */7
5 4 * * sun
23 0-23/2 * * *
30 2 25-31 3 */7
0 2 * 3,10 0
30 2 8-14 3 */7
*/40 5 * * *
0 1-23/5 * * *
007 004 * * *
*/15 0-1 1 1 *
""".strip().splitlines()


def run(command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def source():
    """The folder with the source of Debian's cron, patched as Debian builds it."""
    folders = list(WORK.glob("cron-*/"))
    if not folders:
        for folder in ["lists/partial", "cache/archives/partial", "sources"]:
            (WORK / folder).mkdir(parents=True, exist_ok=True)
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (WORK / "sources.list").write_text(
            f"deb-src [signed-by={keyring}] http://deb.debian.org/debian {SUITE} main\n")
        settings = {
            "Dir::Etc::SourceList": WORK / "sources.list", "Dir::Etc::SourceParts": WORK / "sources",
            "Dir::State::Lists": WORK / "lists", "Dir::Cache": WORK / "cache",
            "APT::Sandbox::User": run(["id", "-un"]).strip(), "APT::Update::Post-Invoke::": "true",
        }
        apt = ["apt-get", "-q"] + [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        run(apt + ["update"])
        run(apt + ["source", "cron"], cwd=WORK)
        folders = list(WORK.glob("cron-*/"))
    return folders[0]


def driver():
    """Debian's cron with our clock, compiled."""
    debian = source()
    ours = ["main=cron_main", "time(x)=fake_time(x)", "sleep(x)=fake_sleep(x)", "access(x,y)=fake_access(x,y)"]
    ours += [f"{name}=fake_{name}" for name in
             ["acquire_daemonlock", "set_cron_uid", "set_cron_cwd", "log_it", "log_close"]]
    compiler = ["gcc", "-std=gnu11", "-O2", "-w", "-DPOSIX", "-DDEBUGGING=0", f"-I{debian}", "-c"]
    for name, defines in [("cron", ours), ("entry", []), ("misc", []), ("env", [])]:
        run(compiler + [f"-D{define}" for define in defines] + ["-o", WORK / f"{name}.o", debian / f"{name}.c"])
    run(compiler + ["-o", WORK / "driver.o", HERE / "driver.c"])
    objects = [WORK / f"{name}.o" for name in ["driver", "cron", "entry", "misc", "env"]]
    run(["gcc", "-o", WORK / "driver", *objects])
    return WORK / "driver"


def fire(program, zone, expressions, first=FIRST, last=LAST, *more):
    """What the driver prints, a list of lines."""
    arguments = [program, str(int(first.timestamp())), str(int(last.timestamp())), *more]
    return run(arguments, input="\n".join(expressions) + "\n", env={**os.environ, "TZ": zone}).splitlines()


MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
DAYS = "sun mon tue wed thu fri sat".split()


def value(dice, number, names, low):
    """A value as people write it: its number, now and then with a zero in front, or its name in any case."""
    if names and number - low < len(names) and dice.random() < 0.4:
        name = names[number - low]
        return dice.choice([name, name.upper(), name.capitalize()])
    return f"{number:02}" if dice.random() < 0.1 else str(number)


def item(dice, low, high, names=None):
    """One element of a list: a value, a range, or a range with a step."""
    first, last = sorted(dice.randint(low, high) for _ in range(2))
    if dice.random() < 0.6:
        return value(dice, first, names, low)
    # A name means its first number, so that `sun` can't end a range.
    end = value(dice, last, names if names and last < 7 or names is MONTHS else None, low)
    step = f"/{dice.randint(1, high)}" if dice.random() < 0.5 else ""
    return f"{value(dice, first, names, low)}-{end}{step}"


def field(dice, low, high, star, names=None):
    """A field that is `*` (or begins with it) with the probability `star`."""
    if dice.random() < star:
        step = f"/{dice.randint(1, high + 2)}" if dice.random() < 0.35 else ""
        more = "," + item(dice, low, high, names) if dice.random() < 0.1 else ""
        return f"*{step}{more}"
    return ",".join(item(dice, low, high, names) for _ in range(dice.choice([1, 1, 1, 2, 3])))


def expression(dice):
    """Five fields; most hours are those in which clocks change."""
    hour = field(dice, 0, 4, 0.1) if dice.random() < 0.5 else field(dice, 0, 23, 0.3)
    fields = [field(dice, 0, 59, 0.15), hour, field(dice, 1, 31, 0.5), field(dice, 1, 12, 0.5, MONTHS),
              field(dice, 0, 7, 0.4, DAYS)]
    return dice.choice([" ", " ", "  ", "\t"]).join(fields)


def spoil(dice, text):
    """The expression with one character changed, put in or taken out (but never a blank, nor the first)."""
    places = [place for place in range(1, len(text)) if not text[place].isspace()]
    place = dice.choice(places)
    new = dice.choice("0123456789,-/*jxLW#?;")
    return text[:place] + dice.choice([new, new + text[place], ""]) + text[place + 1:]


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "show":
        for second in fire(driver(), sys.argv[2], [sys.argv[3]], FIRST, LAST, "show"):
            print(datetime.datetime.fromtimestamp(int(second), datetime.timezone.utc) if second.isdigit() else second)
        return
    dice = random.Random(5)
    program = driver()
    candidates = list(dict.fromkeys(expression(dice) for _ in range(4000)))
    spoilt = list(dict.fromkeys(spoil(dice, dice.choice(candidates)) for _ in range(1500)))
    # Firing every few minutes tells little more and takes the test long: only a few of these.
    in_a_year = fire(program, "UTC", candidates + spoilt, FIRST, FIRST.replace(year=2025))
    dense = {text for text, line in zip(candidates + spoilt, in_a_year)
             if line != "refused" and int(line.split()[0]) > 700}
    some = [text for text in candidates if text in dense][:20]
    chosen = KNOWN + [text for text in candidates if text not in dense][:2500] + some
    chosen += [text for text in spoilt if text not in dense]
    columns = [fire(program, zone, chosen) for zone in ZONES]
    tzdata = pathlib.Path("/usr/share/zoneinfo/tzdata.zi").read_text().splitlines()[0].split()[-1]
    with open(HERE / "firings.txt", "w") as file:
        print(f"# Made by record.py with the source of {source().name} in {SUITE} and tzdata {tzdata}: how often each",
              "expression", file=file)
        print(f"# fires after {FIRST:%Y-%m-%dT%H:%MZ} and up to {LAST:%Y-%m-%dT%H:%MZ}, and the digest of the minutes;",
              "or `refused`.", file=file)
        print("\t".join(["zones", *ZONES]), file=file)
        for text, *cells in zip(chosen, *columns):
            verdict = ["refused"] if "refused" in cells else cells
            print("\t".join([text.replace("\t", "\\t"), *verdict]), file=file)


if __name__ == "__main__":
    main()
