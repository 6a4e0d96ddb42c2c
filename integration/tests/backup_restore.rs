//! The coordinator's own backup, as docs/operations.md describes it: a dump of the database and the key file, in
//! different places, make a coordinator that goes on where the old one was.

mod support;

use fleet_integration::{Coordinator, CoordinatorSettings, Database, FakeAgent, Sandbox, command, postgres_programs};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use support::{Host, backup, group, journalling, log_of, over};

/// Runs one of PostgreSQL's client programs.
fn postgres(name: &str, args: &[&str]) {
    let output = command(&postgres_programs().unwrap().join(name), None).args(args).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn install_key(from: &Path, data_dir: &Path) {
    fs::create_dir_all(data_dir).unwrap();
    let output = command(Path::new("install"), None)
        .args(["-D", "-m", "600"])
        .arg(from)
        .arg(data_dir.join("secret.key"))
        .output();
    assert!(output.unwrap().status.success());
}

#[test]
fn a_dump_and_the_key_make_a_coordinator_that_goes_on() {
    let mut sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let body = json!({"name": "main", "url": "rest:http://127.0.0.1:1/r", "password": "the password",
                      "username": "web", "credential": "the credential"});
    let repository = api.post("/v1/repositories", &body).unwrap()["id"].as_str().unwrap().to_owned();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &journalling("j", &[]));
    group(&api, &host.id, "docs", Value::Null);
    let done = backup(&api, &host.id, "docs");
    host.log(&done, 0, "a line");
    host.finish(&done, "succeeded", 0);
    let done = over(&api, &done);
    let running = backup(&api, &host.id, "docs");
    let started = host.start(&running, "backup");
    host.settled(started);

    // Back up, while it runs.
    let (dump, key) = (sandbox.path("fleet.dump"), sandbox.path("safe/secret.key"));
    let file = format!("--file={}", dump.display());
    postgres("pg_dump", &["--format=custom", &file, &sandbox.database.url()]);
    fs::create_dir(key.parent().unwrap()).unwrap();
    fs::copy(sandbox.path("coordinator/secret.key"), &key).unwrap();
    sandbox.coordinator.process().kill();

    // Restore, on a new machine.
    let restored = Database::create().unwrap();
    let target = format!("--dbname={}", restored.url());
    postgres("pg_restore", &[&target, "--exit-on-error", "--no-owner", &dump.display().to_string()]);
    let settings = CoordinatorSettings { database_url: Some(restored.url()), ..CoordinatorSettings::default() };

    let mut wrong = Coordinator::launch(&sandbox.path("without-key"), &settings).unwrap();
    assert_eq!(wrong.process().wait(support::LIMIT).unwrap().code(), Some(1));
    let said = wrong.process().tail(1);
    assert!(said.contains("not the one that this database was sealed with") && said.contains("backup"), "{said}");

    let data_dir = sandbox.path("restored");
    install_key(&key, &data_dir);
    sandbox.coordinator = Coordinator::start(&data_dir, &settings).unwrap();
    let api = sandbox.api();
    let id = done["id"].as_str().unwrap();
    assert_eq!(api.job(id).unwrap(), done);
    assert_eq!(log_of(&api, id), [(0, "a line".to_owned())]);

    // Its agents come back by themselves, get what was sealed, and what runs goes on.
    let mut agent = FakeAgent::connect(sandbox.coordinator.address(), &host.token).unwrap();
    agent.hello("web-1", &journalling("j", &[&running])).unwrap();
    for slot in ["admin", "repo"] {
        let told = agent.expect("config.update").unwrap();
        assert_eq!(told["slot"], slot);
        assert_eq!(
            (&told["repo_password"], &told["repo_credential"]),
            (&json!("the password"), &json!("the credential"))
        );
    }
    let report =
        json!({"job_id": running, "status": "succeeded", "exit_code": 0, "finished_at": "2026-03-01T02:00:00Z"});
    agent.send_numbered(1, "job.finished", report).unwrap();
    assert_eq!(over(&api, &running)["status"], "succeeded");
    drop(host);
    drop(sandbox);
    drop(restored);
}
