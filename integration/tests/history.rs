//! History that is older than it is to be kept goes while the coordinator runs; what still matters stays.

mod support;

use fleet_integration::{Api, Failure, Sandbox, eventually};
use serde_json::{Value, json};
use support::{Host, LIMIT, backup, group, job_when, journalling, log_of, over, repository};

/// A backup with a line in its log that has ended like this.
fn ended(sandbox: &Sandbox, host: &mut Host, name: &str, status: &str) -> String {
    let job = begun(sandbox, host, name);
    let last = host.finish(&job, status, i64::from(status != "succeeded"));
    host.settled(last);
    over(&sandbox.api(), &job);
    job
}

/// A running backup with a line in its log.
fn begun(sandbox: &Sandbox, host: &mut Host, name: &str) -> String {
    let job = backup(&sandbox.api(), &host.id, name);
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    host.start(&job, "backup");
    let last = host.log(&job, 0, "a line");
    host.settled(last);
    job
}

fn status(api: &Api, path: &str) -> u16 {
    api.call("GET", path, None, &[]).unwrap().status
}

/// Waits until a job is gone, to REST and from the tables.
fn gone(sandbox: &Sandbox, job: &str) {
    let path = format!("/v1/jobs/{job}");
    let found = || match status(&sandbox.api(), &path) {
        404 => Ok(()),
        status => Err(Failure::new(format!("{path}: {status}"))),
    };
    eventually("a job to be gone", LIMIT, found).unwrap();
    assert_eq!(status(&sandbox.api(), &format!("{path}/logs")), 404);
    assert_eq!(chunks(sandbox, job), 0);
}

fn chunks(sandbox: &Sandbox, job: &str) -> usize {
    sandbox.database.query(&format!("SELECT 1 FROM log_chunks WHERE job_id = '{job}'")).unwrap().len()
}

#[test]
fn old_jobs_go_and_what_matters_stays() {
    let mut sandbox = Sandbox::start_with(&[("FLEET_ACCEPT_LIMIT", "1s")]).unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &journalling("j", &[]));
    let mut silent = Host::ready_as(&sandbox, "web-2", &repository, &journalling("k", &[]));
    for host in [&host.id, &silent.id] {
        group(&sandbox.api(), host, "docs", Value::Null);
    }
    group(&sandbox.api(), &host.id, "mail", Value::Null);
    let lost = backup(&sandbox.api(), &silent.id, "docs");
    silent.run("backup");
    job_when(&sandbox.api(), &lost, |job| job["lost_at"].is_string());
    let old = ended(&sandbox, &mut host, "docs", "succeeded");
    let newest = ended(&sandbox, &mut host, "docs", "succeeded");
    let failed = ended(&sandbox, &mut host, "docs", "failed");
    let of_mail = ended(&sandbox, &mut host, "mail", "succeeded");
    let running = begun(&sandbox, &mut host, "docs");
    let path = format!("/v1/hosts/{}/source-groups/mail", host.id);
    sandbox.api().call("DELETE", &path, None, &[]).unwrap().ok().unwrap();

    sandbox.restart_with(&[("FLEET_KEEP_JOBS", "1s")]).unwrap();
    // A success of a group that is no more says nothing about a restore.
    [&old, &failed, &of_mail].into_iter().for_each(|job| gone(&sandbox, job));
    // One that ends later goes in a later pass. That one saw the others too.
    host.connect(&sandbox, &journalling("j", &[&running]));
    let later = ended(&sandbox, &mut host, "docs", "failed");
    gone(&sandbox, &later);
    let api = sandbox.api();
    assert_eq!(api.job(&newest).unwrap()["status"], "succeeded");
    assert_eq!((&api.job(&running).unwrap()["status"], log_of(&api, &running).len()), (&json!("running"), 1));
    assert!(api.job(&lost).unwrap()["lost_at"].is_string());

    let last = host.finish(&running, "failed", 1);
    host.settled(last);
    assert_eq!(api.call("POST", &format!("/v1/jobs/{lost}/release"), None, &[]).unwrap().status, 202);
    gone(&sandbox, &running);
    gone(&sandbox, &lost);
    // A line that comes even later belongs to nothing, and its agent need not keep it.
    let last = host.log(&running, 1, "late");
    host.settled(last);
    assert_eq!(status(&api, &format!("/v1/jobs/{running}")), 404);
}

#[test]
fn logs_can_go_before_their_jobs() {
    let sandbox = Sandbox::start_with(&[("FLEET_KEEP_LOGS", "1s")]).unwrap();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let running = begun(&sandbox, &mut host, "docs");
    let old = ended(&sandbox, &mut host, "docs", "succeeded");
    let empty = || match chunks(&sandbox, &old) {
        0 => Ok(()),
        some => Err(Failure::new(format!("{some} chunks are left"))),
    };
    eventually("the log to be gone", LIMIT, empty).unwrap();
    let api = sandbox.api();
    assert_eq!((&api.job(&old).unwrap()["status"], log_of(&api, &old).len()), (&json!("succeeded"), 0));
    assert_eq!(log_of(&api, &running).len(), 1);
}
