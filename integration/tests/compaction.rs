//! Logs whose jobs are over are put together into a few large chunks while the coordinator runs: no reader notices, lines
//! that come late are kept, and none is there twice.

mod support;

use fleet_integration::{Failure, Sandbox, eventually};
use serde_json::json;
use support::blocker::Blocker;
use support::{Host, LIMIT, journalling, log_of, over, repository};

/// More than one window of a pass holds.
const LINES: i64 = 700;
/// These never come, but for the first of them, which comes late.
const GAP: std::ops::Range<i64> = 300..310;

struct Logged {
    sandbox: Sandbox,
    host: Host,
    job: String,
}

fn text(seq: i64) -> String {
    format!("line {seq} of some length, so that it is worth compressing: {}", seq * 7_919 % 1_013)
}

fn lines(seqs: impl Iterator<Item = i64>) -> Vec<(i64, String)> {
    seqs.map(|seq| (seq, text(seq))).collect()
}

fn first_lines() -> impl Iterator<Item = i64> {
    (0..LINES).filter(|seq| !GAP.contains(seq))
}

impl Logged {
    /// A job that has just ended, whose log came in line by line.
    fn new() -> Self {
        let sandbox = Sandbox::start().unwrap();
        let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
        let job = sandbox.api().run_job(&host.id, &json!({"kind": "check"})).unwrap();
        host.run("check");
        host.start(&job, "check");
        for seq in first_lines() {
            let last = host.log(&job, seq, &text(seq));
            host.settled(last);
        }
        let last = host.finish(&job, "succeeded", 0);
        host.settled(last);
        over(&sandbox.api(), &job);
        Self { sandbox, host, job }
    }

    fn log(&self) -> Vec<(i64, String)> {
        log_of(&self.sandbox.api(), &self.job)
    }

    /// The first `count` lines after a number.
    fn page(&self, after: i64, count: usize) -> Vec<i64> {
        let path = format!("/v1/jobs/{}/logs?after_seq={after}&limit={count}", self.job);
        let text = self.sandbox.api().call("GET", &path, None, &[]).unwrap().text;
        let lines = text.split_terminator('\n').map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["seq"].as_i64().unwrap()).collect()
    }

    fn number(&self, what: &str) -> i64 {
        let sql = format!("SELECT {what} FROM log_chunks WHERE job_id = '{}'", self.job);
        self.sandbox.database.query(&sql).unwrap()[0][0].as_ref().unwrap().parse().unwrap()
    }

    fn chunks(&self) -> i64 {
        self.number("count(*)")
    }

    fn loose(&self) -> i64 {
        self.number("count(*) FILTER (WHERE NOT compacted)")
    }

    fn stored(&self) -> i64 {
        self.number("sum(last_seq - first_seq + 1)")
    }

    /// The job ended an hour ago, so its last lines must have come.
    fn ended_long_ago(&self) {
        let sql = format!("UPDATE jobs SET ended_at = ended_at - interval '1 hour' WHERE id = '{}'", self.job);
        self.sandbox.database.query(&sql).unwrap();
    }

    /// Reads the log again and again until it is compacted; it must always be this.
    fn compacted(&self, expected: &[(i64, String)]) {
        let done = || {
            assert!(self.log() == expected, "the log is not what it was");
            match self.loose() {
                0 => Ok(()),
                loose => Err(Failure::new(format!("{loose} loose chunks"))),
            }
        };
        eventually("the log to be compacted", LIMIT, done).unwrap();
        assert!(self.log() == expected, "the log is not what it was");
        assert_eq!(self.stored(), i64::try_from(expected.len()).unwrap());
    }
}

#[test]
fn readers_miss_and_double_nothing_while_a_log_is_compacted() {
    let logged = Logged::new();
    assert_eq!(logged.chunks(), LINES - 10, "each line came alone");
    // A reader in the middle, where one chunk will be.
    assert_eq!(logged.page(100, 50), (101..151).collect::<Vec<_>>());
    logged.ended_long_ago();
    logged.compacted(&lines(first_lines()));
    assert_eq!(logged.page(150, 200), (151..300).chain(310..361).collect::<Vec<_>>());
    assert_eq!((logged.page(299, 1), logged.page(LINES - 1, 1)), (vec![310], vec![]));
    assert_eq!(logged.chunks(), 2, "one on each side of the gap");
}

#[test]
fn lines_that_come_after_compaction_are_there_once() {
    let mut logged = Logged::new();
    logged.ended_long_ago();
    logged.compacted(&lines(first_lines()));
    // The job's actor may have gone meanwhile, or another coordinator may have come.
    logged.sandbox.restart_with(&[]).unwrap();
    let Logged { sandbox, host, job } = &mut logged;
    host.connect(sandbox, &journalling("j", &[]));
    let mut last = 0;
    for seq in [0, 150, 299, GAP.start, GAP.start, 310, LINES - 1, LINES, LINES + 2] {
        last = host.log(job, seq, &text(seq));
    }
    host.settled(last);
    let seqs = (0..=LINES + 2).filter(|seq| *seq == GAP.start || !GAP.contains(seq)).filter(|seq| *seq != LINES + 1);
    let expected = lines(seqs);
    assert!(logged.log() == expected, "the log lacks late lines, or has some twice");
    logged.compacted(&expected);
    assert_eq!(logged.chunks(), 3, "late lines joined their neighbours");
}

#[test]
fn a_coordinator_that_dies_while_it_puts_chunks_together_takes_no_line_with_it() {
    let mut logged = Logged::new();
    // Some chunks are gone by then in the transaction that is not committed.
    let last = format!("SELECT 1 FROM log_chunks WHERE job_id = '{}' AND first_seq = 250 FOR UPDATE", logged.job);
    let blocker = Blocker::hold(&logged.sandbox.database, &last);
    logged.ended_long_ago();
    Blocker::until_waited_for(&logged.sandbox.database, "DELETE FROM log_chunks");
    logged.sandbox.coordinator.process().kill();
    blocker.let_go();
    logged.sandbox.restart_with(&[]).unwrap();
    logged.compacted(&lines(first_lines()));
}
