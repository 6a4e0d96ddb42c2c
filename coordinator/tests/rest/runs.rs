//! The ledger of runs, and what is overdue. The clock is an input: what the ticker does is done at any time.

use crate::rig::{Rig, with_rig};
use chrono::{DateTime, TimeDelta, Utc};
use fleet_coordinator::db::aged::{Aged, ForgetAged};
use fleet_coordinator::ticker::{look, set_right};
use serde_json::{Value, json};

/// A host with the groups docs and etc, and a schedule of both.
async fn scheduled(rig: &Rig, name: &str, cron: &str) -> (String, Value) {
    let (host, _) = rig.host(name, json!({})).await;
    for group in ["docs", "etc"] {
        let groups = format!("/v1/hosts/{host}/source-groups");
        rig.post(&groups, json!({"name": group, "includes": ["/srv"]})).await.is(201);
    }
    let schedule = json!({"cron": cron, "source_groups": ["docs", "etc"]});
    let schedule = rig.post(&format!("/v1/hosts/{host}/schedules"), schedule).await.is(201).body;
    (host, schedule)
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().expect("a time")
}

async fn all_runs(rig: &Rig, host: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut path = format!("/v1/hosts/{host}/runs?limit=500");
    loop {
        let page = rig.get(&path).await.is(200).body;
        found.extend(page["items"].as_array().expect("a list").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/hosts/{host}/runs?limit=500&cursor={cursor}"),
            None => return found,
        }
    }
}

async fn sql(rig: &Rig, text: &str) {
    rig.sql(text).await;
}

#[test]
fn what_comes_due_is_expected_and_then_missed_once_however_often_it_is_looked() {
    with_rig(async |rig| {
        let (host, schedule) = scheduled(&rig, "one", "0 2 * * *").await;
        let first = time(&schedule["next_runs"][0]);
        look(rig.services.clone(), first - TimeDelta::seconds(1)).await;
        assert_eq!(all_runs(&rig, &host).await, Vec::<Value>::new());
        look(rig.services.clone(), first).await;
        let outcomes = |found: &[Value]| -> Vec<String> {
            found.iter().map(|run| run["outcome"].as_str().expect("an outcome").to_owned()).collect()
        };
        assert_eq!(outcomes(&all_runs(&rig, &host).await), ["expected", "expected"]);
        // A month in which nobody looked.
        let later = first + TimeDelta::days(30) + TimeDelta::minutes(11);
        look(rig.services.clone(), later).await;
        let found = all_runs(&rig, &host).await;
        assert_eq!(outcomes(&found), vec!["missed"; 62]);
        assert!(found.iter().all(|run| run["reason"] == "its host was offline"), "{:?}", found[0]);
        let days: Vec<_> = found.iter().step_by(2).map(|run| time(&run["due_at"])).collect();
        let expected: Vec<_> = (0..31).rev().map(|day| first + TimeDelta::days(day)).collect();
        assert_eq!(days, expected);
        look(rig.services.clone(), later).await;
        assert_eq!(all_runs(&rig, &host).await, found);
    });
}

#[test]
fn old_runs_go_in_batches_and_what_is_not_settled_stays() {
    with_rig(async |rig| {
        let (host, schedule) = scheduled(&rig, "one", "*/10 * * * *").await;
        let first = time(&schedule["next_runs"][0]);
        look(rig.services.clone(), first + TimeDelta::days(3)).await;
        sql(&rig, "UPDATE runs SET changed_at = due_at").await;
        sql(&rig, "UPDATE runs SET outcome = 'running' WHERE id = (SELECT id FROM runs ORDER BY due_at LIMIT 1)").await;
        let due_before = first + TimeDelta::days(2);
        let mut batches = 1;
        while rig.write(ForgetAged { what: Aged::Runs, before: due_before }).await.is_some() {
            batches += 1;
        }
        assert_eq!(batches, 3, "of 2 * 288 runs, 200 at a time");
        let left = all_runs(&rig, &host).await;
        let old: Vec<&Value> = left.iter().filter(|run| time(&run["due_at"]) < due_before).collect();
        assert!(left.len() == 2 * 145 + 1 && old.len() == 1 && old[0]["outcome"] == "running", "{old:?}");
    });
}

#[test]
fn a_clock_that_was_a_year_ahead_for_a_moment_stops_nothing() {
    with_rig(async |rig| {
        let (host, schedule) = scheduled(&rig, "one", "0 2 * * *").await;
        let repository = rig.repository("maintained").await;
        rig.host("two", json!({"repository_id": repository})).await;
        let maintenance = format!("/v1/repositories/{repository}/maintenance");
        rig.put(&maintenance, json!({"check": {"cron": "0 2 * * *"}})).await.is(200);
        let first = time(&schedule["next_runs"][0]);
        let of_repository = async |rig: &Rig| {
            let runs = rig.get(&format!("/v1/repositories/{repository}/runs")).await.is(200).body;
            runs["items"].as_array().expect("items").clone()
        };
        look(rig.services.clone(), first + TimeDelta::days(365)).await;
        assert!(all_runs(&rig, &host).await.len() > 700 && !of_repository(&rig).await.is_empty());
        // The clock is right again, shortly after the first time.
        let now = first + TimeDelta::minutes(2);
        assert!(set_right(&rig.services, now).await);
        look(rig.services.clone(), now).await;
        let outcomes = |found: &[Value]| -> Vec<(DateTime<Utc>, String)> {
            let outcome = |run: &Value| run["outcome"].as_str().expect("an outcome").to_owned();
            found.iter().map(|run| (time(&run["due_at"]), outcome(run))).collect()
        };
        let expected = |due_at: DateTime<Utc>| (due_at, "expected".to_owned());
        assert_eq!(outcomes(&all_runs(&rig, &host).await), vec![expected(first); 2]);
        assert_eq!(outcomes(&of_repository(&rig).await), [expected(first)]);
        // And the next day is due the next day.
        let next = first + TimeDelta::days(1);
        assert!(set_right(&rig.services, next).await);
        look(rig.services.clone(), next).await;
        assert_eq!(outcomes(&all_runs(&rig, &host).await)[..2], vec![expected(next); 2]);
        assert_eq!(outcomes(&of_repository(&rig).await)[0], expected(next));
    });
}

#[test]
fn a_success_that_a_clock_ahead_has_noted_hides_nothing_that_is_overdue() {
    with_rig(async |rig| {
        let (host, _) = scheduled(&rig, "one", "0 2 * * *").await;
        let docs = format!("/v1/hosts/{host}/source-groups/docs");
        let an_hour = json!({"includes": ["/srv"], "rpo_seconds": 3600});
        rig.put(&docs, an_hour.clone()).await.is(200);
        let repository = rig.repository("main").await;
        let maintenance = format!("/v1/repositories/{repository}/maintenance");
        let hourly = json!({"check": {"cron": "0 * * * *"}});
        rig.put(&maintenance, hourly.clone()).await.is(200);
        // All of it was noted by a clock that was a year ahead: etc has yet to succeed, and was made then.
        for text in [
            "UPDATE source_groups SET last_success_at = now() + interval '1 year',
                 overdue_at = now() + interval '1 year 1 hour' WHERE name = 'docs'",
            "UPDATE source_groups SET created_at = now() + interval '1 year',
                 overdue_at = now() + interval '1 year 2 days' WHERE name = 'etc'",
            "UPDATE schedules SET created_at = now() + interval '1 year'",
            "UPDATE maintenance SET created_at = now() + interval '1 year', last_success_at = now() + interval '1 year',
                 overdue_at = now() + interval '1 year 2 hours'",
        ] {
            sql(&rig, text).await;
        }
        let overdue = async |rig: &Rig| -> Vec<(Value, DateTime<Utc>)> {
            let found = rig.get("/v1/overdue").await.is(200).body["items"].clone();
            let items = found.as_array().expect("a list").iter();
            items.map(|item| (item["kind"].clone(), time(&item["last_success_at"]))).collect()
        };
        assert_eq!(overdue(&rig).await, []);
        // It is right again, and then three hours pass.
        let right = Utc::now() - TimeDelta::hours(3);
        assert!(set_right(&rig.services, right).await);
        let found = overdue(&rig).await;
        assert_eq!(found.iter().map(|(kind, _)| kind).collect::<Vec<_>>(), ["backup", "check"], "{found:?}");
        assert!(found.iter().all(|(_, at)| (*at - right).abs() < TimeDelta::seconds(1)), "{found:?}");
        // Nor does a change of what is made then.
        sql(&rig, "UPDATE source_groups SET last_success_at = NULL").await;
        sql(&rig, "UPDATE maintenance SET last_success_at = NULL").await;
        rig.put(&docs, json!({"includes": ["/srv"], "rpo_seconds": 60})).await.is(200);
        rig.put(&maintenance, hourly).await.is(200);
        sql(&rig, "UPDATE source_groups SET overdue_at = overdue_at - interval '3 days'").await;
        sql(&rig, "UPDATE maintenance SET overdue_at = overdue_at - interval '3 days'").await;
        let found = rig.get("/v1/overdue").await.is(200).body;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(3), "{found}");
    });
}

#[test]
fn an_attempt_and_a_pause_that_a_clock_ahead_has_noted_are_put_right() {
    with_rig(async |rig| {
        let (host, schedule) = scheduled(&rig, "one", "0 2 * * *").await;
        let first = time(&schedule["next_runs"][0]);
        look(rig.services.clone(), first).await;
        rig.put("/v1/pause", json!({"reason": "new disks"})).await.is(200);
        // The day after, by a clock that was a day ahead: within 9 days, which an attempt may wait.
        for text in [
            "UPDATE runs SET outcome = 'retrying', changed_at = now() + interval '1 day',
                 retry_at = now() + interval '1 day 5 minutes'",
            "UPDATE pauses SET since = now() + interval '1 day'",
        ] {
            sql(&rig, text).await;
        }
        rig.load_pauses().await;
        let now = Utc::now();
        assert!(set_right(&rig.services, now).await);
        let soon = rig.texts("SELECT (retry_at - changed_at)::text AS text FROM runs WHERE changed_at <= now()").await;
        assert_eq!(soon, ["00:05:00", "00:05:00"]);
        let since = time(&rig.get("/v1/pause").await.is(200).body["since"]);
        assert!((since - now).abs() < TimeDelta::seconds(1), "{since}");
        assert_eq!(rig.texts("SELECT (since <= now())::text AS text FROM pauses").await, ["true"]);
        assert_eq!(all_runs(&rig, &host).await.len(), 2);
    });
}

#[test]
fn what_was_due_before_a_change_is_accounted_for_by_the_old_times() {
    with_rig(async |rig| {
        let (host, schedule) = scheduled(&rig, "one", "0 2 * * *").await;
        let path = format!("/v1/hosts/{host}/schedules/{}", schedule["id"].as_str().expect("an id"));
        // Three days ago it was due next, and nobody has looked since.
        sql(&rig, "UPDATE schedules SET next_due_at = date_trunc('minute', now()) - interval '3 days'").await;
        let changed = json!({"cron": "0 3 * * *", "source_groups": ["docs"], "enabled": false});
        rig.put(&path, changed).await.is(200);
        let found = all_runs(&rig, &host).await;
        assert_eq!(found.len(), 2 * 4, "the first, and those at two o'clock of three days: {found:?}");
        look(rig.services.clone(), Utc::now() + TimeDelta::days(9)).await;
        assert_eq!(all_runs(&rig, &host).await.len(), found.len(), "disabled, so nothing more is due");
    });
}

#[test]
fn what_has_not_succeeded_within_its_time_is_overdue() {
    with_rig(async |rig| {
        let overdue = async |rig: &Rig| rig.get("/v1/overdue").await.is(200).body["items"].clone();
        let (host, _) = scheduled(&rig, "one", "0 2 * * *").await;
        let (other, _) = rig.host("never-scheduled", json!({})).await;
        rig.post(&format!("/v1/hosts/{other}/source-groups"), json!({"name": "docs", "includes": ["/srv"]}))
            .await
            .is(201);
        let etc = format!("/v1/hosts/{host}/source-groups/etc");
        assert_eq!(overdue(&rig).await, json!([]));
        // Twice the interval of the schedule, or what the group says.
        sql(&rig, "UPDATE schedules SET created_at = now() - interval '47 hours'").await;
        rig.put(&etc, json!({"includes": ["/srv"], "rpo_seconds": 3600})).await.is(200);
        let found = overdue(&rig).await;
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
        assert_eq!((&found[0]["source_group"], &found[0]["rpo_seconds"]), (&json!("etc"), &json!(3600)));
        assert_eq!(found[0]["last_success_at"], Value::Null);
        sql(&rig, "UPDATE schedules SET created_at = now() - interval '49 hours'").await;
        rig.put(&etc, json!({"includes": ["/srv"], "rpo_seconds": 3600})).await.is(200);
        let names = |found: &Value| -> Vec<String> {
            let items = found.as_array().expect("a list").iter();
            items.map(|item| item["source_group"].as_str().expect("a name").to_owned()).collect()
        };
        assert_eq!(names(&overdue(&rig).await), ["etc", "docs"], "the longest first");
        let page = rig.get("/v1/overdue?limit=1").await.is(200).body;
        let next = page["next_cursor"].as_str().expect("another page");
        let second = rig.get(&format!("/v1/overdue?limit=1&cursor={next}")).await.is(200).body;
        assert_eq!((names(&page["items"]), names(&second["items"])), (vec!["etc".to_owned()], vec!["docs".to_owned()]));
        // Maintenance too, between them by how long it is overdue.
        let repository = rig.repository("main").await;
        rig.put(&format!("/v1/repositories/{repository}/maintenance"), json!({"check": {"cron": "@daily"}}))
            .await
            .is(200);
        sql(&rig, "UPDATE maintenance SET overdue_at = now() - interval '2 hours'").await;
        let found = overdue(&rig).await;
        let kinds: Vec<_> =
            found.as_array().expect("a list").iter().map(|item| item["kind"].as_str().expect("a kind")).collect();
        assert_eq!(kinds, ["backup", "check", "backup"], "{found}");
        assert_eq!((&found[1]["repository_id"], &found[1]["rpo_seconds"]), (&json!(repository), &json!(2 * 86400)));
        rig.delete(&format!("/v1/hosts/{host}")).await.is(204);
        assert_eq!(overdue(&rig).await.as_array().map(Vec::len), Some(1));
    });
}
