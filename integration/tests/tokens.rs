//! Tokens: what each scope opens, what a limit by labels hides, and that a token which is not good any more opens nothing, nor
//! goes on with what it had open.

mod support;

use fleet_integration::{Api, Sandbox};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use support::{Host, ask, client, group, journalling, labelled, repository, until};

/// Every route, and who may use it: r(ead), o(perate), a(dmin).
const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "hosts", "roa"),
    ("GET", "hosts/ID", "roa"),
    ("PATCH", "hosts/ID", "a"),
    ("DELETE", "hosts/ID", "a"),
    ("POST", "hosts/ID/jobs", "oa"),
    ("GET", "hosts/ID/runs", "roa"),
    ("GET", "hosts/ID/snapshots", "roa"),
    ("GET", "hosts/ID/pause", "roa"),
    ("PUT", "hosts/ID/pause", "oa"),
    ("DELETE", "hosts/ID/pause", "oa"),
    ("GET", "hosts/ID/source-groups", "roa"),
    ("POST", "hosts/ID/source-groups", "a"),
    ("GET", "hosts/ID/source-groups/x", "roa"),
    ("PUT", "hosts/ID/source-groups/x", "a"),
    ("DELETE", "hosts/ID/source-groups/x", "a"),
    ("GET", "hosts/ID/schedules", "roa"),
    ("POST", "hosts/ID/schedules", "a"),
    ("GET", "hosts/ID/schedules/ID", "roa"),
    ("PUT", "hosts/ID/schedules/ID", "a"),
    ("DELETE", "hosts/ID/schedules/ID", "a"),
    ("GET", "jobs", "roa"),
    ("GET", "jobs/ID", "roa"),
    ("GET", "jobs/ID/logs", "roa"),
    ("POST", "jobs/ID/cancel", "oa"),
    ("POST", "jobs/ID/release", "oa"),
    ("GET", "operations", "roa"),
    ("POST", "operations", "oa"),
    ("GET", "operations/ID", "roa"),
    ("GET", "operations/ID/jobs", "roa"),
    ("GET", "operations/ID/skipped", "roa"),
    ("POST", "operations/ID/cancel", "oa"),
    ("POST", "operations/ID/retry", "oa"),
    ("GET", "repositories", "roa"),
    ("POST", "repositories", "a"),
    ("GET", "repositories/ID", "roa"),
    ("PATCH", "repositories/ID", "a"),
    ("DELETE", "repositories/ID", "a"),
    ("GET", "repositories/ID/stats", "roa"),
    ("GET", "repositories/ID/runs", "roa"),
    ("GET", "repositories/ID/maintenance", "roa"),
    ("PUT", "repositories/ID/maintenance", "a"),
    ("GET", "repositories/ID/pause", "roa"),
    ("PUT", "repositories/ID/pause", "oa"),
    ("DELETE", "repositories/ID/pause", "oa"),
    ("GET", "pause", "roa"),
    ("PUT", "pause", "oa"),
    ("DELETE", "pause", "oa"),
    ("GET", "pauses", "roa"),
    ("GET", "overdue", "roa"),
    ("GET", "fleet", "roa"),
    ("PUT", "fleet", "a"),
    ("GET", "runs?host_id=ID", "roa"),
    ("GET", "snapshots?host_id=ID", "roa"),
    ("GET", "agent-release", "roa"),
    ("PUT", "agent-release", "a"),
    ("POST", "enrollment-tokens", "a"),
    ("POST", "tokens", "a"),
    ("GET", "tokens", "a"),
    ("GET", "tokens/ID", "a"),
    ("DELETE", "tokens/ID", "a"),
    ("GET", "audit", "a"),
    ("POST", "notifications/channels", "a"),
    ("GET", "notifications/channels", "a"),
    ("GET", "notifications/channels/ID", "a"),
    ("PATCH", "notifications/channels/ID", "a"),
    ("DELETE", "notifications/channels/ID", "a"),
    ("POST", "notifications/channels/ID/test", "a"),
    ("GET", "notifications/channels/ID/deliveries", "a"),
    ("GET", "notifications/channels/ID/deliveries/ID", "a"),
    ("POST", "notifications/channels/ID/deliveries/ID/redeliver", "a"),
];

#[test]
fn each_scope_opens_its_routes_and_no_other() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let nobody = uuid::Uuid::new_v4().to_string();
    for scope in ["read", "operate", "admin"] {
        let (client, _) = client(&api, &json!({"name": format!("the {scope}"), "scope": scope}));
        for (method, path, allowed) in ROUTES {
            // An unknown field: whoever may change something is told what is wrong.
            let body = if *method == "GET" { Value::Null } else { json!({"nothing like that": true}) };
            // The dots and the escapes of a path are read as the router reads them.
            for path in [format!("/v1/{path}"), format!("/v1/{}", path.replacen('s', "%73", 1))] {
                let path = path.replace("ID", &nobody);
                let reply = ask(&client, method, &path, &body);
                let expected = allowed.contains(&scope[..1]);
                assert_eq!(reply.status != 403, expected, "{scope} {method} {path}: {}", reply.text);
                assert!(
                    reply.status < 500 && reply.status != 401 && reply.status != 405,
                    "{method} {path}: {}",
                    reply.text
                );
                if !expected {
                    assert_eq!(reply.json["type"], "/problems/forbidden", "{}", reply.text);
                }
            }
        }
    }
    // What nobody has thought of yet is closed.
    let (reader, _) = client(&api, &json!({"name": "reader", "scope": "read"}));
    assert_eq!(ask(&reader, "GET", "/v1/something-new", &Value::Null).status, 403);
}

#[test]
fn a_token_is_shown_once_and_told_apart_by_its_name() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let made = api.post("/v1/tokens", &json!({"name": "nightly", "scope": "operate", "ttl_seconds": 3600})).unwrap();
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert!(token.starts_with("rft_") && token.len() == 68, "{made}");
    assert_eq!((&made["created_by"], &made["last_used_at"]), (&json!("admin"), &Value::Null));
    assert_eq!(ask(&api, "POST", "/v1/tokens", &json!({"name": "nightly", "scope": "read"})).status, 409);
    for bad in [
        json!({"name": "agent", "scope": "read"}),
        json!({"name": "admin", "scope": "read"}),
        json!({"name": "x", "scope": "root"}),
        json!({"name": "x", "scope": "read", "ttl_seconds": 0}),
        json!({"name": "x", "scope": "read", "host_labels": {}}),
        json!({"name": "x", "scope": "admin", "host_labels": {"site": "ulm"}}),
    ] {
        assert_eq!(ask(&api, "POST", "/v1/tokens", &bad).status, 422, "{bad}");
    }

    let client = api.with_token(token);
    let repository = repository(&sandbox);
    let (host, _) = sandbox.enroll("web-1", Some(&repository)).unwrap();
    let job = client.run_job(&host, &json!({"kind": "check"})).unwrap();
    assert_eq!(client.job(&job).unwrap()["requested_by"], "nightly");
    let operation = json!({"kind": "check", "selector": {"all": true}});
    assert_eq!(client.post("/v1/operations", &operation).unwrap()["requested_by"], "nightly");
    let paused = ask(&client, "PUT", "/v1/pause", &json!({"reason": "moving house"})).ok().unwrap();
    assert_eq!(paused["by"], "nightly", "{paused}");

    let path = format!("/v1/tokens/{id}");
    let read = api.get(&path).unwrap();
    assert!(read["last_used_at"].is_string() && read["expires_at"].is_string(), "{read}");
    let all = api.get("/v1/tokens").unwrap().to_string() + &read.to_string();
    assert!(!all.contains(token), "shown again");
    assert_eq!(ask(&api, "DELETE", &path, &Value::Null).status, 204);
    assert_eq!(ask(&api, "DELETE", &path, &Value::Null).status, 404);
    assert_eq!(ask(&api, "GET", &path, &Value::Null).status, 404);
    assert_eq!(api.list("/v1/tokens").unwrap().len(), 0);
    assert_eq!(ask(&client, "GET", "/v1/hosts", &Value::Null).status, 401);
    // Its name is free again, and a restart knows who is good.
    let (again, _) = support::client(&api, &json!({"name": "nightly", "scope": "read"}));
    let mut sandbox = sandbox;
    let address = sandbox.coordinator.address().to_owned();
    sandbox.take_down();
    sandbox.bring_back().unwrap();
    assert_eq!(sandbox.coordinator.address(), address);
    assert_eq!(ask(&again, "GET", "/v1/hosts", &Value::Null).status, 200);
    assert_eq!(ask(&client, "GET", "/v1/hosts", &Value::Null).status, 401);
}

/// The ids in a list, sorted.
fn ids(api: &Api, path: &str) -> Vec<String> {
    let items = api.list(path).unwrap();
    let id = |item: &Value| item["id"].as_str().or(item["host_id"].as_str()).unwrap_or_default().to_owned();
    let mut ids: Vec<String> = items.iter().map(id).collect();
    ids.sort();
    ids
}

#[test]
fn a_token_that_is_limited_sees_and_touches_its_hosts_only() {
    let sandbox = Sandbox::start().unwrap();
    let admin = sandbox.api();
    let [own, shared, foreign] =
        ["own", "shared", "foreign"].map(|name| admin.create_repository(name, &format!("/srv/{name}"), "x").unwrap());
    let ulm = json!({"site": "ulm", "tier": "1"});
    let mine = labelled(&sandbox, "mine", &own, ulm.clone());
    let mine_shared = labelled(&sandbox, "mine-shared", &shared, ulm);
    let other_shared = labelled(&sandbox, "other-shared", &shared, json!({"site": "bonn"}));
    let other = labelled(&sandbox, "other", &foreign, json!({"site": "bonn", "tier": "1"}));
    let unlock = json!({"kind": "unlock"});
    let jobs: Vec<String> =
        [&mine, &mine_shared, &other_shared, &other].iter().map(|host| admin.run_job(host, &unlock).unwrap()).collect();
    let of_all = admin.post("/v1/operations", &json!({"kind": "unlock", "selector": {"all": true}})).unwrap();
    let of_other = admin.post("/v1/operations", &json!({"kind": "unlock", "selector": {"ids": [other]}})).unwrap();
    let pause = json!({"reason": "x"});
    for path in [format!("hosts/{other}"), format!("hosts/{mine}"), format!("repositories/{foreign}")] {
        ask(&admin, "PUT", &format!("/v1/{path}/pause"), &pause).ok().unwrap();
    }
    let limit = json!({"site": "ulm", "tier": "1"});
    let (limited, _) = client(&admin, &json!({"name": "ulm", "scope": "operate", "host_labels": limit}));
    let status = |method: &str, path: &str, body: &Value| ask(&limited, method, &format!("/v1/{path}"), body).status;
    let get = |path: &str| status("GET", path, &Value::Null);
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };

    // Lists.
    assert_eq!(ids(&limited, "/v1/hosts"), sorted(vec![mine.clone(), mine_shared.clone()]));
    assert_eq!(ids(&limited, "/v1/hosts?label=site%3Dbonn"), Vec::<String>::new());
    assert_eq!(ids(&limited, "/v1/repositories"), sorted(vec![own.clone(), shared.clone()]));
    let seen: Vec<Value> = limited.list("/v1/jobs?limit=1").unwrap();
    assert_eq!(seen.len(), 4, "two jobs, and two of the operation: {seen:?}");
    assert!(seen.iter().all(|job| job["host_id"] == mine.as_str() || job["host_id"] == mine_shared.as_str()));
    assert_eq!(limited.list("/v1/jobs?kind=unlock&status=queued").unwrap().len(), 4);
    assert_eq!(limited.list("/v1/jobs?kind=backup").unwrap().len(), 0);
    assert_eq!(limited.list(&format!("/v1/jobs?host_id={other}")).unwrap().len(), 0);
    assert_eq!(ids(&limited, "/v1/operations"), [of_all["id"].as_str().unwrap()]);
    let pauses = limited.list("/v1/pauses").unwrap();
    assert_eq!(pauses.iter().map(|pause| &pause["host_id"]).collect::<Vec<_>>(), [mine.as_str()]);
    assert_eq!(limited.list("/v1/overdue").unwrap().len(), 0);

    // Single things.
    for (path, expected) in [
        (format!("hosts/{mine}"), 200),
        (format!("hosts/{other}"), 404),
        (format!("hosts/{other}/source-groups"), 404),
        (format!("jobs/{}", jobs[0]), 200),
        (format!("jobs/{}", jobs[3]), 404),
        (format!("jobs/{}/logs", jobs[0]), 200),
        (format!("jobs/{}/logs", jobs[3]), 404),
        (format!("repositories/{own}"), 200),
        (format!("repositories/{shared}/stats"), 200),
        (format!("repositories/{foreign}"), 404),
        (format!("operations/{}", of_all["id"].as_str().unwrap()), 200),
        (format!("operations/{}", of_other["id"].as_str().unwrap()), 404),
        ("hosts/no-id".to_owned(), 404),
    ] {
        assert_eq!(get(&path), expected, "{path}");
    }
    let path = format!("/v1/operations/{}", of_all["id"].as_str().unwrap());
    let operation = limited.get(&path).unwrap();
    assert_eq!((&operation["counts"]["jobs"], &operation["counts"]["queued"]), (&json!(2), &json!(2)), "{operation}");
    assert_eq!(limited.list(&format!("{path}/jobs")).unwrap().len(), 2);

    // What it touches.
    let none = Value::Null;
    assert_eq!(status("POST", &format!("hosts/{other}/jobs"), &unlock), 404);
    assert_eq!(status("POST", &format!("jobs/{}/cancel", jobs[3]), &none), 404);
    assert_eq!(admin.job(&jobs[3]).unwrap()["cancel_requested_at"], none);
    assert_eq!(status("PUT", &format!("hosts/{other}/pause"), &pause), 404);
    assert_eq!(status("DELETE", &format!("repositories/{foreign}/pause"), &none), 404);
    assert_eq!(status("PUT", &format!("repositories/{shared}/pause"), &pause), 403);
    assert_eq!(status("PUT", "pause", &pause), 403);
    assert_eq!(status("POST", &format!("operations/{}/cancel", of_all["id"].as_str().unwrap()), &none), 403);
    for kind in ["prune", "check"] {
        assert_eq!(status("POST", &format!("hosts/{mine_shared}/jobs"), &json!({"kind": kind})), 403, "{kind}");
        assert_eq!(status("POST", "operations", &json!({"kind": kind, "selector": {"all": true}})), 403, "{kind}");
    }
    assert_eq!(status("POST", &format!("hosts/{mine}/jobs"), &json!({"kind": "check"})), 202);
    assert_eq!(status("POST", &format!("jobs/{}/cancel", jobs[0]), &none), 202);
    assert_eq!(status("PUT", &format!("repositories/{own}/pause"), &pause), 200);
    // What was done for a whole repository is nobody's to end who may not touch all of its hosts, wherever it runs.
    let check = admin.run_job(&mine_shared, &json!({"kind": "check"})).unwrap();
    for what in ["cancel", "release"] {
        assert_eq!(status("POST", &format!("jobs/{check}/{what}"), &none), 403, "{what}");
    }
    assert_eq!(get(&format!("jobs/{check}")), 200);
    let checks = json!({"kind": "check", "selector": {"ids": [mine_shared]}});
    let checks = admin.post("/v1/operations", &checks).unwrap();
    assert_eq!(status("POST", &format!("operations/{}/cancel", checks["id"].as_str().unwrap()), &none), 403);
    let own_check = admin.run_job(&mine, &json!({"kind": "check"})).unwrap();
    assert_eq!(status("POST", &format!("jobs/{own_check}/cancel"), &none), 202);
    let all = json!({"kind": "unlock", "selector": {"all": true}});
    assert_eq!(limited.post("/v1/operations", &all).unwrap()["counts"]["jobs"], 2);
    let others = json!({"kind": "unlock", "selector": {"labels": {"site": "bonn"}}});
    assert_eq!(status("POST", "operations", &others), 403);
    let by_id = json!({"kind": "unlock", "selector": {"ids": [other]}});
    assert_eq!(status("POST", "operations", &by_id), 409, "nobody would run it");
}

#[test]
fn a_token_that_is_limited_hears_nothing_of_others() {
    let sandbox = Sandbox::start().unwrap();
    let (admin, shared) = (sandbox.api(), repository(&sandbox));
    let mut other = Host::ready_as(&sandbox, "other", &shared, &journalling("j", &[]));
    let mut mine = Host::ready_as(&sandbox, "mine", &shared, &journalling("k", &[]));
    let label = json!({"labels": {"site": "ulm"}});
    ask(&admin, "PATCH", &format!("/v1/hosts/{}", mine.id), &label).ok().unwrap();
    let (limited, _) = client(&admin, &json!({"name": "ulm", "scope": "operate", "host_labels": {"site": "ulm"}}));
    let check = admin.run_job(&other.id, &json!({"kind": "check"})).unwrap();
    assert_eq!(other.run("check"), check);
    group(&admin, &mine.id, "docs", Value::Null);
    let backup = json!({"kind": "backup", "source_group": "docs"});
    let made = limited.post(&format!("/v1/hosts/{}/jobs", mine.id), &backup).unwrap();
    let path = format!("/v1/jobs/{}", made["id"].as_str().unwrap());
    let listed = limited.get("/v1/jobs?kind=backup").unwrap()["items"][0].clone();
    for seen in [made, limited.get(&path).unwrap(), listed] {
        assert_eq!(seen["waiting_for"], "repository is in use: a check job of another host", "{seen}");
    }
    let whole = admin.get(&path).unwrap()["waiting_for"].as_str().unwrap().to_owned();
    assert!(whole.contains(&other.id) && whole.contains(&check), "{whole}");
    let last = other.finish(&check, "succeeded", 0);
    other.settled(last);
    assert_eq!(mine.run("backup"), path.rsplit('/').next().unwrap());
}

/// A job with a log of 16 MiB, and its host.
fn with_long_log(sandbox: &Sandbox) -> (Host, String) {
    let mut host = Host::ready_as(sandbox, "web-1", &repository(sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let job = support::backup(&sandbox.api(), &host.id, "docs");
    host.run("backup");
    host.start(&job, "backup");
    let line = "x".repeat(1024 * 1024);
    let last = (0..16).map(|seq| host.log(&job, seq, &line)).last().unwrap();
    host.settled(last);
    (host, job)
}

/// Asks for `path` and reads the answer's first bytes.
fn open(sandbox: &Sandbox, token: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(sandbox.coordinator.address()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut first = [0; 64];
    stream.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&first));
    stream
}

/// The rest of an answer, however it ends.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest); // it may be reset
    rest
}

/// How a chunked body ends that is whole.
const END: &[u8] = b"\r\n0\r\n\r\n";

#[test]
fn what_is_open_ends_when_its_token_is_revoked() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (_host, job) = with_long_log(&sandbox);
    let made = api.post("/v1/tokens", &json!({"name": "reader", "scope": "read"})).unwrap();
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    let waiting = api.with_token(token);
    let path = format!("/v1/jobs/{job}?wait=60");
    let waiting = thread::spawn(move || waiting.call("GET", &path, None, &[]).unwrap());
    // The first that the token is used for.
    until(&api, &format!("/v1/tokens/{id}"), |token| token["last_used_at"].is_string());
    let logs = format!("/v1/jobs/{job}/logs");
    let whole = rest(open(&sandbox, sandbox.coordinator.admin_token(), &logs));
    assert!(whole.len() > 16 << 20 && whole.ends_with(END), "{} bytes", whole.len());
    let stream = open(&sandbox, token, &logs);
    assert_eq!(ask(&api, "DELETE", &format!("/v1/tokens/{id}"), &Value::Null).status, 204);
    let broken = rest(stream);
    assert!(broken.len() < 16 << 20 && !broken.ends_with(END), "{} bytes", broken.len());
    let waited = waiting.join().unwrap();
    assert_eq!((waited.status, &waited.json["type"]), (401, &json!("/problems/unauthorized")), "{}", waited.text);
}

#[test]
fn a_wait_ends_when_its_token_expires() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (host, _) = sandbox.enroll("web-1", Some(&repository(&sandbox))).unwrap();
    let job = api.run_job(&host, &json!({"kind": "check"})).unwrap();
    let (client, _) = client(&api, &json!({"name": "brief", "scope": "read", "ttl_seconds": 2}));
    let waited = ask(&client, "GET", &format!("/v1/jobs/{job}?wait=60"), &Value::Null);
    assert_eq!(waited.status, 401, "{}", waited.text);
    assert_eq!(ask(&client, "GET", "/v1/hosts", &Value::Null).status, 401);
    // The name of a token that has expired is free.
    client_again(&api);
}

/// A change whose body is only half sent, and the rest of that.
struct HalfSent {
    stream: TcpStream,
    rest: String,
}

impl HalfSent {
    /// Sends the head and half of the body, and waits until the coordinator has seen the token.
    fn begin(sandbox: &Sandbox, (token, id): (&str, &str), path: &str, headers: &str, body: &Value) -> Self {
        let body = body.to_string();
        let (first, rest) = body.split_at(body.len() / 2);
        let mut stream = TcpStream::connect(sandbox.coordinator.address()).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n{headers}\
             Content-Length: {}\r\n\r\n{first}",
            body.len()
        )
        .unwrap();
        until(&sandbox.api(), &format!("/v1/tokens/{id}"), |token| token["last_used_at"].is_string());
        Self { stream, rest: rest.to_owned() }
    }

    /// Sends the rest and gives the status of the answer.
    fn end(mut self) -> u16 {
        let _ = self.stream.write_all(self.rest.as_bytes()); // the answer may have come already
        let answer = String::from_utf8(rest(self.stream)).unwrap();
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
    }
}

#[test]
fn a_request_is_judged_when_it_is_there_whole() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let host = labelled(&sandbox, "web-1", &repository(&sandbox), json!({"site": "ulm"}));
    let path = format!("/v1/hosts/{host}/jobs");
    let token = |name: &str, more: &Value| {
        let mut token = json!({"name": name, "scope": "operate"});
        token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = api.post("/v1/tokens", &token).unwrap();
        ["token", "id"].map(|field| made[field].as_str().unwrap().to_owned())
    };
    for (name, headers) in [("plain", ""), ("keyed", "Idempotency-Key: a\r\n")] {
        let [token, id] = token(name, &json!({}));
        let body = json!({"kind": "unlock", "args": []});
        let sent = HalfSent::begin(&sandbox, (&token, &id), &path, headers, &body);
        assert_eq!(ask(&api, "DELETE", &format!("/v1/tokens/{id}"), &Value::Null).status, 204);
        assert_eq!(sent.end(), 401, "{name}");
    }
    // The host is not among those of the token any more.
    let [limited, id] = token("limited", &json!({"host_labels": {"site": "ulm"}}));
    let sent = HalfSent::begin(&sandbox, (&limited, &id), &path, "", &json!({"kind": "unlock"}));
    ask(&api, "PATCH", &format!("/v1/hosts/{host}"), &json!({"labels": {"site": "bonn"}})).ok().unwrap();
    assert_eq!(sent.end(), 404);
    assert_eq!(api.list("/v1/jobs?kind=unlock").unwrap().len(), 0);
    // And one that is good all the time.
    let [good, id] = token("good", &json!({}));
    assert_eq!(HalfSent::begin(&sandbox, (&good, &id), &path, "", &json!({"kind": "unlock"})).end(), 202);
}

fn client_again(api: &Api) {
    let (client, _) = client(api, &json!({"name": "brief", "scope": "read"}));
    assert_eq!(ask(&client, "GET", "/v1/hosts", &Value::Null).status, 200);
}
