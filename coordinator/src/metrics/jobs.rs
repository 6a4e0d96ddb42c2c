//! What happens to jobs: how long they wait and run, what they come to, and what backups have moved.

use crate::db::jobs::JobState;
use crate::db::runs::Outcome;
use fleet_wire::{Kind, Status, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde::Deserialize;
use std::sync::atomic::AtomicU64;

/// What jobs end as.
const OUTCOMES: [&str; 4] =
    [Outcome::Succeeded.as_str(), Outcome::Partial.as_str(), Outcome::Failed.as_str(), Outcome::Cancelled.as_str()];
/// A kind that a newer version has made.
const OTHER: &str = "other";
/// How long jobs take: from a second to two days, in seconds.
const TIMES: [f64; 12] =
    [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 172_800.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfEnd {
    kind: &'static str,
    outcome: &'static str,
}

type Times = Family<OfKind, Histogram>;
/// As a sum that can't run over, whatever agents say.
type Bytes = Counter<f64, AtomicU64>;

/// See the module's text.
#[derive(Debug)]
pub struct Jobs {
    ended: Family<OfEnd, Counter>,
    lines_dropped: Counter,
    leases: Times,
    queues: Times,
    durations: Times,
    processed: Bytes,
    added: Bytes,
}

/// The word of a label for a kind as it stands in a row.
fn word(kind: &str) -> &'static str {
    kind.parse().map_or(OTHER, Kind::as_str)
}

fn times() -> Times {
    let times = Times::new_with_constructor(|| Histogram::new(TIMES));
    // All of them from the start: an increase from nothing is none.
    Kind::ALL.iter().for_each(|kind| drop(times.get_or_create(&OfKind { kind: kind.as_str() })));
    times
}

impl Jobs {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let ended = Family::<OfEnd, Counter>::default();
        for kind in Kind::ALL {
            OUTCOMES.iter().for_each(|outcome| drop(ended.get_or_create(&OfEnd { kind: kind.as_str(), outcome })));
        }
        let jobs = Self {
            ended,
            lines_dropped: Counter::default(),
            leases: times(),
            queues: times(),
            durations: times(),
            processed: Bytes::default(),
            added: Bytes::default(),
        };
        registry.register(
            "jobs_ended",
            "Jobs that have ended since the start, by kind and outcome",
            jobs.ended.clone(),
        );
        registry.register(
            "job_log_lines_dropped",
            "Lines of logs that were not stored, because of too many gaps in their numbers",
            jobs.lines_dropped.clone(),
        );
        registry.register_with_unit(
            "job_lease_wait",
            "From when a job was asked for until it had its lease on the repository and was let go",
            Unit::Seconds,
            jobs.leases.clone(),
        );
        registry.register_with_unit(
            "job_queue_wait",
            "From when a job was asked for until its agent had begun it",
            Unit::Seconds,
            jobs.queues.clone(),
        );
        registry.register_with_unit(
            "job_duration",
            "From when an agent began a job until it ended it",
            Unit::Seconds,
            jobs.durations.clone(),
        );
        registry.register_with_unit(
            "backup_processed",
            "Bytes in the snapshots that backups have made since the start",
            Unit::Bytes,
            jobs.processed.clone(),
        );
        registry.register_with_unit(
            "backup_added",
            "Bytes that backups have added to repositories since the start, before compression",
            Unit::Bytes,
            jobs.added.clone(),
        );
        jobs
    }

    /// A job of `kind` that was asked for at `since` has its lease and is let go.
    pub(crate) fn let_go(&self, kind: &str, since: Timestamp, now: Timestamp) {
        self.leases.get_or_create(&OfKind { kind: word(kind) }).observe(seconds(since, now));
    }

    /// It has begun.
    pub(crate) fn began(&self, kind: &str, since: Timestamp, now: Timestamp) {
        self.queues.get_or_create(&OfKind { kind: word(kind) }).observe(seconds(since, now));
    }

    /// It is over.
    pub(crate) fn ended(&self, kind: &str, state: &JobState) {
        let Some(outcome) = outcome(state) else { return };
        let kind = word(kind);
        self.ended.get_or_create(&OfEnd { kind, outcome }).inc();
        if let Some(duration) = duration(state) {
            self.durations.get_or_create(&OfKind { kind }).observe(duration);
        }
        if kind == Kind::Backup.as_str() && state.status == Status::Succeeded {
            let summary = state.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok());
            let Summary { total_bytes_processed, data_added } = summary.unwrap_or_default();
            self.processed.inc_by(as_float(total_bytes_processed));
            self.added.inc_by(as_float(data_added));
        }
    }

    /// Lines of its log were not taken.
    pub(crate) fn dropped_lines(&self, lines: usize) {
        self.lines_dropped.inc_by(lines as u64);
    }
}

/// What restic says of a backup, as far as it is added up.
#[derive(Default, Deserialize)]
struct Summary {
    #[serde(default)]
    total_bytes_processed: u64,
    #[serde(default)]
    data_added: u64,
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floats anyway")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}

/// A clock that was set back meanwhile makes it nothing.
fn seconds(since: Timestamp, until: Timestamp) -> f64 {
    (until - since).to_std().unwrap_or_default().as_secs_f64()
}

fn outcome(state: &JobState) -> Option<&'static str> {
    Some(match state.status {
        Status::Queued | Status::Running => return None,
        Status::Succeeded if state.partial => Outcome::Partial.as_str(),
        status => status.as_str(),
    })
}

/// How long a job ran, by its agent's clock if that says so: what an agent has run by itself is told all at once.
fn duration(state: &JobState) -> Option<f64> {
    let ours = state.began_at.zip(state.ended_at);
    let (began, ended) = state.started_at.zip(state.finished_at).or(ours)?;
    Some(seconds(began, ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::scrape::encoded;
    use crate::metrics::tests::has;
    use chrono::{DateTime, TimeDelta};

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(1_790_000_000 + seconds, 0).expect("a time")
    }

    fn succeeded(stats: &str) -> JobState {
        let (started_at, finished_at) = (Some(at(0)), Some(at(7)));
        let stats = Some(stats.to_owned());
        JobState { status: Status::Succeeded, started_at, finished_at, stats, ..JobState::new() }
    }

    fn count(ends: &[(&str, JobState)]) -> String {
        let mut registry = Registry::with_prefix("fleet");
        let jobs = Jobs::new(&mut registry);
        ends.iter().for_each(|(kind, state)| jobs.ended(kind, state));
        encoded(&[&registry])
    }

    #[test]
    fn what_a_job_came_to_is_counted_once_under_its_words() {
        let partial = JobState { partial: true, ..succeeded(r#"{"data_added": 5, "total_bytes_processed": 50}"#) };
        let whole = succeeded(r#"{"message_type": "summary", "data_added": 2, "total_bytes_processed": 100.0e0}"#);
        let text = count(&[
            ("backup", partial),
            ("backup", whole),
            ("of tomorrow", succeeded("")),
            ("check", JobState::new()),
        ]);
        has(&text, r#"fleet_jobs_ended_total{kind="backup",outcome="partial"} 1"#);
        has(&text, r#"fleet_jobs_ended_total{kind="backup",outcome="succeeded"} 1"#);
        has(&text, r#"fleet_jobs_ended_total{kind="other",outcome="succeeded"} 1"#);
        has(&text, r#"fleet_jobs_ended_total{kind="check",outcome="failed"} 0"#);
        has(&text, r#"fleet_job_duration_seconds_sum{kind="backup"} 14.0"#);
        has(&text, r#"fleet_job_duration_seconds_bucket{kind="backup",le="5"} 0"#);
        has(&text, r#"fleet_job_duration_seconds_count{kind="check"} 0"#);
        // The second summary is none that restic would write.
        has(&text, "fleet_backup_added_bytes_total 5.0");
        has(&text, "fleet_backup_processed_bytes_total 50.0");
    }

    #[test]
    fn no_report_runs_the_sums_over_or_turns_them_back() {
        let odd = ["", "[]", r#"{"data_added": -1}"#, r#"{"data_added": "x"}"#, r#"{"data_added": 1e400}"#];
        let mut ends: Vec<_> = odd.iter().map(|stats| ("backup", succeeded(stats))).collect();
        let most = format!(r#"{{"data_added": {}}}"#, u64::MAX);
        ends.extend([("backup", succeeded(&most)), ("backup", succeeded(&most))]);
        // Nothing else of a prune is a backup's.
        ends.push(("prune", succeeded(r#"{"data_added": 7}"#)));
        let text = count(&ends);
        has(&text, "fleet_backup_added_bytes_total 36893488147419107000.0");
        has(&text, "fleet_backup_processed_bytes_total 0.0");
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_time_negative() {
        let back = JobState { finished_at: Some(at(-9)), ..succeeded("") };
        has(&count(&[("backup", back)]), r#"fleet_job_duration_seconds_sum{kind="backup"} 0.0"#);
        assert_eq!(duration(&JobState { finished_at: None, ..succeeded("") }), None);
        let ours = JobState { began_at: Some(at(0)), ended_at: Some(at(60) + TimeDelta::hours(1)), ..JobState::new() };
        assert_eq!(duration(&ours), Some(3_660.0));
    }
}
