//! `/v1/hosts/{id}/schedules`.

use crate::rig::{Rig, with_rig};
use serde_json::{Value, json};

/// A host with the groups docs and etc, and the path of its schedules.
async fn host(rig: &Rig) -> (String, String) {
    let (host, _) = rig.host("one", json!({})).await;
    for name in ["docs", "etc"] {
        let groups = format!("/v1/hosts/{host}/source-groups");
        rig.post(&groups, json!({"name": name, "includes": ["/srv"]})).await.is(201);
    }
    let all = format!("/v1/hosts/{host}/schedules");
    (host, all)
}

async fn version(rig: &Rig, host: &str) -> i64 {
    let host = rig.get(&format!("/v1/hosts/{host}")).await.is(200).body;
    host["schedule_version"].as_i64().expect("a version")
}

#[test]
fn a_schedule_is_made_replaced_and_deleted() {
    with_rig(async |rig| {
        let (_, all) = host(&rig).await;
        let full = json!({
            "cron": "30 2 * * 1-5", "timezone": "Europe/Berlin", "enabled": true, "source_groups": ["etc", "docs"],
            "catch_up_seconds": 60, "bandwidth_up_kbps": 100, "bandwidth_down_kbps": 0,
        });
        let created = rig.post(&all, full.clone()).await.is(201);
        for (field, value) in full.as_object().expect("an object") {
            assert_eq!(created.body[field], *value, "{field}");
        }
        let next = created.body["next_runs"].as_array().expect("a list");
        assert_eq!(next.len(), 5, "{next:?}");
        // Berlin is one or two hours ahead.
        let at_two_thirty = |time: &Value| time.as_str().is_some_and(|time| &time[13..16] == ":30");
        assert!(next.iter().all(at_two_thirty), "{next:?}");

        let path = created.header("location").to_owned();
        let least = json!({"cron": "@daily", "source_groups": ["docs"], "enabled": false});
        let replaced = rig.put(&path, least).await.is(200).body;
        assert_eq!((&replaced["timezone"], &replaced["catch_up_seconds"]), (&json!("UTC"), &json!(86400)));
        assert_eq!((&replaced["bandwidth_up_kbps"], &replaced["next_runs"]), (&Value::Null, &json!([])));
        assert_eq!(replaced["created_at"], created.body["created_at"]);
        assert_eq!(rig.get(&path).await.is(200).body, replaced);

        rig.post(&all, json!({"cron": "@hourly", "source_groups": ["etc"]})).await.is(201);
        assert_eq!(rig.get(&all).await.is(200).each("cron"), ["@daily", "@hourly"]);
        rig.delete(&path).await.is(204);
        rig.delete(&path).await.is(404);
        rig.get(&path).await.is(404);
        rig.put(&path, json!({"cron": "@daily", "source_groups": ["docs"]})).await.is(404);
        assert_eq!(rig.get(&all).await.is(200).each("cron"), ["@hourly"]);
    });
}

#[test]
fn what_no_cron_would_keep_is_refused_with_the_place() {
    with_rig(async |rig| {
        let (_, all) = host(&rig).await;
        for (change, pointer, detail) in [
            (json!({"cron": "0 25 * * *"}), "/cron", "position 2"),
            (json!({"cron": "0 0 30 2 *"}), "/cron", "never"),
            (json!({"cron": "0 2 * * 1-5 7"}), "/cron", "position"),
            (json!({"timezone": "Berlin"}), "/timezone", "Europe/Berlin"),
            (json!({"source_groups": []}), "/source_groups", "at least one"),
            (json!({"source_groups": ["docs", "docs"]}), "/source_groups/1", "twice"),
            (json!({"source_groups": ["docs", "nope"]}), "/source_groups", "\"nope\""),
            (json!({"catch_up_seconds": -1}), "/catch_up_seconds", "from 0"),
            (json!({"bandwidth_up_kbps": -1}), "/bandwidth_up_kbps", "from 0"),
            (json!({"crontab": "x"}), "/crontab", "not known"),
        ] {
            let mut body = json!({"cron": "0 2 * * *", "source_groups": ["docs"]});
            for (field, value) in change.as_object().expect("an object") {
                body[field] = value.clone();
            }
            // What makes no sense, and what does not go with what the host has.
            let refused = rig.post(&all, body).await.is(if detail == "\"nope\"" { 409 } else { 422 });
            assert_eq!(refused.pointers(), [pointer], "{change}");
            let said = refused.body["errors"][0]["detail"].as_str().unwrap_or_default();
            assert!(said.contains(detail), "{change}: {said}");
        }
        rig.post(
            "/v1/hosts/00000000-0000-0000-0000-000000000000/schedules",
            json!({"cron": "@daily", "source_groups": ["docs"]}),
        )
        .await
        .is(404);
    });
}

#[test]
fn the_version_rises_with_all_that_schedules_are_made_of() {
    with_rig(async |rig| {
        let (host, all) = host(&rig).await;
        let groups = format!("/v1/hosts/{host}/source-groups");
        let before = version(&rig, &host).await;
        rig.put(&format!("{groups}/docs"), json!({"includes": ["/srv", "/etc"]})).await.is(200);
        assert_eq!(version(&rig, &host).await, before, "no schedule has it");
        let schedule = rig.post(&all, json!({"cron": "@daily", "source_groups": ["docs"]})).await.is(201);
        assert_eq!((version(&rig, &host).await, &schedule.body["version"]), (before + 1, &json!(before + 1)));
        rig.put(&format!("{groups}/docs"), json!({"includes": ["/srv"]})).await.is(200);
        assert_eq!(version(&rig, &host).await, before + 2);
        rig.put(&format!("{groups}/etc"), json!({"includes": ["/srv"]})).await.is(200);
        assert_eq!(version(&rig, &host).await, before + 2, "no schedule has it");
        rig.patch(&format!("/v1/hosts/{host}"), json!({"pre_hook": "true"})).await.is(200);
        assert_eq!(version(&rig, &host).await, before + 3);
        rig.delete(schedule.header("location")).await.is(204);
        assert_eq!(version(&rig, &host).await, before + 4);
    });
}

#[test]
fn a_group_that_a_schedule_has_can_not_be_deleted() {
    with_rig(async |rig| {
        let (host, all) = host(&rig).await;
        let schedule = rig.post(&all, json!({"cron": "@daily", "source_groups": ["docs"]})).await.is(201);
        let docs = format!("/v1/hosts/{host}/source-groups/docs");
        rig.delete(&docs).await.is(409);
        rig.delete(&format!("/v1/hosts/{host}/source-groups/etc")).await.is(204);
        rig.delete(schedule.header("location")).await.is(204);
        rig.delete(&docs).await.is(204);
    });
}
