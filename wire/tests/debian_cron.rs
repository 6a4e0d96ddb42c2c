//! Whatever Debian's cron does with an expression, we do.
//!
//! `debian_cron/firings.txt` holds what Debian's own parser and main loop did with thousands of random expressions over
//! ten years in four time zones, when `debian_cron/record.py` moved their clock. Differences that we want are the
//! refusals in [`stricter`]. A new version of chrono-tz may bring other rules for one of the zones' future; then record
//! anew on a machine with the same version of tzdata.

use chrono::{DateTime, Utc};
use fleet_wire::crontab::{Expression, ParseError, Reason, Zone};

const RECORDED: &str = include_str!("debian_cron/firings.txt");
const FIRST: &str = "2024-01-01T00:00:00Z";
const LAST: &str = "2034-01-01T00:00:00Z";

struct Line {
    expression: String,
    /// Count and digest of the firings in each zone; `None` if cron refuses the expression.
    firings: Option<Vec<&'static str>>,
}

fn recorded() -> (Vec<Zone>, Vec<Line>) {
    let mut lines = RECORDED.lines().filter(|line| !line.starts_with('#'));
    let zones = lines.next().and_then(|line| line.strip_prefix("zones\t")).expect("the line with the zones");
    let zones: Vec<Zone> = zones.split('\t').map(|zone| zone.parse().expect("a zone")).collect();
    let lines = lines.map(|line| {
        let (expression, verdict) = line.split_once('\t').expect("two columns");
        let firings: Vec<_> = verdict.split('\t').collect();
        assert!(verdict == "refused" || firings.len() == zones.len(), "{line}");
        Line { expression: expression.replace("\\t", "\t"), firings: (verdict != "refused").then_some(firings) }
    });
    let lines = lines.collect();
    (zones, lines)
}

/// As driver.c does it: FNV-1a over the minutes since 1970, eight bytes each, the lowest first.
fn summary(firings: impl Iterator<Item = DateTime<Utc>>) -> String {
    let (mut count, mut digest) = (0, 0xcbf2_9ce4_8422_2325_u64);
    for firing in firings {
        count += 1;
        for byte in (firing.timestamp() / 60).to_le_bytes() {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("{count} {digest:016x}")
}

/// Whether we want to refuse what cron takes: it ignores characters that it does not understand behind a value, and
/// takes ranges that run backwards, as well as dates that never come, for empty.
fn stricter(error: ParseError) -> bool {
    matches!(error.reason, Reason::Unexpected(_) | Reason::Backwards { .. } | Reason::NeverFires)
}

#[test]
fn what_debian_refuses_is_refused_and_little_else() {
    let (_, lines) = recorded();
    let (mut refused, mut stricter_than_debian) = (0, 0);
    for line in &lines {
        match (Expression::parse(&line.expression), &line.firings) {
            (Ok(_), Some(_)) => {}
            (Ok(_), None) => panic!("Debian's cron refuses {:?}", line.expression),
            (Err(_), None) => refused += 1,
            (Err(error), Some(firings)) => {
                assert!(stricter(error), "Debian's cron takes {:?}: {error}", line.expression);
                let never = firings.iter().all(|firings| firings.starts_with("0 "));
                assert!(never || error.reason != Reason::NeverFires, "{:?} fires: {firings:?}", line.expression);
                stricter_than_debian += 1;
            }
        }
    }
    assert!(refused > 800 && stricter_than_debian > 100, "{refused} and {stricter_than_debian} of {}", lines.len());
}

#[test]
fn firings_are_those_of_debian() {
    let (zones, lines) = recorded();
    let taken: Vec<_> = lines
        .iter()
        .filter_map(|line| Some((Expression::parse(&line.expression).ok()?, line.firings.as_ref()?)))
        .collect();
    assert!(taken.len() > 2500, "only {} of {} lines", taken.len(), lines.len());
    let (first, last) = (FIRST.parse().expect("an instant"), LAST.parse().expect("an instant"));
    let different = |zone: &Zone, column: usize| {
        let ours = |expression: &Expression| summary(expression.firings_between(zone, first, last));
        let pairs = taken.iter().map(|(expression, debian)| (expression, debian[column], ours(expression)));
        let different = pairs.filter(|(_, debian, ours)| debian != ours);
        different.map(|(it, debian, ours)| format!("{it:?} in {zone}: {debian}, here {ours}\n")).collect::<String>()
    };
    let different: String = std::thread::scope(|scope| {
        let threads = zones.iter().enumerate().map(|(column, zone)| scope.spawn(move || different(zone, column)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("a zone's thread")).collect()
    });
    assert!(different.is_empty(), "count and digest differ (record.py show ZONE EXPRESSION tells more):\n{different}");
}
