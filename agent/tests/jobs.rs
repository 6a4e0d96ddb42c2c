//! Jobs from `command.run` to `job.finished`, with real restic, across cancels, stops and kills.

mod support;

use fleet_wire::{CommandCancel, CommandRun, Kind};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use support::{Agent, Coordinator, Peer, backup, job, repository};

/// A job of these tests holds on while this file is there.
fn hold(agent: &Agent) -> PathBuf {
    agent.home.path().join("hold")
}

/// A backup that holds on in its pre-hook.
fn held_backup(agent: &Agent, id: &str) -> CommandRun {
    let hold = hold(agent);
    std::fs::write(&hold, "").unwrap();
    let wait = format!("echo holding; while [ -e '{}' ]; do sleep 0.05; done", hold.display());
    CommandRun { pre_hook: Some(wait), ..backup(id, &agent.home.path().join("files")) }
}

/// Gives the agent a repository that is initialised, and something to back up.
async fn with_repository(agent: &Agent, peer: &mut Peer) {
    let files = agent.home.path().join("files");
    std::fs::create_dir_all(&files).unwrap();
    std::fs::write(files.join("a"), "contents").unwrap();
    peer.send(repository(&agent.home.path().join("repository"))).await;
    peer.send(job("init", Kind::Init)).await;
    let finished = peer.expect("job.finished", Some("init")).await;
    assert_eq!(finished["payload"]["status"], "succeeded", "{finished}");
}

async fn cancel(peer: &mut Peer, id: &str) {
    peer.send(CommandCancel { job_id: id.into() }).await;
}

fn status(finished: &Value) -> (&str, &str) {
    let text = |field: &str| finished["payload"][field].as_str().unwrap_or_default();
    (text("status"), text("error"))
}

#[tokio::test]
async fn a_backup_is_accepted_runs_and_reports_and_is_never_run_twice() {
    let coordinator = Coordinator::bind().await;
    let agent = Agent::running(&coordinator.url);
    let (mut peer, _) = coordinator.hello(&agent).await;
    with_repository(&agent, &mut peer).await;
    let run = backup("b", &agent.home.path().join("files"));
    peer.send(run.clone()).await;
    let result = peer.expect("command.result", Some("b")).await;
    assert_eq!(result["payload"]["accepted"], true, "{result}");
    let started = peer.expect("job.started", Some("b")).await;
    assert_eq!(started["payload"]["kind"], "backup");
    let finished = peer.expect("job.finished", Some("b")).await;
    assert_eq!(status(&finished), ("succeeded", ""));
    assert_eq!(finished["payload"]["stats"]["files_new"], 1, "{finished}");
    assert_eq!(peer.count("snapshots.report"), 1);
    let seqs = peer.seqs("b");
    assert!(!seqs.is_empty() && seqs.iter().copied().eq(0..seqs.len() as i64), "{seqs:?}");
    let ids: Vec<u64> = peer.seen.iter().filter_map(|e| e["id"].as_str()).map(|id| id.parse().unwrap()).collect();
    assert!(ids.is_sorted() && ids[0] == 1, "{ids:?}");

    // Again while its outcome is not acknowledged, and again when it is.
    peer.send(run.clone()).await;
    let again = peer.expect("command.result", Some("b")).await;
    assert_eq!(again["payload"]["accepted"], true);
    peer.ack(&again).await;
    peer.send(run).await;
    assert_eq!(peer.expect("command.result", Some("b")).await["payload"]["accepted"], true);
    cancel(&mut peer, "b").await;
    peer.send(job("check", Kind::Check)).await;
    assert_eq!(status(&peer.expect("job.finished", Some("check")).await), ("succeeded", ""));
    assert_eq!((peer.count("job.started"), peer.count("job.finished")), (3, 3));
}

#[tokio::test]
async fn what_must_not_run_is_refused_with_a_reason() {
    let coordinator = Coordinator::bind().await;
    let agent = Agent::running(&coordinator.url);
    let (mut peer, _) = coordinator.hello(&agent).await;
    peer.send(job("early", Kind::Check)).await;
    let result = peer.expect("command.result", Some("early")).await;
    assert!(!result["payload"]["accepted"].as_bool().unwrap() && result["payload"]["error"].is_string(), "{result}");
    with_repository(&agent, &mut peer).await;
    let prune = CommandRun { requires_admin_creds: true, ..job("prune", Kind::Prune) };
    for run in [prune, job("forget", Kind::Forget)] {
        let id = run.job_id.to_string();
        peer.send(run).await;
        let result = peer.expect("command.result", Some(&id)).await;
        assert!(!result["payload"]["accepted"].as_bool().unwrap(), "{result}");
        assert!(result["payload"]["error"].as_str().is_some_and(|reason| reason.len() > 10), "{result}");
    }
    peer.send_text(r#"{"type":"command.run","payload":{"job_id":"odd","kind":"defragment"}}"#).await;
    let result = peer.expect("command.result", Some("odd")).await;
    assert!(result["payload"]["error"].as_str().unwrap().contains("defragment"), "{result}");
    assert_eq!(peer.count("job.finished"), 1, "a refusal is its own outcome");
}

#[tokio::test]
async fn one_job_at_a_time_in_a_repository_and_cancel_reaches_both() {
    let coordinator = Coordinator::bind().await;
    let agent = Agent::running(&coordinator.url);
    let (mut peer, _) = coordinator.hello(&agent).await;
    with_repository(&agent, &mut peer).await;
    peer.send(held_backup(&agent, "first")).await;
    peer.expect("job.started", Some("first")).await;
    peer.send(job("second", Kind::Check)).await;
    peer.send(job("third", Kind::Check)).await;
    let line = peer.expect("log.stream", Some("second")).await;
    assert!(line["payload"]["payload"].as_str().unwrap().contains("waits for job first"), "{line}");
    peer.send(job("unlock", Kind::Unlock)).await;
    assert_eq!(status(&peer.expect("job.finished", Some("unlock")).await), ("succeeded", ""));

    cancel(&mut peer, "second").await;
    let finished = peer.expect("job.finished", Some("second")).await;
    assert_eq!(status(&finished), ("cancelled", "cancelled before it started"));
    assert_eq!(
        peer.seen.iter().filter(|e| e["type"] == "job.started" && e["payload"]["job_id"] == "second").count(),
        0
    );
    cancel(&mut peer, "first").await;
    cancel(&mut peer, "first").await;
    assert_eq!(status(&peer.expect("job.finished", Some("first")).await).0, "cancelled");
    assert_eq!(status(&peer.expect("job.finished", Some("third")).await), ("succeeded", ""));
    assert!(peer.seqs("third").first() == Some(&0));
}

#[tokio::test]
async fn sigterm_ends_the_running_job_and_keeps_the_waiting_one_for_the_next_start() {
    let coordinator = Coordinator::bind().await;
    let mut agent = Agent::running(&coordinator.url);
    let (mut peer, _) = coordinator.hello(&agent).await;
    with_repository(&agent, &mut peer).await;
    peer.send(held_backup(&agent, "running")).await;
    peer.expect("job.started", Some("running")).await;
    peer.send(job("waiting", Kind::Check)).await;
    peer.expect("log.stream", Some("waiting")).await;
    agent.signal(Signal::SIGTERM);
    let finished = peer.expect("job.finished", Some("running")).await;
    assert_eq!(status(&finished).0, "failed");
    assert!(status(&finished).1.contains("agent stopped"), "{finished}");
    assert_eq!(peer.closed().await, Some(1001));
    drop(peer);
    assert_eq!(agent.ended().await.code(), Some(0), "{}", agent.log());

    agent.start();
    let (mut peer, hello) = coordinator.hello(&agent).await;
    assert!(hello["jobs"].as_array().unwrap().contains(&"waiting".into()), "{hello}");
    assert_eq!(status(&peer.expect("job.finished", Some("waiting")).await), ("succeeded", ""));
}

#[tokio::test]
async fn after_a_kill_the_agent_reports_what_ran_and_runs_what_waited() {
    let coordinator = Coordinator::bind().await;
    let mut agent = Agent::running(&coordinator.url);
    let (mut peer, hello) = coordinator.hello(&agent).await;
    with_repository(&agent, &mut peer).await;
    peer.send(held_backup(&agent, "running")).await;
    peer.expect("log.stream", Some("running")).await;
    peer.send(job("waiting", Kind::Unlock)).await;
    peer.send(job("queued", Kind::Init)).await;
    peer.expect("command.result", Some("queued")).await;
    let lines = peer.lines("running");
    agent.kill().await;
    std::fs::remove_file(hold(&agent)).unwrap();
    drop(peer);

    agent.start();
    let (mut peer, second) = coordinator.hello(&agent).await;
    assert_eq!(hello["journal"], second["journal"]);
    let jobs = second["jobs"].as_array().unwrap();
    assert!(jobs.contains(&"running".into()) && jobs.contains(&"queued".into()), "{second}");
    let finished = peer.expect("job.finished", Some("running")).await;
    assert_eq!(status(&finished), ("failed", "agent was killed while the job ran"));
    assert_eq!(peer.lines("running")[..lines.len()], lines, "what was reported before the kill comes again");
    let queued = peer.expect("job.finished", Some("queued")).await;
    assert_eq!(status(&queued).0, "succeeded", "{queued}");
    peer.ack(&queued).await;
    // Everything is settled: nothing comes again, and the jobs are not listed any more.
    peer.send(fleet_wire::ScheduleSet { version: 5, schedules: Vec::new() }).await;
    peer.expect("schedule.ack", None).await;
    agent.kill().await;
    drop(peer);
    agent.start();
    let (mut peer, third) = coordinator.hello(&agent).await;
    assert!(third.get("jobs").is_none(), "{third}");
    peer.expect("schedule.ack", None).await;
    assert_eq!(peer.count("job.finished") + peer.count("log.stream"), 0);
}

/// An agent whose journal can't grow past four MiB: a limit on the size of files stands for the full disk. Writes past it
/// fail until it is lifted.
fn with_full_disk(coordinator: &Coordinator) -> Agent {
    let mut agent = Agent::enrolled(&coordinator.url);
    let mut limited = Command::new("sh");
    agent.prepare(&mut limited);
    limited.args(["-c", "ulimit -S -f 8192; trap '' XFSZ; exec \"$0\" run", env!("CARGO_BIN_EXE_fleet-agent")]);
    agent.start_as(&mut limited);
    agent
}

fn make_room(agent: &Agent) {
    let limit = [format!("--pid={}", agent.pid()), "--fsize=unlimited".into()];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
}

#[tokio::test]
async fn a_full_disk_refuses_new_jobs_and_loses_nothing_that_was_reported() {
    let coordinator = Coordinator::bind().await;
    let agent = with_full_disk(&coordinator);
    let (mut peer, _) = coordinator.hello(&agent).await;
    with_repository(&agent, &mut peer).await;
    // Twelve MiB of log into a journal that can't grow past four.
    let noise = "i=0; while [ $i -lt 3000 ]; do printf '%04000d\\n' $i; i=$((i+1)); done";
    let run = CommandRun { pre_hook: Some(noise.into()), ..held_backup(&agent, "noisy") };
    std::fs::remove_file(hold(&agent)).unwrap();
    peer.send(run).await;
    agent.logs("can't use").await;
    peer.send(job("unlucky", Kind::Check)).await;
    let result = peer.expect("command.result", Some("unlucky")).await;
    assert_eq!(result["payload"]["accepted"], false);
    assert!(result["payload"]["error"].as_str().unwrap().contains("can't store the job"), "{result}");
    assert!(result.get("id").is_none(), "it can't be in the journal");

    make_room(&agent);
    let finished = peer.expect("job.finished", Some("noisy")).await;
    assert_eq!(status(&finished), ("succeeded", ""));
    let seqs = peer.seqs("noisy");
    assert!(seqs.len() > 3000 && seqs.iter().copied().eq(0..seqs.len() as i64), "{} lines", seqs.len());
    assert!(agent.log().contains("the journal is used again"));
}

#[tokio::test]
async fn a_cancel_gets_through_while_the_disk_is_full() {
    let coordinator = Coordinator::bind().await;
    let agent = with_full_disk(&coordinator);
    let (mut peer, _) = coordinator.hello(&agent).await;
    with_repository(&agent, &mut peer).await;
    let marker = agent.home.path().join("noisy");
    let noise = format!(
        "echo $$ > {0}; while [ ! -e {0}.go ]; do sleep 0.01; done; while :; do printf '%04000d\\n' 1; done",
        marker.display()
    );
    peer.send(CommandRun { pre_hook: Some(noise), ..backup("noisy", &agent.home.path().join("files")) }).await;
    peer.expect("job.started", Some("noisy")).await;
    peer.send(job("waiting", Kind::Check)).await;
    let accepted = peer.expect("command.result", Some("waiting")).await;
    assert_eq!(accepted["payload"]["accepted"], true, "{accepted}");
    std::fs::write(marker.with_extension("go"), "").unwrap();
    agent.logs("can't use").await;
    // The end of this one can't be written now.
    cancel(&mut peer, "waiting").await;
    cancel(&mut peer, "noisy").await;
    let hook = std::fs::read_to_string(&marker).unwrap();
    let gone = || !std::path::Path::new("/proc").join(hook.trim()).exists();
    agent.until("the hook ends", gone).await;
    make_room(&agent);
    let mut ends = vec![];
    while ends.len() < 2 {
        let finished = peer.expect("job.finished", None).await;
        ends.push((finished["payload"]["job_id"].clone(), finished["payload"]["status"].clone()));
    }
    assert!(ends.iter().all(|(_, status)| status == "cancelled"), "{ends:?}");
}

#[tokio::test]
async fn jobs_that_waited_wait_on_until_the_coordinator_has_told_the_lost_settings_again() {
    let coordinator = Coordinator::bind().await;
    let mut agent = Agent::running(&coordinator.url);
    let (mut peer, _) = coordinator.hello(&agent).await;
    with_repository(&agent, &mut peer).await;
    peer.send(held_backup(&agent, "running")).await;
    peer.expect("log.stream", Some("running")).await;
    for id in ["queued", "cancelled"] {
        peer.send(job(id, Kind::Check)).await;
        peer.expect("command.result", Some(id)).await;
    }
    agent.kill().await;
    std::fs::remove_file(hold(&agent)).unwrap();
    std::fs::remove_file(agent.data_dir().join("settings.json")).unwrap();
    drop(peer);
    agent.start();
    let (mut peer, hello) = coordinator.hello(&agent).await;
    let listed = hello["jobs"].as_array().unwrap();
    assert!(["running", "queued", "cancelled"].iter().all(|id| listed.contains(&(*id).into())), "{hello}");
    cancel(&mut peer, "cancelled").await;
    assert_eq!(status(&peer.expect("job.finished", Some("cancelled")).await).0, "cancelled");
    peer.send(repository(&agent.home.path().join("repository"))).await;
    assert_eq!(status(&peer.expect("job.finished", Some("running")).await).0, "failed");
    assert_eq!(status(&peer.expect("job.finished", Some("queued")).await), ("succeeded", ""));
}
