//! The fleet as one document: what it plans is what it does, whole or not at all, and once.

mod support;

use fleet_integration::{Api, Received, Reply, Sandbox};
use serde_json::{Value, json};
use std::fs;
use std::ops::Range;
use std::thread;
use support::blocker::Blocker;
use support::{Host, ask, client, journalling};

const HOSTS: usize = 200;
/// What the coordinator finds in its environment.
const VARIABLES: [(&str, &str); 2] = [("FLEET_SECRET_MAIN", "the password"), ("OTHER_SECRET", "hunter2")];

fn put(api: &Api, query: &str, document: &Value) -> Reply {
    api.call("PUT", &format!("/v1/fleet{query}"), Some(document), &[]).unwrap()
}

/// Applies a document that must be fine.
fn apply(api: &Api, document: &Value) -> Value {
    put(api, "", document).ok().unwrap()
}

/// (create, change, delete, pending, left) of a plan.
fn counts(plan: &Value) -> [usize; 5] {
    let count = |name: &str| usize::try_from(plan["counts"][name].as_u64().unwrap()).unwrap();
    let length = |name: &str| plan[name].as_array().unwrap().len();
    [count("create"), count("change"), count("delete"), length("pending"), length("left")]
}

/// Odd hosts are databases.
fn document(hosts: usize) -> Value {
    let host = |number: usize| {
        let role = if number % 2 == 1 { "db" } else { "web" };
        json!({"hostname": format!("host-{number}"), "repository": "main", "labels": {"role": role}})
    };
    json!({
        "repositories": {"main": {
            "url": "/srv/main", "password": {"env": "FLEET_SECRET_MAIN"}, "max_backups": 4,
            "maintenance": {"prune": {"cron": "0 5 * * 0"}},
        }},
        "templates": [
            {"selector": {"all": true},
             "source_groups": {"system": {"includes": ["/etc"], "retention": {"keep_daily": 7}}},
             "schedules": {"nightly": {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "source_groups": ["system"]}}},
            {"selector": {"labels": {"role": "db"}},
             "source_groups": {"dump": {"includes": ["/var/dump"]}},
             "schedules": {"dumps": {"cron": "15 * * * *", "source_groups": ["dump"]}}},
        ],
        "hosts": (0..hosts).map(host).collect::<Vec<_>>(),
    })
}

fn repository_of(api: &Api, name: &str) -> String {
    let all = api.list("/v1/repositories").unwrap();
    let found = all.iter().find(|repository| repository["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {all:?}"))["id"].as_str().unwrap().to_owned()
}

/// Enrols hosts of these numbers, with several clients at once.
fn enroll(sandbox: &Sandbox, repository: &str, numbers: Range<usize>) {
    const CLIENTS: usize = 8;
    thread::scope(|scope| {
        for first in 0..CLIENTS {
            let numbers = numbers.clone().skip(first).step_by(CLIENTS);
            scope.spawn(move || {
                numbers.for_each(|number| drop(sandbox.enroll(&format!("host-{number}"), Some(repository)).unwrap()));
            });
        }
    });
}

fn versions(api: &Api) -> Vec<(String, i64)> {
    let all = api.list("/v1/hosts?limit=500").unwrap();
    all.iter().map(|host| (host["hostname"].to_string(), host["schedule_version"].as_i64().unwrap())).collect()
}

/// What an agent was sent so far, but its own settings: a change of those is the marker.
fn heard(host: &mut Host, api: &Api) -> Vec<Value> {
    let marker = format!("/bin/marker-{}", uuid::Uuid::new_v4());
    ask(api, "PATCH", &format!("/v1/hosts/{}", host.id), &json!({"hook_shell": marker})).ok().unwrap();
    let mut before = Vec::new();
    loop {
        match host.receive() {
            Received::Envelope(envelope) if envelope["payload"]["hook_shell"] == marker.as_str() => break,
            Received::Envelope(envelope) if envelope["type"] == "config.update" => {}
            Received::Envelope(envelope) => before.push(envelope),
            end => panic!("{end:?} after {before:?}"),
        }
    }
    // It ends what the marker itself has brought.
    host.next("schedule.set");
    before
}

#[test]
fn a_document_of_many_hosts_is_applied_once_and_exported_whole() {
    let sandbox = Sandbox::start_with(&VARIABLES).unwrap();
    let api = sandbox.api();
    let all = document(HOSTS);
    // Before anybody is enrolled: the repository, and all hosts are pending.
    assert_eq!(counts(&apply(&api, &all)), [2, 0, 0, HOSTS, 0]);
    let repository = repository_of(&api, "main");
    let mut web = Host::enroll(&sandbox, "host-0", &repository);
    let mut db = Host::enroll(&sandbox, "host-1", &repository);
    enroll(&sandbox, &repository, 2..HOSTS);
    web.connect(&sandbox, &journalling("w", &[]));
    db.connect(&sandbox, &journalling("d", &[]));
    heard(&mut web, &api);
    heard(&mut db, &api);

    let dry = put(&api, "?dry_run=true", &all);
    let shown = dry.json.clone();
    // A group and a schedule each, two of databases, and the labels.
    assert_eq!(counts(&shown), [3 * HOSTS, HOSTS, 0, 0, 0], "{}", dry.problem());
    assert_eq!(api.list(&format!("/v1/hosts/{}/schedules", db.id)).unwrap().len(), 0, "nothing is done");
    let done = apply(&api, &all);
    assert_eq!(done["steps"], shown["steps"]);
    for (host, schedules) in [(&mut web, 1), (&mut db, 2)] {
        let set = host.take("schedule.set");
        assert_eq!(set["schedules"].as_array().unwrap().len(), schedules, "{set}");
        assert_eq!(set["version"], api.get(&format!("/v1/hosts/{}", host.id)).unwrap()["schedule_version"]);
    }

    // Again: nothing is changed, and no agent hears of anything.
    let before = versions(&api);
    assert_eq!(counts(&apply(&api, &all)), [0; 5]);
    assert_eq!(versions(&api), before);
    for host in [&mut web, &mut db] {
        assert_eq!(heard(host, &api), Vec::<Value>::new());
    }

    // One host is changed, and only its agent is told.
    let mut changed = all.clone();
    changed["hosts"][1]["schedules"] = json!({"dumps": {"cron": "30 * * * *", "source_groups": ["dump"]}});
    let plan = apply(&api, &changed);
    let expected = json!([{
        "action": "change", "kind": "schedule", "repository": "main", "hostname": "host-1", "host_id": db.id, "name": "dumps",
        "changes": [{"field": "cron", "from": "15 * * * *", "to": "30 * * * *"}],
    }]);
    assert_eq!(plan["steps"], expected);
    let set = db.take("schedule.set");
    assert!(set["schedules"].as_array().unwrap().iter().any(|row| row["cron_expr"] == "30 * * * *"), "{set}");
    let raised: Vec<_> = versions(&api).into_iter().filter(|version| !before.contains(version)).collect();
    assert_eq!(raised.len(), 1, "{raised:?}");
    assert_eq!(heard(&mut web, &api), Vec::<Value>::new());

    // Each thing has its record.
    let records = api.list(&format!("/v1/audit?target=hosts/{}/schedules", db.id)).unwrap();
    let details: Vec<_> = records.iter().map(|record| record["detail"].as_str().unwrap_or_default()).collect();
    assert!(details.contains(&"changed: cron"), "{records:?}");

    exported(&api);
}

/// What is exported plans nothing here, and makes the same of an empty coordinator.
fn exported(api: &Api) {
    let yaml = api.call("GET", "/v1/fleet", None, &[("Accept", "application/yaml")]).unwrap();
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
    let again = api.send("PUT", "/v1/fleet?delete=true", Some(("application/yaml", yaml.text.clone())), &[]).unwrap();
    assert_eq!(counts(&again.ok().unwrap()), [0; 5]);
    let json = api.get("/v1/fleet").unwrap();
    assert_eq!(json["repositories"]["main"]["password"], json!({"env": "FLEET_SECRET_MAIN"}));
    assert!(!yaml.text.contains("the password") && !json.to_string().contains("the password"));

    let other = Sandbox::start_with(&VARIABLES).unwrap();
    let there = other.api();
    let first = there.send("PUT", "/v1/fleet", Some(("application/yaml", yaml.text.clone())), &[]).unwrap();
    assert_eq!(counts(&first.ok().unwrap()), [2, 0, 0, HOSTS, 0]);
    let repository = repository_of(&there, "main");
    enroll(&other, &repository, 0..HOSTS);
    there.send("PUT", "/v1/fleet", Some(("application/yaml", yaml.text)), &[]).unwrap().ok().unwrap();
    assert_eq!(there.get("/v1/fleet").unwrap(), json);
}

#[test]
fn a_plan_is_carried_out_as_it_was_seen_or_not_at_all() {
    let sandbox = Sandbox::start_with(&VARIABLES).unwrap();
    let api = sandbox.api();
    let mut wanted = document(0);
    let dry = put(&api, "?dry_run=true", &wanted);
    let tag = dry.header("etag").unwrap().to_owned();
    let only_if =
        |tag: &str, document: &Value| api.call("PUT", "/v1/fleet", Some(document), &[("If-Match", tag)]).unwrap();
    // Another document than the one that was planned; then the ledger is another.
    wanted["repositories"]["main"]["url"] = json!("/srv/other");
    assert_eq!(only_if(&tag, &wanted).status, 412);
    let before = api.call("GET", "/v1/fleet", None, &[]).unwrap().header("etag").unwrap().to_owned();
    api.create_repository("new", "/srv/new", "password").unwrap();
    let refused = only_if(&tag, &document(0));
    assert_eq!((refused.status, &refused.json["type"]), (412, &json!("/problems/has-changed")));
    assert_eq!(only_if(&before, &document(0)).status, 412);
    assert_eq!(api.list("/v1/repositories").unwrap().len(), 1);

    let tag = put(&api, "?dry_run=true", &document(0)).header("etag").unwrap().to_owned();
    let done = only_if(&tag, &document(0));
    assert_eq!(done.status, 200, "{}", done.problem());
    let now = api.call("GET", "/v1/fleet", None, &[]).unwrap();
    assert_eq!(done.header("etag"), now.header("etag"), "an answer names what there is then");
    assert_eq!(only_if(now.header("etag").unwrap(), &document(0)).status, 200);
}

#[test]
fn a_coordinator_that_dies_in_the_middle_has_changed_nothing() {
    let mut sandbox = Sandbox::start_with(&VARIABLES).unwrap();
    let api = sandbox.api();
    apply(&api, &document(0));
    let repository = repository_of(&api, "main");
    enroll(&sandbox, &repository, 0..20);
    let before = api.get("/v1/fleet").unwrap();
    // Labels and source groups are written when it waits for this.
    let blocker = Blocker::hold(&sandbox.database, "LOCK TABLE schedules IN SHARE MODE");
    let asker = api.clone();
    let asked =
        thread::spawn(move || asker.call("PUT", "/v1/fleet", Some(&document(20)), &[]).map(|reply| reply.status));
    Blocker::until_waited_for(&sandbox.database, "schedules");
    sandbox.coordinator.process().kill();
    assert!(asked.join().unwrap().is_err(), "nobody was promised anything");
    blocker.let_go();
    sandbox.restart_with(&VARIABLES).unwrap();
    let api = sandbox.api();
    assert_eq!(api.get("/v1/fleet").unwrap(), before);
    assert_eq!(api.list("/v1/audit?target=source-groups").unwrap(), Vec::<Value>::new());

    assert_eq!(counts(&apply(&api, &document(20))), [60, 20, 0, 0, 0]);
    assert_eq!(counts(&apply(&api, &document(20))), [0; 5]);
}

#[test]
fn nothing_is_deleted_unasked_and_what_is_needed_never() {
    let sandbox = Sandbox::start_with(&VARIABLES).unwrap();
    let api = sandbox.api();
    apply(&api, &document(0));
    let mut host = Host::ready_as(&sandbox, "host-0", &repository_of(&api, "main"), &journalling("h", &[]));
    api.create_repository("unused", "/srv/unused", "password").unwrap();
    apply(&api, &document(1));
    support::group(&api, &host.id, "docs", Value::Null);
    let body = json!({"cron": "0 4 * * *", "source_groups": ["docs"]});
    api.post(&format!("/v1/hosts/{}/schedules", host.id), &body).unwrap();
    heard(&mut host, &api);

    // The group and the schedule that REST has made, and the repository.
    assert_eq!(counts(&apply(&api, &document(1))), [0, 0, 0, 0, 3]);
    let plan = put(&api, "?delete=true", &document(1)).ok().unwrap();
    assert_eq!(counts(&plan), [0, 0, 3, 0, 0], "{plan}");
    let set = host.take("schedule.set");
    assert_eq!(set["schedules"].as_array().unwrap().len(), 1, "{set}");

    // A repository with a host and a history stays whatever is asked.
    let plan = put(&api, "?delete=true", &json!({"repositories": {}})).ok().unwrap();
    assert_eq!((counts(&plan), &plan["left"][0]["why"]), ([0, 0, 0, 0, 1], &json!("1 hosts use it")));
    assert_eq!(ask(&api, "DELETE", &format!("/v1/hosts/{}", host.id), &Value::Null).status, 204);
    let plan = put(&api, "?delete=true", &json!({"repositories": {}})).ok().unwrap();
    assert_eq!(counts(&plan), [0, 0, 0, 0, 1], "its host has run an init: {plan}");
    assert_eq!(put(&api, "?delete=true", &json!({})).ok().unwrap()["left"], json!([]));
}

#[test]
fn secrets_come_only_from_where_they_may() {
    let folder = fleet_integration::leak_free_dir("fleet-secrets.").unwrap();
    fs::write(folder.path().join("main"), "from the file\n").unwrap();
    let directory = folder.path().display().to_string();
    let variables = [VARIABLES[0], VARIABLES[1], ("FLEET_SECRETS_DIR", directory.as_str())];
    let sandbox = Sandbox::start_with(&variables).unwrap();
    let api = sandbox.api();
    let with = |password: Value| json!({"repositories": {"main": {"url": "/srv/main", "password": password}}});
    for wrong in [
        json!("a password"),
        json!({"env": "OTHER_SECRET"}),
        json!({"env": "FLEET_ADMIN_TOKEN"}),
        json!({"env": "FLEET_SECRET_NONE"}),
        json!({"file": "/etc/passwd"}),
        json!({"file": "../main"}),
        json!({"file": "none"}),
        json!("kept"),
    ] {
        let reply = put(&api, "", &with(wrong.clone()));
        let status = if wrong == "a password" { 422 } else { 409 };
        let told = (reply.status, &reply.json["errors"][0]["pointer"]);
        assert_eq!(told, (status, &json!("/repositories/main/password")), "{wrong}: {}", reply.text);
        assert!(!reply.text.contains("hunter2") && !reply.text.contains("a password"), "{}", reply.text);
    }

    let file = with(json!({"file": "main"}));
    apply(&api, &file);
    let mut host = Host::enroll(&sandbox, "web-1", &repository_of(&api, "main"));
    host.open(&sandbox);
    host.hello(&support::core());
    assert_eq!(host.take("config.update")["repo_password"], "from the file");
    host.next("schedule.set");
    heard(&mut host, &api);
    // Another secret at the same place is a change, and agents get it.
    fs::write(folder.path().join("main"), "another").unwrap();
    let plan = apply(&api, &file);
    let expected = json!([{"field": "password", "from": {"file": "main"}, "to": {"file": "main"}}]);
    assert_eq!(plan["steps"][0]["changes"], expected);
    assert_eq!(host.take("config.update")["repo_password"], "another");
    assert_eq!(counts(&apply(&api, &file)), [0; 5]);

    // What is set over REST is kept.
    let path = format!("/v1/repositories/{}", repository_of(&api, "main"));
    ask(&api, "PATCH", &path, &json!({"password": "by hand"})).ok().unwrap();
    assert_eq!(api.get("/v1/fleet").unwrap()["repositories"]["main"]["password"], "kept");
    assert_eq!(counts(&apply(&api, &with(json!("kept")))), [0; 5]);
    assert_eq!(counts(&apply(&api, &file)), [0, 1, 0, 0, 0], "the document says where it is from");
}

#[test]
fn who_may_not_see_all_hosts_sees_no_document() {
    let sandbox = Sandbox::start().unwrap();
    let limited = json!({"name": "limited", "scope": "read", "host_labels": {"site": "ulm"}});
    let (limited, _) = client(&sandbox.api(), &limited);
    for (method, body) in [("GET", Value::Null), ("PUT", json!({}))] {
        let reply = ask(&limited, method, "/v1/fleet", &body);
        assert_eq!(reply.status, 403, "{}", reply.text);
    }
}

#[test]
fn the_example_of_the_documentation_is_a_document() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fleet-as-code.md");
    let page = fs::read_to_string(page).unwrap();
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = fleet_integration::leak_free_dir("fleet-secrets.").unwrap();
    fs::create_dir(folder.path().join("main")).unwrap();
    for name in ["credential", "keeper"] {
        fs::write(folder.path().join("main").join(name), name).unwrap();
    }
    let directory = folder.path().display().to_string();
    let sandbox = Sandbox::start_with(&[VARIABLES[0], ("FLEET_SECRETS_DIR", directory.as_str())]).unwrap();
    let api = sandbox.api();
    let apply =
        || api.send("PUT", "/v1/fleet", Some(("application/yaml", example.to_owned())), &[]).unwrap().ok().unwrap();
    // Its runner is pending, too.
    assert_eq!(counts(&apply()), [1, 0, 0, 4, 0]);
    let repository = repository_of(&api, "main");
    for name in ["keeper-1", "db-1", "web-1"] {
        sandbox.enroll(name, Some(&repository)).unwrap();
    }
    let plan = apply();
    assert_eq!(counts(&plan), [9, 3, 0, 0, 0], "{plan:#}");
    assert_eq!(counts(&apply()), [0; 5]);
}
