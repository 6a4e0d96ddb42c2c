//! `…/pause` and `/v1/pauses`.

use crate::rig::{Rig, with_rig};
use chrono::{DateTime, TimeDelta, Utc};
use fleet_coordinator::ticker::look;
use serde_json::{Value, json};

/// A host in the repository, with a daily schedule of one group; the host's path and when it is due next.
async fn scheduled(rig: &Rig, name: &str, repository: &str) -> (String, DateTime<Utc>) {
    let (host, _) = rig.host(name, json!({"repository_id": repository})).await;
    let path = format!("/v1/hosts/{host}");
    rig.post(&format!("{path}/source-groups"), json!({"name": "docs", "includes": ["/srv"]})).await.is(201);
    let schedule = json!({"cron": "0 2 * * *", "source_groups": ["docs"]});
    let made = rig.post(&format!("{path}/schedules"), schedule).await.is(201).body;
    let due = made["next_runs"][0].as_str().expect("a time").parse().expect("a time");
    (path, due)
}

async fn version(rig: &Rig, host: &str) -> i64 {
    rig.get(host).await.is(200).body["schedule_version"].as_i64().expect("a version")
}

#[test]
fn a_pause_begins_changes_and_ends_and_everybody_sees_it() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        let (host, _) = scheduled(&rig, "one", &repository).await;
        let repository = format!("/v1/repositories/{repository}");
        for (path, shown, scope) in [
            (format!("{host}/pause"), Some(&host), "host"),
            (format!("{repository}/pause"), Some(&repository), "repository"),
            ("/v1/pause".to_owned(), None, "fleet"),
        ] {
            rig.get(&path).await.is(404);
            rig.delete(&path).await.is(404);
            let pause = rig.put(&path, json!({"reason": "new disks"})).await.is(200).body;
            assert_eq!((&pause["reason"], &pause["by"]), (&json!("new disks"), &json!("admin")));
            assert_eq!(rig.get(&path).await.is(200).body, pause);
            let changed = rig.put(&path, json!({"reason": "slow disks"})).await.is(200).body;
            assert_eq!((&changed["reason"], &changed["since"]), (&json!("slow disks"), &pause["since"]));
            if let Some(shown) = shown {
                assert_eq!(rig.get(shown).await.is(200).body["paused"], changed);
            }
            let all = rig.get("/v1/pauses").await.is(200).body["items"].clone();
            let id = |name: &str| shown.filter(|_| scope == name).and_then(|path| path.rsplit('/').next());
            let mut expected = changed.clone();
            expected["scope"] = json!(scope);
            expected["host_id"] = json!(id("host"));
            expected["repository_id"] = json!(id("repository"));
            assert_eq!(all, json!([expected]));
            rig.delete(&path).await.is(204);
            rig.get(&path).await.is(404);
            if let Some(shown) = shown {
                assert_eq!(rig.get(shown).await.is(200).body["paused"], Value::Null);
            }
        }
        assert_eq!(rig.get("/v1/pauses").await.is(200).body["items"], json!([]));
    });
}

#[test]
fn all_pauses_come_in_pages_and_those_of_what_is_gone_are_gone() {
    with_rig(async |rig| {
        let (first, second) = (rig.repository("first").await, rig.repository("second").await);
        let (host, _) = rig.host("one", json!({"repository_id": first})).await;
        for path in [format!("repositories/{second}"), format!("hosts/{host}")] {
            rig.put(&format!("/v1/{path}/pause"), json!({"reason": "x"})).await.is(200);
        }
        rig.put("/v1/pause", json!({"reason": "x"})).await.is(200);
        let mut scopes = Vec::new();
        let mut path = "/v1/pauses?limit=1".to_owned();
        loop {
            let page = rig.get(&path).await.is(200);
            scopes.extend(page.each("scope").into_iter().map(str::to_owned));
            match page.body["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/pauses?limit=1&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(scopes, ["repository", "host", "fleet"], "the longest first");
        rig.delete(&format!("/v1/hosts/{host}")).await.is(204);
        rig.delete(&format!("/v1/repositories/{second}")).await.is(204);
        assert_eq!(rig.get("/v1/pauses").await.is(200).each("scope"), ["fleet"]);
    });
}

#[test]
fn what_can_not_be_paused_is_said() {
    with_rig(async |rig| {
        let nobody = "00000000-0000-0000-0000-000000000000";
        rig.put("/v1/pause", json!({"reason": "x"})).await.is(200);
        for path in [format!("/v1/hosts/{nobody}/pause"), format!("/v1/repositories/{nobody}/pause")] {
            rig.put(&path, json!({"reason": "x"})).await.is(404);
            rig.get(&path).await.is(404);
            rig.delete(&path).await.is(404);
        }
        for body in [json!({"reason": ""}), json!({"reason": " x"}), json!({"reason": "a\nb"})] {
            assert_eq!(rig.put("/v1/pause", body).await.is(422).pointers(), ["/reason"]);
        }
        rig.put("/v1/pause", json!({})).await.is(422);
        rig.post("/v1/pause", json!({"reason": "x"})).await.is(405);
        assert_eq!(rig.get("/v1/pauses").await.is(200).each("scope"), ["fleet"]);
    });
}

#[test]
fn the_schedules_of_all_hosts_concerned_get_another_version_and_no_others() {
    with_rig(async |rig| {
        let (first, second) = (rig.repository("first").await, rig.repository("second").await);
        let (one, _) = scheduled(&rig, "one", &first).await;
        let (two, _) = scheduled(&rig, "two", &second).await;
        let versions = async |rig: &Rig| (version(rig, &one).await, version(rig, &two).await);
        let before = versions(&rig).await;
        for (path, of_one, of_two) in [
            (format!("{one}/pause"), 2, 0),
            (format!("/v1/repositories/{second}/pause"), 0, 2),
            ("/v1/pause".to_owned(), 2, 2),
        ] {
            let before = versions(&rig).await;
            rig.put(&path, json!({"reason": "x"})).await.is(200);
            rig.put(&path, json!({"reason": "y"})).await.is(200);
            rig.delete(&path).await.is(204);
            assert_eq!(versions(&rig).await, (before.0 + of_one, before.1 + of_two), "{path}");
        }
        // A host that moves may come from a paused repository.
        rig.patch(&one, json!({"repository_id": second})).await.is(200);
        assert_eq!(version(&rig, &one).await, before.0 + 5);
    });
}

#[test]
fn what_comes_due_while_paused_is_skipped_with_the_reason_and_before_it_is_not() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        let (host, due) = scheduled(&rig, "one", &repository).await;
        let other = rig.repository("other").await;
        let (free, _) = scheduled(&rig, "two", &other).await;
        let path = format!("/v1/repositories/{repository}/pause");
        let outcomes = async |rig: &Rig, host: &str| -> Vec<(String, Value)> {
            let found = rig.get(&format!("{host}/runs")).await.is(200).body;
            let items = found["items"].as_array().expect("a list").iter();
            items.map(|run| (run["outcome"].as_str().expect("one").to_owned(), run["reason"].clone())).collect()
        };
        // It began between the first and the second firing.
        rig.put(&path, json!({"reason": "new disks"})).await.is(200);
        let began = due + TimeDelta::hours(1);
        rig.sql(&format!("UPDATE pauses SET since = '{}'", began.to_rfc3339())).await;
        rig.load_pauses().await;
        look(rig.services.clone(), due + TimeDelta::days(1) + TimeDelta::minutes(11)).await;
        let skipped = ("skipped".to_owned(), json!("paused: the repository, by admin: new disks"));
        let missed = ("missed".to_owned(), json!("its host was offline"));
        assert_eq!(outcomes(&rig, &host).await, [skipped, missed.clone()]);
        assert_eq!(outcomes(&rig, &free).await, [missed.clone(), missed]);
    });
}

#[test]
fn what_came_due_until_a_pause_ends_is_skipped_also_where_nobody_has_looked() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        rig.host("one", json!({"repository_id": repository})).await;
        let path = format!("/v1/repositories/{repository}");
        let maintenance = json!({"check": {"cron": "0 2 * * *"}, "prune": {"cron": "0 2 * * *"}});
        rig.put(&format!("{path}/maintenance"), maintenance).await.is(200);
        rig.put("/v1/pause", json!({"reason": "a move"})).await.is(200);
        rig.sql("UPDATE maintenance SET next_due_at = now() WHERE kind = 'check'").await;
        rig.sql("UPDATE maintenance SET next_due_at = now() - interval '1 hour' WHERE kind = 'prune'").await;
        rig.delete("/v1/pause").await.is(204);
        let runs = rig.get(&format!("{path}/runs")).await.is(200).body;
        let found: Vec<_> =
            runs["items"].as_array().expect("a list").iter().map(|run| (&run["kind"], &run["outcome"])).collect();
        let (check, prune) = ((&json!("check"), &json!("skipped")), (&json!("prune"), &json!("expected")));
        assert_eq!(found, [check, prune]);
    });
}
