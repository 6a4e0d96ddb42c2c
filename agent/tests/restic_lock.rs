//! Locks that restic finds although the coordinator keeps jobs apart: of another tool, of a crash.

mod restic_support;

use fleet_agent::report::Report;
use fleet_agent::stop::Stop;
use fleet_wire::{Kind, LogStream, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use restic_support::{Background, Ran, Sandbox, eventually, restics};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// A repository that another restic has for itself, and stands still in.
async fn locked(restic: &std::path::Path) -> (Sandbox, Background) {
    let sandbox = Sandbox::with_repository(restic);
    let file = sandbox.write_random("source/file", 30);
    sandbox.restic_says(&["backup", "-q", "--host=other", &file]);
    let mut command = sandbox.command(&["check", "--read-data"]);
    let holder = Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("restic runs"));
    // Under another name it is not written yet.
    let is_lock = |entry: std::fs::DirEntry| entry.file_name().len() == 64;
    let locks = || std::fs::read_dir(sandbox.path("repo/locks")).unwrap().filter_map(Result::ok);
    eventually("a lock", || locks().any(is_lock)).await;
    signal(&holder, Signal::SIGSTOP);
    (sandbox, holder)
}

fn pid(holder: &Background) -> i32 {
    i32::try_from(holder.0.id()).unwrap()
}

fn signal(holder: &Background, signal: Signal) {
    kill(Pid::from_raw(pid(holder)), signal).unwrap();
}

fn waits(report: &Report) -> bool {
    matches!(report, Report::Log { stream: LogStream::Event, line, .. } if line.contains("fleet_waits_for_lock"))
}

fn stats(ran: &Ran) -> Value {
    serde_json::from_str(ran.outcome.stats.as_ref().expect("stats").as_str()).unwrap()
}

#[tokio::test]
async fn a_backup_waits_for_the_lock_of_another_restic_and_then_goes_on() {
    for restic in restics() {
        let (mut sandbox, mut holder) = locked(&restic).await;
        sandbox.limits.lock_wait = Duration::from_secs(60);
        let mut running = sandbox.start(sandbox.job(Kind::Backup));
        running.until("a line that says so", waits).await;
        signal(&holder, Signal::SIGCONT);
        let ran = running.end().await;
        ran.assert(Status::Succeeded, 0);
        assert!(holder.0.wait().expect("an end").success());
        let line = ran.log.iter().find(|(stream, line)| *stream == LogStream::Event && line.contains("waits_for_lock"));
        let event: Value = serde_json::from_str(&line.unwrap().1).unwrap();
        assert_eq!((&event["lock"]["pid"], &event["lock"]["standing"]), (&pid(&holder).into(), &"held".into()));
        assert_eq!(event["lock"]["exclusive"], true, "{event}");
        assert!(event["retry_in_seconds"].as_f64().is_some_and(|pause| pause > 0.0), "{event}");
    }
}

#[tokio::test]
async fn a_lock_that_stays_is_reported_with_who_holds_it() {
    for restic in restics() {
        let (mut sandbox, holder) = locked(&restic).await;
        sandbox.limits.lock_wait = Duration::from_millis(300);
        for kind in [Kind::Backup, Kind::Check, Kind::Prune] {
            let ran = sandbox.run_kind(kind).await;
            assert_eq!(ran.outcome.status, Status::Failed, "{kind}");
            let by = format!("the repository is locked exclusively by PID {} on ", pid(&holder));
            let error = ran.error();
            assert!(error.starts_with(&by) && error.contains("lock was created at"), "{kind}: {error}");
            assert!(error.contains("this job has waited"), "{kind}: {error}");
            let lock = &stats(&ran)["lock"];
            assert_eq!((&lock["pid"], &lock["standing"]), (&pid(&holder).into(), &"held".into()), "{kind}: {lock}");
            assert!(
                lock["hostname"].is_string() && lock["username"].is_string() && lock["since"].is_string(),
                "{lock}"
            );
        }
        assert_ne!(sandbox.locks(), "", "it is not ours to remove");
    }
}

#[tokio::test]
async fn a_stale_lock_is_said_to_be_stale_at_once_and_left_for_a_person_to_remove() {
    for restic in restics() {
        let (mut sandbox, mut holder) = locked(&restic).await;
        sandbox.limits.lock_wait = Duration::from_secs(3600);
        holder.0.kill().expect("a kill");
        holder.0.wait().expect("an end");
        let ran = sandbox.run_kind(Kind::Backup).await;
        assert_eq!(ran.outcome.status, Status::Failed);
        assert!(ran.error().contains("the lock is stale: that process is not running any more"), "{}", ran.error());
        assert_eq!(stats(&ran)["lock"]["standing"], "dead");
        assert_ne!(sandbox.locks(), "", "nobody asked for an unlock");
        sandbox.run_kind(Kind::Unlock).await.assert(Status::Succeeded, 0);
        sandbox.run_kind(Kind::Backup).await.assert(Status::Succeeded, 0);
    }
}

#[tokio::test]
async fn a_job_that_waits_for_a_lock_can_be_stopped() {
    let (mut sandbox, _holder) = locked(&restics()[0]).await;
    sandbox.limits.lock_wait = Duration::from_secs(3600);
    sandbox.limits.lock_pause = Duration::from_secs(3600);
    let mut running = sandbox.start(sandbox.job(Kind::Backup));
    running.until("a line that says so", waits).await;
    running.stop(Stop::Cancel);
    let ran = running.end().await;
    assert_eq!((ran.outcome.status, ran.error()), (Status::Cancelled, "cancelled"));
}
