//! `/v1/repositories`: above all, that secrets go in and never come out.

use crate::rig::{Rig, SECRET, with_rig};
use diesel_async::RunQueryDsl;
use fleet_coordinator::db::repositories::{self, SecretColumn};
use serde_json::{Value, json};

async fn secret(rig: &Rig, id: &str, column: SecretColumn) -> Option<String> {
    let id = id.parse().expect("an id");
    let row = repositories::find(&mut rig.reader().await, id).await.expect("read").expect("the row");
    let opened = row.secret(&rig.services.vault, column).expect("opens");
    opened.map(|secret| secret.expose().to_owned())
}

#[test]
fn secrets_go_in_and_never_come_out() {
    with_rig(async |rig| {
        let new = json!({
            "name": "main", "url": "rest:http://127.0.0.1:8000/x/", "password": "hunter2-p", "username": "u",
            "credential": "hunter2-c", "append_only": true,
            "admin": {"url": "rest:http://127.0.0.1:8001/x/", "username": "a", "credential": "hunter2-ac",
                "password": "hunter2-ap"},
        });
        let created = rig.post("/v1/repositories", new).await.is(201);
        let id = created.text("id");
        assert_eq!(created.header("location"), format!("/v1/repositories/{id}"));
        assert_eq!(
            created.body["admin"],
            json!({
                "url": "rest:http://127.0.0.1:8001/x/", "username": "a", "has_password": true, "has_credential": true,
            })
        );
        assert_eq!((&created.body["has_password"], &created.body["has_credential"]), (&json!(true), &json!(true)));
        assert_eq!(rig.get(&format!("/v1/repositories/{id}")).await.is(200).body, created.body);
        rig.get("/v1/repositories").await.is(200);

        let whole = rig.whole_database().await;
        assert!(whole.contains("rest:http://127.0.0.1:8001/x/"), "the dump holds what is no secret");
        let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!whole.contains(SECRET) && !whole.contains(&hex), "a secret is in the clear: {whole}");
        for (column, text) in [
            (SecretColumn::Password, "hunter2-p"),
            (SecretColumn::Credential, "hunter2-c"),
            (SecretColumn::AdminPassword, "hunter2-ap"),
            (SecretColumn::AdminCredential, "hunter2-ac"),
        ] {
            assert_eq!(secret(&rig, &id, column).await.as_deref(), Some(text));
        }
    });
}

#[test]
fn a_patch_changes_what_it_names() {
    with_rig(async |rig| {
        let id = rig.repository("main").await;
        let path = format!("/v1/repositories/{id}");
        let none = rig.get(&path).await.is(200).body;
        assert_eq!(
            (&none["admin"], &none["username"], &none["has_credential"]),
            (&Value::Null, &Value::Null, &json!(false))
        );

        let patch = json!({"username": "u", "credential": "hunter2-c", "admin": {"credential": "hunter2-ac"}});
        let body = rig.patch(&path, patch).await.is(200).body;
        assert_eq!((&body["username"], &body["has_credential"]), (&json!("u"), &json!(true)));
        assert_eq!(
            body["admin"],
            json!({"url": null, "username": null, "has_password": false, "has_credential": true})
        );
        assert_eq!(secret(&rig, &id, SecretColumn::Password).await.as_deref(), Some("hunter2-main"));

        rig.patch(&path, json!({"admin": {"username": "a"}})).await.is(200);
        assert_eq!(secret(&rig, &id, SecretColumn::AdminCredential).await.as_deref(), Some("hunter2-ac"));
        let body = rig.patch(&path, json!({"admin": {"credential": null}, "credential": null})).await.is(200).body;
        assert_eq!((&body["admin"]["has_credential"], &body["admin"]["username"]), (&json!(false), &json!("a")));
        assert_eq!(body["has_credential"], false);

        let body = rig.patch(&path, json!({"admin": null})).await.is(200).body;
        assert_eq!(body["admin"], Value::Null);
        assert_eq!(rig.patch(&path, json!({})).await.is(200).body, body);
        for field in ["name", "url", "password", "append_only"] {
            assert_eq!(rig.patch(&path, json!({field: null})).await.is(422).pointers(), [format!("/{field}")]);
        }
    });
}

#[test]
fn an_admin_object_is_an_admin_credential_even_if_it_is_empty() {
    with_rig(async |rig| {
        let new = json!({"name": "main", "url": "/srv/x", "password": "hunter2", "admin": {}});
        let created = rig.post("/v1/repositories", new).await.is(201).body;
        assert_eq!(
            created["admin"],
            json!({"url": null, "username": null, "has_password": false, "has_credential": false})
        );
        let new = json!({"name": "none", "url": "/srv/x", "password": "hunter2", "admin": null});
        assert_eq!(rig.post("/v1/repositories", new).await.is(201).body["admin"], Value::Null);
    });
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    with_rig(async |rig| {
        let bad = json!({
            "name": "", "url": "rest:http://u:hunter2@host/", "password": "", "username": "a:b",
            "credential": "hunter2\n", "admin": {"url": "nonsense"},
        });
        let answer = rig.post("/v1/repositories", bad).await.is(422);
        let expected = ["/name", "/url", "/username", "/credential", "/password", "/admin/url"];
        assert_eq!(answer.pointers(), expected);
        assert!(answer.text("detail").contains("credential"));
        rig.repository("main").await;
        let again = json!({"name": "main", "url": "/srv/x", "password": "hunter2"});
        rig.post("/v1/repositories", again).await.is(409);
        let other = rig.repository("other").await;
        rig.patch(&format!("/v1/repositories/{other}"), json!({"name": "main"})).await.is(409);
    });
}

#[test]
fn a_repository_goes_only_when_nothing_uses_it() {
    with_rig(async |rig| {
        let id = rig.repository("main").await;
        let path = format!("/v1/repositories/{id}");
        let (host, _) = rig.host("one", json!({"repository_id": id})).await;
        rig.delete(&path).await.is(409);
        rig.delete(&format!("/v1/hosts/{host}")).await.is(204);
        rig.delete(&path).await.is(204);
        rig.delete(&path).await.is(404);
        rig.get(&path).await.is(404);

        let id = rig.repository("worked-on").await;
        diesel::sql_query(format!(
            "INSERT INTO jobs (id, host_id, repository_id, kind, status, origin, command, created_at)
             VALUES (gen_random_uuid(), '{host}', '{id}', 'check', 'failed', 'operator', '{{}}', now())"
        ))
        .execute(&mut rig.reader().await)
        .await
        .expect("a job");
        assert!(rig.delete(&format!("/v1/repositories/{id}")).await.is(409).text("detail").contains("jobs"));
    });
}

#[test]
fn a_repository_that_moves_has_to_be_initialised_again() {
    with_rig(async |rig| {
        let id = rig.repository("main").await;
        let (host, _) = rig.host("one", json!({"repository_id": id})).await;
        let path = format!("/v1/hosts/{host}");
        let done = format!("UPDATE hosts SET initialized_repository_id = '{id}'");
        diesel::sql_query(done).execute(&mut rig.reader().await).await.expect("noted");
        assert_eq!(rig.get(&path).await.body["repository_initialized"], true);
        rig.patch(&format!("/v1/repositories/{id}"), json!({"password": "hunter2-new"})).await.is(200);
        assert_eq!(rig.get(&path).await.body["repository_initialized"], true);
        rig.patch(&format!("/v1/repositories/{id}"), json!({"url": "/srv/elsewhere"})).await.is(200);
        assert_eq!(rig.get(&path).await.body["repository_initialized"], false);
    });
}

#[test]
fn a_repository_may_have_a_limit_of_backups_of_its_own() {
    with_rig(async |rig| {
        let body = json!({"name": "main", "url": "/srv/main", "password": "hunter2", "max_backups": 4});
        let made = rig.post("/v1/repositories", body).await.is(201);
        assert_eq!(made.body["max_backups"], 4);
        let path = made.header("location").to_owned();
        assert_eq!(rig.patch(&path, json!({"max_backups": 2})).await.is(200).body["max_backups"], 2);
        assert_eq!(rig.patch(&path, json!({"name": "other"})).await.is(200).body["max_backups"], 2);
        for wrong in [0, -1, 1_000_001] {
            assert_eq!(rig.patch(&path, json!({"max_backups": wrong})).await.is(422).pointers(), ["/max_backups"]);
        }
        assert_eq!(rig.patch(&path, json!({"max_backups": null})).await.is(200).body["max_backups"], Value::Null);
        assert_eq!(rig.get(&path).await.is(200).body["max_backups"], Value::Null);
    });
}
