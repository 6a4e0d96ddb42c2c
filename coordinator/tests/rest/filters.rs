//! What lists are filtered by, alone and together, page by page.

use crate::rig::{Rig, with_rig};
use serde_json::json;

/// A host with a source group and a job of each of two kinds; its id and those of its jobs.
async fn host(rig: &Rig, name: &str, repository: &str, site: &str) -> (String, [String; 2]) {
    let (id, _) = rig.host(name, json!({"repository_id": repository, "labels": {"site": site, "tier": "1"}})).await;
    let group = json!({"name": format!("of {site}"), "includes": ["/srv"]});
    rig.post(&format!("/v1/hosts/{id}/source-groups"), group).await.is(201);
    let jobs = format!("/v1/hosts/{id}/jobs");
    let check = rig.post(&jobs, json!({"kind": "check"})).await.is(202).text("id");
    let backup = json!({"kind": "backup", "source_group": format!("of {site}")});
    let backup = rig.post(&jobs, backup).await.is(202).text("id");
    (id, [check, backup])
}

/// All that a list has, one item a page.
async fn all(rig: &Rig, list: &str, filter: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = rig.get(&format!("/v1/{list}?limit=1&cursor={cursor}&{filter}")).await.is(200);
        found.extend(page.each("id").into_iter().map(str::to_owned));
        match page.body["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return found,
        }
    }
}

#[test]
fn jobs_are_found_by_what_they_and_their_hosts_are() {
    with_rig(async |rig| {
        let (main, other) = (rig.repository("main").await, rig.repository("other").await);
        let (one, [check_one, backup_one]) = host(&rig, "one", &main, "ulm").await;
        let (_, [check_two, backup_two]) = host(&rig, "two", &main, "bonn").await;
        let (three, [check_three, backup_three]) = host(&rig, "three", &other, "ulm").await;
        rig.sql(&format!("UPDATE jobs SET partial = true WHERE id IN ('{backup_two}', '{backup_three}')")).await;
        let newest = |jobs: &[&String]| -> Vec<String> { jobs.iter().rev().map(|id| (*id).clone()).collect() };
        let second = rig.get(&format!("/v1/jobs/{check_two}")).await.text("created_at");
        let schedule = json!({"cron": "@daily", "source_groups": ["of ulm"]});
        let schedule = rig.post(&format!("/v1/hosts/{one}/schedules"), schedule).await.is(201).text("id");
        rig.sql(&format!("UPDATE jobs SET schedule_id = '{schedule}' WHERE id = '{backup_one}'")).await;
        for (filter, expected) in [
            ("hostname=one".to_owned(), newest(&[&check_one, &backup_one])),
            ("hostname=nobody".to_owned(), vec![]),
            ("label=site%3Dulm".to_owned(), newest(&[&check_one, &backup_one, &check_three, &backup_three])),
            ("label=site%3Dulm&label=tier%3D1&kind=check".to_owned(), newest(&[&check_one, &check_three])),
            ("label=site%3Dulm&label=tier%3D2".to_owned(), vec![]),
            (format!("repository_id={main}"), newest(&[&check_one, &backup_one, &check_two, &backup_two])),
            (format!("repository_id={main}&kind=check"), newest(&[&check_one, &check_two])),
            (format!("repository_id={other}&hostname=one"), vec![]),
            ("repository_id=none".to_owned(), vec![]),
            ("source_group=of%20ulm".to_owned(), newest(&[&backup_one, &backup_three])),
            (format!("source_group=of%20ulm&host_id={three}"), newest(&[&backup_three])),
            (format!("schedule_id={schedule}"), newest(&[&backup_one])),
            (format!("schedule_id={schedule}&hostname=three"), vec![]),
            ("partial=true".to_owned(), newest(&[&backup_two, &backup_three])),
            ("partial=true&hostname=two".to_owned(), newest(&[&backup_two])),
            ("partial=false&kind=backup".to_owned(), newest(&[&backup_one])),
            (format!("until={second}"), newest(&[&check_one, &backup_one])),
            (format!("since={second}&until={second}"), vec![]),
            (format!("since={second}&kind=check"), newest(&[&check_two, &check_three])),
        ] {
            assert_eq!(all(&rig, "jobs", &filter).await, expected, "{filter}");
        }
        for bad in ["partial=perhaps", "until=noon", "label=site"] {
            rig.get(&format!("/v1/jobs?{bad}")).await.is(400);
        }
    });
}

#[test]
fn hosts_are_found_by_their_names_and_repositories_and_when_they_are_gone() {
    with_rig(async |rig| {
        let main = rig.repository("main").await;
        let (one, _) = host(&rig, "one", &main, "ulm").await;
        let (two, _) = host(&rig, "two", &main, "ulm").await;
        let (other, _) = rig.host("one", json!({})).await;
        rig.delete(&format!("/v1/hosts/{two}")).await.is(204);
        for (filter, expected) in [
            (String::new(), vec![&one, &other]),
            ("hostname=one".to_owned(), vec![&one, &other]),
            (format!("hostname=one&repository_id={main}"), vec![&one]),
            (format!("repository_id={main}"), vec![&one]),
            ("status=decommissioned".to_owned(), vec![&two]),
            ("status=decommissioned&hostname=one".to_owned(), vec![]),
            ("status=offline&label=site%3Dulm".to_owned(), vec![&one]),
        ] {
            let expected: Vec<String> = expected.into_iter().cloned().collect();
            assert_eq!(all(&rig, "hosts", &filter).await, expected, "{filter}");
        }
        let gone = rig.get("/v1/hosts?status=decommissioned").await.is(200);
        assert!(gone.body["items"][0]["decommissioned_at"].is_string(), "{}", gone.body);
        // What it did is still told, and of nobody else.
        assert_eq!(all(&rig, "jobs", &format!("host_id={two}")).await.len(), 2);
        for list in ["runs", "snapshots"] {
            rig.get(&format!("/v1/{list}?host_id={two}")).await.is(200);
            rig.get(&format!("/v1/{list}?host_id={main}")).await.is(404);
            assert_eq!(rig.get(&format!("/v1/{list}")).await.is(400).pointers(), ["?host_id"]);
        }
    });
}
