//! Lock files of PostgreSQL, and the processes that they name.
//!
//! `postmaster.pid` in the cluster and `.s.PGSQL.5432.lock` beside the socket both start with the postmaster's pid and
//! its data folder. They outlive a crash, and the pid may by then belong to any other process, so the process is asked.

use super::EmbeddedError;
use super::account::Account;
use super::places::{PORT, Places};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a lock file says. Lines come one by one while the server starts, so all but the first two may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LockFile {
    pub(super) pid: Pid,
    data_dir: PathBuf,
    port: Option<u16>,
    socket_dir: Option<PathBuf>,
}

impl LockFile {
    /// Lines: pid, data folder, start time, port, socket folder, and what is of no use here.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().filter(|&pid| pid > 0).map(Pid::from_raw)?;
        let data_dir = lines.next()?.into();
        let mut lines = lines.skip(1);
        let port = lines.next().and_then(|port| port.trim().parse().ok());
        let socket_dir = lines.next().filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Some(Self { pid, data_dir, port, socket_dir })
    }

    fn read(path: &Path) -> Result<Option<Self>, EmbeddedError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EmbeddedError::files("read", path)(error)),
        }
    }

    /// Whether this postmaster serves, or will serve, the socket that we would make.
    pub(super) fn serves(&self, places: &Places) -> bool {
        self.port.is_none_or(|port| port == PORT)
            && self.socket_dir.as_ref().is_none_or(|dir| *dir == places.socket_dir)
    }
}

/// The living postmaster of the cluster, if there is one.
pub(super) fn running(places: &Places) -> Result<Option<LockFile>, EmbeddedError> {
    let found = LockFile::read(&places.cluster.join("postmaster.pid"))?;
    Ok(found.filter(|file| is_postmaster_of(file.pid, &places.cluster)))
}

/// Whether `pid` lives and is the postmaster of `cluster`. A process that ended and was not waited for does not live.
pub(super) fn is_postmaster_of(pid: Pid, cluster: &Path) -> bool {
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(bytes) => names_cluster(&bytes, cluster),
        Err(_) if Path::new("/proc/self/cmdline").exists() => false,
        // No /proc here: all that can be known is whether there is such a process.
        Err(_) => kill(pid, None).is_ok(),
    }
}

/// Whether a command line (arguments that end in NUL) is that of a postmaster of `cluster`.
fn names_cluster(command_line: &[u8], cluster: &Path) -> bool {
    let arguments: Vec<&[u8]> = command_line.split(|&byte| byte == 0).collect();
    let program = arguments[0].rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if program != b"postgres" && program != b"postmaster" {
        return false;
    }
    arguments.windows(2).any(|pair| {
        let named = Path::new(std::ffi::OsStr::from_bytes(pair[1]));
        pair[0] == b"-D" && (named == cluster || fs::canonicalize(named).is_ok_and(|named| named == cluster))
    })
}

/// The processes that a postmaster has started. Without /proc none is known.
pub(super) fn children(postmaster: Pid) -> Vec<Pid> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let stat = |id: &i32| fs::read(format!("/proc/{id}/stat")).unwrap_or_default();
    ids.filter(|id| parent(&String::from_utf8_lossy(&stat(id))) == Some(postmaster.as_raw()))
        .map(Pid::from_raw)
        .collect()
}

/// The parent in `/proc/PID/stat` (proc(5)): pid, name (any text in brackets), state, parent.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Ends what a killed postmaster has left behind. They end by themselves once they notice, but one that hangs does not,
/// and no new server starts over the cluster before it is gone.
pub(super) fn end_orphans(orphans: &[Pid]) {
    for &orphan in orphans {
        // Its id may belong to another by now: backends say in their title what they are.
        if fs::read(format!("/proc/{orphan}/cmdline")).is_ok_and(|title| title.starts_with(b"postgres: ")) {
            let _ = kill(orphan, Signal::SIGKILL);
        }
    }
}

/// Takes stale lock files out of the way of a launch. Only to be called when no postmaster of the cluster is running.
pub(super) fn clear_stale(places: &Places, account: &Account) -> Result<(), EmbeddedError> {
    clear_socket_lock(&places.socket_dir)?;
    clear_cluster_lock(&places.cluster, account)
}

fn clear_socket_lock(socket_dir: &Path) -> Result<(), EmbeddedError> {
    let path = socket_dir.join(format!(".s.PGSQL.{PORT}.lock"));
    let Some(lock) = LockFile::read(&path)? else { return Ok(()) };
    if is_postmaster_of(lock.pid, &lock.data_dir) {
        let (path, pid) = (socket_dir.to_owned(), lock.pid.as_raw());
        return Err(EmbeddedError::SocketTaken { path, pid, other: lock.data_dir });
    }
    fs::remove_file(&path).map_err(EmbeddedError::files("remove the stale", path))
}

/// PostgreSQL ignores a lock file whose pid is gone, but refuses one whose pid now belongs to another process. It also
/// knows its parent's pid for stale, so the file gets ours: removing it would lose the shared memory's id in it, by
/// which PostgreSQL notices that processes of the server that crashed still write to the cluster.
fn clear_cluster_lock(cluster: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let path = cluster.join("postmaster.pid");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(EmbeddedError::files("read", path)(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let Some(lock) = LockFile::parse(&text) else {
        // Cut short by a crash of the whole machine: nothing in it says anything, and PostgreSQL would refuse it.
        log::warn!(path:?; "removing a damaged lock file of the embedded PostgreSQL");
        return fs::remove_file(&path).map_err(EmbeddedError::files("remove the damaged", path));
    };
    if kill(lock.pid, None) == Err(nix::errno::Errno::ESRCH) {
        return Ok(());
    }
    log::warn!(pid = lock.pid.as_raw(); "the embedded PostgreSQL's lock file names a process that is another now");
    let next = path.with_extension("pid.stale");
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    fs::write(&next, format!("{}\n{rest}", std::process::id())).map_err(EmbeddedError::files("write", &next))?;
    account.own_path(&next)?;
    fs::rename(&next, &path).map_err(EmbeddedError::files("replace", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "4711\n/data/postgres\n1764000000\n5432\n/data/postgres-socket\n\n  2556106  7\nready   \n";

    #[test]
    fn the_parent_is_read_behind_any_name() {
        assert_eq!(parent("77 (a) b) (c) S 12 70 60 0 -1"), Some(12));
        assert_eq!(parent("77 (a"), None);
    }

    fn command_line(arguments: &[&str]) -> Vec<u8> {
        arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect()
    }

    #[test]
    fn a_lock_file_is_read_as_far_as_it_is_written() {
        let ready = LockFile::parse(READY).expect("complete");
        assert_eq!(ready.pid, Pid::from_raw(4711));
        assert_eq!((ready.port, ready.socket_dir), (Some(5432), Some("/data/postgres-socket".into())));
        let early = LockFile::parse("4711\n/data/postgres\n1764000000\n").expect("the first lines");
        assert_eq!((early.port, early.socket_dir), (None, None));
        for damaged in ["", "\n", "0\n/data", "-4711\n/data\n", "4711", "postgres\n/data\n"] {
            assert_eq!(LockFile::parse(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn a_postmaster_is_known_by_its_program_and_its_folder() {
        let cluster = Path::new("/data/postgres");
        let ours = command_line(&["/usr/lib/postgresql/15/bin/postgres", "-D", "/data/postgres", "-c", "port=5432"]);
        assert!(names_cluster(&ours, cluster));
        assert!(!names_cluster(&ours, Path::new("/data/other")));
        assert!(!names_cluster(&command_line(&["vim", "-D", "/data/postgres"]), cluster));
        assert!(!names_cluster(&command_line(&["postgres: checkpointer "]), cluster));
        assert!(!names_cluster(b"", cluster), "a process that ended and was not waited for");
    }

    #[test]
    fn a_lock_file_whose_pid_was_given_to_another_process_is_marked_stale() {
        let cluster = tempfile::tempdir().expect("tempdir");
        let path = cluster.path().join("postmaster.pid");
        let parent = std::os::unix::process::parent_id();
        fs::write(&path, READY.replace("4711", &parent.to_string())).expect("write");
        clear_cluster_lock(cluster.path(), &Account::own()).expect("cleared");
        let now = fs::read_to_string(&path).expect("still there");
        assert_eq!(now, READY.replace("4711", &std::process::id().to_string()));
        fs::write(&path, "").expect("write");
        clear_cluster_lock(cluster.path(), &Account::own()).expect("cleared");
        assert!(!path.exists(), "an empty one is of no use");
    }
}
