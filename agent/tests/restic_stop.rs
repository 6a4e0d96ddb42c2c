//! Stopping restic, and the locks that it must not leave.

mod restic_support;

use fleet_agent::report::{Report, Reporter};
use fleet_agent::restic::unlock_stale;
use fleet_agent::stop::Stop;
use fleet_wire::{Kind, Status};
use restic_support::{Background, PASSWORD, Running, Sandbox, eventually, restics};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// A host with a backup that takes long enough to be stopped.
fn slow_sandbox(restic: &Path) -> Sandbox {
    let mut sandbox = Sandbox::with_repository(restic);
    sandbox.write_random("source/big", 60);
    // restic ends the packs in hand first: at this speed that is 2 to 4 s.
    sandbox.upload_kib = Some(8000);
    sandbox
}

async fn running_backup(sandbox: &Sandbox) -> Running {
    let mut running = sandbox.start(sandbox.job(Kind::Backup));
    let moves = |report: &Report| matches!(report, Report::Progress(progress) if progress.bytes_done > 0);
    running.until("progress", moves).await;
    running
}

#[tokio::test]
async fn a_cancelled_backup_leaves_neither_snapshot_nor_lock() {
    for restic in restics() {
        let sandbox = slow_sandbox(&restic);
        let running = running_backup(&sandbox).await;
        assert_ne!(sandbox.locks(), "", "a running backup holds a lock");
        running.stop(Stop::Cancel);
        let ran = running.end().await;
        // The exit code is 130 or 1, by version: it tells nothing.
        assert_eq!((ran.outcome.status, ran.error()), (Status::Cancelled, "cancelled"), "{}", ran.text());
        assert!(ran.snapshots.is_empty() && ran.outcome.exit_code > 0, "{:?}", ran.outcome);
        assert_eq!(sandbox.locks(), "");
        assert_eq!(sandbox.restic_says(&["snapshots", "--json"]).trim(), "[]");
    }
}

/// restic 0.14 interrupted in the 200 ms between making its lock and knowing of it ends with 130 and leaves the lock.
#[tokio::test]
async fn a_stop_while_restic_takes_its_lock_leaves_none() {
    for restic in restics() {
        let sandbox = slow_sandbox(&restic);
        let running = sandbox.start(sandbox.job(Kind::Backup));
        let locks = sandbox.path("repo/locks");
        eventually("a lock", || fs::read_dir(&locks).unwrap().next().is_some()).await;
        running.stop(Stop::Cancel);
        let ran = running.end().await;
        assert_eq!(ran.outcome.status, Status::Cancelled, "{}", ran.text());
        assert_eq!(sandbox.locks(), "", "{}", ran.text());
    }
}

#[tokio::test]
async fn a_restic_that_had_to_be_killed_is_followed_by_unlock() {
    for restic in restics() {
        let mut sandbox = slow_sandbox(&restic);
        sandbox.limits.stop_grace = Duration::from_millis(1);
        let running = running_backup(&sandbox).await;
        running.stop(Stop::AgentStops);
        let ran = running.end().await;
        ran.assert(Status::Failed, -1);
        assert_eq!(ran.error(), "agent stopped");
        assert_eq!(sandbox.locks(), "", "{}", ran.text());
    }
}

#[tokio::test]
async fn a_job_that_is_stopped_before_it_starts_does_nothing() {
    let sandbox = Sandbox::new(&restics()[0]);
    let running = sandbox.start(sandbox.job(Kind::Init));
    running.stop(Stop::Cancel);
    running.end().await.assert(Status::Cancelled, -1);
    assert!(!sandbox.path("repo").exists());
}

#[tokio::test]
async fn a_stop_after_the_last_byte_leaves_a_success() {
    let restic = &restics()[0];
    let mut sandbox = Sandbox::with_repository(restic);
    sandbox.write("source/file", "x");
    // restic is done, its end is delayed until the stop is there.
    sandbox.wrap("trap '' INT; \"$RESTIC\" \"$@\"; rc=$?; [ \"$1\" != backup ] || { echo done; sleep 2; }; exit $rc");
    let mut running = sandbox.start(sandbox.job(Kind::Backup));
    running.until("the end", |report| matches!(report, Report::Log { line, .. } if line == "done")).await;
    running.stop(Stop::Cancel);
    let ran = running.end().await;
    ran.assert(Status::Succeeded, 0);
    assert_eq!(ran.snapshots[0].snapshots.len(), 1);
}

#[tokio::test]
async fn a_locked_repository_names_the_holder_and_unlock_frees_it_when_he_is_dead() {
    for restic in restics() {
        let sandbox = slow_sandbox(&restic);
        let source = sandbox.text_path("source");
        let mut command = sandbox.command(&["backup", "-q", "--limit-upload", "500", &source]);
        let mut holder = Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("restic runs"));
        eventually("the holder's lock", || !sandbox.locks().is_empty()).await;
        let by = format!("the repository is locked by PID {} on ", holder.0.id());
        for kind in [Kind::Check, Kind::Prune] {
            let ran = sandbox.run_kind(kind).await;
            assert_eq!(ran.outcome.status, Status::Failed);
            assert!(ran.error().starts_with(&by) && ran.error().contains("run an unlock job"), "{}", ran.error());
            assert!(ran.stats.is_empty(), "no verdict on a repository that was not looked at: {:?}", ran.stats);
        }
        // A live lock stays.
        let unlock = sandbox.run_kind(Kind::Unlock).await;
        assert_eq!(unlock.assert(Status::Succeeded, 0).stats[0].lock_present, Some(true));
        assert!(unlock.text().contains("1 lock(s) stay"), "{}", unlock.text());

        holder.0.kill().expect("a kill");
        holder.0.wait().expect("an end");
        assert_ne!(sandbox.locks(), "", "a killed restic leaves its lock");
        let unlock = sandbox.run_kind(Kind::Unlock).await;
        assert_eq!(unlock.assert(Status::Succeeded, 0).stats[0].lock_present, Some(false));
    }
}

#[tokio::test]
async fn the_lock_of_a_crash_is_removed_beside_any_job() {
    let sandbox = slow_sandbox(&restics()[0]);
    let source = sandbox.text_path("source");
    let mut command = sandbox.command(&["backup", "-q", "--limit-upload", "500", &source]);
    let mut holder = Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("restic runs"));
    eventually("the holder's lock", || !sandbox.locks().is_empty()).await;
    holder.0.kill().expect("a kill");
    holder.0.wait().expect("an end");
    let (reporter, _reports) = Reporter::channel();
    let job = "job-1".into();
    let data_dir = sandbox.path("data");
    let unlocked =
        unlock_stale((&job, &sandbox.spool()), &sandbox.restic, &sandbox.credentials, &data_dir, &reporter).await;
    assert_eq!(unlocked, Ok(()));
    assert_eq!(sandbox.locks(), "");

    let wrong = fleet_wire::Secret::new(format!("not {PASSWORD}"));
    let credentials = fleet_agent::credentials::Credentials { password: Some(wrong), ..sandbox.credentials.clone() };
    let error =
        unlock_stale((&job, &sandbox.spool()), &sandbox.restic, &credentials, &data_dir, &reporter).await.unwrap_err();
    assert!(error.starts_with("wrong repository password"), "{error}");
}
