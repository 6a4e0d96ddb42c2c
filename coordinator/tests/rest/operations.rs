//! `/v1/operations` over hosts that are not connected: what they are asked waits.

use crate::rig::{Rig, with_rig};
use serde_json::{Value, json};
use uuid::Uuid;

/// Hosts of one repository, each with the source group docs and a label with its name.
async fn fleet(rig: &Rig, names: &[&str]) -> (String, Vec<String>) {
    let repository = rig.repository("main").await;
    let mut hosts = Vec::new();
    for name in names {
        let token = json!({"repository_id": repository, "labels": {"name": name, "all": "yes"}});
        let (host, _) = rig.host(name, token).await;
        let group = json!({"name": "docs", "includes": ["/srv/docs"]});
        rig.post(&format!("/v1/hosts/{host}/source-groups"), group).await.is(201);
        hosts.push(host);
    }
    (repository, hosts)
}

fn backup(selector: Value) -> Value {
    json!({"kind": "backup", "source_group": "docs", "selector": selector})
}

#[test]
fn a_request_that_makes_no_sense_is_refused_field_by_field() {
    with_rig(async |rig| {
        fleet(&rig, &["web-1"]).await;
        let all = json!({"all": true});
        let cases = [
            (json!({"kind": "check"}), "/selector"),
            (json!({"kind": "check", "selector": {}}), "/selector"),
            (json!({"kind": "check", "selector": {"all": true, "status": "online"}}), "/selector"),
            (json!({"kind": "check", "selector": {"status": "asleep"}}), "/selector/status"),
            (json!({"kind": "check", "selector": {"ids": ["x"]}}), "/selector/ids/0"),
            (json!({"kind": "check", "selector": {"hosts": []}}), "/selector/hosts"),
            (json!({"kind": "sweep", "selector": all}), "/kind"),
            (json!({"kind": "backup", "selector": all}), "/source_group"),
            (json!({"kind": "check", "selector": all, "args": ["half"]}), "/args/0"),
            (json!({"kind": "check", "selector": all, "max_parallel": 0}), "/max_parallel"),
            (json!({"kind": "check", "selector": all, "canaries": -1}), "/canaries"),
            (json!({"kind": "check", "selector": all, "stop_after_failures": 0}), "/stop_after_failures"),
            (json!({"kind": "forget", "selector": all, "per": "repository"}), "/per"),
        ];
        for (body, pointer) in cases {
            let answer = rig.post("/v1/operations", body.clone()).await.is(422);
            assert_eq!(answer.pointers(), [pointer], "{body}: {}", answer.body);
        }
        for nobody in [
            json!({"kind": "check", "selector": {"labels": {"name": "none"}}}),
            json!({"kind": "check", "selector": {"ids": [Uuid::new_v4()]}}),
            // The host has no retention policy.
            json!({"kind": "forget", "selector": all}),
        ] {
            let answer = rig.post("/v1/operations", nobody.clone()).await.is(409);
            assert_eq!(answer.pointers(), ["/selector"], "{nobody}: {}", answer.body);
        }
        assert_eq!(rig.get("/v1/operations").await.is(200).body["items"], json!([]));
        assert_eq!(rig.get("/v1/jobs").await.is(200).body["items"], json!([]));
        for path in ["", "/jobs", "/skipped"] {
            rig.get(&format!("/v1/operations/{}{path}", Uuid::new_v4())).await.is(404);
        }
        rig.get("/v1/operations/none").await.is(404);
        for path in ["cancel", "retry"] {
            rig.post(&format!("/v1/operations/{}/{path}", Uuid::new_v4()), Value::Null).await.is(404);
        }
    });
}

#[test]
fn a_dry_run_shows_whom_it_would_hit_and_makes_nothing() {
    with_rig(async |rig| {
        let (repository, hosts) = fleet(&rig, &["web-1", "web-2", "web-3"]).await;
        let (homeless, _) = rig.host("db-1", json!({})).await;
        rig.delete(&format!("/v1/hosts/{}/source-groups/docs", hosts[1])).await.is(204);
        let mut body = backup(json!({"all": true}));
        body["dry_run"] = json!(true);
        let answer = rig.post("/v1/operations", body.clone()).await.is(200);
        assert_eq!(answer.body["counts"], json!({"jobs": 2, "skipped": 2}));
        assert_eq!(answer.each("hostname"), ["db-1", "web-1", "web-2", "web-3"]);
        let items = &answer.body["items"];
        assert_eq!(items[0]["skipped"], "this host has no repository: assign one first");
        assert_eq!((&items[1]["skipped"], &items[1]["repository_id"]), (&Value::Null, &json!(repository)));
        assert_eq!(items[2]["skipped"], "this host has no source group \"docs\"");

        let first = rig.post("/v1/operations?limit=3", body.clone()).await.is(200);
        let next = format!("/v1/operations?limit=3&cursor={}", first.text("next_cursor"));
        assert_eq!(rig.post(&next, body).await.is(200).each("hostname"), ["web-3"]);

        let unknown = Uuid::new_v4().to_string();
        let selections = [
            (json!({"labels": {"name": "web-3", "all": "yes"}}), vec![&hosts[2]]),
            (json!({"repository_id": repository}), hosts.iter().collect()),
            (json!({"ids": [hosts[2], unknown]}), vec![&hosts[2], &unknown]),
            (json!({"status": "offline", "labels": {"name": "web-1"}}), vec![&hosts[0]]),
            (json!({"status": "offline", "ids": [homeless]}), vec![&homeless]),
        ];
        for (selector, expected) in selections {
            let body = json!({"kind": "unlock", "selector": selector, "dry_run": true});
            assert_eq!(rig.post("/v1/operations", body).await.is(200).each("host_id"), expected, "{selector}");
        }
        // One host runs it for the repository.
        let body = json!({"kind": "check", "selector": {"repository_id": repository}, "dry_run": true});
        let answer = rig.post("/v1/operations", body).await.is(200);
        assert_eq!((answer.each("host_id"), answer.text("per")), (vec![hosts[0].as_str()], "repository".to_owned()));
        let body = json!({"kind": "check", "selector": {"all": true}, "per": "host", "dry_run": true});
        assert_eq!(rig.post("/v1/operations", body).await.is(200).body["counts"]["jobs"], 3);

        assert_eq!(rig.get("/v1/jobs").await.is(200).body["items"], json!([]));
        assert_eq!(rig.get("/v1/operations").await.is(200).body["items"], json!([]));
    });
}

#[test]
fn an_operation_is_a_job_on_each_host_and_its_members_are_told_apart() {
    with_rig(async |rig| {
        let (repository, hosts) = fleet(&rig, &["web-1", "web-2", "web-3"]).await;
        let unknown = Uuid::new_v4().to_string();
        let mut body = backup(json!({"ids": [hosts[0], hosts[1], unknown]}));
        body["bandwidth_up_kbps"] = json!(70);
        let answer = rig.post("/v1/operations", body).await.is(202);
        let id = answer.text("id");
        assert_eq!(answer.header("location"), format!("/v1/operations/{id}"));
        for (field, value) in [
            ("kind", json!("backup")),
            ("state", json!("running")),
            ("per", json!("host")),
            ("source_group", json!("docs")),
            ("selector", json!({"ids": 3})),
            ("ended_at", Value::Null),
        ] {
            assert_eq!(answer.body[field], value, "{field}");
        }
        let counts = json!({
            "jobs": 2, "skipped": 1, "queued": 2, "running": 0, "succeeded": 0, "partial": 0, "failed": 0, "cancelled": 0,
        });
        assert_eq!(answer.body["counts"], counts);
        let path = format!("/v1/operations/{id}");
        assert_eq!(rig.get(&path).await.is(200).body, answer.body);
        assert_eq!(rig.get("/v1/operations").await.is(200).body["items"], json!([answer.body]));

        let jobs = rig.get(&format!("{path}/jobs")).await.is(200);
        let mut of_hosts = jobs.each("host_id");
        of_hosts.sort_unstable();
        let mut expected = vec![hosts[0].as_str(), hosts[1].as_str()];
        expected.sort_unstable();
        assert_eq!(of_hosts, expected);
        let job = &jobs.body["items"][0];
        assert_eq!((&job["operation_id"], &job["waiting_for"]), (&json!(id), &json!("host is offline")));
        assert_eq!((&job["repository_id"], &job["origin"]), (&json!(repository), &json!("operator")));
        let skipped = rig.get(&format!("{path}/skipped")).await.is(200);
        assert_eq!(
            skipped.body["items"],
            json!([{"host_id": unknown, "reason": "there is no host with this id in service"}])
        );

        // Beside another one, and page by page.
        rig.post(&format!("/v1/hosts/{}/jobs", hosts[2]), json!({"kind": "check"})).await.is(202);
        rig.post("/v1/operations", backup(json!({"ids": [hosts[2]]}))).await.is(202);
        let page = rig.get(&format!("/v1/jobs?operation_id={id}&limit=1")).await.is(200);
        let next = format!("{path}/jobs?limit=1&cursor={}", page.text("next_cursor"));
        let next = rig.get(&next).await.is(200);
        assert_eq!([page.each("host_id"), next.each("host_id")].concat(), jobs.each("host_id"));
        assert_eq!(next.body["next_cursor"], Value::Null);
        let of_host = format!("{path}/jobs?status=queued&host_id={}", hosts[1]);
        assert_eq!(rig.get(&of_host).await.is(200).each("host_id"), [hosts[1].as_str()]);
        assert_eq!(rig.get(&format!("{path}/jobs?status=running")).await.is(200).body["items"], json!([]));
        let list = rig.get("/v1/operations?limit=1").await.is(200);
        let next = format!("/v1/operations?limit=1&cursor={}", list.text("next_cursor"));
        assert_eq!(rig.get(&next).await.is(200).each("id"), [id.as_str()]);
    });
}

#[test]
fn a_cancel_ends_what_waits_and_a_retry_is_a_new_operation() {
    with_rig(async |rig| {
        let (_, hosts) = fleet(&rig, &["web-1", "web-2", "web-3"]).await;
        let mut body = backup(json!({"labels": {"all": "yes"}}));
        (body["max_parallel"], body["canaries"]) = (json!(2), json!(1));
        let id = rig.post("/v1/operations", body).await.is(202).text("id");
        let path = format!("/v1/operations/{id}");
        rig.post(&format!("{path}/retry"), Value::Null).await.is(409);
        // One of them is cancelled by itself.
        let job = rig.get(&format!("{path}/jobs?host_id={}", hosts[2])).await.is(200).each("id")[0].to_owned();
        rig.post(&format!("/v1/jobs/{job}/cancel"), Value::Null).await.is(202);
        let first = rig.post(&format!("{path}/cancel"), Value::Null).await.is(202);
        assert!(["cancelling", "cancelled"].contains(&first.text("state").as_str()), "{}", first.body);
        let ended = rig.get(&format!("{path}?wait=30")).await.is(200);
        assert_eq!((ended.text("state"), &ended.body["counts"]["cancelled"]), ("cancelled".to_owned(), &json!(3)));
        assert_eq!(rig.post(&format!("{path}/cancel"), Value::Null).await.is(202).body, ended.body);
        let jobs = rig.get(&format!("{path}/jobs")).await.is(200);
        assert_eq!(jobs.each("status"), ["cancelled"; 3]);

        rig.post(&format!("{path}/retry"), Value::Null).await.is(409); // nothing has failed
        rig.post(&format!("{path}/retry"), json!({"outcomes": ["lost"]})).await.is(422);
        rig.patch(&format!("/v1/hosts/{}", hosts[1]), json!({"repository_id": null})).await.is(200);
        let again = rig.post(&format!("{path}/retry"), json!({"outcomes": ["cancelled"]})).await.is(202);
        assert_eq!((again.text("retry_of"), again.text("kind")), (id.clone(), "backup".to_owned()));
        assert_eq!((&again.body["counts"]["jobs"], &again.body["counts"]["skipped"]), (&json!(2), &json!(1)));
        assert_eq!((&again.body["max_parallel"], &again.body["canaries"]), (&json!(2), &json!(1)));
        let path = format!("/v1/operations/{}", again.text("id"));
        let retried = rig.get(&format!("{path}/jobs?host_id={}", hosts[2])).await.is(200);
        let retried = &retried.body["items"][0];
        let expected = (&json!(job), &json!(2), &json!("retry"));
        assert_eq!((&retried["retry_of"], &retried["attempt"], &retried["origin"]), expected);

        // Who was skipped can be tried again too, once that is mended.
        rig.post(&format!("{path}/cancel"), Value::Null).await.is(202);
        assert_eq!(rig.get(&format!("{path}?wait=30")).await.is(200).text("state"), "cancelled");
        let again = rig.post(&format!("{path}/retry"), json!({"outcomes": ["skipped"]})).await.is(409);
        assert_eq!(again.pointers(), ["/selector"], "it is still not mended");
    });
}
