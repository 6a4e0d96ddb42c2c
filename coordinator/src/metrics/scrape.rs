//! One answer to Prometheus: what was counted since the start, and what is known right now.

use super::{Metrics, PREFIX, process};
use crate::clock;
use crate::db::PoolStatus;
use crate::db::counts::{Count, Counts, Group, PROBLEMS};
use crate::db::runs::Outcome;
use crate::dispatcher::{Census, REASONS};
use fleet_wire::{Status, Timestamp};
use prometheus_client::encoding::prometheus_text;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use prometheus_text::CONTENT_TYPE;

/// A time, in seconds since 1970, or a number that may be a fraction.
type Float = Gauge<f64, AtomicU64>;
/// A label of one's own choice: its name, and its value.
type Label<V> = [(&'static str, V); 1];

/// What is known in memory.
#[derive(Debug)]
pub struct Memory {
    /// Jobs that are not over, unless the dispatcher is too busy to tell.
    pub census: Option<Arc<Census>>,
    /// The connections for reading.
    pub pool: PoolStatus,
}

/// Prometheus' text format. What is not known is left out, and `fleet_database_up` says why. Hosts have their names only if
/// `named`: the others who ask have shown no token.
pub fn text(metrics: &Metrics, counts: Option<&Counts>, memory: &Memory, named: bool) -> String {
    let mut now = Registry::with_prefix(PREFIX);
    now.register("up", "The coordinator runs", number(1));
    now.register("database_up", "The database answers", number(i64::from(counts.is_some())));
    let in_doubt = i64::from(clock::certain().is_none());
    now.register("clock_in_doubt", "It is not certain what time it is", number(in_doubt));
    of_memory(&mut now, memory);
    if let Some(counts) = counts {
        of_ledger(&mut now, counts);
        of_groups(&mut now, &counts.groups, named);
    }
    encoded(&[&now, &metrics.registry, &process::registry()])
}

/// What there is to tell while the database is waited for at the start.
pub fn text_without_database() -> String {
    let mut now = Registry::with_prefix(PREFIX);
    now.register("up", "The coordinator runs", number(1));
    now.register("database_up", "The database answers", number(0));
    encoded(&[&now, &process::registry()])
}

/// Registries, one after the other.
pub(super) fn encoded(registries: &[&Registry]) -> String {
    let mut text = String::new();
    for registry in registries {
        let _ = prometheus_text::encode(&mut text, registry); // a String takes everything
    }
    text
}

/// A gauge that stands at a number.
pub(super) fn number(value: impl TryInto<i64>) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value.try_into().unwrap_or(i64::MAX));
    gauge
}

/// A gauge for each value of a label.
fn by<V>(name: &'static str, values: impl IntoIterator<Item = (V, i64)>) -> Family<Label<V>, Gauge>
where
    V: EncodeLabelValue + Clone + Eq + Hash,
{
    let family = Family::<Label<V>, Gauge>::default();
    for (value, count) in values {
        family.get_or_create(&[(name, value)]).set(count);
    }
    family
}

/// The count of a word, which is nothing if there is none.
fn count_of(counts: &[Count], word: Option<&str>) -> i64 {
    counts.iter().find(|count| count.word.as_deref() == word).map_or(0, |count| count.count)
}

/// In seconds since 1970.
#[allow(clippy::cast_precision_loss, reason = "a double holds microseconds for some centuries")]
fn seconds(at: Timestamp) -> f64 {
    at.timestamp_micros() as f64 / 1e6
}

fn of_memory(registry: &mut Registry, memory: &Memory) {
    let PoolStatus { idle, in_use, waiting } = memory.pool;
    let connections = [("idle", idle), ("in_use", in_use)].map(|(state, count)| (state, as_count(count)));
    registry.register("database_pool_connections", "Connections for reading, by state", by("state", connections));
    registry.register("database_pool_waiting", "Reads that wait for a connection", number(as_count(waiting)));
    let Some(census) = &memory.census else { return };
    registry.register("jobs_out", "Jobs that have their lease and are not over", number(as_count(census.out)));
    let waiting = REASONS.map(|reason| (reason.as_str(), as_count(census.of(reason).jobs)));
    registry.register("jobs_waiting", "Jobs that wait to be let go, by what for", by("reason", waiting));
    let oldest = Family::<Label<&str>, Float>::default();
    for reason in REASONS {
        if let Some(waited) = census.of(reason).longest {
            oldest.get_or_create(&[("reason", reason.as_str())]).set(seconds(clock::now()) - waited.as_secs_f64());
        }
    }
    registry.register_with_unit(
        "jobs_waiting_oldest_timestamp",
        "Since when the job waits that has waited longest, by what for",
        Unit::Seconds,
        oldest,
    );
}

fn as_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn of_ledger(registry: &mut Registry, counts: &Counts) {
    let (online, offline) = counts.hosts;
    registry.register("hosts", "Hosts in service", by("status", [("online", online), ("offline", offline)]));
    let open = Status::ALL.iter().filter(|status| !status.is_terminal()).map(|status| status.as_str());
    let open = open.map(|status| (status, count_of(&counts.open_jobs, Some(status))));
    registry.register("jobs", "Jobs that are not over", by("status", open));
    registry.register("jobs_lost", "Lost jobs that keep their lease until they are released", number(counts.lost_jobs));
    let of_outcome = |outcome: Outcome| {
        let found = counts.runs.iter().find(|(name, _)| name == outcome.as_str());
        (outcome.as_str(), found.map_or(0, |(_, count)| *count))
    };
    let runs = by("outcome", Outcome::ALL.map(of_outcome));
    registry.register("runs_last_day", "Runs that were due in the last 24 hours", runs);
    let (backups, maintenance) = counts.overdue;
    let overdue = by("what", [("backup", backups), ("maintenance", maintenance)]);
    registry.register("overdue", "What has not succeeded within its time", overdue);
    let degraded = count_of(&counts.troubled, None);
    let health = by("health", [("ok", counts.repositories - degraded), ("degraded", degraded)]);
    registry.register("repositories", "Repositories, by their health", health);
    let problems = PROBLEMS.map(|problem| (problem, count_of(&counts.troubled, Some(problem))));
    registry.register("repository_problems", "Repositories that have a problem, by problem", by("problem", problems));
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfGroup {
    host_id: String,
    source_group: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfHost {
    host_id: String,
    hostname: String,
}

fn of_groups(registry: &mut Registry, groups: &[Group], named: bool) {
    let successes = Family::<OfGroup, Float>::default();
    let dues = Family::<OfGroup, Float>::default();
    let names = Family::<OfHost, Gauge>::default();
    for group in groups {
        let host_id = group.host_id.to_string();
        let labels = OfGroup { host_id: host_id.clone(), source_group: group.name.clone() };
        successes.get_or_create(&labels).set(group.last_success_at.map_or(0.0, seconds));
        if let Some(overdue_at) = group.overdue_at {
            dues.get_or_create(&labels).set(seconds(overdue_at));
        }
        if named {
            names.get_or_create(&OfHost { host_id, hostname: group.hostname.clone() }).set(1);
        }
    }
    registry.register_with_unit(
        "backup_last_success_timestamp",
        "When a backup of a source group has last succeeded; 0 is never",
        Unit::Seconds,
        successes,
    );
    registry.register_with_unit(
        "backup_overdue_timestamp",
        "From when on a source group is overdue unless a backup succeeds",
        Unit::Seconds,
        dues,
    );
    registry.register("host_info", "The names of hosts, for those who ask with a token", names);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::has;
    use chrono::DateTime;
    use uuid::Uuid;

    fn count(word: &str, count: i64) -> Count {
        Count { word: Some(word).filter(|word| !word.is_empty()).map(str::to_owned), count }
    }

    fn scrape(counts: Option<&Counts>, named: bool) -> String {
        let memory = Memory { census: Some(Arc::default()), pool: PoolStatus { idle: 2, in_use: 1, waiting: 0 } };
        text(&Metrics::new(10), counts, &memory, named)
    }

    #[test]
    fn every_word_is_there_even_where_there_is_nothing() {
        let counts = Counts {
            hosts: (2, 0),
            open_jobs: vec![count("running", 3)],
            overdue: (4, 0),
            repositories: 5,
            troubled: vec![count("stale_lock", 2), count("check_failed", 1), count("", 2)],
            ..Counts::default()
        };
        let text = scrape(Some(&counts), false);
        for line in [
            "fleet_up 1",
            "fleet_database_up 1",
            "fleet_clock_in_doubt 0",
            "fleet_hosts{status=\"online\"} 2",
            "fleet_hosts{status=\"offline\"} 0",
            "fleet_jobs{status=\"queued\"} 0",
            "fleet_jobs{status=\"running\"} 3",
            "fleet_jobs_waiting{reason=\"host_offline\"} 0",
            "fleet_jobs_ended_total{kind=\"prune\",outcome=\"cancelled\"} 0",
            "fleet_runs_last_day{outcome=\"missed\"} 0",
            "fleet_overdue{what=\"backup\"} 4",
            "fleet_overdue{what=\"maintenance\"} 0",
            "fleet_repositories{health=\"ok\"} 3",
            "fleet_repositories{health=\"degraded\"} 2",
            "fleet_repository_problems{problem=\"runner_offline\"} 0",
            "fleet_repository_problems{problem=\"stale_lock\"} 2",
            "fleet_database_pool_connections{state=\"in_use\"} 1",
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn without_a_database_the_rest_is_still_told() {
        let text = scrape(None, true);
        assert!(text.contains("fleet_database_up 0\n") && text.contains("fleet_jobs_ended_total{"), "{text}");
        assert!(!text.contains("fleet_hosts"), "{text}");
        assert!(text_without_database().contains("fleet_database_up 0\n"));
    }

    #[test]
    fn names_of_hosts_are_for_those_who_have_a_token() {
        let at = |seconds: i64| DateTime::from_timestamp(1_790_000_000 + seconds, 500_000_000);
        let group = |name: &str, last_success_at, overdue_at| Group {
            host_id: Uuid::from_u128(7),
            hostname: "db-1".to_owned(),
            name: name.to_owned(),
            last_success_at,
            overdue_at,
        };
        let groups = vec![group("docs", at(0), at(9)), group("odd \"\\\n", None, None)];
        let counts = Counts { groups, ..Counts::default() };
        let text = scrape(Some(&counts), false);
        let host = "host_id=\"00000000-0000-0000-0000-000000000007\"";
        for line in [
            format!("fleet_backup_last_success_timestamp_seconds{{{host},source_group=\"docs\"}} 1790000000.5"),
            format!("fleet_backup_overdue_timestamp_seconds{{{host},source_group=\"docs\"}} 1790000009.5"),
            format!("fleet_backup_last_success_timestamp_seconds{{{host},source_group=\"odd \\\"\\\\\\n\"}} 0.0"),
        ] {
            has(&text, &line);
        }
        assert!(!text.contains("db-1"));
        assert!(scrape(Some(&counts), true).contains(&format!("fleet_host_info{{{host},hostname=\"db-1\"}} 1\n")));
    }
}
