//! What goes wrong, and how that is told.

use crate::rig::{ADMIN, with_rig};
use actix_web::http::Method;
use fleet_coordinator::http::body::LIMIT;
use serde_json::json;

#[test]
fn nobody_passes_without_the_admin_token() {
    with_rig(async |rig| {
        for path in ["/v1/hosts", "/v1/repositories/x", "/v1/jobs", "/v1/nonsense"] {
            for token in [None, Some("wrong"), Some(&ADMIN[1..])] {
                let answer = rig.send(Method::GET, path, token, "").await.is(401);
                assert!(answer.headers.contains_key("www-authenticate"));
            }
        }
        for path in ["/healthz", "/readyz", "/metrics"] {
            rig.send(Method::GET, path, None, "").await.is(200);
        }
    });
}

#[test]
fn wrong_addresses_and_methods_are_problems_too() {
    with_rig(async |rig| {
        for path in ["/", "/v1", "/v1/nonsense", "/v1/hosts/", "/v1/hosts/a/b", "/nonsense", "/v1/agent/nonsense"] {
            rig.get(path).await.is(404);
        }
        let answer = rig.put("/v1/hosts", json!({})).await.is(405);
        assert_eq!(answer.header("allow"), "GET");
        rig.delete("/healthz").await.is(405);
        rig.get("/v1/agent/enroll").await.is(405);
        for path in ["/v1/hosts/x", "/v1/repositories/x", "/v1/jobs/x", "/v1/repositories/%00/stats"] {
            rig.get(path).await.is(404);
        }
    });
}

#[test]
fn a_body_that_can_not_be_read_is_said_to_be_so() {
    with_rig(async |rig| {
        let post = async |body: Vec<u8>| rig.send(Method::POST, "/v1/repositories", Some(ADMIN), body).await;
        post(br#"{"name": "#.to_vec()).await.is(400);
        post(b"\xff".to_vec()).await.is(400);
        let secret = br#"{"name":"a","url":"/a","password":{"hunter2":["hunter2"]}}"#.to_vec();
        assert_eq!(post(secret).await.is(422).pointers(), ["/password"]);
        assert_eq!(post(br#"{"nmae":"a"}"#.to_vec()).await.is(422).pointers(), ["/nmae"]);
        assert_eq!(post(br#"{"name":"a\u0000b"}"#.to_vec()).await.is(422).pointers(), ["/name"]);
        post(vec![b' '; LIMIT + 1]).await.is(413);
        post(vec![b' '; LIMIT]).await.is(422);
    });
}

#[test]
fn bad_parameters_are_named() {
    with_rig(async |rig| {
        for (query, name) in [
            ("limit=0", "?limit"),
            ("limit=501", "?limit"),
            ("limit=x", "?limit"),
            ("limit=1&limit=2", "?limit"),
            ("cursor=nonsense", "?cursor"),
            ("status=asleep", "?status"),
            ("label=role", "?label"),
            ("lable=role%3Ddb", "?lable"),
            ("status=%00", "?status"),
        ] {
            assert_eq!(rig.get(&format!("/v1/hosts?{query}")).await.is(400).pointers(), [name], "{query}");
        }
        rig.get("/v1/hosts?limit=500&cursor=").await.is(200);
    });
}

#[test]
fn a_database_that_is_away_is_503_and_comes_back() {
    let other = fleet_integration::Database::create().expect("a database");
    let sql = |allow: bool, name: &str| {
        let disconnect = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allow}; {disconnect}")
    };
    let outside = |sql: String| {
        // The fixture has a runtime of its own, which can't run inside another.
        std::thread::scope(|scope| scope.spawn(|| other.query(&sql).expect(&sql)).join().expect("the query"));
    };
    with_rig(async |rig| {
        let id = rig.repository("main").await;
        let name = rig.database_name().await;
        outside(sql(false, &name));
        for path in ["/readyz", "/v1/hosts", &format!("/v1/repositories/{id}")] {
            let answer = rig.get(path).await.is(503);
            assert!(answer.headers.contains_key("retry-after"), "{path}");
        }
        rig.get("/healthz").await.is(200);
        assert!(rig.get("/metrics").await.is(200).body.to_string().contains("fleet_database_up 0"));
        let write = rig.delete(&format!("/v1/repositories/{id}")).await.is(503);
        assert!(["/problems/unavailable", "/problems/outcome-unknown"].contains(&write.text("type").as_str()));
        outside(sql(true, &name));
        rig.get("/readyz").await.is(200);
        rig.get("/v1/hosts").await.is(200);
    });
}
