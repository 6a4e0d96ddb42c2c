//! Who may work on a repository when: drain times, and limits of backups.

mod support;

use fleet_integration::{Api, Sandbox};
use serde_json::{Value, json};
use support::{Host, backup, group, journalling, repository, until};

/// A host that keeps a journal, with these groups.
fn host(sandbox: &Sandbox, name: &str, repository: &str, groups: &[&str]) -> Host {
    let host = Host::ready_as(sandbox, name, repository, &journalling(name, &[]));
    groups.iter().for_each(|name| group(&sandbox.api(), &host.id, name, Value::Null));
    host
}

fn waits_for(api: &Api, job: &str) -> String {
    api.job(job).unwrap()["waiting_for"].as_str().unwrap_or_default().to_owned()
}

fn begin(host: &mut Host, kind: &str, job: &str) {
    assert_eq!(host.run(kind), job);
    host.accept(job);
    let started = host.start(job, kind);
    host.settled(started);
}

fn end(host: &mut Host, job: &str) {
    let finished = host.finish(job, "succeeded", 0);
    host.settled(finished);
}

#[test]
fn a_check_is_overtaken_until_its_drain_time_and_then_no_more() {
    let mut sandbox = Sandbox::start_with(&[("FLEET_DRAIN_AFTER", "1h")]).unwrap();
    let api = sandbox.api();
    let mut host = host(&sandbox, "web-1", &repository(&sandbox), &["docs", "etc", "home"]);
    let docs = backup(&api, &host.id, "docs");
    begin(&mut host, "backup", &docs);
    let check = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    assert!(waits_for(&api, &check).contains(&docs), "{}", waits_for(&api, &check));
    let etc = backup(&api, &host.id, "etc");
    begin(&mut host, "backup", &etc);

    // What it has waited counts after a restart too: here its drain time is over.
    sandbox.restart_with(&[("FLEET_DRAIN_AFTER", "0s")]).unwrap();
    let api = sandbox.api();
    host.connect(&sandbox, &journalling("web-1", &[&docs, &etc]));
    let home = backup(&api, &host.id, "home");
    let said = waits_for(&api, &home);
    assert!(said.contains(&check) && said.contains("comes first"), "{said}");
    end(&mut host, &docs);
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
    end(&mut host, &etc);
    begin(&mut host, "check", &check);
    assert!(waits_for(&api, &home).contains("in use"), "{}", waits_for(&api, &home));
    end(&mut host, &check);
    begin(&mut host, "backup", &home);
}

#[test]
fn a_limit_of_backups_counts_in_its_repository_and_a_place_goes_to_who_has_waited_longest() {
    let variables = [("FLEET_BACKUPS_PER_REPOSITORY", "2"), ("FLEET_BACKUPS_AT_ONCE", "3")];
    let mut sandbox = Sandbox::start_with(&variables).unwrap();
    let api = sandbox.api();
    let (main, other) = (repository(&sandbox), api.create_repository("other", "/srv/other", "pw").unwrap());
    let mut one = host(&sandbox, "web-1", &main, &["a", "b", "c"]);
    let mut two = host(&sandbox, "web-2", &other, &["a", "b", "c"]);
    let of_one = ["a", "b", "c"].map(|name| backup(&api, &one.id, name));
    begin(&mut one, "backup", &of_one[0]);
    begin(&mut one, "backup", &of_one[1]);
    assert_eq!(waits_for(&api, &of_one[2]), "repository has its limit of 2 backups");
    let limit = |most: Value| {
        let body = json!({"max_backups": most});
        api.call("PATCH", &format!("/v1/repositories/{other}"), Some(&body), &[]).unwrap().ok().unwrap();
    };
    limit(json!(1));
    let of_two = ["a", "b", "c"].map(|name| backup(&api, &two.id, name));
    begin(&mut two, "backup", &of_two[0]);
    assert_eq!(waits_for(&api, &of_two[1]), "repository has its limit of 1 backups");
    limit(Value::Null);
    assert_eq!(waits_for(&api, &of_two[1]), "the fleet has its limit of 3 backups");
    // An end in one repository gives the place to another.
    end(&mut one, &of_one[0]);
    begin(&mut one, "backup", &of_one[2]);
    end(&mut one, &of_one[1]);
    begin(&mut two, "backup", &of_two[1]);
    assert_eq!(waits_for(&api, &of_two[2]), "repository has its limit of 2 backups");

    // A restart takes nothing away and gives nobody a place too many.
    limit(json!(1));
    sandbox.restart_with(&variables).unwrap();
    let api = sandbox.api();
    two.connect(&sandbox, &journalling("web-2", &[&of_two[0], &of_two[1]]));
    assert_eq!(waits_for(&api, &of_two[2]), "repository has its limit of 1 backups");
    end(&mut two, &of_two[0]);
    assert_eq!(two.runs_so_far(&api), Vec::<String>::new());
    end(&mut two, &of_two[1]);
    begin(&mut two, "backup", &of_two[2]);
    until(&api, &format!("/v1/jobs/{}", of_two[2]), |job| job["status"] == "running");
}
