//! Notifications: what is told to whom, signed; what a receiver that fails, hangs or dies comes to; and that nothing is lost
//! whenever the coordinator was killed.

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleet_integration::{
    Api, Failure, Mail, MailServer, Manner, Receiver, Sandbox, Tls, Webhook, eventually, leak_free_dir,
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use support::{Host, LIMIT, ask, backup, group, journalling, labelled, over, repository, until};

/// As [`LIMIT`], where a receiver is waited for until its time is over.
const LONG: Duration = Duration::from_secs(90);

/// The header that a message must have, by the text of the convention.
fn signature(secret: &str, webhook: &Webhook) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = format!("{}.{}.{}", webhook.header("webhook-id"), webhook.header("webhook-timestamp"), webhook.body);
    let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(signed).finalize();
    format!("v1,{}", STANDARD.encode(mac.into_bytes()))
}

/// A channel that goes to `url`, with these further fields: its id, and its secret if that was made.
fn channel(api: &Api, name: &str, url: &str, fields: Value) -> (String, String) {
    let mut body = json!({"name": name, "kind": "webhook", "url": url});
    for (name, value) in fields.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let made = api.post("/v1/notifications/channels", &body).unwrap();
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap_or_default().to_owned())
}

/// What was sent to a channel, the newest first.
fn deliveries(api: &Api, channel: &str) -> Vec<Value> {
    api.list(&format!("/v1/notifications/channels/{channel}/deliveries")).unwrap()
}

/// The only delivery of a channel once it is as it should be.
fn delivery_when(api: &Api, channel: &str, limit: Duration, good: impl Fn(&Value) -> bool) -> Value {
    let look = || match deliveries(api, channel).as_slice() {
        [delivery] if good(delivery) => Ok(delivery.clone()),
        all => Err(Failure::new(format!("{all:?}"))),
    };
    eventually("the delivery", limit, look).unwrap()
}

/// A coordinator and a host with a group.
fn fleet(variables: &[(&str, &str)]) -> (Sandbox, Host) {
    let sandbox = Sandbox::start_with(variables).unwrap();
    let host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    (sandbox, host)
}

/// Runs a backup that ends like this.
fn end(api: &Api, host: &mut Host, status: &str, exit_code: i64) -> String {
    let job = backup(api, &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    host.start(&job, "backup");
    let last = host.finish(&job, status, exit_code);
    host.settled(last);
    over(api, &job);
    job
}

fn jobs_of(received: &[Webhook]) -> HashSet<String> {
    received.iter().filter_map(|webhook| webhook.json["data"]["job"]["id"].as_str()).map(str::to_owned).collect()
}

fn count(sandbox: &Sandbox, table: &str) -> String {
    sandbox.database.query(&format!("SELECT count(*) FROM {table}")).unwrap()[0][0].clone().unwrap()
}

#[test]
fn what_fails_is_told_with_a_signature_and_what_succeeds_is_not() {
    let (sandbox, mut host) = fleet(&[]);
    let api = sandbox.api();
    end(&api, &mut host, "failed", 1);
    assert_eq!(count(&sandbox, "notices"), "0", "nobody wants to know");

    let receiver = Receiver::start(Manner::Status(204)).unwrap();
    let (channel, secret) = channel(&api, "pager", &receiver.url(), json!({}));
    assert!(secret.starts_with("whsec_"), "{secret}");
    end(&api, &mut host, "succeeded", 0);
    let failed = end(&api, &mut host, "failed", 1);
    let partial = end(&api, &mut host, "succeeded", 3);
    let received = receiver.until("two webhooks", LIMIT, |received| received.len() >= 2).unwrap();
    let of = |job: &str| received.iter().find(|webhook| webhook.json["data"]["job"]["id"] == job).expect("told");
    let (failed, partial) = (of(&failed), of(&partial));
    assert_eq!((&failed.json["type"], &partial.json["type"]), (&json!("job.failed"), &json!("job.partial")));
    for webhook in [failed, partial] {
        assert_eq!(webhook.target, "POST /hook");
        assert_eq!(webhook.header("content-type"), "application/json");
        assert_eq!(webhook.header("webhook-signature"), signature(&secret, webhook));
        let sent: i64 = webhook.header("webhook-timestamp").parse().unwrap();
        assert!((chrono::Utc::now().timestamp() - sent).abs() < 60, "{sent}");
        let data = &webhook.json["data"];
        assert_eq!((&data["host"]["hostname"], &data["repository"]["name"]), (&json!("web-1"), &json!("main")));
        assert_eq!((&data["job"]["source_group"], &data["job"]["kind"]), (&json!("docs"), &json!("backup")));
        let at = webhook.json["timestamp"].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(at).expect("a time");
    }
    assert_eq!(
        (&failed.json["data"]["job"]["exit_code"], &failed.json["data"]["job"]["status"]),
        (&json!(1), &json!("failed"))
    );

    let look = || match deliveries(&api, &channel).as_slice() {
        all @ [first, second] if first["status"] == "delivered" && second["status"] == "delivered" => Ok(all.to_vec()),
        all => Err(Failure::new(format!("{all:?}"))),
    };
    let delivered = eventually("both to be noted", LIMIT, look).unwrap();
    assert_eq!(delivered[0]["notification_id"], partial.header("webhook-id"), "the newest first");
    assert_eq!((&delivered[0]["tries"], &delivered[0]["attempts"][0]["status_code"]), (&json!(1), &json!(204)));
    assert_eq!(delivered[0]["data"], partial.json["data"]);
    let one = api
        .get(&format!("/v1/notifications/channels/{channel}/deliveries/{}", delivered[1]["id"].as_str().unwrap()))
        .unwrap();
    assert_eq!(one, delivered[1]);
    assert_eq!(receiver.received().len(), 2, "nothing was told of the success");
}

#[test]
fn the_way_to_verify_a_signature_that_is_written_down_works() {
    let (sandbox, _host) = fleet(&[]);
    let receiver = Receiver::start(Manner::Status(200)).unwrap();
    let (channel, secret) = channel(&sandbox.api(), "pager", &receiver.url(), json!({}));
    let path = format!("/v1/notifications/channels/{channel}/test");
    let reply = ask(&sandbox.api(), "POST", &path, &Value::Null);
    assert_eq!(reply.status, 202, "{}", reply.text);
    let webhook = receiver.until("the test", LIMIT, |received| received.len() == 1).unwrap().remove(0);
    assert_eq!((&webhook.json["type"], &webhook.json["data"]["channel"]["name"]), (&json!("test"), &json!("pager")));

    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
    let snippet = docs.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a snippet");
    let verify = |body: &str, id: &str, secret: &str| {
        let script = format!(
            "{snippet}\nimport json, sys\nargs = json.loads(sys.argv[1])\nprint(verify(args['secret'], args['headers'], args['body'].encode()))"
        );
        let mut headers = webhook.headers.clone();
        headers.insert("webhook-id".to_owned(), id.to_owned());
        let args = json!({"secret": secret, "headers": headers, "body": body}).to_string();
        let ran =
            std::process::Command::new("python3").args(["-c", &script, &args]).output().expect("python3 can be run");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    let id = webhook.header("webhook-id");
    assert_eq!(verify(&webhook.body, id, &secret), "True");
    assert_eq!(verify(&webhook.body.replace("test", "best"), id, &secret), "False");
    assert_eq!(verify(&webhook.body, "another", &secret), "False");
    assert_eq!(verify(&webhook.body, id, &format!("whsec_{}", STANDARD.encode([1; 32]))), "False");
}

#[test]
fn a_receiver_that_fails_is_tried_again_until_its_time_is_over_and_may_be_sent_it_once_more() {
    let (sandbox, mut host) = fleet(&[("FLEET_NOTIFY_LIMIT", "17s")]);
    let api = sandbox.api();
    let receiver = Receiver::start(Manner::Status(500)).unwrap();
    let (channel, secret) = channel(&api, "pager", &receiver.url(), json!({}));
    end(&api, &mut host, "failed", 1);
    let waiting = delivery_when(&api, &channel, LIMIT, |delivery| delivery["tries"] == 1);
    assert_eq!((&waiting["status"], &waiting["attempts"][0]["status_code"]), (&json!("pending"), &json!(500)));
    assert!(waiting["next_attempt_at"].as_str() > waiting["attempts"][0]["at"].as_str(), "{waiting}");
    receiver.behave(Manner::Close);
    let given_up = delivery_when(&api, &channel, LONG, |delivery| delivery["status"] == "failed");
    let attempts = given_up["attempts"].as_array().unwrap();
    assert!((2..=3).contains(&attempts.len()), "{given_up}");
    assert_eq!((&attempts[1]["status_code"], &given_up["next_attempt_at"]), (&Value::Null, &Value::Null));
    assert!(attempts[1]["error"].as_str().is_some_and(|error| !error.is_empty()), "{given_up}");

    receiver.behave(Manner::Status(200));
    let path =
        format!("/v1/notifications/channels/{channel}/deliveries/{}/redeliver", given_up["id"].as_str().unwrap());
    let reply = ask(&api, "POST", &path, &Value::Null);
    assert_eq!((reply.status, &reply.json["status"]), (202, &json!("pending")), "{}", reply.text);
    delivery_when(&api, &channel, LIMIT, |delivery| delivery["status"] == "delivered");
    let received = receiver.received();
    let ids: HashSet<&str> = received.iter().map(|webhook| webhook.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1, "under one id: {ids:?}");
    assert!(received.iter().all(|webhook| webhook.header("webhook-signature") == signature(&secret, webhook)));
    assert_eq!(received.iter().map(|webhook| &webhook.body).collect::<HashSet<_>>().len(), 1);

    // One that is gone for ever is not asked again; one that sends us elsewhere is not followed.
    let elsewhere = Receiver::start(Manner::Status(200)).unwrap();
    receiver.behave(Manner::Header(302, format!("location: {}", elsewhere.url())));
    ask(&api, "POST", &path, &Value::Null).ok().unwrap();
    let redirected = |delivery: &Value| delivery["attempts"].as_array().unwrap().last().unwrap()["status_code"] == 302;
    delivery_when(&api, &channel, LIMIT, |delivery| delivery["status"] == "pending" && redirected(delivery));
    receiver.behave(Manner::Status(410));
    ask(&api, "POST", &path, &Value::Null).ok().unwrap();
    let gone = |delivery: &Value| delivery["attempts"].as_array().unwrap().last().unwrap()["status_code"] == 410;
    delivery_when(&api, &channel, LIMIT, |delivery| delivery["status"] == "failed" && gone(delivery));
    assert!(elsewhere.received().is_empty());
}

#[test]
fn receivers_that_hang_or_never_end_hold_up_nobody() {
    const JOBS: usize = 12;
    let (sandbox, mut host) = fleet(&[]);
    let api = sandbox.api();
    let manners = [Manner::Hang, Manner::EndlessHead, Manner::Close, Manner::Hang, Manner::EndlessBody];
    let bad: Vec<Receiver> = manners.into_iter().map(|manner| Receiver::start(manner).unwrap()).collect();
    let ids: Vec<String> = bad
        .iter()
        .enumerate()
        .map(|(number, bad)| channel(&api, &format!("bad {number}"), &bad.url(), json!({})).0)
        .collect();
    channel(&api, "nobody listens", "http://127.0.0.1:9/", json!({}));
    let good = Receiver::start(Manner::Status(200)).unwrap();
    channel(&api, "good", &good.url(), json!({}));
    let jobs: HashSet<String> = (0..JOBS).map(|_| end(&api, &mut host, "failed", 1)).collect();
    // Before any of those that hang is given up, after 15 s each.
    let received = good.until("all of them", Duration::from_secs(10), |received| received.len() >= JOBS).unwrap();
    assert_eq!(jobs_of(&received), jobs);
    // Each of the others is told what came of it.
    let first_of = |channel: &str, limit, good: &dyn Fn(&Value) -> bool| {
        let look = || {
            let tried = deliveries(&api, channel).into_iter().rfind(|delivery| delivery["tries"] != 0);
            tried.filter(|delivery| good(delivery)).ok_or_else(|| Failure::new("nothing was noted yet"))
        };
        eventually("an attempt to be noted", limit, look).unwrap()
    };
    let timed_out = first_of(&ids[0], LONG, &|_| true);
    assert!(timed_out["attempts"][0]["took_ms"].as_i64().unwrap() >= 14_000, "{timed_out}");
    let endless = first_of(&ids[1], LIMIT, &|_| true);
    assert!(endless["attempts"][0]["error"].is_string(), "{endless}");
    first_of(&ids[4], LIMIT, &|delivery| delivery["status"] == "delivered");
}

#[test]
fn whenever_the_coordinator_is_killed_each_failure_is_told_under_one_id() {
    const ROUNDS: usize = 4;
    let (mut sandbox, mut host) = fleet(&[]);
    let receiver = Receiver::start(Manner::Hang).unwrap();
    let (_, secret) = channel(&sandbox.api(), "pager", &receiver.url(), json!({}));
    let mut jobs = HashSet::new();
    for round in 0..ROUNDS {
        let api = sandbox.api();
        for _ in 0..3 {
            jobs.insert(end(&api, &mut host, "failed", 1));
        }
        // Committed, and before, while or just after it is sent.
        match round {
            0 => {}
            1 => drop(receiver.until("one to be on its way", LIMIT, |received| !received.is_empty()).unwrap()),
            _ => {
                receiver.behave(Manner::Status(200));
                let before = receiver.received().len();
                receiver.until("one to arrive", LIMIT, |received| received.len() > before).unwrap();
            }
        }
        sandbox.restart_with(&[]).unwrap();
        host.connect(&sandbox, &journalling("j", &[]));
    }
    let received = receiver.until("each to be told", LONG, |received| jobs_of(received).is_superset(&jobs)).unwrap();
    let mut ids: HashMap<&str, HashSet<&str>> = HashMap::new();
    for webhook in &received {
        assert_eq!(webhook.header("webhook-signature"), signature(&secret, webhook));
        ids.entry(webhook.json["data"]["job"]["id"].as_str().unwrap())
            .or_default()
            .insert(webhook.header("webhook-id"));
    }
    assert_eq!(ids.len(), jobs.len(), "{ids:?}");
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
}

#[test]
fn what_is_wrong_for_a_while_is_told_when_it_begins_and_when_it_is_over() {
    let (mut sandbox, mut host) = fleet(&[]);
    let receiver = Receiver::start(Manner::Status(200)).unwrap();
    channel(&sandbox.api(), "pager", &receiver.url(), json!({}));
    // A kill may have one come twice, under its id.
    let ids = |received: &[Webhook], event: &str| -> HashSet<String> {
        let all = received.iter().filter(|webhook| event.is_empty() || webhook.json["type"] == event);
        all.map(|webhook| webhook.header("webhook-id").to_owned()).collect()
    };
    let told = |event: &str| {
        let received = receiver.until(event, LIMIT, |received| !ids(received, event).is_empty()).unwrap();
        assert_eq!(ids(&received, event).len(), 1, "once: {received:?}");
        received.into_iter().find(|webhook| webhook.json["type"] == event).unwrap().json["data"].clone()
    };
    // A backup that has not succeeded for too long.
    let late = "UPDATE source_groups SET success_within_seconds = 3600, last_success_at = now() - interval '2 hours',
                    overdue_at = now() - interval '1 hour'";
    sandbox.database.query(late).unwrap();
    let overdue = told("backup.overdue");
    assert_eq!((&overdue["source_group"], &overdue["host"]["hostname"]), (&json!("docs"), &json!("web-1")));
    assert_eq!((&overdue["within_seconds"], overdue["since"].is_string()), (&json!(3600), true), "{overdue}");
    let job = backup(&sandbox.api(), &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    let at = chrono::Utc::now().to_rfc3339();
    let report = json!({"job_id": job, "status": "succeeded", "exit_code": 0, "finished_at": at});
    let last = host.say("job.finished", report);
    host.settled(last);
    assert_eq!(told("backup.recovered")["source_group"], "docs");
    // A repository in which a check has found something.
    for (status, event) in [("errors", "repository.unhealthy"), ("ok", "repository.recovered")] {
        let stats = json!({"last_check_status": status, "as_of": chrono::Utc::now().to_rfc3339()});
        let last = host.say("repo.stats", stats);
        host.settled(last);
        let told = told(event);
        assert_eq!(told["repository"]["name"], "main", "{told}");
        if status == "errors" {
            assert_eq!(told["problems"][0]["type"], "check_failed", "{told}");
        }
    }
    // An agent that is gone for long; a restart between is no news.
    host.disconnect();
    sandbox.take_down();
    let long_ago = "UPDATE hosts SET online = false, last_seen_at = now() - interval '1 hour'";
    sandbox.database.query(long_ago).unwrap();
    sandbox.bring_back().unwrap();
    assert_eq!(told("agent.lost")["host"]["hostname"], "web-1");
    host.connect(&sandbox, &journalling("j", &[]));
    assert_eq!(told("agent.recovered")["host"]["hostname"], "web-1");
    assert_eq!(ids(&receiver.received(), "").len(), 6);
}

#[test]
fn a_channel_is_told_what_it_wants_and_a_secret_never_goes_out() {
    let (sandbox, mut host) = fleet(&[]);
    let api = sandbox.api();
    let spare = api.create_repository("spare", "/srv/spare", "the password").unwrap();
    labelled(&sandbox, "db-1", &spare, json!({"site": "bonn"}));
    ask(&api, "PATCH", &format!("/v1/hosts/{}", host.id), &json!({"labels": {"site": "ulm"}})).ok().unwrap();
    let main = api.get(&format!("/v1/hosts/{}", host.id)).unwrap()["repository_id"].clone();
    let secret = format!("whsec_{}", STANDARD.encode([7; 32]));
    let wants: Vec<(&str, Value, bool)> = vec![
        ("all", json!({}), true),
        ("ulm", json!({"host_labels": {"site": "ulm"}}), true),
        ("bonn", json!({"host_labels": {"site": "bonn"}}), false),
        ("main", json!({"repository_id": main}), true),
        ("spare", json!({"repository_id": spare}), false),
        ("failures", json!({"events": ["job.failed", "agent.lost"]}), true),
        ("partial", json!({"events": ["job.partial"]}), false),
        ("off", json!({"enabled": false}), false),
        ("own secret", json!({"secret": secret}), true),
    ];
    let receivers: Vec<(Receiver, String, String)> = wants
        .iter()
        .map(|(name, fields, _)| {
            let receiver = Receiver::start(Manner::Status(200)).unwrap();
            let (id, secret) = channel(&api, name, &receiver.url(), fields.clone());
            (receiver, id, secret)
        })
        .collect();
    let (own, own_id, shown) = receivers.last().unwrap();
    assert_eq!(shown, "", "who gives a secret knows it");
    let job = end(&api, &mut host, "failed", 1);
    for ((name, _, is_told), (receiver, id, _)) in wants.iter().zip(&receivers) {
        if *is_told {
            receiver.until(name, LIMIT, |received| !received.is_empty()).unwrap();
        } else {
            // What is on its way was written with the job's end.
            assert!(deliveries(&api, id).is_empty() && receiver.received().is_empty(), "{name}");
        }
    }
    let first = own.received().remove(0);
    assert_eq!(
        (jobs_of(&own.received()), first.header("webhook-signature")),
        (HashSet::from([job]), &*signature(&secret, &first))
    );

    // A new secret signs from then on.
    let path = format!("/v1/notifications/channels/{own_id}");
    let patched = ask(&api, "PATCH", &path, &json!({"secret": null, "name": "renewed"})).ok().unwrap();
    let renewed = patched["secret"].as_str().unwrap().to_owned();
    assert_eq!(patched["name"], "renewed");
    end(&api, &mut host, "failed", 1);
    let second = own.until("another", LIMIT, |received| received.len() == 2).unwrap().remove(1);
    assert_eq!(second.header("webhook-signature"), signature(&renewed, &second));
    // Neither is shown again, nor stands in the database.
    let shown = api.get("/v1/notifications/channels?limit=500").unwrap().to_string();
    let stored =
        sandbox.database.query("SELECT row_to_json(channels)::text, encode(secret, 'escape') FROM channels").unwrap();
    let stored: String = stored.into_iter().flatten().flatten().collect();
    assert!(shown.contains("renewed") && stored.contains("renewed"));
    for secret in [&secret, &renewed, &receivers[0].2] {
        let key = secret.strip_prefix("whsec_").unwrap();
        assert!(!shown.contains(key) && !stored.contains(key));
    }
    // What is deleted is told nothing, and nor is one that is switched off.
    assert_eq!(ask(&api, "DELETE", &path, &Value::Null).status, 204);
    assert_eq!(ask(&api, "DELETE", &path, &Value::Null).status, 404);
    let all = format!("/v1/notifications/channels/{}", receivers[0].1);
    ask(&api, "PATCH", &all, &json!({"enabled": false})).ok().unwrap();
    assert_eq!(ask(&api, "POST", &format!("{all}/test"), &Value::Null).status, 409);
    end(&api, &mut host, "failed", 1);
    receivers[1].0.until("the third", LIMIT, |received| received.len() == 3).unwrap();
    assert_eq!((own.received().len(), receivers[0].0.received().len()), (2, 2));
}

#[test]
fn what_is_wrong_with_a_channel_is_said() {
    let (sandbox, _host) = fleet(&[]);
    let api = sandbox.api();
    let path = "/v1/notifications/channels";
    let good = json!({"name": "pager", "kind": "webhook", "url": "https://hooks.example.com/x"});
    let made = api.post(path, &good).unwrap();
    assert_eq!((&made["enabled"], &made["events"], &made["host_labels"]), (&json!(true), &Value::Null, &Value::Null));
    assert_eq!(ask(&api, "POST", path, &good).status, 409);
    let wrong = [
        ("url", json!("ftp://example.com")),
        ("url", json!("https://user:pass@example.com")),
        ("url", Value::Null),
        ("kind", json!("pigeon")),
        ("secret", json!("hunter2")),
        ("events", json!([])),
        ("events", json!(["job.exploded"])),
        ("host_labels", json!({})),
        ("recipients", json!(["ops@example.org"])),
        ("nothing like that", json!(1)),
    ];
    for (field, value) in wrong {
        let mut body = good.clone();
        body["name"] = json!("another");
        body[field] = value;
        let reply = ask(&api, "POST", path, &body);
        assert_eq!((reply.status, &reply.json["type"]), (422, &json!("/problems/invalid")), "{body}: {}", reply.text);
        let pointer = reply.json["errors"][0]["pointer"].as_str().unwrap();
        assert!(pointer.starts_with(&format!("/{field}")), "{}", reply.text);
        if field != "kind" {
            let of_one = format!("{path}/{}", made["id"].as_str().unwrap());
            let patch = ask(&api, "PATCH", &of_one, &json!({field: body[field]}));
            let expected = if field == "recipients" { 409 } else { 422 };
            assert_eq!(patch.status, expected, "{body}: {}", patch.text);
        }
    }
    let nowhere = json!({"name": "x", "kind": "webhook", "url": "http://a/", "repository_id": uuid::Uuid::new_v4()});
    let reply = ask(&api, "POST", path, &nowhere);
    assert_eq!((reply.status, &reply.json["errors"][0]["pointer"]), (409, &json!("/repository_id")), "{}", reply.text);
    for bad in ["status=lost", "cursor=x", "what=ever"] {
        let of_one = format!("{path}/{}/deliveries?{bad}", made["id"].as_str().unwrap());
        assert_eq!(ask(&api, "GET", &of_one, &Value::Null).status, 400, "{bad}");
    }
    // There is a bound.
    for number in 1..100 {
        let body =
            json!({"name": format!("n{number}"), "kind": "webhook", "url": "http://127.0.0.1:9/", "enabled": false});
        api.post(path, &body).unwrap();
    }
    let reply = ask(&api, "POST", path, &json!({"name": "one more", "kind": "webhook", "url": "http://127.0.0.1:9/"}));
    assert_eq!(reply.status, 409, "{}", reply.text);
}

#[test]
fn what_is_over_is_kept_for_its_time() {
    let (sandbox, mut host) = fleet(&[]);
    let api = sandbox.api();
    let receiver = Receiver::start(Manner::Status(200)).unwrap();
    let (channel, _) = channel(&api, "pager", &receiver.url(), json!({}));
    end(&api, &mut host, "failed", 1);
    delivery_when(&api, &channel, LIMIT, |delivery| delivery["status"] == "delivered");
    sandbox.database.query("UPDATE deliveries SET settled_at = now() - interval '8 days'").unwrap();
    sandbox.database.query("UPDATE notices SET at = now() - interval '8 days'").unwrap();
    let gone = || match (count(&sandbox, "deliveries"), count(&sandbox, "notices")) {
        (none, nothing) if none == "0" && nothing == "0" => Ok(()),
        left => Err(Failure::new(format!("{left:?}"))),
    };
    eventually("what is old to go", LONG, gone).unwrap();
    let list = until(&api, &format!("/v1/notifications/channels/{channel}/deliveries"), |_| true);
    assert_eq!(list["items"], json!([]));
}

/// A coordinator with a mail server, and a host.
fn mailing(server: &MailServer) -> (Sandbox, Host) {
    let url = format!("smtp://fleet:hunter2%40x@{}", server.address());
    fleet(&[("FLEET_SMTP_URL", &url), ("FLEET_SMTP_FROM", "The fleet <fleet@example.org>")])
}

/// A channel of e-mail to two people.
fn mail_channel(api: &Api) -> String {
    let body = json!({"name": "ops", "kind": "email", "recipients": ["Ops <ops@example.org>", "boss@example.org"]});
    api.post("/v1/notifications/channels", &body).unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn many_failures_are_one_mail_and_a_mail_server_that_refuses_is_tried_again() {
    const JOBS: usize = 15;
    let server = MailServer::start().unwrap();
    server.refuse(Some("450 come back later"));
    let (sandbox, mut host) = mailing(&server);
    let api = sandbox.api();
    let channel = mail_channel(&api);
    let jobs: HashSet<String> = (0..JOBS).map(|_| end(&api, &mut host, "failed", 1)).collect();
    let refused = || {
        let all = deliveries(&api, &channel);
        let tried = all.iter().find(|delivery| delivery["tries"] != 0).cloned();
        tried.ok_or_else(|| Failure::new(format!("{all:?}")))
    };
    let refused = eventually("a refusal to be noted", LIMIT, refused).unwrap();
    assert_eq!((&refused["status"], &refused["attempts"][0]["status_code"]), (&json!("pending"), &json!(450)));
    assert!(refused["attempts"][0]["error"].as_str().unwrap().contains("come back later"), "{refused}");
    assert!(server.received().is_empty());

    server.refuse(None);
    let told =
        |mails: &[Mail]| jobs.iter().all(|job| mails.iter().any(|mail| mail.text.replace("=\n", "").contains(job)));
    // A minute apart, and on a busy machine some are refused more than once before.
    let mails = server.until("all to be told", Duration::from_secs(600), told).unwrap();
    assert!(mails.len() <= JOBS / 3, "{} mails", mails.len());
    let mail = &mails[0];
    assert_eq!(mail.login, Some(("fleet".to_owned(), "hunter2@x".to_owned())));
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("fleet@example.org", &["ops@example.org".to_owned(), "boss@example.org".to_owned()][..])
    );
    assert!(mail.text.contains("Subject: [restic-fleet] ") && mail.text.contains("job.failed"), "{}", mail.text);
    assert!(mail.text.contains("web-1 backup of docs"), "{}", mail.text);
    let noted = || match deliveries(&api, &channel) {
        all if all.len() == JOBS && all.iter().all(|delivery| delivery["status"] == "delivered") => Ok(()),
        all => Err(Failure::new(format!("{all:?}"))),
    };
    eventually("all to be noted", LIMIT, noted).unwrap();
}

#[test]
fn a_channel_of_mail_needs_a_mail_server_and_addresses() {
    let server = MailServer::start().unwrap();
    let (mut sandbox, _host) = mailing(&server);
    let api = sandbox.api();
    let id = mail_channel(&api);
    let path = format!("/v1/notifications/channels/{id}");
    let channel = api.get(&path).unwrap();
    assert_eq!((&channel["recipients"][1], &channel["url"]), (&json!("boss@example.org"), &Value::Null));
    for (field, value) in [
        ("recipients", json!([])),
        ("recipients", json!(["nobody"])),
        ("recipients", json!(["a@example.org\r\nBcc: b@example.org"])),
        ("recipients", Value::Null),
    ] {
        let reply = ask(&api, "PATCH", &path, &json!({field: value}));
        assert_eq!(reply.status, 422, "{field}: {}", reply.text);
    }
    for (field, value) in [("url", json!("https://example.org")), ("secret", Value::Null)] {
        let reply = ask(&api, "PATCH", &path, &json!({field: value}));
        assert_eq!(reply.status, 409, "{field}: {}", reply.text);
    }
    ask(&api, "POST", &format!("{path}/test"), &Value::Null).ok().unwrap();
    let mails = server.until("the test", LIMIT, |mails| mails.len() == 1).unwrap();
    assert!(mails[0].text.contains("Subject: [restic-fleet] test: ops"), "{}", mails[0].text);
    // Without a server nothing can be sent, and that is said.
    sandbox.restart_with(&[]).unwrap();
    let api = sandbox.api();
    let body = json!({"name": "more", "kind": "email", "recipients": ["a@example.org"]});
    let reply = ask(&api, "POST", "/v1/notifications/channels", &body);
    assert_eq!((reply.status, &reply.json["errors"][0]["pointer"]), (409, &json!("/kind")), "{}", reply.text);
    ask(&api, "POST", &format!("{path}/test"), &Value::Null).ok().unwrap();
    let failed = || {
        let latest = deliveries(&api, &id).into_iter().next().filter(|delivery| delivery["tries"] == 1);
        latest.ok_or_else(|| Failure::new("not tried yet"))
    };
    // A channel of mail is written to once a minute.
    let failed = eventually("the second test to be tried", 3 * LIMIT, failed).unwrap();
    assert!(failed["attempts"][0]["error"].as_str().unwrap().contains("FLEET_SMTP_URL"), "{failed}");
}

#[test]
fn what_is_encrypted_arrives_at_those_whom_the_system_trusts_and_at_no_others() {
    let folder = leak_free_dir("fleet-tls.").unwrap();
    let tls = Tls::make(&folder.path().join("ours")).unwrap();
    let (trusted, other) = (tls.certificate().display().to_string(), Tls::make(&folder.path().join("other")).unwrap());
    let server = MailServer::start_tls(&tls).unwrap();
    let url = format!("smtp://fleet:hunter2@{}?tls=required", server.address());
    let variables = [("FLEET_SMTP_URL", &*url), ("FLEET_SMTP_FROM", "fleet@example.org"), ("SSL_CERT_FILE", &*trusted)];
    let (sandbox, mut host) = fleet(&variables);
    let api = sandbox.api();
    let receiver = Receiver::start_tls(Manner::Status(200), &tls).unwrap();
    let stranger = Receiver::start_tls(Manner::Status(200), &other).unwrap();
    let (_, secret) = channel(&api, "pager", &receiver.url(), json!({}));
    let (not_trusted, _) = channel(&api, "stranger", &stranger.url(), json!({}));
    mail_channel(&api);
    let job = end(&api, &mut host, "failed", 1);
    let webhook = receiver.until("the webhook", LIMIT, |received| !received.is_empty()).unwrap().remove(0);
    assert_eq!(
        (jobs_of(std::slice::from_ref(&webhook)), webhook.header("webhook-signature")),
        (HashSet::from([job]), &*signature(&secret, &webhook))
    );
    let mail = server.until("the mail", LIMIT, |mails| !mails.is_empty()).unwrap().remove(0);
    assert_eq!((mail.encrypted, mail.login), (true, Some(("fleet".to_owned(), "hunter2".to_owned()))));
    let refused = delivery_when(&api, &not_trusted, LIMIT, |delivery| delivery["tries"] != 0);
    assert_eq!(refused["attempts"][0]["status_code"], Value::Null, "{refused}");
    assert!(stranger.received().is_empty());
}
