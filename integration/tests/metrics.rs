//! `/metrics`: what agents and clients do is counted, Prometheus takes it, and rules and dashboard name what there is.

#[path = "support/prometheus.rs"]
mod prometheus;
mod support;

use fleet_integration::{Api, Failure, Sandbox, eventually, leak_free_dir};
use prometheus::{OF_TARGETS, labels, monitoring, promtool, scrape, selectors, series, value};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use support::{Host, LIMIT, ask, backup, client, group, journalling, over, repository};

/// Scrapes until one value is as it should be.
#[track_caller]
fn until(api: &Api, name: &str, labels: &[(&str, &str)], wanted: f64) -> String {
    let look = || {
        let text = scrape(api);
        let found = value(&text, name, labels);
        if (found - wanted).abs() < 1e-9 { Ok(text) } else { Err(Failure::new(format!("{found}"))) }
    };
    eventually(&format!("{name} {labels:?} to be {wanted}"), LIMIT, look).unwrap()
}

/// A backup that its agent has done with this result.
fn run_backup(api: &Api, host: &mut Host, exit_code: i64, status: &str) -> String {
    let job = backup(api, &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    host.start(&job, "backup");
    host.log(&job, 0, "a line");
    let stats = json!({"message_type": "summary", "total_bytes_processed": 4_096, "data_added": 1_024});
    let report = json!({"job_id": job, "status": status, "exit_code": exit_code, "finished_at": "2026-03-01T02:01:00Z",
        "stats": stats});
    let last = host.say("job.finished", report);
    host.settled(last);
    over(api, &job);
    job
}

/// A coordinator to which everything has happened that has a series of its own only then.
fn eventful() -> (Sandbox, Host) {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&api, &host.id, "docs", Value::Null);
    run_backup(&api, &mut host, 0, "succeeded");
    run_backup(&api, &mut host, 3, "succeeded");
    run_backup(&api, &mut host, 1, "failed");
    // One is out, and two wait for it.
    let out = backup(&api, &host.id, "docs");
    host.run("backup");
    host.accept(&out);
    api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    assert_eq!(ask(&api, "GET", "/v1/jobs/x", &Value::Null).status, 404);
    assert_eq!(ask(&api, "OPTIONS", "/coffee", &Value::Null).status, 404);
    (sandbox, host)
}

#[test]
fn what_agents_and_clients_do_is_counted() {
    let (mut sandbox, mut host) = eventful();
    let api = sandbox.api();
    host.say("of.tomorrow", json!({"x": 1}));
    let last = host.log("0190aaaa-0000-7000-8000-000000000000", 0, "of no job");
    host.settled(last);
    let text = until(&api, "fleet_agent_messages_dropped_total", &[("reason", "refused")], 1.0);
    let is = |name: &str, labels: &[(&str, &str)], wanted: f64| {
        let found = value(&text, name, labels);
        assert!((found - wanted).abs() < 1e-9, "{name} {labels:?} is {found}, not {wanted}, in\n{text}");
    };
    let ended = "fleet_jobs_ended_total";
    for (outcome, times) in [("succeeded", 1.0), ("partial", 1.0), ("failed", 1.0), ("cancelled", 0.0)] {
        is(ended, &[("kind", "backup"), ("outcome", outcome)], times);
    }
    is(ended, &[("kind", "init"), ("outcome", "succeeded")], 1.0);
    is("fleet_backup_processed_bytes_total", &[], 8_192.0);
    is("fleet_backup_added_bytes_total", &[], 2_048.0);
    is("fleet_job_duration_seconds_sum", &[("kind", "backup")], 180.0);
    is("fleet_job_duration_seconds_count", &[("kind", "backup")], 3.0);
    is("fleet_job_lease_wait_seconds_count", &[("kind", "backup")], 4.0);
    is("fleet_job_lease_wait_seconds_count", &[("kind", "check")], 0.0);
    is("fleet_job_queue_wait_seconds_count", &[("kind", "backup")], 3.0);
    is("fleet_jobs", &[("status", "queued")], 3.0);
    is("fleet_jobs_out", &[], 1.0);
    is("fleet_jobs_waiting", &[("reason", "repository")], 2.0);
    is("fleet_jobs_waiting", &[("reason", "host_offline")], 0.0);
    is("fleet_hosts", &[("status", "online")], 1.0);
    is("fleet_repositories", &[("health", "ok")], 1.0);
    is("fleet_agent_sessions", &[], 1.0);
    is("fleet_agent_sessions_opened_total", &[], 1.0);
    is("fleet_agent_messages_total", &[("type", "hello")], 1.0);
    is("fleet_agent_messages_total", &[("type", "log.stream")], 4.0);
    is("fleet_agent_messages_unknown_total", &[], 1.0);
    let jobs = "/v1/jobs/{id}";
    is("fleet_http_requests_total", &[("method", "GET"), ("route", jobs), ("status", "404")], 1.0);
    is("fleet_http_requests_total", &[("method", "none"), ("route", "none"), ("status", "404")], 1.0);
    // The three that waited for the ends of the backups say nothing of the coordinator.
    is("fleet_http_request_duration_seconds_count", &[("method", "GET"), ("route", jobs)], 1.0);
    assert!(value(&text, "fleet_persistence_commit_seconds_count", &[]) >= 10.0);
    let oldest = value(&text, "fleet_jobs_waiting_oldest_timestamp_seconds", &[("reason", "repository")]);
    let age = chrono::Utc::now().timestamp_micros() as f64 / 1e6 - oldest;
    assert!((0.0..60.0).contains(&age), "{age}");

    host.disconnect();
    let text = until(&api, "fleet_agent_sessions", &[], 0.0);
    assert!((value(&text, "fleet_agent_sessions_closed_total", &[("reason", "gone")]) - 1.0).abs() < 1e-9);
    until(&api, "fleet_jobs_waiting", &[("reason", "host_offline")], 2.0);
    ask(&api, "PUT", "/v1/pause", &json!({"reason": "new disks"})).ok().unwrap();
    until(&api, "fleet_jobs_waiting", &[("reason", "paused")], 2.0);

    // What is over is not counted again by who comes later.
    sandbox.restart_with(&[]).unwrap();
    let api = sandbox.api();
    let text = until(&api, "fleet_jobs_waiting", &[("reason", "paused")], 2.0);
    assert!(value(&text, ended, &[("kind", "backup"), ("outcome", "succeeded")]).abs() < 1e-9);
    let jobs = api.list("/v1/jobs?status=succeeded&kind=backup").unwrap();
    let late = jobs[0]["id"].as_str().unwrap();
    host.connect(&sandbox, &journalling("j", &[]));
    host.log(late, 7, "late");
    let last = host.finish(late, "succeeded", 0);
    host.settled(last);
    let text = scrape(&api);
    assert!(value(&text, ended, &[("kind", "backup"), ("outcome", "succeeded")]).abs() < 1e-9, "{text}");
}

#[test]
fn what_breaks_the_protocol_is_counted() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    host.agent().send_text("[]").unwrap();
    until(&api, "fleet_agent_messages_dropped_total", &[("reason", "malformed")], 1.0);
    let text = until(&api, "fleet_agent_sessions", &[], 0.0);
    assert!((value(&text, "fleet_agent_sessions_closed_total", &[("reason", "malformed")]) - 1.0).abs() < 1e-9);
}

#[test]
fn names_of_hosts_are_for_who_has_a_token_and_the_number_of_groups_is_limited() {
    let sandbox = Sandbox::start_with(&[("FLEET_METRICS_GROUPS", "3")]).unwrap();
    let api = sandbox.api();
    let host = Host::enroll(&sandbox, "secret-name", &repository(&sandbox));
    for name in ["a", "b", "c", "d", "e"] {
        group(&api, &host.id, name, Value::Null);
    }
    let groups = |text: &str| -> Vec<String> {
        let all =
            series(text).into_iter().filter(|series| series.name == "fleet_backup_last_success_timestamp_seconds");
        let mut names: Vec<_> = all.map(|series| series.labels["source_group"].clone()).collect();
        names.sort();
        names
    };
    let text = scrape(&api);
    assert_eq!(groups(&text), ["a", "b", "c"]);
    assert!(value(&text, "fleet_backup_last_success_timestamp_seconds", &[("source_group", "a")]).abs() < 1e-9);
    // Those that are overdue go before all others, the longest first.
    let overdue =
        "UPDATE source_groups SET overdue_at = now() - interval '1 hour', last_success_at = now() - interval '2 h'
        WHERE name = 'e'; UPDATE source_groups SET overdue_at = now() + interval '1 hour' WHERE name IN ('d', 'c')";
    sandbox.database.query(overdue).unwrap();
    let text = until(&api, "fleet_overdue", &[("what", "backup")], 1.0);
    assert_eq!(groups(&text), ["c", "d", "e"]);
    let age = value(&text, "fleet_backup_overdue_timestamp_seconds", &[("source_group", "e")])
        - value(&text, "fleet_backup_last_success_timestamp_seconds", &[("source_group", "e")]);
    assert!((age - 3_600.0).abs() < 1e-3, "{age}");

    let named = |text: &str| text.contains("secret-name");
    let (limited, _) = client(&api, &json!({"name": "some", "scope": "read", "host_labels": {"site": "ulm"}}));
    let (reader, id) = client(&api, &json!({"name": "prometheus", "scope": "read"}));
    assert!(named(&text) && named(&scrape(&reader)));
    assert!(!named(&scrape(&limited)) && !named(&scrape(&api.with_token("rft_wrong"))));
    ask(&api, "DELETE", &format!("/v1/tokens/{id}"), &Value::Null).ok().unwrap();
    // An expired token takes the names, and no alert.
    let without = scrape(&reader);
    assert!(!named(&without));
    assert_eq!(groups(&without), ["c", "d", "e"]);
}

#[test]
fn prometheus_takes_it_and_has_nothing_to_say_about_the_names() {
    let (sandbox, _host) = eventful();
    let text = scrape(&sandbox.api());
    assert_eq!(promtool(&monitoring(), &["check", "metrics"], &text), "", "{text}");
    let kinds: HashSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for series in series(&text) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.name.strip_suffix(suffix));
        let told = kinds.contains(&*series.name) || family.is_some_and(|family| kinds.contains(family));
        assert!(told, "{} has no TYPE", series.name);
    }
}

/// What the fields of the dashboard say that have these names.
fn dashboard(names: &[&str]) -> Vec<String> {
    fn walk(value: &Value, names: &[&str], found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, names, found)),
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(text) if names.contains(&&**name) => found.push(text.clone()),
                other => walk(other, names, found),
            }),
            _ => {}
        }
    }
    let text = fs::read_to_string(monitoring().join("dashboard.json")).unwrap();
    let mut found = Vec::new();
    walk(&serde_json::from_str(&text).unwrap(), names, &mut found);
    found
}

#[test]
fn prometheus_can_read_the_queries_of_the_dashboard() {
    let queries = dashboard(&["expr"]);
    assert!(queries.len() > 30, "{queries:?}");
    // As rules, of which it reads a whole file at once. JSON is YAML.
    let rule = |(number, query): (usize, &String)| json!({"record": format!("query{number}"), "expr": query.replace("$__rate_interval", "5m")});
    let rules: Vec<Value> = queries.iter().enumerate().map(rule).collect();
    let folder = leak_free_dir("fleet-dashboard.").unwrap();
    let file = json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    fs::write(folder.path().join("queries.yml"), file).unwrap();
    promtool(folder.path(), &["check", "rules", "queries.yml"], "");
}

#[test]
fn rules_and_dashboard_name_what_there_is() {
    let (sandbox, mut host) = eventful();
    let api = sandbox.api();
    let mut all = series(&until(&api, "fleet_jobs_waiting", &[("reason", "repository")], 2.0));
    host.agent().send_text("[]").unwrap();
    all.extend(series(&until(&api, "fleet_agent_messages_dropped_total", &[("reason", "malformed")], 1.0)));
    let known: BTreeSet<&str> = all.iter().flat_map(|series| series.labels.keys().map(String::as_str)).collect();
    let read = |name: &str| fs::read_to_string(monitoring().join(name)).unwrap();
    for (what, text) in [
        ("alerts.yml", read("alerts.yml")),
        ("alerts_test.yml", read("alerts_test.yml")),
        ("dashboard.json", dashboard(&["expr", "legendFormat", "query"]).join("\n")),
    ] {
        let named = selectors(&text, &["fleet_", "process_"]);
        assert!(named.len() > 20, "{what} names {} series", named.len());
        for selector in named {
            // Requests fail when they fail, and not here.
            let mut selector = selector;
            selector.matchers.retain(|matcher| matcher.label != "status" || !selector.name.starts_with("fleet_http"));
            let (is_made_up, name) = (what == "alerts_test.yml", selector.name.clone());
            selector.matchers.retain(|matcher| !(is_made_up && matcher.label == "route"));
            assert!(selector.is_in(&all), "{what} names {selector:?}; there is {:?}", of_name(&all, &name));
        }
        for label in labels(&text) {
            let there = known.contains(&*label) || OF_TARGETS.contains(&&*label) || label == "alertname";
            assert!(there, "{what} names the label {label:?}");
        }
    }
}

fn of_name<'a>(all: &'a [prometheus::Series], name: &str) -> Vec<&'a prometheus::Series> {
    all.iter().filter(|series| series.name == name).collect()
}
