//! `/v1/hosts`.

use crate::rig::with_rig;
use chrono::Utc;
use diesel_async::RunQueryDsl;
use fleet_coordinator::db::hosts;
use fleet_coordinator::db::presence::Presence;
use fleet_coordinator::persistence::SavePresence;
use fleet_coordinator::vault::hash_token;
use serde_json::{Value, json};

#[test]
fn absent_null_and_a_value_are_kept_apart() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        let (id, _) = rig.host("one", json!({"labels": {"a": "b"}})).await;
        let path = format!("/v1/hosts/{id}");
        let all = json!({
            "repository_id": repository, "hook_shell": "/bin/bash", "pre_hook": "true", "post_hook": "false",
            "bandwidth_up_kbps": 100, "bandwidth_down_kbps": 200, "labels": {"c": "d", "e": "f"},
        });
        let host = rig.patch(&path, all.clone()).await.is(200);
        for (field, value) in all.as_object().expect("an object") {
            assert_eq!(host.body[field], *value, "{field}");
        }
        assert_eq!(rig.patch(&path, json!({})).await.is(200).body, host.body);
        assert_eq!(rig.get(&path).await.is(200).body, host.body);

        let emptied = rig.patch(&path, json!({"pre_hook": null, "bandwidth_up_kbps": null, "labels": null})).await;
        let emptied = emptied.is(200).body;
        assert_eq!((&emptied["pre_hook"], &emptied["bandwidth_up_kbps"]), (&Value::Null, &Value::Null));
        assert_eq!((&emptied["labels"], &emptied["post_hook"]), (&json!({}), &json!("false")));
        let uncapped = rig.patch(&path, json!({"bandwidth_down_kbps": 0, "hook_shell": ""})).await.is(200).body;
        assert_eq!((&uncapped["bandwidth_down_kbps"], &uncapped["hook_shell"]), (&Value::Null, &Value::Null));
        assert_eq!(rig.patch(&path, json!({"repository_id": null})).await.is(200).body["repository_id"], Value::Null);
    });
}

#[test]
fn a_patch_that_makes_no_sense_changes_nothing() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        rig.host("one", json!({"repository_id": repository})).await;
        let (id, _) = rig.host("one", json!({})).await;
        let path = format!("/v1/hosts/{id}");
        let before = rig.get(&path).await.body;
        for (patch, pointer) in [
            (json!({"pre_hook": "x", "bandwidth_up_kbps": -1}), "/bandwidth_up_kbps"),
            (json!({"pre_hook": "x", "bandwidth_up_kbps": "1"}), "/bandwidth_up_kbps"),
            (json!({"pre_hook": "x", "repository_id": "x"}), "/repository_id"),
            (json!({"pre_hook": "x", "hostname": "two"}), "/hostname"),
            (json!({"pre_hook": "x", "labels": {"": "b"}}), "/labels/"),
            (json!({"pre_hook": "x\u{0}"}), "/pre_hook"),
        ] {
            assert_eq!(rig.patch(&path, patch).await.is(422).pointers(), [pointer]);
        }
        rig.patch(&path, json!({"pre_hook": "x", "repository_id": repository})).await.is(409);
        let nobody = json!({"pre_hook": "x", "repository_id": uuid::Uuid::new_v4()});
        assert_eq!(rig.patch(&path, nobody).await.is(409).pointers(), ["/repository_id"]);
        assert_eq!(rig.get(&path).await.body, before);
        rig.patch(&format!("/v1/hosts/{}", uuid::Uuid::new_v4()), json!({"pre_hook": "x"})).await.is(404);
    });
}

#[test]
fn lists_are_filtered_and_paged() {
    with_rig(async |rig| {
        let mut ids = Vec::new();
        for number in 0..5 {
            let labels = json!({"labels": {"parity": (number % 2).to_string(), "a=b": "x".repeat(number)}});
            let labels = json!({"labels": {"parity": labels["labels"]["parity"], "role": "a=b c"}});
            ids.push(rig.host(&format!("host-{number}"), labels).await.0);
        }
        let (mut path, mut seen) = ("/v1/hosts?limit=2".to_owned(), Vec::new());
        loop {
            let page = rig.get(&path).await.is(200);
            seen.extend(page.each("id").into_iter().map(str::to_owned));
            let Some(cursor) = page.body["next_cursor"].as_str() else { break };
            path = format!("/v1/hosts?limit=2&cursor={cursor}");
        }
        assert_eq!(seen, ids);

        let odd = rig.get("/v1/hosts?label=parity=1&label=role=a%3Db%20c").await.is(200);
        assert_eq!(odd.each("hostname"), ["host-1", "host-3"]);
        assert_eq!(rig.get("/v1/hosts?label=parity=1&label=parity=0").await.is(200).body["items"], json!([]));

        let online = Presence { host_id: ids[2].parse().expect("an id"), last_seen_at: Utc::now(), online: true };
        rig.services.persistence.send(SavePresence(vec![online])).await.expect("the actor").expect("written");
        assert_eq!(rig.get("/v1/hosts?status=online").await.is(200).each("hostname"), ["host-2"]);
        assert_eq!(rig.get("/v1/hosts?status=offline").await.is(200).each("hostname").len(), 4);
        let metrics = rig.get("/metrics").await.body;
        assert!(metrics.as_str().is_some_and(|text| text.contains("fleet_hosts{status=\"online\"} 1\n")), "{metrics}");
    });
}

#[test]
fn a_sign_of_life_shows_before_it_is_written() {
    with_rig(async |rig| {
        let (id, _) = rig.host("one", json!({})).await;
        let path = format!("/v1/hosts/{id}");
        assert_eq!(rig.get(&path).await.body["last_seen_at"], Value::Null);
        rig.services.board.see(id.parse().expect("an id"));
        assert!(rig.get(&path).await.body["last_seen_at"].is_string());
    });
}

#[test]
fn a_decommissioned_host_is_gone_but_for_its_history() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        let (id, token) = rig.host("one", json!({"repository_id": repository})).await;
        let path = format!("/v1/hosts/{id}");
        rig.delete(&path).await.is(204);
        rig.delete(&path).await.is(404);
        rig.get(&path).await.is(404);
        rig.patch(&path, json!({"pre_hook": "x"})).await.is(404);
        rig.get(&format!("{path}/source-groups")).await.is(404);
        assert_eq!(rig.get("/v1/hosts").await.body["items"], json!([]));
        assert_eq!(hosts::by_token(&mut rig.reader().await, &hash_token(&token)).await.expect("read"), None);
        rig.get(&format!("{path}/snapshots")).await.is(404);
        // What it has done is told by lists.
        for list in ["snapshots", "runs", "jobs"] {
            rig.get(&format!("/v1/{list}?host_id={id}")).await.is(200);
        }
        assert_eq!(rig.get("/v1/hosts?status=decommissioned").await.is(200).each("id"), [id.as_str()]);
        // Its name is free again, and nothing keeps the repository.
        rig.host("one", json!({"repository_id": repository})).await;
        let jobs = diesel::sql_query("SELECT 1 FROM hosts WHERE decommissioned_at IS NOT NULL");
        assert_eq!(jobs.execute(&mut rig.reader().await).await.expect("read"), 1);
    });
}

#[test]
fn what_waits_for_a_decommissioned_host_is_cancelled() {
    with_rig(async |rig| {
        let (id, _) = rig.host("one", json!({"repository_id": rig.repository("main").await})).await;
        let job = rig.post(&format!("/v1/hosts/{id}/jobs"), json!({"kind": "check"})).await.is(202);
        assert_eq!(job.body["status"], "queued");
        rig.delete(&format!("/v1/hosts/{id}")).await.is(204);
        let job = rig.get(&format!("/v1/jobs/{}?wait=10", job.text("id"))).await.is(200);
        assert_eq!(job.body["status"], "cancelled", "{}", job.body);
        rig.post(&format!("/v1/hosts/{id}/jobs"), json!({"kind": "check"})).await.is(404);
    });
}
