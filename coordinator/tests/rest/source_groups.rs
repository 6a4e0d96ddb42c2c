//! `/v1/hosts/{id}/source-groups`.

use crate::rig::with_rig;
use serde_json::{Value, json};

#[test]
fn a_group_is_made_replaced_and_deleted() {
    with_rig(async |rig| {
        let (host, _) = rig.host("one", json!({})).await;
        let all = format!("/v1/hosts/{host}/source-groups");
        let full = json!({
            "name": "docs", "includes": ["/home", "/etc"], "excludes": ["*.tmp"], "retention": {"keep_daily": 7},
            "retry_max": 3, "retry_backoff_seconds": 5, "pre_hook": "true", "post_hook": "false",
        });
        let created = rig.post(&all, full.clone()).await.is(201);
        assert_eq!(created.header("location"), format!("{all}/docs"));
        for (field, value) in full.as_object().expect("an object") {
            assert_eq!(created.body[field], *value, "{field}");
        }
        rig.post(&all, full).await.is(409);

        let path = format!("{all}/docs");
        assert_eq!(rig.get(&path).await.is(200).body["includes"], json!(["/home", "/etc"]));
        // What is not given goes back to its default: PUT stores the whole.
        let replaced = rig.put(&path, json!({"includes": ["/srv"]})).await.is(200).body;
        assert_eq!((&replaced["retention"], &replaced["retry_max"]), (&Value::Null, &json!(0)));
        assert_eq!((&replaced["excludes"], &replaced["retry_backoff_seconds"]), (&json!([]), &json!(60)));
        assert_eq!(replaced["created_at"], rig.get(&path).await.body["created_at"]);
        assert_eq!(rig.put(&path, json!({"name": "other", "includes": ["/srv"]})).await.is(409).pointers(), ["/name"]);

        rig.put(&format!("{all}/new"), json!({"name": "new", "includes": ["/srv"]})).await.is(201);
        assert_eq!(rig.get(&all).await.is(200).each("name"), ["docs", "new"]);
        rig.delete(&path).await.is(204);
        rig.delete(&path).await.is(404);
        rig.get(&path).await.is(404);
    });
}

#[test]
fn any_name_can_be_used_in_a_url() {
    with_rig(async |rig| {
        let (host, _) = rig.host("one", json!({})).await;
        let all = format!("/v1/hosts/{host}/source-groups");
        for name in ["a b", "a/b", "a%2Fb", "ä", "a?b#c", "a+b", "it's", "日本語"] {
            let created = rig.post(&all, json!({"name": name, "includes": ["/srv"]})).await.is(201);
            let location = created.header("location").to_owned();
            assert_eq!(rig.get(&location).await.is(200).body["name"], name, "{location}");
            rig.put(&location, json!({"name": name, "includes": ["/etc"]})).await.is(200);
            rig.delete(&location).await.is(204);
        }
        rig.get(&format!("{all}/a%00b")).await.is(404);
        rig.get(&format!("{all}/%ff")).await.is(404);
    });
}

#[test]
fn what_restic_would_misread_is_refused() {
    with_rig(async |rig| {
        let (host, _) = rig.host("one", json!({})).await;
        let all = format!("/v1/hosts/{host}/source-groups");
        for (change, pointer) in [
            (json!({"name": "a,b"}), "/name"),
            (json!({"name": ""}), "/name"),
            (json!({"name": " a"}), "/name"),
            (json!({"name": ".."}), "/name"),
            (json!({"name": "a".repeat(256)}), "/name"),
            (json!({"name": null}), "/name"),
            (json!({"includes": []}), "/includes"),
            (json!({"includes": ["/a", "b"]}), "/includes/1"),
            (json!({"includes": ["/a", ""]}), "/includes/1"),
            (json!({"includes": ["/a\u{0}"]}), "/includes/0"),
            (json!({"excludes": [""]}), "/excludes/0"),
            (json!({"retention": {}}), "/retention"),
            (json!({"retention": {"keep_last": 0}}), "/retention"),
            (json!({"retention": {"keep_last": 1, "keep_daily": -1}}), "/retention/keep_daily"),
            (json!({"retention": {"keep_last": 1, "keep_within": "1y"}}), "/retention/keep_within"),
            (json!({"retry_max": -1}), "/retry_max"),
            (json!({"retry_backoff_seconds": 1.5}), "/retry_backoff_seconds"),
        ] {
            let mut body = json!({"name": "docs", "includes": ["/srv"]});
            let fields = body.as_object_mut().expect("an object");
            fields.extend(change.as_object().expect("an object").clone());
            assert_eq!(rig.post(&all, body).await.is(422).pointers(), [pointer], "{change}");
        }
        let of_another_system = json!({"name": "docs", "includes": ["/a", "C:\\b"]});
        assert_eq!(rig.post(&all, of_another_system).await.is(409).pointers(), ["/includes/1"]);
        assert_eq!(rig.get(&all).await.body["items"], json!([]));
        let nobody = format!("/v1/hosts/{}/source-groups", uuid::Uuid::new_v4());
        rig.get(&nobody).await.is(404);
        rig.post(&nobody, json!({"name": "docs", "includes": ["/srv"]})).await.is(404);
    });
}
