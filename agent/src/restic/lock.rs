//! The lock that restic finds: who holds it, and whether he still does.
//!
//! restic 0.14 to 0.19 say the same (`internal/restic/lock.go`, `Lock.String`): `repository is already locked by PID 10354
//! on vm by root (UID 0, GID 0)`, with `exclusively` before `by` where it is, then `lock was created at 2026-11-24 02:10:11
//! (1.938632362s ago)` and `storage ID e362ec01`. The time has no zone, so that only its age tells when that was.

use chrono::{TimeDelta, Utc};
use fleet_wire::Timestamp;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::Serialize;
use std::time::Duration;

/// restic renews a lock every five minutes, and calls one that is older than this stale, whoever holds it.
const STALE_AFTER: Duration = Duration::from_secs(30 * 60);

/// A lock, as far as restic's words tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// restic's words: who holds it, and since when. May be empty.
    pub words: String,
    /// Whether nobody else may be in the repository.
    pub exclusive: bool,
    /// The process that holds it.
    pub pid: Option<i32>,
    /// On which host, by the system's name of that.
    pub hostname: Option<String>,
    /// As whom.
    pub username: Option<String>,
    /// How long ago it was made, or renewed.
    pub age: Option<Duration>,
    /// The first digits of its id.
    pub id: Option<String>,
}

/// Whether the holder of a lock still holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// As far as can be told.
    Held,
    /// Its process is not running any more, on this very host.
    Dead,
    /// It was not renewed for so long that its process must be gone.
    Abandoned,
}

/// A lock, for programs: in the log and the outcome of a job that met it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LockReport {
    exclusive: bool,
    pid: Option<i32>,
    hostname: Option<String>,
    username: Option<String>,
    since: Option<Timestamp>,
    id: Option<String>,
    standing: Standing,
}

impl Lock {
    /// Reads restic's words, which may hold other lines too.
    pub fn read<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> Self {
        let who = lines.clone().find_map(|line| line.split_once("already locked").map(|(_, who)| who.trim()));
        let since = lines.clone().find(|line| line.starts_with("lock was created at"));
        let words = match (who, since) {
            (Some(who), Some(since)) => format!("{who} ({since})"),
            (who, since) => who.or(since).unwrap_or_default().to_owned(),
        };
        let who = who.unwrap_or_default();
        let holder = who.trim_start_matches("exclusively ").strip_prefix("by PID ");
        let pid = holder.and_then(|holder| holder.split(' ').next()?.parse().ok());
        let place = holder.and_then(|holder| holder.split_once(" on ")).map(|(_, place)| place);
        // The last one: a host name has no blank in it.
        let place = place.and_then(|place| place.split_once(" by "));
        Self {
            exclusive: who.starts_with("exclusively"),
            pid,
            hostname: place.map(|(hostname, _)| hostname.to_owned()),
            username: place.map(|(_, user)| user.rsplit_once(" (UID").map_or(user, |(user, _)| user).to_owned()),
            age: since.and_then(|since| read_go_duration(since.rsplit_once('(')?.1.strip_suffix(" ago)")?)),
            id: lines.clone().find_map(|line| line.strip_prefix("storage ID ")).map(|id| id.trim().to_owned()),
            words,
        }
    }

    /// Whether it is still held, looked at from this host.
    pub fn standing(&self) -> Standing {
        let here = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        self.standing_at(&here, is_alive)
    }

    fn standing_at(&self, here: &str, is_alive: impl Fn(i32) -> bool) -> Standing {
        let is_here = !here.is_empty() && self.hostname.as_deref() == Some(here);
        match self.pid {
            Some(pid) if is_here && !is_alive(pid) => Standing::Dead,
            _ if self.age.is_some_and(|age| age > STALE_AFTER) => Standing::Abandoned,
            _ => Standing::Held,
        }
    }

    /// For programs.
    pub fn report(&self, standing: Standing) -> LockReport {
        let age = self.age.and_then(|age| TimeDelta::from_std(age).ok());
        LockReport {
            exclusive: self.exclusive,
            pid: self.pid,
            hostname: self.hostname.clone(),
            username: self.username.clone(),
            since: age.and_then(|age| Utc::now().checked_sub_signed(age)),
            id: self.id.clone(),
            standing,
        }
    }

    /// For people: who holds it, and what to do.
    pub fn sentence(&self, standing: Standing) -> String {
        let holder = if self.words.is_empty() { String::new() } else { format!(" {}", self.words) };
        match standing {
            Standing::Held => format!(
                "the repository is locked{holder}: run the job again when that is over, or run an unlock job if the \
                 process that holds the lock is gone"
            ),
            Standing::Dead => format!(
                "the repository is locked{holder}, and the lock is stale: that process is not running any more; run an \
                 unlock job"
            ),
            Standing::Abandoned => format!(
                "the repository is locked{holder}, and the lock is stale: it was not renewed for more than {} min; run \
                 an unlock job",
                STALE_AFTER.as_secs() / 60
            ),
        }
    }
}

fn is_alive(pid: i32) -> bool {
    // Signal 0 is not sent, and one that must not be sent is for a process that lives.
    pid > 0 && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// What Go prints for a duration: `1h2m3.5s`, `1.938632362s`, `250ms`; none for one below zero (clocks differ).
fn read_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| end + length);
        seconds += number
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "µs" | "us" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Lock {
        Lock::read(text.lines())
    }

    #[test]
    fn what_every_version_says_of_a_lock_is_understood() {
        let old = read(include_str!("../../tests/data/0.14/check-locked.stderr"));
        let heard = super::super::heard::heard_for_tests("", include_str!("../../tests/data/0.18/prune-locked.stderr"));
        let super::super::failure::Failure::Locked(new) = heard.words().judge(Some(11)) else { panic!() };
        for (lock, pid, id) in [(&old, 10354, "e362ec01"), (&new, 11327, "130fbaef")] {
            assert_eq!((lock.pid, lock.id.as_deref(), lock.exclusive), (Some(pid), Some(id), false), "{lock:?}");
            assert_eq!((lock.hostname.as_deref(), lock.username.as_deref()), (Some("vm"), Some("root")));
            assert!(lock.age.is_some_and(|age| (1..3).contains(&age.as_secs())), "{lock:?}");
            assert!(lock.words.starts_with("by PID ") && lock.words.contains("lock was created at 2026"), "{lock:?}");
        }
        let exclusive = read(
            "unable to create lock in backend: repository is already locked exclusively by PID 7 on web-1.example by \
             Domain Users\\me (UID 1000, GID 100)\nlock was created at 2026-11-24 02:10:37 (1h12m3.25s ago)\nstorage ID ab",
        );
        assert!(exclusive.exclusive, "{exclusive:?}");
        assert_eq!((exclusive.pid, exclusive.hostname.as_deref()), (Some(7), Some("web-1.example")));
        assert_eq!(exclusive.username.as_deref(), Some("Domain Users\\me"));
        assert_eq!(exclusive.age, Some(Duration::from_millis(4_323_250)));
    }

    #[test]
    fn words_that_say_less_leave_out_what_they_do_not_say() {
        let bare = read("Fatal: repository is already locked");
        assert_eq!(bare, Lock::default());
        assert_eq!(bare.sentence(Standing::Held).split(':').next(), Some("the repository is locked"));
        for odd in
            ["already locked by PID x on y by z", "already locked by PID 99999999999 on", "lock was created at (ago)"]
        {
            assert_eq!(read(odd).pid, None, "{odd}");
        }
        for (text, seconds) in [("250ms", Some(0.25)), ("1m0s", Some(60.0)), ("-3s", None), ("", None), ("3", None)] {
            assert_eq!(read_go_duration(text), seconds.map(Duration::from_secs_f64), "{text}");
        }
        assert_eq!(read_go_duration("12µs"), Some(Duration::from_micros(12)));
    }

    #[test]
    fn a_lock_is_stale_if_its_process_is_dead_here_or_it_is_too_old_anywhere() {
        let lock = |hostname: &str, minutes: u64| Lock {
            pid: Some(7),
            hostname: Some(hostname.into()),
            age: Some(Duration::from_secs(60 * minutes)),
            ..Lock::default()
        };
        let (alive, dead) = (|_| true, |_| false);
        assert_eq!(lock("here", 1).standing_at("here", alive), Standing::Held);
        assert_eq!(lock("here", 1).standing_at("here", dead), Standing::Dead);
        assert_eq!(lock("there", 1).standing_at("here", dead), Standing::Held, "its processes can't be seen from here");
        assert_eq!(lock("there", 31).standing_at("here", dead), Standing::Abandoned);
        assert_eq!(lock("", 1).standing_at("", dead), Standing::Held);
        assert_eq!(Lock::default().standing_at("here", dead), Standing::Held);
        assert!(lock("here", 1).sentence(Standing::Dead).contains("stale"));
    }

    #[test]
    fn processes_are_looked_at() {
        assert!(is_alive(1) && is_alive(i32::try_from(std::process::id()).unwrap()));
        assert!(!is_alive(i32::MAX) && !is_alive(0) && !is_alive(-1));
    }

    #[test]
    fn a_report_is_json_for_programs() {
        let lock = read(include_str!("../../tests/data/0.14/check-locked.stderr"));
        let json = serde_json::to_value(lock.report(Standing::Dead)).unwrap();
        assert_eq!((&json["pid"], &json["hostname"], &json["standing"]), (&10354.into(), &"vm".into(), &"dead".into()));
        assert!(json["since"].is_string() && json["exclusive"] == false, "{json}");
    }
}
