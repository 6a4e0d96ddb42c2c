//! The agent is killed in the middle of a real backup: what its next life makes of that.

mod support;

use fleet_wire::{Cap, CommandRun, ConfigUpdate, Kind, Secret};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Agent, Coordinator, Peer, backup, job, repository};

/// The restic that the agent runs; "$0.pid" tells the process of a backup.
const WRAPPER: &str = r#"#!/bin/sh
[ "$1" != backup ] || echo $$ > "$0.pid"
exec restic "$@"
"#;

/// Makes the folder to back up, and an empty repository out of the prepared one ("$1").
const FILL: &str = "mkdir files && head -c 60000000 /dev/urandom > files/big && mkdir repository && \
    cp -r \"$1/config\" \"$1/keys\" repository && mkdir repository/data repository/index repository/locks \
    repository/snapshots";

/// Of the prepared repository.
const PASSWORD: &str = "repo-pa55/w@rd";

struct Host {
    agent: Agent,
    coordinator: Coordinator,
}

impl Host {
    /// A host with a repository and 60 MB to back up.
    async fn new() -> (Self, Peer) {
        let coordinator = Coordinator::bind().await;
        let host = Self { agent: Agent::enrolled(&coordinator.url), coordinator };
        let home = host.agent.home.path();
        // A shell writes the script: one that this process had open could not be run while another test forks.
        let made = Command::new("sh")
            .args(["-c", "printf %s \"$1\" > restic && chmod 755 restic", "sh", WRAPPER])
            .current_dir(home)
            .status()
            .unwrap();
        assert!(made.success());
        let filled = Command::new("sh")
            .args(["-c", FILL, "sh", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/repository")])
            .current_dir(home)
            .status();
        assert!(filled.unwrap().success());
        let mut host = host;
        let mut peer = host.start().await;
        let repo_password = Some(Secret::new(PASSWORD));
        peer.send(ConfigUpdate { repo_password, ..repository(&host.agent.home.path().join("repository")) }).await;
        (host, peer)
    }

    /// Starts the agent; the coordinator's side of its connection.
    async fn start(&mut self) -> Peer {
        let mut command = self.agent.command();
        command.env("FLEET_RESTIC", self.agent.home.path().join("restic"));
        self.agent.start_as(&mut command);
        self.coordinator.hello(&self.agent).await.0
    }

    fn slow_backup(&self, id: &str) -> CommandRun {
        // Slow enough to be met at work, fast enough to end its packs in hand within some seconds.
        CommandRun { bandwidth_up_kbps: Cap::KibPerSecond(8000), ..backup(id, &self.agent.home.path().join("files")) }
    }

    /// What real restic prints.
    fn restic(&self, args: &[&str]) -> String {
        let output = Command::new("restic")
            .args(args)
            .env("RESTIC_REPOSITORY", self.agent.home.path().join("repository"))
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_CACHE_DIR", self.agent.home.path().join("other-cache"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The process of the backup, once it holds its lock.
    async fn locked_by(&self) -> String {
        self.agent.until("a lock", || !self.restic(&["list", "locks", "--no-lock"]).is_empty()).await;
        std::fs::read_to_string(self.agent.home.path().join("restic.pid")).unwrap().trim().to_owned()
    }
}

fn is_running(pid: &str) -> bool {
    std::fs::read(Path::new("/proc").join(pid).join("cmdline")).is_ok_and(|line| !line.is_empty())
}

fn status(finished: &Value) -> (&str, &str) {
    let text = |field: &str| finished["payload"][field].as_str().unwrap_or_default();
    (text("status"), text("error"))
}

/// The processes that record the agent's children, told by their environment.
fn scribes(agent: &Agent) -> Vec<i32> {
    let folder = format!("FLEET_DATA_DIR={}", agent.data_dir().display());
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_scribe = |pid: &i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |variable: &str| environ.split(|byte| *byte == 0).any(|found| found == variable.as_bytes());
        has("FLEET_SCRIBE=1") && has(&folder)
    };
    pids.filter(is_scribe).collect()
}

fn kill_scribes(agent: &Agent) {
    let scribes = scribes(agent);
    assert!(!scribes.is_empty(), "nobody records; {}", agent.log());
    for scribe in scribes {
        kill(Pid::from_raw(scribe), Signal::SIGKILL).unwrap();
    }
}

#[tokio::test]
async fn a_killed_agent_leaves_neither_restic_nor_lock_behind_once_it_is_back() {
    for scribe_too in [true, false] {
        let (mut host, mut peer) = Host::new().await;
        peer.send(host.slow_backup("cut")).await;
        peer.expect("job.started", Some("cut")).await;
        let pid = host.locked_by().await;
        // Its scribe would end the restic as soon as the agent is gone.
        if scribe_too {
            host.agent.signal(Signal::SIGSTOP);
            kill_scribes(&host.agent);
        }
        host.agent.kill().await;
        drop(peer);
        match scribe_too {
            true => {
                assert!(is_running(&pid), "the backup was over too early");
                assert_ne!(host.restic(&["list", "locks", "--no-lock"]), "", "the lock outlives the agent");
            }
            false => host.agent.until("restic ends", || !is_running(&pid)).await,
        }
        let mut peer = host.start().await;
        // Sent before the clearing up is done: it must not run before.
        peer.send(backup("next", &host.agent.home.path().join("files"))).await;
        let finished = peer.expect("job.finished", Some("cut")).await;
        assert_eq!(status(&finished), ("failed", "agent was killed while the job ran"));
        assert!(!is_running(&pid), "{}", host.agent.log());
        let told = peer.lines("cut").iter().any(|line| line["payload"].as_str().unwrap().contains("was ended"));
        assert!(told || !scribe_too, "{:?}", peer.lines("cut"));
        peer.send(job("check", Kind::Check)).await;
        assert_eq!(status(&peer.expect("job.finished", Some("next")).await), ("succeeded", ""));
        // A check does not share the repository with any lock.
        assert_eq!(status(&peer.expect("job.finished", Some("check")).await), ("succeeded", ""));
        assert_eq!(host.restic(&["list", "locks", "--no-lock"]), "");
        assert_eq!(host.restic(&["snapshots", "--json"]).matches("short_id").count(), 1);
        let spool = host.agent.data_dir().join("spool");
        host.agent.until("records go", || spool.read_dir().unwrap().next().is_none()).await;
    }
}

#[tokio::test]
async fn a_hook_of_the_killed_agent_is_ended_and_a_service_that_it_started_stays() {
    let (mut host, mut peer) = Host::new().await;
    let home = host.agent.home.path().to_path_buf();
    let hook =
        format!("setsid sh -c 'echo $$ > {0}/service; exec sleep 300' & echo $$ > {0}/hook; sleep 300", home.display());
    peer.send(CommandRun { pre_hook: Some(hook), ..host.slow_backup("hooked") }).await;
    let pid = |name: &str| std::fs::read_to_string(home.join(name)).unwrap_or_default().trim().to_owned();
    host.agent.until("a hook", || !pid("service").is_empty() && !pid("hook").is_empty()).await;
    host.agent.signal(Signal::SIGSTOP);
    kill_scribes(&host.agent);
    host.agent.kill().await;
    drop(peer);
    assert!(is_running(&pid("hook")) && is_running(&pid("service")));
    let mut peer = host.start().await;
    assert_eq!(status(&peer.expect("job.finished", Some("hooked")).await).0, "failed");
    let (hook, service) = (is_running(&pid("hook")), is_running(&pid("service")));
    kill(Pid::from_raw(pid("service").parse().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!((hook, service), (false, true), "{}", host.agent.log());
    assert!(!home.join("data/tmp").read_dir().unwrap().any(|entry| entry.is_ok()), "the hook's script stays");
}

#[tokio::test]
async fn no_line_is_lost_wherever_the_agent_is_killed() {
    let (mut host, mut peer) = Host::new().await;
    let said = host.agent.home.path().join("said");
    // Each line that is said is noted elsewhere too, right after.
    let hook = format!(
        "i=0; while :; do echo \"line $i\"; echo >> {}; i=$((i+1)); [ $((i%20)) != 0 ] || sleep 0.01; done",
        said.display()
    );
    for round in 0..8 {
        std::fs::write(&said, "").unwrap();
        let id = format!("round-{round}");
        peer.send(CommandRun { pre_hook: Some(hook.clone()), ..host.slow_backup(&id) }).await;
        while peer.lines(&id).len() < 5 + round * 37 {
            peer.next().await;
        }
        host.agent.kill().await;
        let before = peer.lines(&id);
        drop(peer);
        peer = host.start().await;
        assert_eq!(status(&peer.expect("job.finished", Some(&id)).await).0, "failed");
        // What was sent and not acknowledged comes again.
        let all = peer.lines(&id);
        assert_eq!(all[..before.len()], before);
        let text = |line: &Value| line["payload"].as_str().unwrap().to_owned();
        let lines: Vec<String> = all.iter().map(text).filter(|line| line.starts_with("line ")).collect();
        let expected = (0..lines.len()).map(|number| format!("line {number}"));
        assert!(lines.iter().cloned().eq(expected), "{lines:?}");
        let said = std::fs::read_to_string(&said).unwrap().lines().count();
        assert!(lines.len() >= said, "{said} lines were said, {} came", lines.len());
        let finished = peer.seqs(&id).len();
        assert!(peer.seqs(&id).into_iter().eq(0..finished as i64));
    }
}
