//! Schedules that the agent fires by itself, and runs by itself while the coordinator is away, with real restic.
//!
//! No test waits for a minute to come: each life of the agent begins at a time of its own.

mod support;

use chrono::{DateTime, TimeDelta, Utc};
use fleet_wire::{CommandCancel, CommandRun, ConfigUpdate, EarlyFiring, ErrorMessage, Kind, ScheduleSet, Secret};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use support::{Agent, Coordinator, Peer, job, repository};

/// Makes an empty repository out of the prepared one ("$1"), which opens fast.
const REPOSITORY: &str = "mkdir repository && cp -r \"$1/config\" \"$1/keys\" repository && cd repository && \
    mkdir data index locks snapshots";

/// Of the prepared repository.
const PASSWORD: &str = "repo-pa55/w@rd";

/// A host with a repository and a schedule of 2:00 UTC; the coordinator comes and goes.
struct Host {
    agent: Agent,
    url: String,
    coordinator: Option<Coordinator>,
}

impl Host {
    /// The schedule was applied on 5 May 2031 at 1:00, and the agent is down.
    async fn new(pre_hook: &str) -> Self {
        let coordinator = Coordinator::bind().await;
        let url = coordinator.url.clone();
        let mut host = Self { agent: Agent::enrolled(&url), url, coordinator: Some(coordinator) };
        let home = host.agent.home.path();
        for group in ["etc", "srv"] {
            std::fs::create_dir(home.join(group)).unwrap();
            std::fs::write(home.join(group).join("file"), group).unwrap();
        }
        let made = Command::new("sh")
            .args(["-c", REPOSITORY, "sh", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/repository")])
            .current_dir(home)
            .status();
        assert!(made.unwrap().success());
        host.start("2031-05-05T01:00:00Z", "1h");
        let mut peer = host.connected().await.0;
        let repository = repository(&host.agent.home.path().join("repository"));
        peer.send(ConfigUpdate { repo_password: Some(Secret::new(PASSWORD)), ..repository }).await;
        peer.send(host.schedules(1, pre_hook)).await;
        let applied = peer.expect("schedule.ack", None).await;
        peer.ack(&applied).await;
        host.settled(&mut peer, 2).await;
        host.agent.kill().await;
        host
    }

    /// Waits until the agent has dealt with all that it was told on this connection: the acks, too.
    async fn settled(&self, peer: &mut Peer, version: i64) {
        peer.send(job(&format!("settled-{version}"), Kind::Unlock)).await;
        let finished = peer.expect("job.finished", Some(&format!("settled-{version}"))).await;
        peer.ack(&finished).await;
        // Answered after the ack is in the journal.
        peer.send(job(&format!("settled-{version}"), Kind::Unlock)).await;
        peer.expect("command.result", Some(&format!("settled-{version}"))).await;
    }

    fn schedules(&self, version: i64, pre_hook: &str) -> ScheduleSet {
        let path = |group: &str| self.agent.home.path().join(group).to_str().unwrap().to_owned();
        let set = json!({"version": version, "schedules": [
            {"id": "broken", "cron_expr": "0 25 * * *", "enabled": true},
            {"id": "off", "cron_expr": "0 2 * * *", "enabled": false},
            {"id": "nightly", "cron_expr": "0 2 * * *", "enabled": true, "timezone": "UTC", "source_groups": [
                {"name": "etc", "includes": [path("etc")], "pre_hook": pre_hook},
                {"name": "srv", "includes": [path("srv")]},
            ]},
        ]});
        serde_json::from_value(set).unwrap()
    }

    /// Starts the agent at that time; `patience` is how long it waits for the coordinator.
    fn start(&mut self, clock: &str, patience: &str) {
        let shown = DateTime::parse_from_rfc3339(clock).unwrap().to_utc();
        let ahead = (shown - Utc::now()).num_seconds();
        let mut command = self.agent.command();
        command.env("FLEET_TEST_CLOCK_AHEAD", ahead.to_string()).env("FLEET_LOCAL_RUN_AFTER", patience);
        self.agent.start_as(&mut command);
    }

    async fn connected(&mut self) -> (Peer, Value) {
        if self.coordinator.is_none() {
            self.coordinator = Some(Coordinator::back(&self.url).await);
        }
        self.coordinator.as_ref().unwrap().hello(&self.agent).await
    }

    /// Nobody listens at the coordinator's address any more.
    fn away(&mut self) {
        self.coordinator = None;
    }

    /// Waits until so many jobs are over since the agent was made, by its log.
    async fn jobs_over(&self, count: usize) {
        self.agent
            .until(&format!("{count} jobs are over"), || self.agent.log().matches("job over").count() >= count)
            .await;
    }

    fn restic(&self, args: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command
            .args(args)
            .env("RESTIC_REPOSITORY", self.agent.home.path().join("repository"))
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_CACHE_DIR", self.agent.home.path().join("other-cache"))
            .stdin(Stdio::null());
        command
    }

    /// The tags of all snapshots, in order.
    fn snapshots(&self) -> Vec<String> {
        let output = self.restic(&["snapshots", "--json", "--no-lock"]).output().unwrap();
        let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let mut tags: Vec<_> = list.iter().map(|one| one["tags"][0].as_str().unwrap().to_owned()).collect();
        tags.sort();
        tags
    }
}

/// The jobs of a firing, one for each group.
fn jobs(fire: &Value) -> [String; 2] {
    let ids = fire["payload"]["job_ids"].as_array().unwrap();
    let ids: Vec<_> = ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    ids.try_into().unwrap()
}

fn started(peer: &Peer) -> Vec<String> {
    let started = peer.seen.iter().filter(|envelope| envelope["type"] == "job.started");
    started.map(|envelope| envelope["payload"]["job_id"].as_str().unwrap().to_owned()).collect()
}

fn status(finished: &Value) -> (&str, &str) {
    let text = |field: &str| finished["payload"][field].as_str().unwrap_or_default();
    (text("status"), text("error"))
}

/// Types of the envelopes about a job, in their order, without its log.
fn story(peer: &Peer, id: &str) -> Vec<String> {
    let about = peer.seen.iter().filter(|envelope| envelope["payload"]["job_id"] == id);
    let types = about.map(|envelope| envelope["type"].as_str().unwrap().to_owned());
    types.filter(|name| name != "log.stream" && name != "job.progress").collect()
}

/// The end of a job, whether or not it was seen before.
async fn finished(peer: &mut Peer, id: &str) -> Value {
    loop {
        let of_it = |envelope: &&Value| envelope["type"] == "job.finished" && envelope["payload"]["job_id"] == id;
        if let Some(finished) = peer.seen.iter().find(of_it) {
            return finished.clone();
        }
        peer.next().await;
    }
}

const WHOLE_STORY: [&str; 3] = ["command.result", "job.started", "job.finished"];

#[tokio::test]
async fn a_schedule_fires_at_its_time_once_and_the_coordinator_sends_its_jobs() {
    let mut host = Host::new("").await;
    host.start("2031-05-05T01:59:58Z", "1h");
    let (mut peer, _) = host.connected().await;
    let fire = peer.expect("schedule.fire", None).await;
    assert_eq!(fire["payload"]["schedule_id"], "nightly");
    assert_eq!(fire["payload"]["scheduled_at"], "2031-05-05T02:00:00Z");
    let ids = jobs(&fire);
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| uuid::Uuid::parse_str(id).unwrap().get_version_num() == 7));
    peer.ack(&fire).await;
    let run = support::backup(&ids[0], &host.agent.home.path().join("etc"));
    peer.send(run).await;
    assert_eq!(status(&peer.expect("job.finished", Some(&ids[0])).await), ("succeeded", ""));
    // The list comes again, as with each connection: nothing counts anew.
    peer.send(host.schedules(1, "")).await;
    peer.expect("schedule.ack", None).await;
    host.settled(&mut peer, 3).await;
    host.agent.kill().await;
    drop(peer);

    host.start("2031-05-05T02:10:00Z", "0s");
    let (mut peer, _) = host.connected().await;
    peer.send(host.schedules(2, "")).await;
    peer.expect("schedule.ack", None).await;
    assert_eq!(peer.count("schedule.fire"), 0);
    // The clock goes back: what has fired does not fire again.
    host.settled(&mut peer, 4).await;
    host.agent.kill().await;
    drop(peer);
    host.start("2031-05-05T01:59:59Z", "0s");
    let over = Utc::now() + TimeDelta::seconds(4);
    let (mut peer, _) = host.connected().await;
    host.agent.logs("the clock has gone back").await;
    host.agent.until("2:00 is over", || Utc::now() > over).await;
    peer.send(host.schedules(2, "")).await;
    peer.expect("schedule.ack", None).await;
    assert_eq!(peer.count("schedule.fire"), 0);
}

#[tokio::test]
async fn a_firing_before_its_time_fires_again_when_that_comes_also_in_the_next_life() {
    let mut host = Host::new("").await;
    host.start("2031-05-05T01:59:58Z", "1h");
    let (mut peer, _) = host.connected().await;
    let fire = peer.expect("schedule.fire", None).await;
    let scheduled_at: DateTime<Utc> = fire["payload"]["scheduled_at"].as_str().unwrap().parse().unwrap();
    let early = EarlyFiring { schedule_id: "nightly".into(), scheduled_at, in_seconds: 10 };
    let refusal = ErrorMessage { early_firing: Some(early), ..ErrorMessage::new("clock_ahead", "it is earlier") };
    peer.send(refusal).await;
    peer.ack(&fire).await;
    host.settled(&mut peer, 3).await;
    host.agent.kill().await;
    drop(peer);
    // The clock is as wrong as before.
    host.start("2031-05-05T02:00:05Z", "1h");
    let (mut peer, _) = host.connected().await;
    let again = peer.expect("schedule.fire", None).await;
    assert_eq!(again["payload"]["scheduled_at"], fire["payload"]["scheduled_at"]);
    assert!(jobs(&again).iter().all(|job| !jobs(&fire).contains(job)), "{again}");
    peer.ack(&again).await;
    host.settled(&mut peer, 4).await;
    host.agent.kill().await;
    drop(peer);
    host.start("2031-05-05T02:00:30Z", "1h");
    let (mut peer, _) = host.connected().await;
    host.settled(&mut peer, 5).await;
    assert_eq!(peer.count("schedule.fire"), 0);
}

#[tokio::test]
async fn a_schedule_that_can_not_fire_is_told_and_the_others_go_on() {
    let mut host = Host::new("").await;
    host.start("2031-05-05T03:00:00Z", "1h");
    let (mut peer, _) = host.connected().await;
    // Missed while the agent was down, and caught up.
    let fire = peer.expect("schedule.fire", None).await;
    assert_eq!(fire["payload"]["schedule_id"], "nightly");
    peer.send(host.schedules(2, "")).await;
    let error = peer.expect("error", None).await;
    assert_eq!(error["payload"]["code"], "bad_schedule");
    let message = error["payload"]["message"].as_str().unwrap();
    assert!(message.starts_with("schedule broken: cron_expr \"0 25 * * *\": position 2 (hour)"), "{message}");
    assert_eq!(peer.expect("schedule.ack", None).await["payload"]["version"], 2);
}

#[tokio::test]
async fn while_the_coordinator_is_away_the_agent_runs_what_fires_and_reports_all_of_it_after() {
    let mut host = Host::new("echo from the hook").await;
    host.away();
    // Three nights were missed: one firing.
    host.start("2031-05-07T02:30:00Z", "0s");
    host.jobs_over(1 + 2).await;
    assert_eq!(host.snapshots(), ["etc", "srv"]);
    let (mut peer, hello) = host.connected().await;
    let fire = peer.expect("schedule.fire", None).await;
    assert_eq!(fire["payload"]["scheduled_at"], "2031-05-07T02:00:00Z");
    let ids = jobs(&fire);
    assert!(ids.iter().all(|id| hello["jobs"].as_array().unwrap().contains(&id.as_str().into())), "{hello}");
    assert_eq!(started(&peer), Vec::<String>::new(), "the firing is told first");
    for id in &ids {
        assert_eq!(status(&finished(&mut peer, id).await), ("succeeded", ""));
        assert_eq!(story(&peer, id), WHOLE_STORY);
    }
    let alone =
        |line: &Value| line["payload"].as_str().unwrap().contains("has started this scheduled backup by itself");
    assert!(ids.iter().all(|id| peer.lines(id).iter().any(alone)));
    let hook = |line: &Value| line["payload"] == "from the hook";
    assert!(peer.lines(&ids[0]).iter().any(hook) && !peer.lines(&ids[1]).iter().any(hook));
    // The coordinator did not know better, and sends one of them: it is answered, not run again.
    peer.ack(&fire).await;
    peer.send(support::backup(&ids[0], &host.agent.home.path().join("etc"))).await;
    let again = peer.expect("command.result", Some(&ids[0])).await;
    assert_eq!(again["payload"]["accepted"], true);
    host.settled(&mut peer, 3).await;
    assert_eq!((host.snapshots(), peer.count("schedule.fire")), (vec!["etc".to_owned(), "srv".to_owned()], 1));
}

#[tokio::test]
async fn a_firing_that_was_acknowledged_is_left_to_the_coordinator() {
    let mut host = Host::new("").await;
    host.start("2031-05-05T02:30:00Z", "1h");
    let (mut peer, _) = host.connected().await;
    let fire = peer.expect("schedule.fire", None).await;
    peer.ack(&fire).await;
    host.settled(&mut peer, 3).await;
    assert_eq!(started(&peer), ["settled-3"]);
    host.agent.kill().await;
    drop(peer);
    host.away();
    host.start("2031-05-06T02:30:00Z", "0s");
    // Those of the next night.
    host.agent.logs("has fired for 2031-05-06").await;
    host.agent.until("two jobs start alone", || host.agent.log().matches("starts without it").count() >= 2).await;
    let (mut peer, _) = host.connected().await;
    let next = peer.expect("schedule.fire", None).await;
    assert_eq!(next["payload"]["scheduled_at"], "2031-05-06T02:00:00Z");
    for id in jobs(&next) {
        finished(&mut peer, &id).await;
        assert_eq!(story(&peer, &id), WHOLE_STORY);
    }
    assert!(!started(&peer).iter().any(|id| jobs(&fire).contains(id)), "{}", host.agent.log());
}

#[tokio::test]
async fn a_firing_outlives_a_kill_and_is_started_under_the_ids_that_it_was_given() {
    let mut host = Host::new("").await;
    host.away();
    // It has patience in this life.
    host.start("2031-05-05T02:30:00Z", "1h");
    host.agent.logs("has fired for 2031-05-05").await;
    host.agent.kill().await;
    assert!(!host.agent.log().contains("starts without it"));
    host.start("2031-05-05T02:40:00Z", "0s");
    host.jobs_over(1 + 2).await;
    assert_eq!(host.agent.log().matches("has fired for 2031-05-05").count(), 1);
    let (mut peer, _) = host.connected().await;
    let fire = peer.expect("schedule.fire", None).await;
    for id in jobs(&fire) {
        finished(&mut peer, &id).await;
        assert_eq!(story(&peer, &id), WHOLE_STORY);
    }
    host.settled(&mut peer, 3).await;
    assert_eq!((host.snapshots().len(), peer.count("schedule.fire")), (2, 1));
}

/// Notes that it runs, and holds on while the file `hold` is there.
const HOLDING: &str =
    "cd \"$FLEET_DATA_DIR/..\" && echo >> ran && touch hold && while [ -e hold ]; do sleep 0.05; done";

/// A host whose first job of a firing holds on, started without the coordinator.
async fn with_held_local_run() -> Host {
    let mut host = Host::new(HOLDING).await;
    host.away();
    host.start("2031-05-05T02:30:00Z", "0s");
    host.agent.until("the hook runs", || host.agent.home.path().join("hold").exists()).await;
    host
}

#[tokio::test]
async fn a_local_run_that_the_agent_is_killed_in_is_reported_and_not_run_again() {
    let mut host = with_held_local_run().await;
    host.agent.kill().await;
    host.start("2031-05-05T02:31:00Z", "0s");
    // The other group's job had waited for it.
    host.jobs_over(1 + 1).await;
    let (mut peer, _) = host.connected().await;
    let fire = peer.expect("schedule.fire", None).await;
    let [etc, srv] = jobs(&fire);
    assert_eq!(status(&finished(&mut peer, &etc).await), ("failed", "agent was killed while the job ran"));
    assert_eq!(status(&finished(&mut peer, &srv).await), ("succeeded", ""));
    let ran = std::fs::read_to_string(host.agent.home.path().join("ran")).unwrap();
    assert_eq!((ran.lines().count(), peer.count("schedule.fire")), (1, 1));
    assert_eq!(host.snapshots(), ["srv"]);
}

#[tokio::test]
async fn wherever_the_agent_is_killed_a_firing_is_told_once_and_its_jobs_run_at_most_once() {
    let mut host = Host::new("").await;
    host.away();
    let lines = |host: &Host| host.agent.log().lines().count();
    // Each night it is killed one line of its log later than the night before.
    for night in 0..12 {
        let before = lines(&host);
        host.start(&format!("2031-05-{:02}T02:30:00Z", 5 + night), "0s");
        host.agent.until("its log grows", || lines(&host) > before + night).await;
        host.agent.kill().await;
    }
    // What it had begun comes to its end first, or the next firing would be left to the coordinator.
    host.start("2031-05-16T02:31:00Z", "1h");
    let (mut peer, hello) = host.connected().await;
    for id in hello["jobs"].as_array().into_iter().flatten() {
        finished(&mut peer, id.as_str().unwrap()).await;
    }
    host.agent.kill().await;
    drop(peer);
    host.away();
    let over = host.agent.log().matches("job over").count();
    host.start("2031-05-20T02:30:00Z", "0s");
    host.jobs_over(over + 2).await;
    let (mut peer, _) = host.connected().await;
    let last = loop {
        let fire = peer.expect("schedule.fire", None).await;
        if fire["payload"]["scheduled_at"] == "2031-05-20T02:00:00Z" {
            break fire;
        }
    };
    for id in jobs(&last) {
        assert_eq!(status(&finished(&mut peer, &id).await), ("succeeded", ""));
    }
    host.settled(&mut peer, 3).await;
    let fires: Vec<_> = peer.seen.iter().filter(|envelope| envelope["type"] == "schedule.fire").cloned().collect();
    let nights: BTreeSet<_> = fires.iter().map(|fire| fire["payload"]["scheduled_at"].to_string()).collect();
    assert_eq!(nights.len(), fires.len(), "{nights:?}");
    assert!(nights.len() > 6, "it was killed too early to fire: {nights:?}");
    let (mut begun, mut succeeded) = (0, 0);
    for id in fires.iter().flat_map(jobs) {
        let story = story(&peer, &id);
        assert!(story.is_empty() || story == WHOLE_STORY, "{id}: {story:?}; {}", host.agent.log());
        if !story.is_empty() {
            begun += 1;
            succeeded += usize::from(status(&finished(&mut peer, &id).await).0 == "succeeded");
        }
    }
    // One that was killed may have been done but for its report.
    let snapshots = host.snapshots().len();
    assert!((succeeded..=begun).contains(&snapshots), "{succeeded} {snapshots} {begun}; {}", host.agent.log());
}

#[tokio::test]
async fn a_local_run_is_cancelled_like_any_other_job() {
    let mut host = with_held_local_run().await;
    let (mut peer, hello) = host.connected().await;
    let fire = peer.expect("schedule.fire", None).await;
    let [etc, srv] = jobs(&fire);
    assert!(hello["jobs"].as_array().unwrap().contains(&etc.as_str().into()), "{hello}");
    for id in [&srv, &etc] {
        peer.send(CommandCancel { job_id: id.as_str().into() }).await;
    }
    for (id, error) in [(&srv, "cancelled before it started"), (&etc, "cancelled")] {
        assert_eq!(status(&finished(&mut peer, id).await), ("cancelled", error));
    }
    assert_eq!(host.snapshots(), Vec::<String>::new());
}

#[tokio::test]
async fn a_local_run_waits_for_a_lock_that_another_restic_holds() {
    let mut host = Host::new("").await;
    let noise = host.agent.home.path().join("noise");
    assert!(
        Command::new("sh")
            .args(["-c", "head -c 40000000 /dev/urandom > \"$0\""])
            .arg(&noise)
            .status()
            .unwrap()
            .success()
    );
    assert!(host.restic(&["backup", "-q", "--tag", "other", noise.to_str().unwrap()]).status().unwrap().success());
    let mut command = host.restic(&["check", "-q", "--read-data"]);
    let mut holder = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(holder.id()).unwrap());
    let locks = host.agent.home.path().join("repository/locks");
    // Under another name it is not written yet.
    let is_lock = |entry: std::fs::DirEntry| entry.file_name().len() == 64;
    host.agent.until("a lock", || locks.read_dir().unwrap().filter_map(Result::ok).any(is_lock)).await;
    kill(pid, Signal::SIGSTOP).unwrap();
    host.away();
    host.start("2031-05-05T02:30:00Z", "0s");
    host.agent.logs("waits for a lock").await;
    let (mut peer, _) = host.connected().await;
    let fire = peer.expect("schedule.fire", None).await;
    let [etc, _] = jobs(&fire);
    let event = loop {
        let line = peer.expect("log.stream", Some(&etc)).await["payload"].clone();
        if line["stream"] == "event" && line["payload"].as_str().unwrap().contains("fleet_waits_for_lock") {
            break serde_json::from_str::<Value>(line["payload"].as_str().unwrap()).unwrap();
        }
    };
    assert_eq!((&event["lock"]["pid"], &event["lock"]["exclusive"]), (&pid.as_raw().into(), &true.into()), "{event}");
    assert_eq!(event["lock"]["standing"], "held");
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(holder.wait().unwrap().success());
    assert_eq!(status(&finished(&mut peer, &etc).await), ("succeeded", ""));
}

#[tokio::test]
async fn a_commanded_job_is_not_disturbed_by_schedules_that_change() {
    let mut host = Host::new("").await;
    host.start("2031-05-05T01:30:10Z", "1h");
    let (mut peer, _) = host.connected().await;
    let mut set = host.schedules(7, "");
    set.schedules.retain(|schedule| schedule.id.as_str() == "nightly");
    set.schedules[0].cron_expr = "30 1 * * *".into();
    // Due this very minute, but not when it was applied.
    peer.send(set).await;
    peer.expect("schedule.ack", None).await;
    let run = CommandRun { tag: Some("etc".into()), ..support::backup("b", &host.agent.home.path().join("etc")) };
    peer.send(run).await;
    assert_eq!(status(&peer.expect("job.finished", Some("b")).await), ("succeeded", ""));
    assert_eq!(peer.count("schedule.fire"), 0);
}
