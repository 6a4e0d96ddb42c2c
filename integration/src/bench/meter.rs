//! What a process takes, read from outside in `/proc`.

use crate::{Context, Failure, eventually};
use std::fs;
use std::time::Duration;

/// Ticks a second in `/proc`, the same on every Linux of today.
const TICKS: u64 = 100;

/// Processor time that process `id` has had so far, in user space and kernel, to a hundredth of a second.
///
/// # Errors
/// It has ended.
pub(super) fn cpu(id: u32) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).context(format!("process {id}"))?;
    parse_cpu(&stat).ok_or_else(|| Failure::new(format!("no processor time in {stat}")))
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Resident memory of process `id`, in bytes.
///
/// # Errors
/// It has ended.
pub(super) fn resident(id: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).context(format!("process {id}"))?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Failure::new(format!("no resident memory of process {id}")))
}

/// How long a server may take to notice that its clients are gone.
const CLOSING_LIMIT: Duration = Duration::from_secs(60);

/// Waits until process `id` has at most `most` open files: what was closed is closed there too.
///
/// # Errors
/// It keeps more.
pub(super) fn wait_for_files(id: u32, most: usize) -> Result<(), Failure> {
    eventually("connections to be closed", CLOSING_LIMIT, || {
        let open = fs::read_dir(format!("/proc/{id}/fd")).context(format!("process {id}"))?.count();
        if open <= most { Ok(()) } else { Err(Failure::new(format!("{open} open files"))) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 100";
        assert_eq!(parse_cpu(stat), Some(Duration::from_millis(1750)));
        assert_eq!(parse_cpu("7 (x) S 1"), None);
    }

    #[test]
    fn our_own_process_takes_something() {
        let id = std::process::id();
        assert!(resident(id).unwrap() > 100_000);
        cpu(id).unwrap();
    }
}
