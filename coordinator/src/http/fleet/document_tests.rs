use super::super::format::Format;
use super::*;
use crate::fleet::export::export;
use crate::fleet::plan::plan;
use crate::fleet::tests::any::ledgers;
use fleet_wire::Timestamp;
use proptest::prelude::*;
use serde_json::json;

/// A folder with the secrets that documents name.
fn secrets() -> (tempfile::TempDir, SecretSources) {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["one", "two"] {
        std::fs::write(folder.path().join(name), format!("{name}\n")).expect("a file");
    }
    let sources = SecretSources { directory: Some(folder.path().to_owned()), prefix: "FLEET_SECRET_".to_owned() };
    (folder, sources)
}

fn pointers(value: Value) -> Vec<String> {
    let (_folder, sources) = secrets();
    let problem = read(value, &sources).expect_err("wrong");
    problem.errors().iter().map(|error| error.pointer.clone()).collect()
}

#[test]
fn a_whole_document_is_read() {
    let document = json!({
        "repositories": {"main": {
            "url": "rest:https://backup.example.org/main", "username": "fleet", "password": {"file": "one"}, "credential": "kept",
            "admin": {"username": "keeper", "credential": {"file": "two"}}, "max_backups": 4,
            "maintenance": {"timezone": "Europe/Berlin", "prune": {"cron": "0 5 * * 0"}, "forget": {"cron": "0 4 * * *"},
                "check": {"cron": "0 6 1 * *", "subset": "1/7"}, "runner": "keeper-1", "forget_limit": {"share": 0.5}},
        }},
        "templates": [{"name": "databases", "selector": {"labels": {"role": "db"}}, "pre_hook": "dump",
            "source_groups": {"dump": {"includes": ["/var/dump"], "retention": {"keep_daily": 7}}},
            "schedules": {"nightly": {"cron": "0 2 * * *", "source_groups": ["dump"]}}}],
        "hosts": [{"hostname": "db-1", "repository": "main", "labels": {"role": "db"}, "schedules": null}, {"hostname": "x"}],
    });
    let (_folder, sources) = secrets();
    let wanted = read(document, &sources).expect("a document");
    let main = &wanted.repositories.as_ref().expect("repositories")[0];
    assert!(
        matches!(&main.secrets[&SecretColumn::Password], WantedSecret::From(_, secret) if secret.expose() == "one")
    );
    assert!(matches!(main.secrets[&SecretColumn::Credential], WantedSecret::Kept));
    let maintenance = main.maintenance.as_ref().expect("maintenance");
    let kinds: Vec<_> = maintenance.entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!((kinds, maintenance.runner.as_deref()), (vec!["check", "forget", "prune"], Some("keeper-1")));
    assert_eq!(wanted.templates[0].layer.settings.pre_hook, Some(Some("dump".to_owned())));
    assert_eq!(wanted.hosts[0].layer.schedules.as_ref().map(BTreeMap::len), Some(0), "said to have none");
    assert!(wanted.hosts[1].layer.schedules.is_none() && wanted.hosts[1].repository.is_none(), "nothing is said");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let document = json!({
        "repositories": {
            "a/b": {"url": "", "password": "hunter2", "colour": 1, "append_only": "yes"},
            "c": {"url": "/c", "password": "hunter2", "credential": {"env": 7}, "admin": {"password": {"vault": "x"}},
                "maintenance": {"prune": {"cron": "61 * * * *"}, "check": {"cron": "* * * * *", "subset": "x"}, "runner": 7}},
            "d": {"password": {"file": "one"}},
            "e": 7,
        },
        "templates": [
            {"selector": {}, "source_groups": {"g": {"includes": [], "retention": {"keep_last": -1}}}, "labels": {}},
            {"selector": {"all": true, "repository": "c"}, "schedules": {"s": {"cron": "x", "source_groups": []}}},
            {"source_groups": []},
        ],
        "hosts": [
            {"hostname": "h", "labels": {"a=b": "c"}, "source_groups": {"..": {"includes": ["/", 7, 8]}}},
            {"hostname": "i"}, {"repository": 7}, 7,
        ],
        "colour": 1,
    });
    let expected = [
        "/repositories/a~1b/colour",
        "/repositories/a~1b/append_only",
        "/repositories/c/maintenance/runner",
        "/repositories/c/maintenance/prune/cron",
        "/repositories/c/maintenance/check/subset",
        "/repositories/c/password",
        "/repositories/c/credential",
        "/repositories/c/admin/password",
        "/repositories/d/url",
        "/repositories/e",
        "/repositories/e/url",
        "/templates/0/selector",
        "/templates/0/labels",
        "/templates/0/source_groups/g/includes",
        "/templates/0/source_groups/g/retention/keep_last",
        "/templates/1/selector",
        "/templates/1/schedules/s/cron",
        "/templates/1/schedules/s/source_groups",
        "/templates/2/selector",
        "/templates/2/source_groups",
        "/hosts/0/source_groups/../includes/1",
        "/hosts/0/source_groups/../includes/2",
        "/hosts/0/labels/a=b",
        "/hosts/2/repository",
        "/hosts/2/hostname",
        "/hosts/3",
        "/hosts/3/hostname",
        "/colour",
    ];
    let mut expected: Vec<String> = expected.iter().map(|pointer| (*pointer).to_owned()).collect();
    let mut found = pointers(document);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_does_not_go_with_what_there_is_conflicts() {
    let document = json!({
        "repositories": {"c": {"url": "/c", "password": {"file": "../etc/shadow"}, "credential": {"env": "PATH"}}},
        "hosts": [{"hostname": "h"}, {"hostname": "i"}, {"hostname": "h"}],
    });
    assert_eq!(pointers(document), ["/repositories/c/password", "/repositories/c/credential", "/hosts/2"]);
}

#[test]
fn no_complaint_repeats_a_secret() {
    let (_folder, sources) = secrets();
    for password in [json!("hunter2"), json!({"env": {"hunter2": 1}}), json!({"hunter2": 1}), json!(["hunter2"])] {
        let document = json!({"repositories": {"a": {"url": "/a", "password": password}}});
        let problem = read(document, &sources).expect_err("wrong");
        assert!(!format!("{problem:?}").contains("hunter2"), "{problem:?}");
    }
}

proptest! {
    #[test]
    fn what_is_exported_asks_for_what_there_is(ledger in ledgers(), delete: bool) {
        let (_folder, sources) = secrets();
        for format in [Format::Json, Format::Yaml] {
            let text = format.write(&export(&ledger)).expect("a text");
            let value = format.read(text.as_bytes()).expect("a document");
            let wanted = read(value, &sources).expect("a good document");
            let plan = plan(&wanted, &ledger, delete, Timestamp::UNIX_EPOCH, Uuid::now_v7).expect("a plan");
            prop_assert!(plan.steps.is_empty() && plan.pending.is_empty() && plan.left.is_empty(), "{:?}\n{}", plan, text);
        }
    }
}
