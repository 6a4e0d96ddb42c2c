//! Tokens and enrolment.

use crate::rig::with_rig;
use diesel_async::RunQueryDsl;
use fleet_coordinator::db::hosts;
use fleet_coordinator::vault::hash_token;
use serde_json::json;

#[test]
fn a_token_enrols_one_host_once() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        let wish = json!({"labels": {"role": "db"}, "repository_id": repository, "ttl_seconds": 60});
        let token = rig.post("/v1/enrollment-tokens", wish).await.is(201);
        assert_eq!(token.header("cache-control"), "no-store");
        let token = token.text("token");
        let enrolled = rig.enroll_with(&token, "one").await.is(201);
        let host = rig.get(&format!("/v1/hosts/{}", enrolled.text("host_id"))).await.is(200);
        assert_eq!(host.body["labels"], json!({"role": "db"}));
        assert_eq!(host.body["repository_id"], json!(repository));
        assert_eq!(host.body["status"], "offline");

        let hash = hash_token(&enrolled.text("agent_token"));
        let id = hosts::by_token(&mut rig.reader().await, &hash).await.expect("read").expect("the host");
        assert_eq!(id.to_string(), enrolled.text("host_id"));

        let again = rig.enroll_with(&token, "two").await.is(403);
        assert_eq!(again.body["type"], "/problems/token-refused");
        assert!(again.text("detail").contains("already"));
        rig.enroll_with("fleet_enroll_nonsense", "two").await.is(403);
        let whole = rig.whole_database().await;
        assert!(!whole.contains(&token) && !whole.contains(&enrolled.text("agent_token")));
    });
}

#[test]
fn an_expired_token_enrols_nobody() {
    with_rig(async |rig| {
        let token = rig.post("/v1/enrollment-tokens", json!({})).await.is(201).text("token");
        diesel::sql_query("UPDATE enrollment_tokens SET expires_at = now() - interval '1 second'")
            .execute(&mut rig.reader().await)
            .await
            .expect("aged");
        assert!(rig.enroll_with(&token, "one").await.is(403).text("detail").contains("expired"));
    });
}

#[test]
fn one_hostname_is_once_in_a_repository_and_a_refusal_costs_no_token() {
    with_rig(async |rig| {
        let wish = json!({"repository_id": rig.repository("main").await});
        rig.host("one", wish.clone()).await;
        let token = rig.post("/v1/enrollment-tokens", wish).await.is(201).text("token");
        rig.enroll_with(&token, "one").await.is(409);
        rig.enroll_with(&token, "two").await.is(201);
        rig.host("one", json!({"repository_id": rig.repository("other").await})).await;
        // Without a repository nothing is mixed up yet.
        rig.host("one", json!({})).await;
        rig.host("one", json!({})).await;
    });
}

#[test]
fn a_host_that_is_enrolled_again_keeps_its_id_and_loses_its_old_token() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        let (id, old) = rig.host("one", json!({"repository_id": repository, "labels": {"a": "b"}})).await;
        let (again, new) = rig.host("one", json!({"host_id": id})).await;
        assert_eq!(again, id);
        let mut reader = rig.reader().await;
        assert_eq!(hosts::by_token(&mut reader, &hash_token(&old)).await.expect("read"), None);
        assert!(hosts::by_token(&mut reader, &hash_token(&new)).await.expect("read").is_some());
        let host = rig.get(&format!("/v1/hosts/{id}")).await.is(200);
        assert_eq!((&host.body["repository_id"], &host.body["labels"]), (&json!(repository), &json!({"a": "b"})));
    });
}

#[test]
fn a_token_for_what_is_not_there_is_not_made() {
    with_rig(async |rig| {
        let nobody = uuid::Uuid::new_v4().to_string();
        for (body, pointer) in
            [(json!({"repository_id": nobody}), "/repository_id"), (json!({"host_id": nobody}), "/host_id")]
        {
            assert_eq!(rig.post("/v1/enrollment-tokens", body).await.is(409).pointers(), [pointer]);
        }
        for (body, pointer) in [
            (json!({"repository_id": "x"}), "/repository_id"),
            (json!({"ttl_seconds": 0}), "/ttl_seconds"),
            (json!({"ttl_seconds": 1_000_000_000}), "/ttl_seconds"),
            (json!({"labels": {"a=b": "c"}}), "/labels/a=b"),
        ] {
            assert_eq!(rig.post("/v1/enrollment-tokens", body).await.is(422).pointers(), [pointer]);
        }
        let (id, _) = rig.host("one", json!({})).await;
        rig.delete(&format!("/v1/hosts/{id}")).await.is(204);
        rig.post("/v1/enrollment-tokens", json!({"host_id": id})).await.is(409);
    });
}

#[test]
fn what_an_agent_says_of_itself_must_make_sense() {
    with_rig(async |rig| {
        let bad = json!({"token": "t", "hostname": " ", "os": "plan9", "arch": "vax", "extra": 1}).to_string();
        let answer = rig.send(actix_web::http::Method::POST, "/v1/agent/enroll", None, bad).await.is(422);
        assert_eq!(answer.pointers(), ["/hostname", "/os", "/arch"]);
    });
}
