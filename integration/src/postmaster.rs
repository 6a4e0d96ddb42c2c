//! The signals of a PostgreSQL server: each of its processes leads a session of its own, so a group reaches only one.

use crate::Process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Signals the server and every process that it has started. Stopped, all of them hang and none is gone.
pub(crate) fn signal_all(server: &mut Process, signal: Signal) {
    server.signal(signal);
    signal_children(server.id(), signal);
}

/// Stops a PostgreSQL that is somebody else's child, such as a coordinator's own: it hangs until it is killed.
pub fn pause_postgres(postmaster: u32) {
    let _ = kill(Pid::from_raw(postmaster.cast_signed()), Signal::SIGSTOP);
    signal_children(postmaster, Signal::SIGSTOP);
}

fn signal_children(server: u32, signal: Signal) {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read(process.path().join("stat")).unwrap_or_default();
        if parent(&String::from_utf8_lossy(&stat)) == Some(server) {
            // Its parent is stopped too and has not waited for it: the id is still its own.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}

/// The parent in `/proc/PID/stat`: pid, name (any text in brackets), state, parent.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_behind_any_name() {
        assert_eq!(parent("77 (a) b) (c) S 12 70 60 0 -1"), Some(12));
        assert_eq!(parent("77 (a"), None);
    }
}
