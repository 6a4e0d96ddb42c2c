//! The audit log: each kind of change and each refusal has its row, no row has a secret, and nobody takes one back.

mod support;

use fleet_integration::{Api, Sandbox};
use serde_json::{Value, json};
use std::thread;
use support::blocker::Blocker;
use support::{Host, ask, client, journalling, until};

const SECRET: &str = "hunter2";

/// What the log says, the oldest first.
fn audit(api: &Api, query: &str) -> Vec<Value> {
    let mut rows = api.list(&format!("/v1/audit?{query}")).unwrap();
    rows.reverse();
    rows
}

/// (method, route, outcome, status) of the latest row.
fn latest(api: &Api) -> (String, String, String, Value) {
    let row = audit(api, "limit=1").pop().expect("a row");
    let text = |field: &str| row[field].as_str().unwrap().to_owned();
    (text("method"), text("route"), text("outcome"), row["status"].clone())
}

#[test]
fn each_kind_of_change_and_refusal_has_its_row_and_no_secret() {
    let sandbox = Sandbox::start().unwrap();
    let admin = sandbox.api();
    let (api, token) = client(&admin, &json!({"name": "alice", "scope": "admin"}));
    let mut secrets = vec![SECRET.to_owned(), sandbox.coordinator.admin_token().to_owned()];
    let mut checked = 0;
    // Does something, which must succeed, and looks for its row.
    let mut change = |method: &str, path: &str, body: Value, route: &str| {
        let reply = ask(&api, method, &format!("/v1/{path}"), &body);
        assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text);
        let rows = audit(&admin, "token=alice");
        checked += 1;
        assert_eq!(rows.len(), checked, "{method} {path}: {rows:?}");
        let row = rows.last().unwrap();
        assert_eq!((&row["method"], &row["route"], &row["outcome"]), (&json!(method), &json!(route), &json!("done")));
        assert_eq!((&row["token"]["id"], &row["status"]), (&json!(token), &Value::Null), "{row}");
        assert_eq!(
            (&row["request_id"], &row["remote_address"]),
            (&json!(reply.header("x-request-id")), &json!("127.0.0.1"))
        );
        let target = row["target"].as_str().unwrap();
        assert!(target.starts_with(path), "{row}");
        if let Some(location) = reply.header("location").filter(|location| !location.contains("source-groups")) {
            assert!(target.ends_with(location.rsplit('/').next().unwrap()), "{row}");
        }
        reply
    };
    let repository = json!({"name": "main", "url": "/srv/main", "password": SECRET, "username": "web",
                            "credential": format!("{SECRET}-credential"), "admin": {"password": SECRET}});
    let repository = change("POST", "repositories", repository, "/v1/repositories").json;
    let repository = repository["id"].as_str().unwrap().to_owned();
    let path = format!("repositories/{repository}");
    change("PATCH", &path, json!({"password": SECRET}), "/v1/repositories/{id}");
    let maintenance = json!({"check": {"cron": "0 4 * * *"}});
    change("PUT", &format!("{path}/maintenance"), maintenance, "/v1/repositories/{id}/maintenance");
    let enrolment =
        change("POST", "enrollment-tokens", json!({"repository_id": repository}), "/v1/enrollment-tokens").json;
    secrets.push(enrolment["token"].as_str().unwrap().to_owned());
    // An agent enrols by itself: nobody's token, but a change.
    let body = json!({"token": enrolment["token"], "hostname": "web-1", "os": "linux", "arch": "amd64"});
    let enrolled = ask(&admin, "POST", "/v1/agent/enroll", &body).ok().unwrap();
    secrets.push(enrolled["agent_token"].as_str().unwrap().to_owned());
    let host = enrolled["host_id"].as_str().unwrap().to_owned();
    let row = audit(&admin, &format!("target={host}")).pop().unwrap();
    assert_eq!((&row["route"], &row["token"]["name"]), (&json!("/v1/agent/enroll"), &Value::Null), "{row}");

    let path = format!("hosts/{host}");
    change("PATCH", &path, json!({"labels": {"site": "ulm"}}), "/v1/hosts/{id}");
    let group = json!({"name": "etc", "includes": ["/etc"], "pre_hook": format!("echo {SECRET}")});
    change("POST", &format!("{path}/source-groups"), group.clone(), "/v1/hosts/{id}/source-groups");
    change("PUT", &format!("{path}/source-groups/etc"), group, "/v1/hosts/{id}/source-groups/{name}");
    let schedule = json!({"cron": "0 3 * * *", "source_groups": ["etc"]});
    let made = change("POST", &format!("{path}/schedules"), schedule.clone(), "/v1/hosts/{id}/schedules").json;
    let of_schedule = format!("{path}/schedules/{}", made["id"].as_str().unwrap());
    change("PUT", &of_schedule, schedule, "/v1/hosts/{id}/schedules/{schedule}");
    change("DELETE", &of_schedule, Value::Null, "/v1/hosts/{id}/schedules/{schedule}");
    change("DELETE", &format!("{path}/source-groups/etc"), Value::Null, "/v1/hosts/{id}/source-groups/{name}");
    for (path, route) in [
        (format!("{path}/pause"), "/v1/hosts/{id}/pause"),
        (format!("repositories/{repository}/pause"), "/v1/repositories/{id}/pause"),
        ("pause".to_owned(), "/v1/pause"),
    ] {
        change("PUT", &path, json!({"reason": "why not"}), route);
        change("DELETE", &path, Value::Null, route);
    }
    let job = change("POST", &format!("{path}/jobs"), json!({"kind": "check"}), "/v1/hosts/{id}/jobs").json;
    let job = format!("jobs/{}", job["id"].as_str().unwrap());
    change("POST", &format!("{job}/cancel"), Value::Null, "/v1/jobs/{id}/cancel");
    let operation = json!({"kind": "check", "selector": {"all": true}});
    let made = change("POST", "operations", operation, "/v1/operations").json;
    let of_operation = format!("operations/{}", made["id"].as_str().unwrap());
    change("POST", &format!("{of_operation}/cancel"), Value::Null, "/v1/operations/{id}/cancel");
    until(&admin, &format!("/v1/{of_operation}"), |operation| operation["ended_at"].is_string());
    let again = json!({"outcomes": ["cancelled"]});
    let made = change("POST", &format!("{of_operation}/retry"), again, "/v1/operations/{id}/retry").json;
    let retried = format!("operations/{}", made["id"].as_str().unwrap());
    change("POST", &format!("{retried}/cancel"), Value::Null, "/v1/operations/{id}/cancel");
    let made = change("POST", "tokens", json!({"name": "bob", "scope": "read"}), "/v1/tokens").json;
    secrets.push(made["token"].as_str().unwrap().to_owned());
    change("DELETE", &format!("tokens/{}", made["id"].as_str().unwrap()), Value::Null, "/v1/tokens/{id}");
    change("DELETE", &path, Value::Null, "/v1/hosts/{id}");
    let channel = json!({"name": "pager", "kind": "webhook", "url": "http://127.0.0.1:9/"});
    let made = change("POST", "notifications/channels", channel, "/v1/notifications/channels").json;
    secrets.push(made["secret"].as_str().unwrap().to_owned());
    let of_channel = format!("notifications/channels/{}", made["id"].as_str().unwrap());
    let route = "/v1/notifications/channels/{id}";
    let patched = change("PATCH", &of_channel, json!({"secret": null}), route).json;
    secrets.push(patched["secret"].as_str().unwrap().to_owned());
    change("POST", &format!("{of_channel}/test"), Value::Null, "/v1/notifications/channels/{id}/test");
    let delivery = api.list(&format!("/v1/{of_channel}/deliveries")).unwrap()[0]["id"].as_str().unwrap().to_owned();
    change(
        "POST",
        &format!("{of_channel}/deliveries/{delivery}/redeliver"),
        Value::Null,
        "/v1/notifications/channels/{id}/deliveries/{delivery}/redeliver",
    );
    change("DELETE", &of_channel, Value::Null, route);
    let spare = change(
        "POST",
        "repositories",
        json!({"name": "spare", "url": "/srv/spare", "password": SECRET}),
        "/v1/repositories",
    )
    .json;
    change("DELETE", &format!("repositories/{}", spare["id"].as_str().unwrap()), Value::Null, "/v1/repositories/{id}");

    // What changed nothing, or was refused.
    let last = |outcome: &str, status: u16| {
        let (_, _, said, with) = latest(&admin);
        assert_eq!((said.as_str(), with), (outcome, json!(status)));
    };
    ask(&api, "POST", &format!("/v1/{job}/cancel"), &Value::Null).ok().unwrap();
    last("unchanged", 202);
    ask(&api, "POST", "/v1/repositories", &json!({"name": "main", "url": "/srv/x", "password": SECRET}));
    last("refused", 409);
    ask(&api, "POST", "/v1/repositories", &json!({"name": 1, "url": SECRET, "password": [SECRET]}));
    last("refused", 422);
    ask(&api, "DELETE", &format!("/v1/tokens/{}", uuid::Uuid::new_v4()), &Value::Null);
    last("refused", 404);
    let reader = admin.post("/v1/tokens", &json!({"name": "reader", "scope": "read"})).unwrap();
    secrets.push(reader["token"].as_str().unwrap().to_owned());
    let reader = api.with_token(reader["token"].as_str().unwrap());
    ask(&reader, "POST", "/v1/operations", &json!({"kind": "check", "selector": {"all": true}}));
    last("refused", 403);
    ask(&reader, "GET", "/v1/audit", &Value::Null);
    last("refused", 403);
    ask(&api.with_token(&format!("rft_{SECRET}")), "DELETE", &format!("/v1/hosts/{host}"), &Value::Null);
    last("refused", 401);
    let row = audit(&admin, "limit=1").pop().unwrap();
    assert_eq!((&row["token"]["name"], &row["target"]), (&Value::Null, &json!("*")), "{row}");
    ask(&api, "POST", "/v1/agent/enroll", &json!({"token": SECRET, "hostname": "x", "os": "linux", "arch": "amd64"}));
    last("refused", 403);

    // Filters, and pages.
    let count = |query: &str| audit(&admin, query).len();
    assert_eq!(count("token=reader"), 2);
    assert_eq!(count(&format!("token={token}&outcome=done")), checked);
    assert_eq!(count("limit=1"), count("limit=500"));
    let times: Vec<String> = audit(&admin, "").iter().map(|row| row["at"].as_str().unwrap().to_owned()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let middle = &times[times.len() / 2];
    assert_eq!(count(&format!("until={middle}")) + count(&format!("since={middle}")), times.len());
    assert_eq!(count(&format!("until={}", times[0])), 0);
    for bad in ["outcome=fine", "since=now", "who=me", "cursor=x"] {
        assert_eq!(ask(&admin, "GET", &format!("/v1/audit?{bad}"), &Value::Null).status, 400, "{bad}");
    }

    let rows = sandbox.database.query("SELECT row_to_json(audit)::text FROM audit").unwrap();
    let rows: String = rows.into_iter().flatten().flatten().collect();
    assert!(rows.contains("alice"));
    for secret in secrets {
        assert!(!rows.contains(&secret), "{secret} is in {rows}");
    }
}

#[test]
fn nobody_takes_a_row_back() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    support::repository(&sandbox);
    for sql in ["UPDATE audit SET target = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
        let refused = sandbox.database.query(sql).expect_err(sql).to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
    assert_eq!(audit(&api, "").len(), 1);
}

#[test]
fn who_reads_on_by_number_misses_nothing() {
    let sandbox = Sandbox::start().unwrap();
    let (api, database) = (sandbox.api(), &sandbox.database);
    sandbox.enroll("web-1", Some(&support::repository(&sandbox))).unwrap();
    // It comes first, and is carried out last: it is written beside the others.
    let blocker = Blocker::hold(database, "LOCK TABLE operations");
    let (seen, operation) = thread::scope(|scope| {
        let body = json!({"kind": "unlock", "selector": {"all": true}});
        let (asked, other) = (api.clone(), api.clone());
        let asked = scope.spawn(move || asked.post("/v1/operations", &body).unwrap());
        Blocker::until_waited_for(database, "operations");
        other.create_repository("second", "/srv/second", "x").unwrap();
        let seen = other.list("/v1/audit?after_seq=0").unwrap();
        blocker.let_go();
        (seen, asked.join().unwrap())
    });
    let seqs: Vec<i64> = seen.iter().map(|row| row["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted() && seqs.len() == 4, "{seen:?}");
    let last = seen.last().unwrap();
    assert_eq!(last["route"], "/v1/repositories");
    let behind = api.list(&format!("/v1/audit?limit=1&after_seq={}", last["seq"])).unwrap();
    assert_eq!(behind.len(), 1, "{behind:?}");
    assert!(behind[0]["target"].as_str().unwrap().ends_with(operation["id"].as_str().unwrap()), "{behind:?}");
    assert!(behind[0]["id"].as_str() < last["id"].as_str(), "it came before what was seen: {behind:?}");
    assert_eq!(api.list("/v1/audit?limit=2&after_seq=0").unwrap().len(), 5, "page by page");

    // Nobody draws a number while another is at it.
    let row = "INSERT INTO audit (id, at, request_id, method, route, target, outcome)
               VALUES (gen_random_uuid(), now(), 'x', 'POST', 'x', 'x', 'done')";
    let blocker = Blocker::hold(database, row);
    thread::scope(|scope| {
        let asked = scope.spawn(|| api.create_repository("third", "/srv/third", "x"));
        Blocker::until_waited_for(database, "INSERT INTO audit");
        blocker.let_go();
        asked.join().unwrap().unwrap();
    });
}

#[test]
fn old_rows_go_when_that_is_wanted() {
    let sandbox = Sandbox::start_with(&[("FLEET_KEEP_AUDIT", "1h")]).unwrap();
    let api = sandbox.api();
    // As a coordinator wrote them long ago, and one of now.
    let rows = "INSERT INTO audit (id, at, request_id, method, route, target, outcome)
                SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'epoch', 'x', 'POST', 'x', 'x', 'done'
                FROM generate_series(1, 500) AS n";
    sandbox.database.query(rows).unwrap();
    support::repository(&sandbox);
    until(&api, "/v1/audit?limit=500", |log| log["items"].as_array().unwrap().len() == 1);
    let left = sandbox.database.query("SELECT count(*) FROM audit").unwrap();
    assert_eq!(left[0][0].as_deref(), Some("1"));
}

#[test]
fn a_change_and_its_row_are_one() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = support::repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &journalling("j", &[]));
    // A row that can't be written takes its change with it.
    let broken = "ALTER TABLE audit ADD CONSTRAINT broken CHECK (route NOT LIKE '%/jobs' AND route <> '/v1/tokens')";
    sandbox.database.query(broken).unwrap();
    let refused = ask(&api, "POST", "/v1/tokens", &json!({"name": "x", "scope": "read"}));
    assert_eq!(refused.status, 500, "{}", refused.text);
    let refused = ask(&api, "POST", &format!("/v1/hosts/{}/jobs", host.id), &json!({"kind": "check"}));
    assert_eq!(refused.status, 500, "{}", refused.text);
    sandbox.database.query("ALTER TABLE audit DROP CONSTRAINT broken").unwrap();
    let count = |table: &str| sandbox.database.query(&format!("SELECT count(*) FROM {table}")).unwrap()[0][0].clone();
    assert_eq!(count("api_tokens").as_deref(), Some("0"));
    assert_eq!(api.list("/v1/jobs?kind=check").unwrap().len(), 0);
    // And everything works on.
    let job = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    assert_eq!(host.run("check"), job);
    assert_eq!(audit(&api, &format!("target={job}")).len(), 1);
}
