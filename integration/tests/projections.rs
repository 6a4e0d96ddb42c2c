//! What the coordinator shows of snapshots and repositories, as agents reported them.

mod support;

use fleet_integration::Sandbox;
use serde_json::{Value, json};
use support::{Host, journalling, repository, until};

fn snapshot(id: char, time: &str) -> Value {
    let id = id.to_string().repeat(64);
    json!({"id": id, "short_id": id[..8], "time": time, "hostname": "web-1", "paths": ["/srv"]})
}

fn short_ids(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| &item["short_id"].as_str().unwrap()[..1]).collect()
}

#[test]
fn a_report_of_snapshots_replaces_the_last_one_whole() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &journalling("j", &[]));
    let mut other = Host::ready_as(&sandbox, "web-2", &repository, &journalling("k", &[]));
    let path = format!("/v1/hosts/{}/snapshots", host.id);
    let none = api.get(&path).unwrap();
    assert_eq!((&none["items"], &none["refreshed_at"]), (&json!([]), &Value::Null));

    let mut rich = snapshot('b', "2026-03-01T04:00:00.123456789+02:00");
    rich["tags"] = json!(["docs", "x\0y"]);
    rich["size_bytes"] = json!(4_194_304);
    rich["file_count"] = json!(199);
    rich["hostname"] = json!("a name of old");
    let mut poor = snapshot('c', "0001-01-01T00:00:00Z");
    poor["paths"] = Value::Null;
    let report =
        json!({"snapshots": [poor, snapshot('a', "2026-02-01T00:00:00Z"), rich], "as_of": "2026-03-01T03:00:00Z"});
    let id = host.say("snapshots.report", report);
    host.settled(id);
    let shown = api.get(&path).unwrap();
    assert_eq!(short_ids(&shown), ["b", "a", "c"], "newest first");
    assert_eq!(shown["refreshed_at"], "2026-03-01T03:00:00Z");
    let rich = &shown["items"][0];
    assert!(rich["time"].as_str().unwrap().starts_with("2026-03-01T02:00:00.123456"), "{rich}");
    assert_eq!((&rich["size_bytes"], &rich["file_count"]), (&json!(4_194_304), &json!(199)));
    assert_eq!((&rich["hostname"], &rich["tags"][0]), (&json!("a name of old"), &json!("docs")));
    assert_eq!((&shown["items"][2]["time"], &shown["items"][2]["paths"]), (&Value::Null, &json!([])));

    let id = other.say("snapshots.report", json!({"snapshots": [snapshot('z', "2026-03-01T00:00:00Z")]}));
    other.settled(id);
    let id = host.say(
        "snapshots.report",
        json!({"snapshots": [snapshot('b', "2026-03-01T02:00:00Z")], "as_of": "2026-03-02T00:00:00Z"}),
    );
    host.settled(id);
    let shown = api.get(&path).unwrap();
    assert_eq!(short_ids(&shown), ["b"]);
    assert_eq!(shown["items"][0]["size_bytes"], 0, "the new report's, not the old one's");
    assert_eq!(short_ids(&api.get(&format!("/v1/hosts/{}/snapshots", other.id)).unwrap()), ["z"]);

    // Older news, late.
    let id = host.say("snapshots.report", json!({"snapshots": [], "as_of": "2026-03-01T12:00:00Z"}));
    host.settled(id);
    assert_eq!(short_ids(&api.get(&path).unwrap()), ["b"]);
    // Without a time it is news of now; a list that is null is empty.
    let id = host.say("snapshots.report", json!({"snapshots": null}));
    host.settled(id);
    assert_eq!(short_ids(&api.get(&path).unwrap()), [""; 0]);
    // A clock that is years ahead does not stop the news for years.
    let id = host.say(
        "snapshots.report",
        json!({"snapshots": [snapshot('d', "2026-03-01T02:00:00Z")], "as_of": "2099-01-01T00:00:00Z"}),
    );
    host.settled(id);
    let id = host.say("snapshots.report", json!({"snapshots": [snapshot('e', "2026-03-01T02:00:00Z")]}));
    host.settled(id);
    assert_eq!(short_ids(&api.get(&path).unwrap()), ["e"]);
}

#[test]
fn many_snapshots_come_page_by_page() {
    let sandbox = Sandbox::start().unwrap();
    let mut host = Host::ready(&sandbox, "go-1", &repository(&sandbox));
    let ids = (0..1234).map(|number| format!("{number:064x}"));
    let all: Vec<Value> = ids
        .map(|id| json!({"id": id, "short_id": id[..8], "time": "2026-03-01T02:00:00Z", "hostname": "go-1", "paths": []}))
        .collect();
    host.say("snapshots.report", json!({"snapshots": all}));
    let path = format!("/v1/hosts/{}/snapshots?limit=500", host.id);
    until(&sandbox.api(), &path, |page| page["refreshed_at"].is_string());
    let mut listed: Vec<String> =
        sandbox.api().list(&path).unwrap().iter().map(|item| item["id"].to_string()).collect();
    assert_eq!(listed.len(), 1234);
    listed.dedup();
    assert_eq!(listed.len(), 1234, "none twice");
}

#[test]
fn news_of_a_repository_is_merged_field_by_field_over_its_hosts() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut one = Host::ready_as(&sandbox, "one", &repository, &journalling("j", &[]));
    let mut two = Host::ready_as(&sandbox, "two", &repository, &journalling("k", &[]));
    let path = format!("/v1/repositories/{repository}/stats");
    let shown = api.get(&path).unwrap();
    assert_eq!((&shown["snapshot_count"], &shown["refreshed_at"]), (&Value::Null, &Value::Null));

    let report = |host: &mut Host, stats: Value| {
        let id = host.say("repo.stats", stats);
        host.settled(id);
        api.get(&path).unwrap()
    };
    report(
        &mut one,
        json!({"total_size_bytes": 1000, "raw_size_bytes": 500, "unique_files": 9, "snapshot_count": 7,
               "lock_present": true, "last_check_status": "failed", "last_check_at": "2026-02-28T05:00:00+02:00",
               "as_of": "2026-03-01T00:00:00Z"}),
    );
    let shown = report(
        &mut two,
        json!({"snapshot_count": 0, "lock_present": false, "last_check_status": "", "total_size_bytes": null,
                                        "last_prune_at": "2026-02-27T03:00:00Z", "last_prune_freed_bytes": 0,
                                        "as_of": "2026-03-02T00:00:00Z"}),
    );
    let expected = json!({
        "total_size_bytes": 1000, "raw_size_bytes": 500, "unique_files": 9, "snapshot_count": 0, "lock_present": false,
        "last_check_status": "failed", "last_check_at": "2026-02-28T03:00:00Z", "last_prune_at": "2026-02-27T03:00:00Z",
        "last_prune_freed_bytes": 0, "refreshed_at": "2026-03-02T00:00:00Z",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }
    // Older news of either host overwrites nothing newer; what nobody knows newer counts.
    let shown = report(&mut one, json!({"snapshot_count": 5, "unique_files": 11, "as_of": "2026-03-01T12:00:00Z"}));
    assert_eq!((&shown["snapshot_count"], &shown["unique_files"]), (&json!(0), &json!(11)));
    let shown = report(&mut two, json!({"snapshot_count": 99, "as_of": "2026-03-01T18:00:00Z"}));
    assert_eq!(shown["snapshot_count"], 0);
    // The zero time is no time, and no news at all changes nothing.
    let shown = report(&mut one, json!({"last_check_at": "0001-01-01T00:00:00Z", "last_prune_at": null}));
    assert_eq!(shown["last_check_at"], "2026-02-28T03:00:00Z");
    // Without a time of its own it is news of now.
    let shown = report(&mut one, json!({"snapshot_count": 4}));
    assert_eq!(shown["snapshot_count"], 4);
}
