//! Children and their scribes, as real processes: what is said arrives, whatever becomes of the agent.

use fleet_agent::process::{Ended, Ending, Line, Mark, Origin, Program, Role, Sink, Spool, replay, run};
use fleet_agent::stop::{Stop, StopWatch};
use nix::sys::signal::Signal;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::watch;

#[derive(Default)]
struct Heard(Vec<Line>);

impl Sink for Heard {
    async fn line(&mut self, line: Line) {
        self.0.push(line);
    }

    async fn settle(&mut self) {}
}

impl Heard {
    fn text(&self, origin: Origin) -> String {
        let lines = self.0.iter().filter(|line| line.origin == origin).map(|line| String::from_utf8_lossy(&line.bytes));
        lines.collect::<Vec<_>>().join("|")
    }
}

/// A job's records, in a folder that goes with it.
struct Place {
    folder: TempDir,
    spool: Spool,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(Path::new(env!("CARGO_BIN_EXE_fleet-agent")), folder.path(), &"job".into());
        Self { folder, spool }
    }

    async fn run(&self, program: &Program, stop: StopWatch, ending: Ending, sink: &mut impl Sink) -> io::Result<Ended> {
        run(program, (&self.spool, Role::Command), stop, ending, sink).await
    }
}

fn sh(script: &str) -> Program {
    let path = ("PATH".into(), "/usr/bin:/bin".into());
    Program { path: "/bin/sh".into(), args: vec!["-c".into(), script.into()], env: vec![path] }
}

fn ending(grace_ms: u64, limit: Option<Duration>) -> Ending {
    Ending { signal: Signal::SIGINT, grace: Duration::from_millis(grace_ms), limit }
}

fn no_stop() -> StopWatch {
    StopWatch::new(watch::channel(Stop::No).1)
}

#[tokio::test]
async fn both_outputs_and_the_exit_code_are_reported() {
    let mut heard = Heard::default();
    let script = "echo one; echo two >&2; printf 'no end'; test -z \"$HOME\" || echo leaked; exit 7";
    let ended = Place::new().run(&sh(script), no_stop(), ending(100, None), &mut heard).await.unwrap();
    assert_eq!(ended, Ended { code: Some(7), ..Ended::default() });
    assert_eq!(heard.text(Origin::Stdout), "one|no end");
    assert_eq!(heard.text(Origin::Stderr), "two");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let program = Program { path: "/no/such/program".into(), args: Vec::new(), env: Vec::new() };
    let error = Place::new().run(&program, no_stop(), ending(100, None), &mut Heard::default()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// Asks for a stop as soon as the child says something: then its traps are set.
struct StopAtFirstLine(watch::Sender<Stop>);

impl Sink for StopAtFirstLine {
    async fn line(&mut self, _: Line) {
        self.0.send(Stop::Cancel).unwrap();
    }

    async fn settle(&mut self) {}
}

async fn stopped(script: &str, grace_ms: u64) -> Ended {
    let (stop, receiver) = watch::channel(Stop::No);
    let mut sink = StopAtFirstLine(stop);
    Place::new().run(&sh(script), StopWatch::new(receiver), ending(grace_ms, None), &mut sink).await.unwrap()
}

#[tokio::test]
async fn a_stop_interrupts_and_then_kills_the_whole_group() {
    let started = Instant::now();
    // Neither the shell nor its children heed SIGINT: only the kill of the group closes the outputs.
    let ended = stopped("trap '' INT; echo ready; sleep 600 & sleep 600", 200).await;
    assert_eq!(ended, Ended { code: None, signal: Some(9), stop: Some(Stop::Cancel), over_time: false });
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_stop_that_meets_a_good_end_keeps_its_exit_code() {
    let ended = stopped("trap 'exit 0' INT; echo ready; while :; do sleep 0.05; done", 20_000).await;
    assert_eq!(ended, Ended { code: Some(0), signal: None, stop: Some(Stop::Cancel), over_time: false });
}

#[tokio::test]
async fn a_time_limit_ends_it() {
    let limit = Some(Duration::from_millis(100));
    let ended =
        Place::new().run(&sh("exec sleep 600"), no_stop(), ending(1000, limit), &mut Heard::default()).await.unwrap();
    assert_eq!(ended, Ended { code: None, signal: Some(2), stop: None, over_time: true });
}

#[tokio::test]
async fn what_a_child_leaves_behind_does_not_hold_it_up() {
    // Silent, dripping, and as fast as it can.
    for left in ["sleep 30", "while sleep 0.2; do echo x; done", "yes"] {
        let mut heard = Heard::default();
        let started = Instant::now();
        let script = format!("echo done; {left} &");
        let ended = Place::new().run(&sh(&script), no_stop(), ending(100, None), &mut heard).await.unwrap();
        assert_eq!((ended.code, heard.0[0].bytes.as_slice()), (Some(0), b"done".as_slice()), "{left}");
        assert!(started.elapsed() < Duration::from_secs(20), "{left}: {:?}", started.elapsed());
    }
}

/// The lines of a sequence, as `seq` prints it.
fn numbers(lines: &[Line]) -> Vec<usize> {
    lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).parse().unwrap()).collect()
}

#[tokio::test]
async fn a_flood_passes_whole_through_a_record_that_stays_small() {
    const LAST: usize = 1_500_000;
    /// Looks how large the record ever is.
    struct Watching {
        heard: Vec<Line>,
        folder: std::path::PathBuf,
        largest: u64,
    }
    impl Sink for Watching {
        async fn line(&mut self, line: Line) {
            self.heard.push(line);
        }
        async fn settle(&mut self) {
            for entry in std::fs::read_dir(&self.folder).unwrap() {
                self.largest = self.largest.max(entry.unwrap().metadata().unwrap().len());
            }
        }
    }
    let place = Place::new();
    let mut watching = Watching { heard: Vec::new(), folder: place.folder.path().join("spool/job"), largest: 0 };
    let script = format!("seq 0 {LAST}; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo {}", LAST + 1);
    let ended = place.run(&sh(&script), no_stop(), ending(100, None), &mut watching).await.unwrap();
    assert_eq!(ended.code, Some(0));
    let long: Vec<_> = watching.heard.iter().filter(|line| line.bytes.first() == Some(&b'x')).cloned().collect();
    assert_eq!(long.iter().map(|line| line.bytes.len()).sum::<usize>(), 3_000_000);
    watching.heard.retain(|line| line.bytes.first() != Some(&b'x'));
    assert!(numbers(&watching.heard).into_iter().eq(0..=LAST + 1));
    assert!((1..6 * 1024 * 1024).contains(&watching.largest), "{} bytes", watching.largest);
}

#[tokio::test]
async fn what_a_child_says_when_its_agent_is_gone_is_in_the_record() {
    let place = Place::new();
    let file = place.folder.path().join("said");
    // What it says, it notes elsewhere, too.
    let script = format!(
        "trap 'echo bye; exit 3' INT; i=0; while :; do echo $i; echo $i >> {}; i=$((i+1)); sleep 0.002; done",
        file.display()
    );
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    struct Telling(tokio::sync::mpsc::UnboundedSender<Line>);
    impl Sink for Telling {
        async fn line(&mut self, line: Line) {
            self.0.send(line).unwrap();
        }
        async fn settle(&mut self) {}
    }
    let (program, spool) = (sh(&script), place.spool.clone());
    let running = tokio::spawn(async move {
        run(&program, (&spool, Role::Hook), no_stop(), ending(5_000, None), &mut Telling(heard)).await
    });
    let mut before = Vec::new();
    while before.len() < 20 {
        before.push(hears.recv().await.unwrap());
    }
    running.abort();
    let mark: Mark = before.last().unwrap().mark;

    let record = place.spool.records().remove(0);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut rest = Heard::default();
    while !rest.text(Origin::Stdout).ends_with("bye") {
        assert!(Instant::now() < deadline, "last seen: {:?}", rest.0.last());
        rest = Heard::default();
        replay(&record, Some(mark), &mut rest).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rest.0.pop();
    before.extend(rest.0);
    let said = std::fs::read_to_string(file).unwrap().lines().count();
    let numbers = numbers(&before);
    assert!(numbers.iter().copied().eq(0..numbers.len()) && numbers.len() >= said, "{said} said: {numbers:?}");
    // What belongs to an earlier child than the mark is dealt with.
    let mut none = Heard::default();
    replay(&record, Some(Mark { child: 1, done: [0, 0] }), &mut none).await.unwrap();
    assert_eq!(none.0, []);
}

#[tokio::test]
async fn a_child_whose_scribe_is_killed_is_killed_too() {
    let place = Place::new();
    struct KillParent;
    impl Sink for KillParent {
        async fn line(&mut self, line: Line) {
            let scribe: i32 = String::from_utf8_lossy(&line.bytes).parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(scribe), Signal::SIGKILL).unwrap();
        }
        async fn settle(&mut self) {}
    }
    let started = Instant::now();
    let script = sh("echo $PPID; exec sleep 600");
    let ended = place.run(&script, no_stop(), ending(100, None), &mut KillParent).await.unwrap();
    assert_eq!((ended.code, ended.signal), (None, Some(9)));
    assert!(started.elapsed() < Duration::from_secs(60));
}
