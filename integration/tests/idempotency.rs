//! `Idempotency-Key`: what is asked again is not done again, whoever asks at once, and wherever the coordinator was killed.

mod support;

use fleet_integration::{Api, Failure, Sandbox};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{ask, client, keyed, repository, until};

/// A host without an agent, and the path where its jobs are asked for.
fn host(sandbox: &Sandbox) -> String {
    let (host, _) = sandbox.enroll("web-1", Some(&repository(sandbox))).unwrap();
    format!("/v1/hosts/{host}/jobs")
}

#[test]
fn many_clients_at_once_get_one_job_and_one_answer() {
    let sandbox = Sandbox::start().unwrap();
    let (api, path) = (sandbox.api(), host(&sandbox));
    for round in 0..5 {
        let body = json!({"kind": "unlock"});
        let key = format!("round-{round}");
        let ask = || loop {
            let reply = keyed(&api, &path, &body, &key);
            if reply.json["type"] != "/problems/in-progress" {
                return (reply.status, reply.header("location").map(str::to_owned), reply.text);
            }
            assert_eq!((reply.status, reply.header("retry-after")), (409, Some("1")), "{}", reply.text);
        };
        let answers: Vec<_> = thread::scope(|scope| {
            let clients: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(answers[0].0, 202, "{answers:?}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert_eq!(api.list("/v1/jobs?kind=unlock").unwrap().len(), round + 1);
    }
}

#[test]
fn a_key_is_for_one_request_of_one_token_at_one_address() {
    let sandbox = Sandbox::start().unwrap();
    let (api, path) = (sandbox.api(), host(&sandbox));
    let unlock = json!({"kind": "unlock"});
    let first = keyed(&api, &path, &unlock, "a");
    assert_eq!(first.status, 202);
    let reused = keyed(&api, &path, &json!({"kind": "check"}), "a");
    assert_eq!((reused.status, &reused.json["type"]), (422, &json!("/problems/idempotency-key-reused")));
    for bad in ["", "a b", &"x".repeat(256)] {
        assert_eq!(keyed(&api, &path, &unlock, bad).status, 400, "{bad:?}");
    }
    assert_eq!(keyed(&api, &path, &unlock, &"x".repeat(255)).status, 202);
    // Another token, another address, another key.
    let (other, _) = client(&api, &json!({"name": "other", "scope": "operate"}));
    let (second, _) = sandbox.enroll("web-2", Some(&api.create_repository("second", "/srv/2", "x").unwrap())).unwrap();
    let elsewhere = format!("/v1/hosts/{second}/jobs");
    let replies =
        [keyed(&other, &path, &unlock, "a"), keyed(&api, &elsewhere, &unlock, "a"), keyed(&api, &path, &unlock, "b")];
    let mut ids: Vec<&str> = replies.iter().map(|reply| reply.json["id"].as_str().unwrap()).collect();
    ids.push(first.json["id"].as_str().unwrap());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    // A refusal is an answer too; what a key says is not changed by a GET.
    let conflict = json!({"name": "main", "url": "/srv/x", "password": "x"});
    let refused = keyed(&api, "/v1/repositories", &conflict, "c");
    assert_eq!(refused.status, 409);
    let again = keyed(&api, "/v1/repositories", &conflict, "c");
    assert_eq!((again.status, again.text), (409, refused.text));
}

#[test]
fn an_answer_is_kept_for_a_day() {
    let sandbox = Sandbox::start().unwrap();
    let (api, path) = (sandbox.api(), host(&sandbox));
    let unlock = json!({"kind": "unlock"});
    let first = keyed(&api, &path, &unlock, "a");
    answers_are_kept(&sandbox);
    assert_eq!(keyed(&api, &path, &unlock, "a").text, first.text);
    let age = |hours: &str| {
        let sql = format!("UPDATE idempotency_keys SET claimed_at = claimed_at - interval '{hours}'");
        sandbox.database.query(&sql).unwrap();
    };
    age("23 hours");
    assert_eq!(keyed(&api, &path, &unlock, "a").text, first.text);
    age("1 hour");
    let second = keyed(&api, &path, &unlock, "a");
    assert_eq!(second.status, 202);
    assert_ne!(second.json["id"], first.json["id"]);
    assert_eq!(keyed(&api, &path, &unlock, "a").text, second.text);
}

/// Waits until every answer is in the ledger.
fn answers_are_kept(sandbox: &Sandbox) {
    let open = || {
        let open = sandbox.database.query("SELECT count(*) FROM idempotency_keys WHERE answer IS NULL").unwrap();
        match open[0][0].as_deref() {
            Some("0") => Ok(()),
            count => Err(Failure::new(format!("{count:?} without an answer"))),
        }
    };
    fleet_integration::eventually("the answers", support::LIMIT, open).unwrap();
}

/// Rows of all tables in which a POST makes something.
fn made(sandbox: &Sandbox) -> HashMap<&'static str, String> {
    let tables = [
        "jobs",
        "operations",
        "repositories",
        "api_tokens",
        "enrollment_tokens",
        "hosts",
        "schedules",
        "source_groups",
    ];
    let count =
        |table| sandbox.database.query(&format!("SELECT count(*) FROM {table}")).unwrap()[0][0].clone().unwrap();
    tables.into_iter().map(|table| (table, count(table))).collect()
}

/// What of an answer must be the same whenever it is given; jobs and operations go on meanwhile.
fn lasting(reply: &Value) -> Value {
    let fields = ["id", "token", "expires_at", "created_at", "name", "host_id", "agent_token", "kind", "requested_by"];
    fields.iter().map(|field| (*field, reply[*field].clone())).collect::<HashMap<_, _>>().into_iter().collect()
}

#[test]
fn a_crash_before_the_answer_is_kept_makes_nothing_twice() {
    let mut sandbox = Sandbox::start().unwrap();
    let admin = sandbox.api();
    let repository = repository(&sandbox);
    let (host, _) = sandbox.enroll("web-1", Some(&repository)).unwrap();
    admin.create_source_group(&host, &json!({"name": "etc", "includes": ["/etc"]})).unwrap();
    let enrolment = admin.enrollment_token(Some(&repository)).unwrap();
    let (api, _) = client(&admin, &json!({"name": "robot", "scope": "admin"}));
    let job = api.run_job(&host, &json!({"kind": "check"})).unwrap();
    let ended = api.post("/v1/operations", &json!({"kind": "unlock", "selector": {"all": true}})).unwrap();
    let ended = format!("/v1/operations/{}", ended["id"].as_str().unwrap());
    api.post(&format!("{ended}/cancel"), &json!({})).unwrap();
    until(&api, &ended, |operation| operation["ended_at"].is_string());
    let enroll = json!({"token": enrolment, "hostname": "web-2", "os": "linux", "arch": "amd64"});
    let requests = [
        (format!("/v1/hosts/{host}/jobs"), json!({"kind": "unlock"})),
        (format!("/v1/hosts/{host}/source-groups"), json!({"name": "srv", "includes": ["/srv"]})),
        (format!("/v1/hosts/{host}/schedules"), json!({"cron": "0 3 * * *", "source_groups": ["etc"]})),
        (format!("/v1/jobs/{job}/cancel"), json!({})),
        ("/v1/operations".to_owned(), json!({"kind": "unlock", "selector": {"all": true}})),
        (format!("{ended}/retry"), json!({"outcomes": ["cancelled"]})),
        ("/v1/repositories".to_owned(), json!({"name": "new", "url": "/srv/new", "password": "a secret"})),
        ("/v1/enrollment-tokens".to_owned(), json!({"repository_id": repository})),
        ("/v1/tokens".to_owned(), json!({"name": "new", "scope": "read", "ttl_seconds": 3600})),
        ("/v1/agent/enroll".to_owned(), enroll),
    ];
    let ask_all = |api: &Api| -> Vec<_> {
        let ask = |(path, body): &(String, Value)| {
            let reply = keyed(api, path, body, "the-key");
            assert!((200..300).contains(&reply.status), "{path}: {}", reply.text);
            (reply.status, reply.header("location").map(str::to_owned), reply.json)
        };
        requests.iter().map(ask).collect()
    };
    let first = ask_all(&api);
    let there = made(&sandbox);
    answers_are_kept(&sandbox);
    assert_eq!(ask_all(&api), first, "as they were");
    let secret = first[8].2["token"].as_str().unwrap();
    let dump = sandbox
        .database
        .query("SELECT row_to_json(k)::text, encode(answer, 'escape') FROM idempotency_keys k")
        .unwrap();
    assert!(!format!("{dump:?}").contains(secret), "a secret in clear");

    // As if it had been killed between each commit and the keeping of the answer.
    sandbox.take_down();
    sandbox.database.query("UPDATE idempotency_keys SET answer = NULL").unwrap();
    sandbox.bring_back().unwrap();
    let again = ask_all(&api);
    for (before, after) in first.iter().zip(&again) {
        assert_eq!((before.0, &before.1, lasting(&before.2)), (after.0, &after.1, lasting(&after.2)));
    }
    assert_eq!(made(&sandbox), there);
    // And once more, from what is kept.
    assert_eq!(ask_all(&api), again);
    assert_eq!(made(&sandbox), there);
    let reader = api.with_token(secret);
    assert_eq!(ask(&reader, "GET", "/v1/hosts", &Value::Null).status, 200, "the token that was told works");
}

#[test]
fn what_was_changed_or_deleted_since_stays_so() {
    let mut sandbox = Sandbox::start().unwrap();
    let admin = sandbox.api();
    let (host, _) = sandbox.enroll("web-1", Some(&repository(&sandbox))).unwrap();
    let (api, _) = client(&admin, &json!({"name": "robot", "scope": "admin"}));
    let of_host = |what: &str| format!("/v1/hosts/{host}/{what}");
    let group = |name: &str| json!({"name": name, "includes": [format!("/{name}")]});
    let named = |name: &str| json!({"name": name, "url": format!("/srv/{name}"), "password": "x", "max_backups": 1});
    let schedule = |hour: u8| json!({"cron": format!("0 {hour} * * *"), "source_groups": ["etc"]});
    let requests = [
        (of_host("source-groups"), group("etc")),
        (of_host("source-groups"), group("srv")),
        (of_host("schedules"), schedule(3)),
        (of_host("schedules"), schedule(4)),
        ("/v1/repositories".to_owned(), named("a")),
        ("/v1/repositories".to_owned(), named("b")),
    ];
    let ask_all = |api: &Api| -> Vec<_> {
        let ask = |(number, (path, body)): (usize, &(String, Value))| keyed(api, path, body, &format!("key-{number}"));
        requests.iter().enumerate().map(ask).collect()
    };
    let first = ask_all(&api);
    let paths: Vec<String> = first.iter().map(|reply| reply.header("location").unwrap().to_owned()).collect();
    answers_are_kept(&sandbox);
    // One of each is changed, the other deleted.
    let change = |method: &str, path: &str, body: Value| ask(&admin, method, path, &body).ok().unwrap();
    change("PUT", &paths[0], json!({"includes": ["/changed"]}));
    change("PUT", &paths[2], schedule(5));
    change("PATCH", &paths[4], json!({"max_backups": 7}));
    for path in [&paths[1], &paths[3], &paths[5]] {
        assert_eq!(ask(&admin, "DELETE", path, &Value::Null).status, 204, "{path}");
    }
    sandbox.take_down();
    sandbox.database.query("UPDATE idempotency_keys SET answer = NULL").unwrap();
    sandbox.bring_back().unwrap();
    let (there, admin) = (made(&sandbox), sandbox.api());
    let recorded = admin.list("/v1/audit?outcome=done").unwrap().len();
    let again = ask_all(&api);
    let statuses: Vec<u16> = again.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [201, 404, 201, 404, 201, 404], "{again:?}");
    assert_eq!(again[0].json["includes"], json!(["/changed"]));
    assert_eq!(again[2].json["cron"], "0 5 * * *");
    assert_eq!(again[4].json["max_backups"], 7);
    assert_eq!(made(&sandbox), there);
    for (path, expected) in paths.iter().zip([200, 404, 200, 404, 200, 404]) {
        assert_eq!(ask(&admin, "GET", path, &Value::Null).status, expected, "{path}");
    }
    assert_eq!(admin.get(&paths[0]).unwrap()["includes"], json!(["/changed"]));
    assert_eq!(admin.get(&paths[4]).unwrap()["max_backups"], 7);
    assert_eq!(admin.list("/v1/audit?outcome=done").unwrap().len(), recorded, "nothing was done");
}

/// A number of `range`, another each time.
fn dice(state: &mut u64, range: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % range
}

#[test]
fn whenever_it_is_killed_each_key_makes_one_job() {
    const KEYS: usize = 200;
    const CLIENTS: usize = 4;
    /// For how long it is killed; what is left then is done by the last one.
    const KILLING: Duration = Duration::from_secs(20);
    /// Whatever is not answered by then never is.
    const LIMIT: Duration = Duration::from_secs(120);
    let mut sandbox = Sandbox::start().unwrap();
    let path = host(&sandbox);
    let (api, _) = client(&sandbox.api(), &json!({"name": "robot", "scope": "operate"}));
    let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    let repeat = || {
        let mut answers = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= KEYS {
                return answers;
            }
            let (key, body) = (format!("key-{number}"), json!({"kind": "unlock"}));
            let answer = loop {
                assert!(began.elapsed() < LIMIT, "{key} is not answered");
                match api.call("POST", &path, Some(&body), &[("Idempotency-Key", &key)]) {
                    Ok(reply) if reply.status == 202 => break reply,
                    // Killed, or just starting, or a repetition that came before the first was over.
                    Ok(reply) => assert!([409, 503].contains(&reply.status), "{}", reply.text),
                    Err(_) => {}
                }
                thread::yield_now();
            };
            answered.fetch_add(1, Ordering::Relaxed);
            answers.push((key, answer.json["id"].as_str().unwrap().to_owned()));
        }
    };
    let (mut lives, mut lost, mut seed) = (0, String::new(), u64::from(std::process::id()));
    let answers: HashMap<String, String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(repeat)).collect();
        while answered.load(Ordering::Relaxed) < KEYS && began.elapsed() < KILLING {
            // After a few answers, and then at any moment.
            let until = answered.load(Ordering::Relaxed) + usize::try_from(dice(&mut seed, 12)).unwrap();
            while answered.load(Ordering::Relaxed) < until.min(KEYS) && began.elapsed() < KILLING {
                thread::yield_now();
            }
            thread::sleep(Duration::from_micros(dice(&mut seed, 6_000)));
            sandbox.take_down();
            lives += 1;
            let unanswered = "SELECT count(*) FROM idempotency_keys WHERE answer IS NULL";
            lost = sandbox.database.query(unanswered).unwrap()[0][0].clone().unwrap();
            sandbox.bring_back().unwrap();
        }
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    eprintln!(
        "{lives} lives; {lost} times killed between the commit and the keeping of the answer; {:?}",
        began.elapsed()
    );
    assert_eq!(answers.len(), KEYS);
    let jobs = sandbox.api().list("/v1/jobs?kind=unlock&limit=500").unwrap();
    assert_eq!(jobs.len(), KEYS, "one job a key");
    let mut ids: Vec<&str> = jobs.iter().map(|job| job["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let mut told: Vec<&str> = answers.values().map(String::as_str).collect();
    told.sort_unstable();
    assert_eq!(ids, told, "the jobs that the clients were told");
    let rows =
        sandbox.database.query("SELECT count(*) FROM audit WHERE route = '/v1/hosts/{id}/jobs' AND outcome = 'done'");
    assert_eq!(rows.unwrap()[0][0].as_deref(), Some("200"), "and one row in the audit log for each");
}
