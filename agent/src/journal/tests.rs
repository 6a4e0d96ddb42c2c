//! The journal across closing, crashing, acknowledging and growing too large.

use super::record::{Verdict, Write};
use super::store::{JournalError, Store};
use super::{Accepted, Journal};
use crate::outcome::Outcome;
use chrono::Utc;
use fleet_wire::{CommandRun, Decoded, EnvelopeId, JobId, Kind, LogLine, LogStream, Status, ToCoordinator, decode};
use proptest::prelude::*;
use std::path::PathBuf;
use tempfile::TempDir;

pub(super) const LARGE: u64 = 1 << 30;

pub(super) fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    (dir, path)
}

fn job(name: &str) -> CommandRun {
    CommandRun::new(name.into(), Kind::Check)
}

pub(super) fn accept(name: &str) -> Write {
    Write::Accept { run: Box::new(job(name)), refusal: None }
}

pub(super) fn started(name: &str) -> Write {
    Write::Started { job_id: name.into(), at: Utc::now() }
}

fn line(name: &str, text: &str) -> Write {
    Write::Log { job_id: name.into(), ts: Utc::now(), stream: LogStream::Stdout, line: text.into(), mark: None }
}

fn outcome() -> Outcome {
    Outcome { status: Status::Succeeded, exit_code: 0, stats: None, error: None }
}

pub(super) fn finish(name: &str) -> Write {
    Write::Finish { job_id: name.into(), outcome: outcome(), at: Utc::now() }
}

pub(super) fn messages(store: &mut Store, after: u64) -> Vec<(u64, ToCoordinator)> {
    let read = |(id, text): (u64, String)| match decode(&text) {
        Ok(Decoded::Known { id: Some(in_envelope), message }) => {
            assert_eq!(in_envelope, EnvelopeId::from(id));
            (id, message)
        }
        other => panic!("{other:?}"),
    };
    store.outbox(after, usize::MAX).unwrap().into_iter().map(read).collect()
}

fn lines(store: &mut Store) -> Vec<LogLine> {
    let line = |(_, message)| match message {
        ToCoordinator::LogLine(line) => Some(line),
        _ => None,
    };
    messages(store, 0).into_iter().filter_map(line).collect()
}

fn types(store: &mut Store) -> Vec<&'static str> {
    use fleet_wire::Message;
    messages(store, 0).iter().map(|(_, message)| message.type_name()).collect()
}

#[test]
fn what_was_committed_is_there_after_a_crash() {
    let (_dir, path) = place();
    let mut store = Store::open(&path, LARGE).unwrap();
    let id = store.id();
    store.commit(&[accept("a"), accept("b"), accept("c"), started("a"), line("a", "one"), finish("c")]).unwrap();
    let image = std::fs::read(&path).unwrap();
    drop(store);
    // The file as a kill -9 leaves it: never closed.
    std::fs::write(&path, image).unwrap();

    let mut store = Store::open(&path, LARGE).unwrap();
    assert_eq!(store.id(), id);
    let left: Vec<_> =
        store.leftovers().unwrap().into_iter().map(|l| (l.job_id.to_string(), l.started, l.run)).collect();
    assert_eq!(left, [("a".into(), true, Some(job("a"))), ("b".into(), false, Some(job("b")))]);
    assert_eq!(store.open_jobs(), ["a", "b", "c"].map(JobId::from));
    let expected = ["command.result", "command.result", "command.result", "job.started", "log.stream", "job.finished"];
    assert_eq!(types(&mut store), expected);
    store.commit(&[line("a", "two")]).unwrap();
    let seqs: Vec<_> = lines(&mut store).into_iter().map(|line| (line.seq, line.payload)).collect();
    assert_eq!(seqs, [(0, "one".into()), (1, "two".into())]);
}

#[test]
fn a_job_is_run_once_however_often_it_is_sent() {
    let (_dir, path) = place();
    let mut store = Store::open(&path, LARGE).unwrap();
    let refused = Write::Accept { run: Box::new(job("a")), refusal: Some("no".into()) };
    assert_eq!(
        store.commit(&[refused.clone(), accept("a"), accept("a")]).unwrap(),
        [Verdict::Refused, Verdict::New, Verdict::Known]
    );
    store.commit(&[started("a"), finish("a"), finish("a")]).unwrap();
    assert_eq!(store.commit(&[accept("a")]).unwrap(), [Verdict::Known]);
    store.commit(&[Write::Ack { up_to: store.head() }]).unwrap();
    assert_eq!(store.open_jobs(), []);
    drop(store);
    let mut store = Store::open(&path, LARGE).unwrap();
    // Over and acknowledged: known all the same, even where it would be refused by now.
    assert_eq!(store.commit(&[accept("a"), refused]).unwrap(), [Verdict::Known, Verdict::Known]);
    for (_, message) in messages(&mut store, 0) {
        assert!(matches!(message, ToCoordinator::CommandResult(result) if result.accepted && result.error.is_none()));
    }
}

#[test]
fn an_acknowledged_envelope_goes_and_its_id_never_returns() {
    let (_dir, path) = place();
    let mut store = Store::open(&path, LARGE).unwrap();
    store.commit(&[accept("a"), started("a"), line("a", "x"), finish("a")]).unwrap();
    store.commit(&[Write::Ack { up_to: 3 }]).unwrap();
    assert_eq!(types(&mut store), ["job.finished"]);
    assert_eq!(store.open_jobs(), [JobId::from("a")], "its outcome is not acknowledged");
    store.commit(&[Write::Ack { up_to: 4 }]).unwrap();
    assert_eq!(store.open_jobs(), []);
    drop(store);
    let mut store = Store::open(&path, LARGE).unwrap();
    store.commit(&[accept("b")]).unwrap();
    assert_eq!(messages(&mut store, 0)[0].0, 5);
}

#[test]
fn nothing_is_assumed_of_a_coordinator_that_ever_acknowledged() {
    let (_dir, path) = place();
    let mut store = Store::open(&path, LARGE).unwrap();
    store.commit(&[accept("a"), finish("a")]).unwrap();
    store.commit(&[Write::Assume { up_to: 2 }]).unwrap();
    assert_eq!((store.open_jobs().len(), types(&mut store).len()), (0, 0));
    store.commit(&[accept("b"), finish("b"), Write::Ack { up_to: 3 }]).unwrap();
    drop(store);
    let mut store = Store::open(&path, LARGE).unwrap();
    store.commit(&[Write::Assume { up_to: 4 }]).unwrap();
    assert_eq!(types(&mut store), ["job.finished"]);
}

#[test]
fn the_outbox_is_read_in_slices() {
    let (_dir, path) = place();
    let mut store = Store::open(&path, LARGE).unwrap();
    store.commit(&[accept("a")]).unwrap();
    for _ in 0..20 {
        store.commit(&[line("a", &"x".repeat(1000))]).unwrap();
    }
    assert_eq!(store.outbox(1, 1).unwrap().len(), 1, "one is given however large it is");
    let mut after = 0;
    let mut seen = 0;
    loop {
        let slice = store.outbox(after, 3000).unwrap();
        assert!(slice.iter().map(|(_, text)| text.len()).sum::<usize>() <= 3000);
        let Some((last, _)) = slice.last() else { break };
        after = *last;
        seen += slice.len();
    }
    assert_eq!(seen, 21);
}

#[test]
fn past_the_limit_lines_of_finished_jobs_go_and_the_log_says_so() {
    let (_dir, path) = place();
    let mut store = Store::open(&path, 80_000).unwrap();
    store.commit(&[accept("running"), accept("over")]).unwrap();
    let text = "x".repeat(100);
    for _ in 0..100 {
        store.commit(&[line("running", &text), line("over", &text)]).unwrap();
    }
    store.commit(&[finish("over")]).unwrap();
    for _ in 0..150 {
        store.commit(&[line("running", &text)]).unwrap();
    }
    let all = lines(&mut store);
    let running: Vec<_> = all.iter().filter(|line| line.job_id.as_str() == "running").map(|line| line.seq).collect();
    assert_eq!(running, (0..250).collect::<Vec<_>>(), "a running job keeps its lines while a finished one has any");
    let over: Vec<_> = all.iter().filter(|line| line.job_id.as_str() == "over").collect();
    let dropped = 100 - (over.len() as i64 - 1);
    assert!(over[0].payload.contains(&format!("{dropped} lines")), "{:?}", over[0]);
    assert_eq!(over[0].seq, dropped - 1, "the notice takes the last dropped line's place");
    assert!(types(&mut store).contains(&"job.finished"));
}

#[test]
fn the_limit_holds_for_a_running_job_too_and_outcomes_stay() {
    let (_dir, path) = place();
    let mut store = Store::open(&path, 50_000).unwrap();
    store.commit(&[accept("a"), started("a")]).unwrap();
    for n in 0..1000 {
        store.commit(&[line("a", &format!("{n} {}", "x".repeat(100)))]).unwrap();
    }
    store.commit(&[finish("a")]).unwrap();
    let kept = lines(&mut store);
    let bytes: usize = store.outbox(0, usize::MAX).unwrap().iter().map(|(_, text)| text.len()).sum();
    assert!(bytes < 50_000, "{bytes}");
    assert_eq!(kept.last().unwrap().seq, 999);
    assert!(kept[0].payload.contains(&format!("{} lines", 1000 - (kept.len() - 1))), "{}", kept[0].payload);
    let others: Vec<_> = types(&mut store).into_iter().filter(|name| *name != "log.stream").collect();
    assert_eq!(others, ["command.result", "job.started", "job.finished"]);
}

#[test]
fn a_second_agent_and_a_damaged_file_are_clear_errors() {
    let (dir, path) = place();
    let store = Store::open(&path, LARGE).unwrap();
    assert!(matches!(Store::open(&path, LARGE), Err(JournalError::Busy(_))));
    drop(store);
    let other = dir.path().join("other.redb");
    std::fs::write(&other, "this is no journal, but it is long enough to look at".repeat(100)).unwrap();
    let message = Store::open(&other, LARGE).err().unwrap().to_string();
    assert!(message.contains("other.redb") && message.contains("move it away"), "{message}");
}

#[tokio::test]
async fn many_reports_are_on_disk_when_the_last_one_says_so() {
    let (_dir, path) = place();
    let (journal, left) = Journal::open(&path, LARGE).unwrap();
    assert_eq!(left, []);
    let a = JobId::from("a");
    assert_eq!(journal.accept(job("a"), None).await, Accepted::New);
    assert_eq!(journal.accept(job("a"), None).await, Accepted::Known);
    assert_eq!(journal.accept(job("b"), Some("no".into())).await, Accepted::Refused);
    journal.started(&a).await;
    for n in 0..5000 {
        journal.log(&a, Utc::now(), LogStream::Stdout, n.to_string(), None).await;
    }
    journal.finish(&a, outcome()).await;
    assert_eq!(*journal.head().borrow(), 5005);
    assert_eq!(journal.outbox(5004, 1000).await.unwrap().len(), 1);
    assert_eq!(journal.open_jobs().await, [a]);
    journal.ack(5005).await;
    assert_eq!(journal.open_jobs().await, []);
    assert_eq!(journal.outbox(0, 1000).await.unwrap(), []);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u8),
    Ack(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4u8, 0..4u8).prop_map(|(what, job)| Step::Write(what, job)),
        2 => (0..40u64).prop_map(Step::Ack),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens in whatever order: ids rise, log lines have no gaps, each job has at most one outcome, and
    /// an envelope is there exactly until it is acknowledged.
    #[test]
    fn nothing_is_lost_or_doubled(steps in prop::collection::vec(step(), 1..40)) {
        let (_dir, path) = place();
        let mut store = Store::open(&path, LARGE).unwrap();
        let mut seen = std::collections::BTreeMap::new();
        let mut acked = 0;
        for step in steps {
            match step {
                Step::Write(what, job) => {
                    let name = format!("job-{job}");
                    let write = [accept(&name), started(&name), line(&name, "x"), finish(&name)][what as usize].clone();
                    store.commit(&[write]).unwrap();
                }
                Step::Ack(up_to) => {
                    acked = acked.max(up_to.min(store.head()));
                    store.commit(&[Write::Ack { up_to: acked }]).unwrap();
                }
                Step::Reopen => {
                    drop(store);
                    store = Store::open(&path, LARGE).unwrap();
                }
            }
            for (id, message) in messages(&mut store, 0) {
                prop_assert!(id > acked);
                seen.insert(id, message);
            }
            let unacked = messages(&mut store, 0).len();
            prop_assert_eq!(unacked, seen.range(acked + 1..).count());
        }
        prop_assert!(seen.keys().copied().eq(1..=store.head()));
        for number in 0..4 {
            let name = format!("job-{number}");
            let of_job = |message: &&ToCoordinator| matches!(message, ToCoordinator::LogLine(line) if line.job_id.as_str() == name);
            let seqs: Vec<_> = seen.values().filter(of_job).map(|message| match message {
                ToCoordinator::LogLine(line) => line.seq,
                _ => unreachable!(),
            }).collect();
            prop_assert!(seqs.iter().copied().eq(0..seqs.len() as i64), "{:?}", seqs);
            let outcomes = seen.values().filter(|message| {
                matches!(message, ToCoordinator::JobFinished(finished) if finished.job_id.as_str() == name)
            });
            prop_assert!(outcomes.count() <= 1);
        }
    }
}

#[test]
fn the_end_of_the_writer_is_noticed() {
    let (_dir, path) = place();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (journal, _) = first.block_on(async { Journal::open(&path, LARGE) }).unwrap();
    let waits =
        first.block_on(async { tokio::time::timeout(std::time::Duration::from_millis(50), journal.ended()).await });
    assert!(waits.is_err(), "it runs");
    // The writer ends with its runtime, as it would by a panic.
    drop(first);
    runtime()
        .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(20), journal.ended()).await })
        .unwrap();
}
