//! The process itself, under the names that all programs have.

use super::scrape::number;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// When this was first asked for: at the start.
static BEGAN: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// Notes that the process has begun.
pub(super) fn begin() {
    LazyLock::force(&BEGAN);
}

/// What is known of this process by now.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::with_prefix("process");
    let began = BEGAN.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    registry.register_with_unit("start_time", "When the process has begun", Unit::Seconds, ConstGauge::new(began));
    if let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) {
        #[allow(clippy::cast_precision_loss, reason = "centuries of it")]
        let seconds = (used.user_time() + used.system_time()).num_microseconds() as f64 / 1e6;
        let used = ConstCounter::new(seconds);
        registry.register_with_unit("cpu", "Time of processors that was used", Unit::Seconds, used);
    }
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().and_then(|status| resident(&status)) {
        registry.register_with_unit("resident_memory", "Memory that is resident", Unit::Bytes, number(bytes));
    }
    registry
}

/// The resident memory in Linux' word about a process, in bytes.
fn resident(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<i64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::scrape::encoded;

    #[test]
    fn the_names_are_those_that_all_programs_have() {
        let text = encoded(&[&registry()]);
        for name in ["process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes"] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().parse::<f64>());
            assert!(value.is_some_and(|value| value.is_ok_and(|value| value > 0.0)), "{name} in\n{text}");
        }
        assert_eq!(resident("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!(resident("VmRSS:\t9999999999999999 kB\n"), None);
    }
}
