//! `/v1/repositories/{id}/maintenance`, and what a repository's health is.

use crate::rig::with_rig;
use serde_json::{Value, json};

#[test]
fn maintenance_is_stored_whole() {
    with_rig(async |rig| {
        let id = rig.repository("main").await;
        let path = format!("/v1/repositories/{id}/maintenance");
        let none = rig.get(&path).await.is(200).body;
        assert_eq!(
            (&none["forget"], &none["timezone"], &none["forget_limit"]),
            (&Value::Null, &json!("UTC"), &Value::Null)
        );
        let full = json!({
            "forget": {"cron": "0 3 * * *"}, "prune": {"cron": "0 4 * * 0", "enabled": false},
            "check": {"cron": "0 5 * * *", "subset": "1/7"}, "timezone": "Europe/Berlin",
            "forget_limit": {"snapshots": 100, "share": 0.25},
        });
        let stored = rig.put(&path, full).await.is(200).body;
        assert_eq!(rig.get(&path).await.is(200).body, stored);
        assert_eq!(stored["forget"]["next_runs"].as_array().map(Vec::len), Some(5));
        assert_eq!((&stored["prune"]["enabled"], &stored["prune"]["next_runs"]), (&json!(false), &json!([])));
        assert_eq!(stored["check"]["subset"], "1/7");
        assert_eq!(stored["forget_limit"], json!({"snapshots": 100, "share": 0.25}));
        // What is not given is gone.
        let least = rig.put(&path, json!({"forget": {"cron": "@daily"}})).await.is(200).body;
        assert_eq!((&least["check"], &least["forget_limit"]), (&Value::Null, &Value::Null));
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_the_place() {
    with_rig(async |rig| {
        let id = rig.repository("main").await;
        let path = format!("/v1/repositories/{id}/maintenance");
        let (stranger, _) = rig.host("stranger", json!({})).await;
        for (body, pointer) in [
            (json!({"forget": {"cron": "0 25 * * *"}}), "/forget/cron"),
            (json!({"check": {"cron": "@daily", "subset": "8/7"}}), "/check/subset"),
            (json!({"prune": {"cron": "@daily", "subset": "1/7"}}), "/prune/subset"),
            (json!({"runner_host_id": "nobody"}), "/runner_host_id"),
            (json!({"forget_limit": {"share": 1.5}}), "/forget_limit"),
            (json!({"forget_limit": {"snapshots": -1}}), "/forget_limit"),
            (json!({"backup": {"cron": "@daily"}}), "/backup"),
        ] {
            assert_eq!(rig.put(&path, body.clone()).await.is(422).pointers(), [pointer], "{body}");
        }
        let refused = rig.put(&path, json!({"runner_host_id": stranger})).await.is(409);
        assert_eq!(refused.pointers(), ["/runner_host_id"]);
        rig.put("/v1/repositories/00000000-0000-0000-0000-000000000000/maintenance", json!({})).await.is(404);
    });
}

#[test]
fn a_runner_is_a_host_of_the_repository_and_goes_only_when_another_takes_its_place() {
    with_rig(async |rig| {
        let id = rig.repository("main").await;
        let (host, _) = rig.host("one", json!({"repository_id": id})).await;
        let path = format!("/v1/repositories/{id}/maintenance");
        rig.put(&path, json!({"runner_host_id": host})).await.is(200);
        let repository = rig.get(&format!("/v1/repositories/{id}")).await.is(200).body;
        assert_eq!((&repository["runner_host_id"], &repository["health"]["status"]), (&json!(host), &json!("ok")));
        // Another host must not delete.
        let (other, _) = rig.host("two", json!({"repository_id": id})).await;
        for kind in ["prune", "forget"] {
            let refused = rig.post(&format!("/v1/hosts/{other}/jobs"), json!({"kind": kind})).await.is(409);
            assert_eq!(refused.pointers()[0], "/kind");
        }
        rig.post(&format!("/v1/hosts/{other}/jobs"), json!({"kind": "check"})).await.is(202);
        // Without it any host could.
        rig.delete(&format!("/v1/hosts/{host}")).await.is(409);
        rig.patch(&format!("/v1/hosts/{host}"), json!({"repository_id": null})).await.is(409);
        rig.put(&path, json!({"runner_host_id": other})).await.is(200);
        rig.delete(&format!("/v1/hosts/{host}")).await.is(204);
    });
}

#[test]
fn a_limit_and_a_dry_run_need_an_agent_that_knows_them() {
    with_rig(async |rig| {
        let id = rig.repository("main").await;
        let (host, _) = rig.host("old-agent", json!({"repository_id": id})).await;
        let groups = format!("/v1/hosts/{host}/source-groups");
        rig.post(&groups, json!({"name": "docs", "includes": ["/srv"], "retention": {"keep_last": 1}})).await.is(201);
        let jobs = format!("/v1/hosts/{host}/jobs");
        assert_eq!(rig.post(&jobs, json!({"kind": "forget", "dry_run": true})).await.is(409).pointers(), ["/dry_run"]);
        assert_eq!(rig.post(&jobs, json!({"kind": "check", "dry_run": true})).await.is(422).pointers(), ["/dry_run"]);
        assert_eq!(rig.post(&jobs, json!({"kind": "forget", "confirm": "x"})).await.is(409).pointers(), ["/confirm"]);
        rig.put(&format!("/v1/repositories/{id}/maintenance"), json!({"forget_limit": {"snapshots": 9}})).await.is(200);
        assert_eq!(rig.post(&jobs, json!({"kind": "forget"})).await.is(409).pointers(), ["/kind"]);
    });
}
