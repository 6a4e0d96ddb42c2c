//! Schedules: what the agents are told, and what comes of what they fire.

mod support;

use fleet_integration::{Api, Sandbox};
use serde_json::{Value, json};
use support::{Host, core, group, repository, until};

fn schedule(api: &Api, host: &str, body: &Value) -> Value {
    api.post(&format!("/v1/hosts/{host}/schedules"), body).unwrap()
}

#[test]
fn an_agent_is_told_the_whole_list_with_every_change_and_says_what_it_has() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", json!({"keep_daily": 7}));
    let patch = json!({"post_hook": "echo done"});
    api.call("PATCH", &format!("/v1/hosts/{}", host.id), Some(&patch), &[]).unwrap().ok().unwrap();
    let made =
        schedule(&api, &host.id, &json!({"cron": "0 2 * * *", "timezone": "Europe/Paris", "source_groups": ["docs"]}));

    let told = loop {
        let told = host.take("schedule.set");
        if told["version"] == made["version"] {
            break told;
        }
    };
    let entry = json!({
        "id": made["id"], "cron_expr": "0 2 * * *", "enabled": true, "timezone": "Europe/Paris", "catch_up_seconds": 86400,
        "source_groups": [{
            "name": "docs", "includes": ["/srv/docs"], "retention_policy": {"keep_daily": 7}, "retry_max": 0,
            "retry_backoff_seconds": 60, "post_hook": "echo done",
        }],
    });
    assert_eq!(told["schedules"], json!([entry]));
    host.say("schedule.ack", json!({"version": told["version"], "applied_at": "2026-03-01T02:00:00Z"}));
    let path = format!("/v1/hosts/{}", host.id);
    until(&api, &path, |host| host["applied_schedule_version"] == host["schedule_version"]);

    // While the agent is away its version is behind, which everybody sees; it gets the list when it is back.
    host.disconnect();
    let path_of_schedule = format!("{path}/schedules/{}", made["id"].as_str().unwrap());
    api.call("DELETE", &path_of_schedule, None, &[]).unwrap().ok().unwrap();
    let behind = api.get(&path).unwrap();
    assert!(behind["applied_schedule_version"].as_i64() < behind["schedule_version"].as_i64(), "{behind}");
    host.open(&sandbox);
    host.hello(&core());
    let told = host.take("schedule.set");
    assert_eq!((&told["version"], &told["schedules"]), (&behind["schedule_version"], &json!([])));
}
