//! Each alert fires on what it is for: a real coordinator is scraped before and after something has gone wrong, and
//! Prometheus' own tool says which of the rules in docs/monitoring fire on what was scraped.

#[path = "support/prometheus.rs"]
mod prometheus;
mod support;

use fleet_integration::{Api, Database, Failure, Sandbox, Server, eventually, leak_free_dir};
use prometheus::{Series, monitoring, promtool, scrape, series, value};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};
use support::blocker::Blocker;
use support::{Host, LIMIT, backup, group, job_when, journalling, over, repository, running_on};

/// Minutes for which Prometheus sees what was before, and what came after.
const BEFORE: usize = 30;
const AFTER: usize = 450;
/// How long the database keeps a commit waiting: longer than what is slow.
const SLOW: Duration = Duration::from_secs(3);

/// What was scraped, and when.
struct Scrape {
    series: Vec<Series>,
    at: f64,
}

impl Scrape {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of this century")]
    fn take(api: &Api) -> Self {
        Self { series: series(&scrape(api)), at: chrono::Utc::now().timestamp_millis() as f64 / 1e3 }
    }

    /// What each series stands at for a Prometheus whose clock shows `at` when it scrapes.
    fn seen_at(&self, at: f64) -> BTreeMap<String, f64> {
        let seen = |series: &Series| {
            let quote = |(label, value): (&String, &String)| {
                format!("{label}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
            };
            let labels: Vec<String> = series.labels.iter().map(quote).collect();
            let moved = if series.name.ends_with("_timestamp_seconds") { at - self.at } else { 0.0 };
            (format!("{}{{{}}}", series.name, labels.join(",")), series.value + moved)
        };
        self.series.iter().map(seen).collect()
    }
}

/// How it goes on after what was scraped last.
#[derive(Clone, Copy)]
enum After<'a> {
    /// It stays so.
    Stays(&'a Scrape),
    /// What happened since the scrape before happens each minute.
    GoesOn(&'a Scrape),
    /// There is no answer any more.
    Silence,
}

/// The alerts that fire within hours after something happened behind a scrape; none may before.
#[track_caller]
fn fires(before: &Scrape, after: After, expected: &[&str]) {
    let (last, goes_on) = match after {
        After::Stays(last) => (Some(last), false),
        After::GoesOn(last) => (Some(last), true),
        After::Silence => (None, false),
    };
    let (first, then) = (before.seen_at(0.0), last.map(|last| last.seen_at(60.0 * BEFORE as f64)).unwrap_or_default());
    let mut rows = String::new();
    let mut row = |name: &str, first: Option<f64>, then: Option<f64>| {
        let constant = |value: Option<f64>, times: usize| match value {
            Some(value) => format!("{value}x{}", times - 1),
            None => format!("_x{times}"),
        };
        let then = match (first, then) {
            (Some(first), Some(then)) if goes_on && is_counter(name) => {
                format!("{then}+{}x{}", then - first, AFTER - 1)
            }
            _ => constant(then, AFTER),
        };
        let name = name.replace('\'', "''");
        writeln!(rows, "      - {{series: '{name}', values: '{} {then}'}}", constant(first, BEFORE)).unwrap();
    };
    row("up{job=\"restic-fleet\"}", Some(1.0), Some(f64::from(u8::from(last.is_some()))));
    for name in first.keys().chain(then.keys()).collect::<BTreeSet<_>>() {
        row(name, first.get(name).copied(), then.get(name).copied());
    }
    let samples: Vec<String> =
        expected.iter().map(|alert| format!("{{labels: '{{alertname=\"{alert}\"}}', value: 1}}")).collect();
    let test = format!(
        "rule_files: [{}]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{rows}    \
         promql_expr_test:\n      \
         - {{expr: 'ALERTS{{alertstate=\"firing\"}}', eval_time: {}m, exp_samples: []}}\n      \
         - {{expr: 'group by (alertname) (last_over_time(ALERTS{{alertstate=\"firing\"}}[{AFTER}m]))', \
         eval_time: {}m, exp_samples: [{}]}}\n",
        monitoring().join("alerts.yml").display(),
        BEFORE - 1,
        BEFORE + AFTER - 1,
        samples.join(", "),
    );
    let folder = leak_free_dir("fleet-alerts.").unwrap();
    fs::write(folder.path().join("test.yml"), &test).unwrap();
    promtool(folder.path(), &["test", "rules", "test.yml"], "");
}

fn is_counter(series: &str) -> bool {
    let name = series.split('{').next().unwrap();
    ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix))
}

/// A coordinator with a host whose agent does what a test wants, and what it was like before.
fn calm(variables: &[(&str, &str)]) -> (Sandbox, Host, Scrape) {
    let sandbox = Sandbox::start_with(variables).unwrap();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let job = backup(&sandbox.api(), &host.id, "docs");
    end(&sandbox.api(), &mut host, &job, "succeeded", 0);
    let before = Scrape::take(&sandbox.api());
    (sandbox, host, before)
}

fn end(api: &Api, host: &mut Host, job: &str, status: &str, exit_code: i64) {
    assert_eq!(host.run("backup"), job);
    host.start(job, "backup");
    let last = host.finish(job, status, exit_code);
    host.settled(last);
    over(api, job);
}

/// Scrapes once a value is more than nothing.
fn once(api: &Api, name: &str, labels: &[(&str, &str)]) -> Scrape {
    let look = || {
        let text = scrape(api);
        if value(&text, name, labels) > 0.0 { Ok(()) } else { Err(Failure::new(text)) }
    };
    eventually(&format!("{name} {labels:?}"), LIMIT, look).unwrap();
    Scrape::take(api)
}

#[test]
fn the_rules_are_sound_and_each_has_its_situations_and_its_advice() {
    promtool(&monitoring(), &["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"], "");
    promtool(&monitoring(), &["test", "rules", "alerts_test.yml"], "");
    let read = |path: &str| fs::read_to_string(monitoring().join(path)).unwrap();
    let (rules, situations, advice) = (read("alerts.yml"), read("alerts_test.yml"), read("../operations.md"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(situations.contains(alert), "{alert} has no situation in alerts_test.yml");
        assert!(advice.contains(&format!("| `{alert}` |")), "docs/operations.md does not say what to do about {alert}");
    }
}

#[test]
fn of_a_quiet_fleet_nothing_is_said() {
    let (sandbox, mut host, before) = calm(&[]);
    let job = backup(&sandbox.api(), &host.id, "docs");
    end(&sandbox.api(), &mut host, &job, "succeeded", 0);
    fires(&before, After::Stays(&Scrape::take(&sandbox.api())), &[]);
}

#[test]
fn a_job_that_fails_and_a_backup_that_is_partial() {
    let (sandbox, mut host, before) = calm(&[]);
    let api = sandbox.api();
    let ended = "fleet_jobs_ended_total";
    let job = backup(&api, &host.id, "docs");
    end(&api, &mut host, &job, "failed", 1);
    let between = once(&api, ended, &[("kind", "backup"), ("outcome", "failed")]);
    fires(&before, After::Stays(&between), &["FleetJobFailed"]);
    let job = backup(&api, &host.id, "docs");
    end(&api, &mut host, &job, "succeeded", 3);
    let after = once(&api, ended, &[("kind", "backup"), ("outcome", "partial")]);
    fires(&between, After::Stays(&after), &["FleetBackupPartial"]);
}

#[test]
fn backups_and_maintenance_that_are_overdue() {
    let (sandbox, _host, before) = calm(&[]);
    sandbox.database.query("UPDATE source_groups SET overdue_at = now() - interval '1 minute'").unwrap();
    let after = once(&sandbox.api(), "fleet_overdue", &[("what", "backup")]);
    fires(&before, After::Stays(&after), &["FleetBackupOverdue"]);
    sandbox
        .database
        .query(
            "INSERT INTO maintenance (repository_id, kind, cron, timezone, enabled, interval_seconds, overdue_at, created_at,
                 updated_at)
             SELECT id, 'prune', '0 0 * * *', 'UTC', false, 86400, now() - interval '1 minute', now(), now() FROM repositories;
             UPDATE source_groups SET overdue_at = NULL",
        )
        .unwrap();
    let after = once(&sandbox.api(), "fleet_overdue", &[("what", "maintenance")]);
    // The repository has that problem too.
    fires(&before, After::Stays(&after), &["FleetMaintenanceOverdue", "FleetRepositoryUnhealthy"]);
}

#[test]
fn an_agent_that_is_lost_with_its_job() {
    let (sandbox, mut host, before) = calm(&[("FLEET_AGENT_LOST_LIMIT", "2s")]);
    let api = sandbox.api();
    let job = backup(&api, &host.id, "docs");
    host.run("backup");
    host.start(&job, "backup");
    host.disconnect();
    job_when(&api, &job, |job| job["status"] == "failed");
    let after = once(&api, "fleet_jobs_lost", &[]);
    fires(&before, After::Stays(&after), &["FleetAgentLost", "FleetJobFailed"]);
}

#[test]
fn hosts_that_are_offline() {
    let (sandbox, host, before) = calm(&[]);
    let of_host: Value = sandbox.api().get(&format!("/v1/hosts/{}", host.id)).unwrap();
    Host::enroll(&sandbox, "web-2", of_host["repository_id"].as_str().unwrap());
    let after = once(&sandbox.api(), "fleet_hosts", &[("status", "offline")]);
    fires(&before, After::Stays(&after), &["FleetHostsOffline"]);
}

#[test]
fn a_repository_that_is_not_healthy() {
    let (sandbox, mut host, before) = calm(&[]);
    let last = host.say("repo.stats", json!({"last_check_status": "errors", "last_check_at": "2026-03-01T02:00:00Z"}));
    host.settled(last);
    let after = once(&sandbox.api(), "fleet_repository_problems", &[("problem", "check_failed")]);
    fires(&before, After::Stays(&after), &["FleetRepositoryUnhealthy"]);
    let last = host.say("repo.stats", json!({"last_check_status": "ok", "last_check_at": "2026-03-02T02:00:00Z"}));
    host.settled(last);
    let health = [("problem", "check_failed")];
    let sound = || match value(&scrape(&sandbox.api()), "fleet_repository_problems", &health) {
        count if count > 0.0 => Err(Failure::new(count.to_string())),
        _ => Ok(()),
    };
    eventually("the repository to be sound", LIMIT, sound).unwrap();
}

#[test]
fn a_job_that_waits_for_its_repository_for_hours() {
    let (sandbox, mut host, before) = calm(&[]);
    let api = sandbox.api();
    let job = backup(&api, &host.id, "docs");
    host.run("backup");
    host.start(&job, "backup");
    api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    let after = once(&api, "fleet_jobs_waiting", &[("reason", "repository")]);
    fires(&before, After::Stays(&after), &["FleetQueueStuck"]);
}

#[test]
fn commits_that_are_slow() {
    let (sandbox, mut host, _) = calm(&[]);
    let api = sandbox.api();
    let job = backup(&api, &host.id, "docs");
    host.run("backup");
    let begun = host.start(&job, "backup");
    host.settled(begun);
    let before = Scrape::take(&api);
    let blocker = Blocker::hold(&sandbox.database, &format!("SELECT 1 FROM jobs WHERE id = '{job}' FOR UPDATE"));
    let last = host.finish(&job, "succeeded", 0);
    Blocker::until_waited_for(&sandbox.database, "UPDATE jobs");
    let since = Instant::now();
    let slow = || if since.elapsed() < SLOW { Err("it is blocked for less") } else { Ok(()) };
    eventually("the commit to be slow", LIMIT, slow).unwrap();
    blocker.let_go();
    host.settled(last);
    over(&api, &job);
    fires(&before, After::GoesOn(&Scrape::take(&api)), &["FleetPersistenceSlow"]);
}

#[test]
fn a_database_that_is_away_and_a_coordinator_that_is_down() {
    let mut server = Server::start().unwrap();
    let (mut sandbox, mut host, job) = running_on(Database::on(&server).unwrap());
    let before = Scrape::take(&sandbox.api());
    server.stop().unwrap();
    host.log(&job, 0, "a line that waits");
    let api = sandbox.api();
    once(&api, "fleet_persistence_waiting_writes", &[]);
    // What was counted a moment ago is told for some seconds.
    let away = || match scrape(&api) {
        text if value(&text, "fleet_database_up", &[]) > 0.0 => Err(Failure::new(text)),
        _ => Ok(()),
    };
    eventually("the database to be known as away", LIMIT, away).unwrap();
    let after = Scrape::take(&api);
    fires(&before, After::Stays(&after), &["FleetDatabaseDown", "FleetPersistenceStuck"]);
    sandbox.take_down();
    fires(&before, After::Silence, &["FleetCoordinatorDown"]);
}
