//! What agents report of snapshots and repositories, as REST shows it.

use crate::rig::{Rig, with_rig};
use chrono::{TimeDelta, Utc};
use diesel_async::AsyncPgConnection;
use fleet_coordinator::db::{snapshots, stats};
use fleet_coordinator::persistence::Write;
use fleet_wire::{RepoStats, Snapshot, SnapshotsReport, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

struct Replace {
    host_id: Uuid,
    report: SnapshotsReport,
    received_at: Timestamp,
}

impl Write for Replace {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> diesel::QueryResult<()> {
        snapshots::replace(connection, self.host_id, &self.report, self.received_at).await
    }
}

struct Merge {
    repository_id: Uuid,
    host_id: Uuid,
    stats: RepoStats,
    received_at: Timestamp,
}

impl Write for Merge {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> diesel::QueryResult<()> {
        stats::merge(connection, self.repository_id, self.host_id, &self.stats, self.received_at).await
    }
}

fn id(text: &str) -> Uuid {
    text.parse().expect("an id")
}

fn at(seconds: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a time") + TimeDelta::seconds(seconds)
}

fn snapshot(name: &str, time: Option<Timestamp>) -> Snapshot {
    Snapshot { id: name.to_owned(), short_id: name[..1].to_owned(), time, ..Snapshot::default() }
}

async fn report(rig: &Rig, host: &str, list: Vec<Snapshot>, as_of: Option<Timestamp>, received_at: Timestamp) {
    let report = SnapshotsReport { snapshots: list, as_of };
    rig.write(Replace { host_id: id(host), report, received_at }).await;
}

#[test]
fn a_report_replaces_the_whole_list_unless_it_is_older() {
    with_rig(async |rig| {
        let (host, _) = rig.host("one", json!({})).await;
        let (other, _) = rig.host("two", json!({})).await;
        let path = format!("/v1/hosts/{host}/snapshots");
        let empty = rig.get(&path).await.is(200);
        assert_eq!(empty.body, json!({"items": [], "next_cursor": null, "refreshed_at": null}));

        report(&rig, &other, vec![snapshot("aaa", Some(at(0)))], None, at(100)).await;
        let first = Snapshot {
            paths: vec!["/a\0b".to_owned()],
            tags: vec!["docs".to_owned()],
            hostname: "o\0ne".to_owned(),
            size_bytes: Some(5),
            ..snapshot("aaa", Some(at(1)))
        };
        report(&rig, &host, vec![first, snapshot("bbb", Some(at(2)))], Some(at(10)), at(11)).await;
        let list = rig.get(&path).await.is(200);
        assert_eq!(list.each("id"), ["bbb", "aaa"]);
        assert_eq!(list.body["refreshed_at"], json!(at(10)));
        assert_eq!(list.body["items"][1]["paths"], json!(["/a\u{fffd}b"]));
        assert_eq!(
            (&list.body["items"][1]["size_bytes"], &list.body["items"][1]["file_count"]),
            (&json!(5), &json!(0))
        );

        report(&rig, &host, vec![], Some(at(9)), at(12)).await;
        assert_eq!(rig.get(&path).await.each("id"), ["bbb", "aaa"], "older news counts for nothing");
        // A clock that runs ahead can't keep later news out.
        report(&rig, &host, vec![snapshot("ccc", None), snapshot("bbb", Some(at(3)))], Some(at(9_999)), at(13)).await;
        assert_eq!(rig.get(&path).await.each("id"), ["bbb", "ccc"]);
        report(&rig, &host, vec![snapshot("ddd", None)], None, at(14)).await;
        assert_eq!(rig.get(&path).await.each("id"), ["ddd"]);
        assert_eq!(rig.get(&format!("/v1/hosts/{other}/snapshots")).await.each("id"), ["aaa"]);
    });
}

#[test]
fn pages_of_snapshots_miss_and_repeat_nothing() {
    with_rig(async |rig| {
        let (host, _) = rig.host("one", json!({})).await;
        let mut all: Vec<Snapshot> =
            (0..40).map(|number| snapshot(&format!("s{number:02}"), Some(at(number / 3)))).collect();
        all.extend((0..5).map(|number| snapshot(&format!("t{number}"), None)));
        // Ids that are none, and one twice.
        all.push(snapshot(&"x".repeat(200), None));
        all.push(snapshot("s00", Some(at(0))));
        report(&rig, &host, all, None, Utc::now()).await;
        let (mut cursor, mut seen) = (String::new(), Vec::new());
        loop {
            let page = rig.get(&format!("/v1/hosts/{host}/snapshots?limit=7&cursor={cursor}")).await.is(200);
            seen.extend(page.each("id").into_iter().map(str::to_owned));
            let Some(next) = page.body["next_cursor"].as_str() else { break };
            cursor = next.to_owned();
        }
        assert_eq!((seen.first().map(String::as_str), seen.last().map(String::as_str)), (Some("s39"), Some("t0")));
        assert_eq!(seen.len(), 45);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 45);
    });
}

#[test]
fn a_repository_shows_the_newest_value_of_each_field() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        let (one, _) = rig.host("one", json!({"repository_id": repository})).await;
        let (two, _) = rig.host("two", json!({"repository_id": repository})).await;
        let path = format!("/v1/repositories/{repository}/stats");
        let unknown = rig.get(&path).await.is(200).body;
        assert_eq!((&unknown["snapshot_count"], &unknown["refreshed_at"]), (&Value::Null, &Value::Null));
        let tell = async |host: &str, stats: RepoStats, received_at| {
            rig.write(Merge { repository_id: id(&repository), host_id: id(host), stats, received_at }).await;
        };
        let count = |count| RepoStats { snapshot_count: Some(count), ..RepoStats::default() };
        tell(&one, RepoStats { lock_present: Some(true), as_of: Some(at(1)), ..count(7) }, at(5)).await;
        tell(&two, RepoStats { as_of: Some(at(2)), ..count(8) }, at(5)).await;
        let body = rig.get(&path).await.is(200).body;
        assert_eq!((&body["snapshot_count"], &body["lock_present"]), (&json!(8), &json!(true)));
        assert_eq!(body["refreshed_at"], json!(at(2)));
        assert_eq!(body["as_of"], json!({"snapshot_count": at(2), "lock_present": at(1)}));

        // Older news of the same host, present zeros, a clock that runs ahead.
        tell(&two, RepoStats { as_of: Some(at(1)), ..count(1) }, at(6)).await;
        assert_eq!(rig.get(&path).await.body["snapshot_count"], 8);
        let checked = RepoStats {
            lock_present: Some(false),
            last_check_status: Some("o\0k".to_owned()),
            last_check_at: Some(at(3)),
            as_of: Some(at(9_999)),
            ..count(0)
        };
        tell(&one, checked, at(7)).await;
        let body = rig.get(&path).await.body;
        assert_eq!((&body["snapshot_count"], &body["lock_present"]), (&json!(0), &json!(false)));
        assert_eq!((&body["last_check_status"], &body["last_check_at"]), (&json!("o\u{fffd}k"), &json!(at(3))));
        assert_eq!(body["as_of"]["snapshot_count"], json!(at(7)));
        tell(&two, count(3), at(8)).await;
        assert_eq!(rig.get(&path).await.body["snapshot_count"], 3);
    });
}
