//! What the coordinator asks of its database costs the same however much history is there: no statement reads more rows
//! of a big table than it needs, or sorts many. Seen in the plans of everything that a real run asks.

#[path = "support/plans.rs"]
mod plans;
mod support;

use fleet_integration::{Api, Database, Failure, Sandbox, Server, eventually};
use plans::{LOG_PLANS, Plan};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use support::{Host, LIMIT, backup, client, group, journalling, over, repository, until};

/// Jobs that are over: many more than any statement may touch.
const OLD_JOBS: usize = 40_000;
const OLD_HOSTS: usize = 20;
/// Operations that are over, each with one job and one host that got none; and old rows of the audit log.
const OLD_OPERATIONS: usize = 3_000;
const OLD_RECORDS: usize = 40_000;
/// The chunks of one long log.
const CHUNKS: usize = 3_000;
/// The most rows that a part of a plan may have in hand.
const MOST_ROWS: f64 = 1_000.0;
/// The same where the operations of each of some hosts are looked for: the planner may take the index of all their jobs for it,
/// and not the smaller one of those in operations, so all jobs of these hosts that are newer are read.
const MOST_ROWS_OF_OPERATIONS: f64 = 10_000.0;
/// The tables that grow without end.
const BIG: [&str; 6] = ["jobs", "log_chunks", "runs", "operations", "operation_skipped", "audit"];

/// History as it comes to be: almost all jobs are alike, and a few are rare.
fn fill(database: &Database, logged: &str) {
    database
        .query(&format!(
            "SET auto_explain.log_min_duration = -1;
             SET session_replication_role = replica;
             INSERT INTO hosts (id, hostname, os, arch, repository_id, created_at)
                 SELECT gen_random_uuid(), 'old-' || n, 'linux', 'amd64', repositories.id, now()
                 FROM generate_series(1, {OLD_HOSTS}) AS n, repositories;
             INSERT INTO jobs (id, host_id, repository_id, kind, status, origin, source_group, command, created_at,
                 dispatched_at, accepted_at, started_at, finished_at, began_at, ended_at, exit_code)
             SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
                 host.id, host.repository_id, CASE WHEN n % 1000 = 1 THEN 'prune' ELSE 'backup' END,
                 CASE WHEN n % 1000 = 2 THEN 'failed' ELSE 'succeeded' END,
                 CASE WHEN n % 1000 = 3 THEN 'schedule' ELSE 'operator' END, 'docs', '{{\"job_id\": \"x\", \"kind\": \"backup\"}}',
                 at, at, at, at, at, at, at, 0
             FROM generate_series(1, {OLD_JOBS}) AS n
                 JOIN (SELECT row_number() OVER () - 1 AS place, id, repository_id FROM hosts WHERE hostname LIKE 'old-%')
                     AS host ON host.place = n % {OLD_HOSTS},
                 LATERAL (SELECT now() - ({OLD_JOBS} - n + 10) * interval '10 minutes' AS at) AS its;
             UPDATE hosts SET labels = '{{\"site\": \"ulm\"}}' WHERE hostname LIKE 'old-%' AND hostname <> 'old-1';
             INSERT INTO operations (id, kind, request, created_at, jobs, skipped, ended_at)
             SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008001' || lpad(to_hex(n), 12, '0'))::uuid,
                 'unlock', '{{\"selector\": {{}}, \"per\": \"host\"}}', at, 1, 1, at
             FROM generate_series(1, {OLD_OPERATIONS}) AS n,
                 LATERAL (SELECT now() - ({OLD_OPERATIONS} - n + 10) * interval '2 hours' AS at) AS its;
             INSERT INTO jobs (id, host_id, repository_id, kind, status, origin, command, created_at, ended_at, operation_id)
             SELECT gen_random_uuid(), host.id, host.repository_id, 'unlock', 'succeeded', 'operator',
                 '{{\"job_id\": \"x\", \"kind\": \"unlock\"}}', its.created_at, its.created_at, its.id
             FROM (SELECT *, row_number() OVER (ORDER BY created_at) AS n FROM operations WHERE ended_at IS NOT NULL) AS its
                 JOIN (SELECT row_number() OVER () - 1 AS place, id, repository_id FROM hosts WHERE hostname LIKE 'old-%')
                     AS host ON host.place = its.n % {OLD_HOSTS};
             INSERT INTO operation_skipped (operation_id, host_id, reason, created_at)
             SELECT its.id, host.id, 'x', its.created_at
             FROM (SELECT *, row_number() OVER (ORDER BY created_at) AS n FROM operations WHERE ended_at IS NOT NULL) AS its
                 JOIN (SELECT row_number() OVER () - 1 AS place, id FROM hosts WHERE hostname LIKE 'old-%')
                     AS host ON host.place = (its.n + 7) % {OLD_HOSTS};
             INSERT INTO audit (id, at, request_id, token_name, method, route, target, outcome)
             SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008002' || lpad(to_hex(n), 12, '0'))::uuid,
                 at, 'x', CASE WHEN n % 1000 = 1 THEN 'rare' ELSE 'robot' END, 'POST', '/v1/hosts/{{id}}/jobs',
                 'hosts/' || host.id || '/jobs/' || gen_random_uuid(), CASE WHEN n % 1000 = 2 THEN 'refused' ELSE 'done' END
             FROM generate_series(1, {OLD_RECORDS}) AS n
                 JOIN (SELECT row_number() OVER () - 1 AS place, id FROM hosts WHERE hostname LIKE 'old-%')
                     AS host ON host.place = n % {OLD_HOSTS},
                 LATERAL (SELECT now() - ({OLD_RECORDS} - n + 10) * interval '10 minutes' AS at) AS its;
             INSERT INTO log_chunks (job_id, first_seq, last_seq, compacted, data) SELECT jobs.id, 0, 0, true, data
                 FROM (SELECT data FROM log_chunks LIMIT 1) AS sample, jobs WHERE jobs.id <> '{logged}';
             INSERT INTO log_chunks (job_id, first_seq, last_seq, data) SELECT jobs.id, n, n, data
                 FROM (SELECT data FROM log_chunks LIMIT 1) AS sample, generate_series(1, {CHUNKS}) AS n,
                     (SELECT id FROM jobs WHERE kind = 'prune' ORDER BY created_at DESC LIMIT 1) AS jobs;
             INSERT INTO runs (id, kind, host_id, source_group, schedule_id, due_at, outcome, job_id, changed_at)
             SELECT gen_random_uuid(), 'backup', host_id, 'docs', gen_random_uuid(), created_at,
                 CASE WHEN n % 100 = 3 THEN 'skipped' WHEN n % 100 = 4 THEN 'missed' ELSE 'succeeded' END, id, created_at
             FROM (SELECT *, row_number() OVER () AS n FROM jobs) AS its;
             INSERT INTO source_groups (host_id, name, includes, created_at, updated_at)
                 SELECT id, 'docs', '[]', now(), now() FROM hosts WHERE hostname LIKE 'old-%' AND hostname <> 'old-3';
             ANALYZE"
        ))
        .unwrap();
}

/// Reads each list to the end, or three pages of it.
fn read_lists(api: &Api, host: &str) {
    let words = [
        "kind=backup",
        "kind=prune",
        "origin=operator",
        "origin=schedule",
        "status=succeeded",
        "status=failed",
        "status=running",
        "status=queued",
        "kind=prune&status=failed",
        "kind=backup&origin=schedule",
        "kind=prune&origin=schedule&status=cancelled",
    ];
    let mut filters: Vec<String> = words.iter().map(|words| (*words).to_owned()).collect();
    filters.extend(words.iter().map(|words| format!("host_id={host}&{words}")));
    filters.push(String::new());
    filters.push(format!("host_id={host}"));
    let since = ["since=2020-01-01T00:00:00Z", "since=2999-01-01T00:00:00Z"];
    filters.extend(filters.clone().iter().flat_map(|words| since.map(|since| format!("{since}&{words}"))));
    filters.push("until=2999-01-01T00:00:00Z".to_owned());
    filters.push("hostname=old-1".to_owned());
    filters.push("partial=true".to_owned());
    let of_repository = format!("repository_id={}", api.list("/v1/repositories").unwrap()[0]["id"].as_str().unwrap());
    filters.extend(["", "kind=prune", "status=failed"].map(|words| format!("{of_repository}&{words}")));
    for filter in filters {
        // The plan may change once a statement was run five times.
        for _ in 0..7 {
            pages(api, &format!("/v1/jobs?limit=20&{filter}"));
        }
    }
    for filter in ["", "status=online", "status=offline", "status=decommissioned", "hostname=old-1", &of_repository] {
        pages(api, &format!("/v1/hosts?limit=5&{filter}"));
    }
}

/// Reads lists as a token that is limited to most of the old hosts sees them.
fn read_limited_lists(api: &Api) {
    let limit = json!({"name": "ulm", "scope": "read", "host_labels": {"site": "ulm"}});
    let (limited, _) = client(api, &limit);
    let words = ["", "kind=prune", "kind=init", "status=failed", "status=running", "origin=schedule&status=succeeded"];
    let since = ["", "since=2020-01-01T00:00:00Z&"];
    for filter in since.iter().flat_map(|since| words.map(|words| format!("{since}{words}"))) {
        for _ in 0..7 {
            pages(&limited, &format!("/v1/jobs?limit=20&{filter}"));
        }
    }
    for _ in 0..7 {
        pages(&limited, "/v1/operations?limit=20");
    }
    let seen = limited.get("/v1/operations?limit=20").unwrap();
    let counts: Vec<i64> =
        seen["items"].as_array().unwrap().iter().map(|item| item["counts"]["jobs"].as_i64().unwrap()).collect();
    // One job of each, unless that is of the one host that is not seen.
    assert!(counts.len() == 20 && counts.iter().filter(|jobs| **jobs == 1).count() >= 18, "{seen}");
}

/// Reads the audit log by all that it can be asked for.
fn read_audit(api: &Api, host: &str) {
    let token = api.list("/v1/tokens").unwrap()[0]["id"].as_str().unwrap().to_owned();
    let filters = [
        String::new(),
        "token=robot".to_owned(),
        "token=rare".to_owned(),
        "token=nobody".to_owned(),
        format!("token={token}"),
        format!("target={host}"),
        format!("target={}", uuid::Uuid::new_v4()),
        "outcome=refused".to_owned(),
        "outcome=failed".to_owned(),
        "outcome=done".to_owned(),
        "token=robot&outcome=refused".to_owned(),
        format!("target={host}&token=robot"),
        "after_seq=0".to_owned(),
        format!("after_seq={}", OLD_RECORDS - 10),
    ];
    let since = ["", "since=2020-01-01T00:00:00Z&", "until=2999-01-01T00:00:00Z&"];
    for filter in since.iter().flat_map(|since| filters.iter().map(move |filter| format!("{since}{filter}"))) {
        for _ in 0..7 {
            pages(api, &format!("/v1/audit?limit=20&{filter}"));
        }
    }
}

fn pages(api: &Api, path: &str) {
    let mut cursor = String::new();
    for _ in 0..3 {
        let page = api.get(&format!("{}&cursor={cursor}", path.trim_end_matches('&'))).unwrap();
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return,
        }
    }
}

/// A life of a job, with everything around it.
fn run_jobs(sandbox: &Sandbox, host: &mut Host, logged: &str) {
    let api = sandbox.api();
    host.disconnect();
    // It says that it has a job that is over: it is told to leave it.
    host.connect(sandbox, &journalling("j", &[logged]));
    assert_eq!(host.take("command.cancel")["job_id"], logged);
    let job = fire(&api, host);
    host.accept(&job);
    host.start(&job, "backup");
    for seq in 0..20 {
        host.log(&job, seq, "a line");
    }
    let last = host.finish(&job, "succeeded", 0);
    host.settled(last);
    over(&api, &job);
    // A line that comes late wakes its job from the ledger.
    let last = host.log(logged, 10, "late");
    host.settled(last);
    let second = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    host.run("check");
    host.disconnect();
    let waiting = backup(&api, &host.id, "docs");
    api.call("POST", &format!("/v1/jobs/{waiting}/cancel"), None, &[]).unwrap().ok().unwrap();
    over(&api, &waiting);
    api.call("DELETE", &format!("/v1/hosts/{}", host.id), None, &[]).unwrap();
    over(&api, &second);
}

/// The agent's cron fires, and then says that it has run by itself what is long gone.
fn fire(api: &Api, host: &mut Host) -> String {
    let body = json!({"cron": "0 0 1 1 *", "source_groups": ["docs"]});
    let schedule = api.post(&format!("/v1/hosts/{}/schedules", host.id), &body).unwrap()["id"].clone();
    let mut told = |hours: i64| {
        let (job, at) = (uuid::Uuid::now_v7().to_string(), chrono::Utc::now() - chrono::TimeDelta::hours(hours));
        let fire = json!({"schedule_id": schedule, "scheduled_at": at.to_rfc3339(), "job_ids": [job]});
        let last = host.say("schedule.fire", fire);
        host.settled(last);
        job
    };
    let (adopted, job) = (told(30), told(0));
    assert_eq!(host.run("backup"), job);
    let last = host.finish(&adopted, "succeeded", 0);
    host.settled(last);
    let runs = api.list(&format!("/v1/hosts/{}/runs", host.id)).unwrap();
    assert_eq!(runs.len(), 4, "two are of the test's own: {runs:?}");
    job
}

/// Reads an operation that was made before a restart and can't begin, ends it, and does it all again.
fn run_operation(api: &Api, id: &str, host: &str) {
    let path = format!("/v1/operations/{id}");
    for filter in ["", "status=queued", "status=failed", &format!("host_id={host}"), "status=cancelled"] {
        for _ in 0..7 {
            pages(api, &format!("{path}/jobs?limit=5&{filter}"));
            pages(api, &format!("/v1/jobs?operation_id={id}&limit=5&{filter}"));
        }
    }
    pages(api, "/v1/operations?limit=1");
    pages(api, &format!("{path}/skipped?limit=5"));
    let cancelled = |path: &str| {
        api.post(&format!("{path}/cancel"), &json!({})).unwrap();
        until(api, &format!("{path}?wait=20"), |found| found["state"] == "cancelled");
    };
    cancelled(&path);
    let retry = api.post(&format!("{path}/retry"), &json!({"outcomes": ["cancelled"]})).unwrap();
    cancelled(&format!("/v1/operations/{}", retry["id"].as_str().unwrap()));
}

/// Waits until all has gone that is older than it is to be kept, but for the newest success of a source group.
fn old_history_is_gone(database: &Database) {
    let old = "SELECT count(*) FROM jobs WHERE created_at < now() - interval '270 days'";
    let logs =
        "SELECT count(*) FROM log_chunks JOIN jobs ON jobs.id = job_id WHERE created_at < now() - interval '265 days'";
    let runs = "SELECT count(*) FROM runs WHERE due_at < now() - interval '270 days'";
    let left = || [old, logs, runs].map(|sql| one(database, sql));
    let gone =
        || if left().iter().all(|left| left == "0") { Ok(()) } else { Err(Failure::new(format!("{:?}", left()))) };
    eventually("old history to be gone", LIMIT, gone).unwrap();
}

/// The one value that a query of the test's own gives.
fn one(database: &Database, sql: &str) -> String {
    database.query(&format!("SET auto_explain.log_min_duration = -1; {sql}")).unwrap()[0][0].clone().unwrap()
}

#[test]
fn no_statement_reads_much_of_a_big_table() {
    let server = Server::start_with(LOG_PLANS).unwrap();
    let mut sandbox = Sandbox::start_on(Database::on(&server).unwrap(), &[]).unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&api, &host.id, "docs", Value::Null);
    let logged = backup(&api, &host.id, "docs");
    host.run("backup");
    host.log(&logged, 0, "a line");
    let last = host.finish(&logged, "succeeded", 0);
    host.settled(last);
    fill(&sandbox.database, &logged);

    let before = server.log().len();
    let operation = json!({"kind": "backup", "source_group": "docs", "selector": {"status": "offline"}, "canaries": 2});
    let operation = api.post("/v1/operations", &operation).unwrap();
    assert_eq!((&operation["counts"]["jobs"], &operation["counts"]["skipped"]), (&json!(OLD_HOSTS - 1), &json!(1)));
    sandbox.restart_with(&[("FLEET_KEEP_JOBS", "270d"), ("FLEET_KEEP_LOGS", "265d")]).unwrap();
    let api = sandbox.api();
    let old = one(&sandbox.database, "SELECT id FROM hosts WHERE hostname = 'old-7'");
    // Before it is compacted.
    let long = one(&sandbox.database, &format!("SELECT job_id FROM log_chunks WHERE first_seq = {CHUNKS}"));
    read_lists(&api, &old);
    read_limited_lists(&api);
    read_audit(&api, &old);
    let log =
        |after: usize| api.call("GET", &format!("/v1/jobs/{long}/logs?after_seq={after}"), None, &[]).unwrap().text;
    assert_eq!((log(0).lines().count(), log(CHUNKS - 5).lines().count()), (CHUNKS, 5));
    api.call("GET", "/metrics", None, &[]).unwrap();
    run_operation(&api, operation["id"].as_str().unwrap(), &old);
    run_jobs(&sandbox, &mut host, &logged);

    old_history_is_gone(&sandbox.database);
    let loose =
        "SELECT count(*) FROM log_chunks JOIN jobs ON jobs.id = job_id WHERE NOT compacted AND outcome <> 'open'
        AND ended_at < now() - interval '1 hour'";
    let compacted = || match one(&sandbox.database, loose).as_str() {
        "0" => Ok(()),
        loose => Err(Failure::new(format!("{loose} loose chunks"))),
    };
    eventually("the long log to be compacted", LIMIT, compacted).unwrap();
    assert_eq!((log(0).lines().count(), log(CHUNKS - 5).lines().count()), (CHUNKS, 5));

    let plans = plans::plans(&server, before);
    let mut touched: HashMap<&str, usize> = HashMap::new();
    let wrong: Vec<String> = plans
        .iter()
        .filter_map(|plan| {
            let (tables, fault) = examine(plan);
            tables.into_iter().for_each(|table| *touched.entry(table).or_default() += 1);
            fault.map(|fault| format!("{fault}: {}", plan.describe()))
        })
        .collect();
    let first = wrong.first().map(String::as_str).unwrap_or_default();
    assert!(wrong.is_empty(), "{} of {} statements: {first}", wrong.len(), plans.len());
    // What was looked at is what was meant.
    assert!(BIG.iter().all(|table| touched.get(table).is_some_and(|count| *count > 20)), "{touched:?}");
}

/// The big tables that a statement reads, and what is wrong with how it does.
fn examine(plan: &Plan) -> (HashSet<&str>, Option<String>) {
    let nodes = plan.nodes();
    let tables = nodes.iter().filter_map(|node| node.table).filter(|table| BIG.contains(table)).collect();
    // It reads a table whole, once for all rows, where its rows look few enough for memory: with what is there now or, in a kept plan,
    // with what was there once. A test's tables would show that by their rows only if they were as large as that.
    if plan.describe().contains("hashed SubPlan") {
        return (tables, Some("a hashed subplan".to_owned()));
    }
    let of_operations = plan.describe().contains("FROM operation_skipped AS one");
    let most = if of_operations { MOST_ROWS_OF_OPERATIONS } else { MOST_ROWS };
    let fault = nodes.iter().find_map(|node| {
        let big = node.table.is_some_and(|table| BIG.contains(&table)) || node.kind == "Sort";
        let all = big && node.kind == "Seq Scan";
        (all || (big && node.rows > most)).then(|| format!("{} of {:?}, {} rows", node.kind, node.table, node.rows))
    });
    (tables, fault)
}
