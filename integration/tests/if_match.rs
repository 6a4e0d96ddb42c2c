//! `ETag` and `If-Match`: who says what they have seen changes nothing that has changed since, however many try at once.

mod support;

use fleet_integration::{Api, Reply, Sandbox};
use serde_json::{Value, json};
use std::thread;
use support::{Host, ask, client, group, repository};

fn tag(api: &Api, path: &str) -> String {
    let reply = ask(api, "GET", path, &Value::Null);
    let tag = reply.header("etag").unwrap_or_else(|| panic!("{path} has no tag: {}", reply.text)).to_owned();
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "a strong tag: {tag}");
    tag
}

fn with(api: &Api, method: &str, path: &str, body: &Value, tag: &str) -> Reply {
    let body = Some(body).filter(|body| !body.is_null());
    api.call(method, path, body, &[("If-Match", tag)]).unwrap()
}

#[test]
fn what_can_be_changed_has_a_tag_and_is_changed_by_who_knows_it() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let host = Host::ready(&sandbox, "web-1", &repository);
    group(&api, &host.id, "docs", json!({"keep_last": 1}));
    let host = format!("/v1/hosts/{}", host.id);
    let schedule = json!({"cron": "0 2 * * *", "source_groups": ["docs"]});
    let made = ask(&api, "POST", &format!("{host}/schedules"), &schedule);
    let schedule_path = format!("{host}/schedules/{}", made.json["id"].as_str().unwrap());
    assert_eq!(made.header("etag").map(str::to_owned), Some(tag(&api, &schedule_path)));
    ask(&api, "PUT", &format!("{host}/pause"), &json!({"reason": "first"})).ok().unwrap();
    let changes = [
        ("PATCH", host.clone(), json!({"pre_hook": "true"})),
        ("PATCH", format!("/v1/repositories/{repository}"), json!({"max_backups": 3})),
        ("PUT", format!("{host}/source-groups/docs"), json!({"includes": ["/srv"]})),
        ("PUT", schedule_path.clone(), json!({"cron": "0 3 * * *", "source_groups": ["docs"]})),
        ("PUT", format!("/v1/repositories/{repository}/maintenance"), json!({"check": {"cron": "@weekly"}})),
        ("PUT", format!("{host}/pause"), json!({"reason": "second"})),
    ];
    for (method, path, body) in &changes {
        let seen = tag(&api, path);
        assert_eq!(tag(&api, path), seen, "{path}: nothing has changed");
        let weak = format!("W/{seen}");
        for other in ["\"another\"", "\"another\", \"and-another\"", weak.as_str()] {
            let refused = with(&api, method, path, body, other);
            assert_eq!(
                (refused.status, &refused.json["type"]),
                (412, &json!("/problems/has-changed")),
                "{path} {other}"
            );
        }
        assert_eq!(tag(&api, path), seen, "{path}: what was refused has changed nothing");
        assert_eq!(with(&api, method, path, body, "nonsense").status, 400, "{path}");
        let done = with(&api, method, path, body, &format!("\"another\", {seen}"));
        assert_eq!(done.status, 200, "{path}: {}", done.text);
        let now = tag(&api, path);
        assert_eq!(done.header("etag"), Some(now.as_str()), "{path}");
        assert_ne!(now, seen, "{path}");
        assert_eq!(with(&api, method, path, body, &seen).status, 412, "{path}: it has changed");
        assert_eq!(with(&api, method, path, body, "*").status, 200, "{path}: any will do");
        assert_eq!(ask(&api, method, path, body).status, 200, "{path}: nobody has to say it");
    }

    // What is not there has no state that anybody could have seen.
    let absent = format!("{host}/source-groups/new");
    assert_eq!(with(&api, "PUT", &absent, &json!({"includes": ["/srv"]}), "*").status, 412);
    assert_eq!(ask(&api, "GET", &absent, &Value::Null).status, 404);

    // The same goes for taking away; first what others need.
    let (_, token) = client(&api, &json!({"name": "nightly", "scope": "read"}));
    let pause = format!("{host}/pause");
    for path in [pause, schedule_path, format!("{host}/source-groups/docs"), host, format!("/v1/tokens/{token}")] {
        let seen = tag(&api, &path);
        assert_eq!(with(&api, "DELETE", &path, &Value::Null, "\"another\"").status, 412, "{path}");
        assert_eq!(with(&api, "DELETE", &path, &Value::Null, &seen).status, 204, "{path}");
    }
}

#[test]
fn a_tag_stays_while_only_the_agent_is_heard_of() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    let path = format!("/v1/hosts/{}", host.id);
    let seen = tag(&api, &path);
    host.say("heartbeat", json!({"sent_at": "2026-01-01T00:00:00Z"}));
    host.connect(&sandbox, &json!({"agent_version": "9.9.9"}));
    support::until(&api, &path, |host| host["agent_version"] == "9.9.9");
    assert_eq!(tag(&api, &path), seen);
}

#[test]
fn of_those_who_have_seen_the_same_one_wins() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let host = Host::enroll(&sandbox, "web-1", &repository(&sandbox));
    let path = format!("/v1/hosts/{}", host.id);
    for round in 0..20 {
        let seen = tag(&api, &path);
        let write = |writer: usize| {
            let (api, path, seen) = (api.clone(), path.clone(), seen.clone());
            thread::spawn(move || {
                let labels = json!({"labels": {"writer": format!("{writer}"), "round": format!("{round}")}});
                with(&api, "PATCH", &path, &labels, &seen).status
            })
        };
        let writers: Vec<_> = (0..6).map(write).collect();
        let mut statuses: Vec<u16> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412], "round {round}");
    }
}
