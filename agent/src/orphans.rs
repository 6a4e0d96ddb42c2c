//! Ends what an agent that was killed has left running.
//!
//! Every child carries its job and the agent's data folder in its environment, and so does the scribe that records it.
//! The journal is open in one agent only, so what carries the data folder when an agent starts belongs to no living one.
//! A scribe ends its child by itself once its agent is gone, and then what it records is whole: it is only waited for.
//! A child without one is ended here. The environment of a restic with capabilities of its own (`setcap`) can't be read:
//! it is known by its record.

use crate::process::{self, SCRIBE_TIME, SCRIBE_VARIABLE, Started};
use fleet_wire::JobId;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Names the job in the environment of its children.
pub const JOB_VARIABLE: &str = "FLEET_JOB_ID";

/// Names the agent's data folder there.
pub const DATA_DIR_VARIABLE: &str = "FLEET_DATA_DIR";

/// Only restic gets this; hooks never do.
const RESTIC_VARIABLE: &str = "RESTIC_REPOSITORY";

/// How often the list of processes is read while their end is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the end of a killed process is awaited: one that hangs in the system may stay.
const KILL_TIME: Duration = Duration::from_secs(10);

/// How long a restic that is over is awaited to leave the list of processes: as long as it stands there, even as a
/// zombie, another restic takes its lock for a live one.
const REAP_TIME: Duration = Duration::from_secs(5);

/// A process that is left over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Orphan {
    group: i32,
    job: JobId,
    is_restic: bool,
    is_scribe: bool,
}

/// What an agent that was killed may have left running.
#[derive(Debug)]
pub struct Left<'a> {
    /// The agent's data folder.
    pub data_dir: &'a Path,
    /// The jobs that ran.
    pub jobs: &'a [JobId],
    /// Children whose records do not tell of their end.
    pub recorded: &'a [(JobId, Started)],
}

/// Ends every restic of the data folder, the hooks of the jobs, and the recorded children: SIGINT (hooks: SIGTERM) to
/// their process groups, SIGKILL after `grace`. Gives the jobs of which something was still running.
pub async fn end(left: &Left<'_>, grace: Duration) -> BTreeSet<JobId> {
    let found = left.find();
    let is_being_ended = |orphan: &Orphan| found.iter().any(|other| other.is_scribe && other.job == orphan.job);
    for orphan in found.iter().filter(|orphan| !is_being_ended(orphan)) {
        log::warn!(job = orphan.job.as_str(), group = orphan.group; "ending what the killed agent left running");
        // restic before 0.17 dies at once of SIGTERM and leaves its lock.
        signal(orphan, if orphan.is_restic { Signal::SIGINT } else { Signal::SIGTERM });
    }
    if !found.is_empty() && !left.gone_within(grace + SCRIBE_TIME).await {
        // Scribes last: what the others have said is to be recorded.
        for scribes in [false, true] {
            let found = left.find();
            found
                .iter()
                .filter(|orphan| orphan.is_scribe == scribes)
                .for_each(|orphan| signal(orphan, Signal::SIGKILL));
            if left.gone_within(KILL_TIME).await {
                break;
            }
        }
        if !left.find().is_empty() {
            log::error!("a process that the killed agent left behind can't be killed; its repository may stay locked");
        }
    }
    if !left.jobs.is_empty() {
        until(REAP_TIME, || !is_any_dying()).await;
    }
    found.into_iter().map(|orphan| orphan.job).collect()
}

fn signal(orphan: &Orphan, signal: Signal) {
    if let Err(error) = killpg(Pid::from_raw(orphan.group), signal) {
        log::debug!(group = orphan.group, signal = signal.as_str(); "no signal was delivered: {error}");
    }
}

impl Left<'_> {
    async fn gone_within(&self, time: Duration) -> bool {
        until(time, || self.find().is_empty()).await
    }

    /// One for each process group.
    fn find(&self) -> Vec<Orphan> {
        let mut found: Vec<Orphan> = Vec::new();
        for process in processes() {
            // The environment of a zombie is empty, that of another user's process can't be read.
            let read = |name| std::fs::read(process.join(name)).unwrap_or_default();
            let orphan = judge(&read("environ"), || read("stat"), self.data_dir, self.jobs);
            let Some(orphan) = orphan.or_else(|| self.recorded(&process)) else { continue };
            match found.iter_mut().find(|known| known.group == orphan.group) {
                Some(known) => known.is_restic |= orphan.is_restic,
                None => found.push(orphan),
            }
        }
        found
    }

    /// Whether a process leads the group of a recorded child. A zombie has no memory any more.
    fn recorded(&self, process: &Path) -> Option<Orphan> {
        let id: u32 = process.file_name()?.to_str()?.parse().ok()?;
        let (job, started) = self.recorded.iter().find(|(_, started)| started.group == id)?;
        let lives = std::fs::read_to_string(process.join("status")).is_ok_and(|status| status.contains("\nVmSize:"));
        let is_it = lives && started.ticks.is_some() && process::ticks(id) == started.ticks;
        let group = i32::try_from(id).ok()?;
        is_it.then(|| Orphan { group, job: job.clone(), is_restic: true, is_scribe: false })
    }
}

/// Waits until `is` holds; false if it does not within `time`.
async fn until(time: Duration, is: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !is() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

/// The folders of all processes.
fn processes() -> impl Iterator<Item = PathBuf> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    all.filter(|entry| entry.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit)).map(|entry| entry.path())
}

/// Whether there is a restic that is over and not gone.
fn is_any_dying() -> bool {
    processes().any(|process| is_dying(&std::fs::read_to_string(process.join("status")).unwrap_or_default()))
}

/// Told from `status` in `/proc`, which any user may read: the memory of a process goes first.
fn is_dying(status: &str) -> bool {
    status.starts_with("Name:\trestic") && !status.contains("\nVmSize:")
}

/// Whether a process is to be ended, told from its `environ` and `stat` in `/proc`.
fn judge(environ: &[u8], stat: impl FnOnce() -> Vec<u8>, data_dir: &Path, jobs: &[JobId]) -> Option<Orphan> {
    let variable = |name: &str| {
        let mut values = environ
            .split(|byte| *byte == 0)
            .filter_map(|variable| variable.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")));
        values.next()
    };
    if variable(DATA_DIR_VARIABLE)? != data_dir.as_os_str().as_bytes() {
        return None;
    }
    let job = JobId::from(String::from_utf8_lossy(variable(JOB_VARIABLE)?).into_owned());
    let is_restic = variable(RESTIC_VARIABLE).is_some();
    let (group, session) = group_and_session(&String::from_utf8_lossy(&stat()))?;
    // A service that a hook has started leads a session of its own, and is meant to stay.
    let is_hook = jobs.contains(&job) && session != group;
    let is_scribe = variable(SCRIBE_VARIABLE).is_some();
    (group > 1 && (is_restic || is_hook)).then_some(Orphan { group, job, is_restic, is_scribe })
}

/// Process group and session. The fields before them: pid, name (any text in brackets), state, parent.
fn group_and_session(stat: &str) -> Option<(i32, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};
    use tokio::signal::unix::{SignalKind, signal};

    const STAT: &str = "77 (a) b) (c) S 1 70 60 0 -1";

    fn judged(environ: &str, stat: &str) -> Option<Orphan> {
        judge(environ.replace(' ', "\0").as_bytes(), || stat.as_bytes().to_vec(), Path::new("/d"), &["j".into()])
    }

    #[test]
    fn a_process_is_known_by_its_environment() {
        let restic = judged("A=1 FLEET_JOB_ID=j FLEET_DATA_DIR=/d RESTIC_REPOSITORY=/r", STAT);
        let orphan = |is_restic, is_scribe| Some(Orphan { group: 70, job: "j".into(), is_restic, is_scribe });
        assert_eq!(restic, orphan(true, false));
        assert_eq!(judged("FLEET_DATA_DIR=/d FLEET_JOB_ID=j", STAT), orphan(false, false));
        assert_eq!(judged("FLEET_DATA_DIR=/d FLEET_JOB_ID=j FLEET_SCRIBE=1", STAT), orphan(false, true));
        // A restic of a job that the journal does not know holds the repository up all the same.
        assert!(judged("FLEET_JOB_ID=k FLEET_DATA_DIR=/d RESTIC_REPOSITORY=/r", STAT).is_some());
    }

    #[test]
    fn what_is_not_ours_or_meant_to_stay_is_left_alone() {
        for others in [
            "",
            "A=1",
            "FLEET_JOB_ID=j RESTIC_REPOSITORY=/r",
            "FLEET_JOB_ID=j FLEET_DATA_DIR=/d/2 RESTIC_REPOSITORY=/r",
            "FLEET_DATA_DIR=/d RESTIC_REPOSITORY=/r",
            "FLEET_JOB_ID=k FLEET_DATA_DIR=/d",
        ] {
            assert_eq!(judged(others, STAT), None, "{others}");
        }
        let hook = "FLEET_JOB_ID=j FLEET_DATA_DIR=/d";
        assert_eq!(judged(hook, "77 (service) S 1 77 77 0"), None, "a session of its own");
        for odd in ["", "77 (x", "77 (x) S 1", "77 (x) S 1 a b", "1 (init) S 0 1 0"] {
            assert_eq!(judged(hook, odd), None, "{odd}");
        }
    }

    fn child(script: &str, data_dir: &Path, restic: bool) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env(JOB_VARIABLE, "j").env(DATA_DIR_VARIABLE, data_dir).process_group(0);
        if restic {
            command.env(RESTIC_VARIABLE, "/r");
        }
        command.spawn().unwrap()
    }

    /// Who ignores a signal has children that do, and a shell has what it starts in the background ignore this one. The agent
    /// handles it, as from now on this process does.
    fn heed_interrupts() {
        drop(signal(SignalKind::interrupt()).unwrap()); // which it goes on doing
    }

    async fn until_there(data_dir: &Path, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !data_dir.join(what).exists() {
            assert!(Instant::now() < deadline, "{what} does not start");
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn a_process_without_memory_is_dying() {
        assert!(is_dying("Name:\trestic\nState:\tZ (zombie)\nPid:\t7\n"));
        assert!(!is_dying("Name:\trestic\nState:\tS (sleeping)\nVmPeak:\t1 kB\nVmSize:\t1 kB\n"));
        assert!(!is_dying("Name:\tkthreadd\nState:\tS (sleeping)\n") && !is_dying(""));
    }

    #[tokio::test]
    async fn a_restic_that_is_over_counts_until_its_parent_has_asked_for_it() {
        let data = tempfile::tempdir().unwrap();
        let program = data.path().join("restic-of-a-test");
        std::os::unix::fs::symlink("/bin/true", &program).unwrap();
        let mut child = Command::new(&program).spawn().unwrap();
        assert!(until(Duration::from_secs(20), is_any_dying).await, "no zombie is seen");
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn orphans_are_asked_and_then_killed_with_their_children() {
        heed_interrupts();
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().display();
        let jobs = ["j".into()];
        let left = Left { data_dir: data.path(), jobs: &jobs, recorded: &[] };
        assert_eq!(end(&left, Duration::ZERO).await, BTreeSet::new());
        let mut polite =
            child(&format!("trap 'exit 7' INT; : > {folder}/polite; while :; do sleep 0.05; done"), data.path(), true);
        let mut hook = child(&format!(": > {folder}/hook; exec sleep 600"), data.path(), false);
        let stubborn = format!("trap '' INT; sleep 600 & : > {folder}/stubborn; wait");
        let mut stubborn = child(&stubborn, data.path(), true);
        for what in ["polite", "hook", "stubborn"] {
            until_there(data.path(), what).await;
        }
        // Zombies until this process, their parent, asks for them: they don't count.
        let ended = end(&left, Duration::from_secs(1)).await;
        assert_eq!(ended, BTreeSet::from(["j".into()]));
        assert_eq!(left.find(), []);
        assert_eq!(polite.wait().unwrap().code(), Some(7));
        assert_eq!(hook.wait().unwrap().signal(), Some(15));
        assert_eq!(stubborn.wait().unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn a_child_whose_environment_says_nothing_is_known_by_its_record() {
        heed_interrupts();
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new("/bin/sleep").arg("600").env_clear().process_group(0).spawn().unwrap();
        let group = child.id();
        let another = [("j".into(), Started { group, ticks: Some(1) })];
        let left = |recorded| Left { data_dir: data.path(), jobs: &[], recorded };
        assert_eq!(end(&left(&another), Duration::ZERO).await, BTreeSet::new(), "another process of that id");
        let recorded = [("j".into(), Started { group, ticks: process::ticks(group) })];
        assert_eq!(end(&left(&recorded), Duration::from_secs(20)).await, BTreeSet::from(["j".into()]));
        assert_eq!(child.wait().unwrap().signal(), Some(2));
    }
}
