//! What the agent knows of the machine it runs on.

use chrono::DateTime;
use fleet_wire::{Arch, MaybeKnown, Os, Timestamp};

/// This host's operating system.
pub fn os() -> MaybeKnown<Os> {
    match std::env::consts::OS {
        "linux" => Os::Linux.into(),
        "windows" => Os::Windows.into(),
        other => MaybeKnown::Unknown(other.to_owned()),
    }
}

/// This host's processor architecture.
pub fn arch() -> MaybeKnown<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64.into(),
        "aarch64" => Arch::Arm64.into(),
        other => MaybeKnown::Unknown(other.to_owned()),
    }
}

/// When this host was booted, if it says so.
pub fn boot_time() -> Option<Timestamp> {
    boot_time_in(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn boot_time_in(stat: &str) -> Option<Timestamp> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    DateTime::from_timestamp(seconds.trim().parse().ok()?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_stands_in_proc_stat() {
        let stat = "cpu  1 2 3\nbtime 1700000000\nprocesses 5\n";
        assert_eq!(boot_time_in(stat).unwrap().timestamp(), 1_700_000_000);
        assert_eq!(boot_time_in("cpu 1\nbtime x\n"), None);
    }
}
