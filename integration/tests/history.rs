//! History that is older than it is to be kept goes while the coordinator runs; what still matters stays.

mod support;

use fleet_integration::{Api, Failure, Sandbox, eventually};
use serde_json::{Value, json};
use support::{Host, LIMIT, backup, group, job_when, journalling, log_of, over, repository};
use uuid::Uuid;

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

/// Takes a job two hours back, with these of its times: its id, which begins with the time at which it was made, is
/// another one then.
fn back(sandbox: &Sandbox, job: &str, times: &[&str]) -> String {
    let milliseconds = Uuid::parse_str(job).unwrap().as_u128() >> 80;
    let earlier = Uuid::from_u128(Uuid::parse_str(job).unwrap().as_u128() - ((2 * 3_600_000) << 80));
    assert!(earlier.as_u128() >> 80 < milliseconds);
    let times: Vec<String> = times.iter().map(|time| format!(", {time} = {time} - interval '2 hours'")).collect();
    let moved = format!(
        "BEGIN; SET LOCAL session_replication_role = replica;
         UPDATE jobs SET id = '{earlier}' {} WHERE id = '{job}';
         UPDATE log_chunks SET job_id = '{earlier}' WHERE job_id = '{job}';
         COMMIT",
        times.concat()
    );
    sandbox.database.query(&moved).unwrap();
    earlier.to_string()
}

/// The same for a job that was made and ended then.
fn all_back(sandbox: &Sandbox, job: &str) -> String {
    back(sandbox, job, &["created_at", "ended_at"])
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
    let long = ended(&sandbox, &mut host, "docs", "failed");
    let odd_id = ended(&sandbox, &mut host, "docs", "failed");
    let running = begun(&sandbox, &mut host, "docs");
    let path = format!("/v1/hosts/{}/source-groups/mail", host.id);
    sandbox.api().call("DELETE", &path, None, &[]).unwrap().ok().unwrap();
    let [lost, old, newest, failed, of_mail] = [lost, old, newest, failed, of_mail].map(|job| all_back(&sandbox, &job));
    let [long, running] = [long, running].map(|job| back(&sandbox, &job, &["created_at"]));
    let odd_id = back(&sandbox, &odd_id, &[]);

    sandbox.restart_with(&[("FLEET_KEEP_JOBS", "1h")]).unwrap();
    // A success of a group that is no more says nothing about a restore.
    [&old, &failed, &of_mail].into_iter().for_each(|job| gone(&sandbox, job));
    // One that ends later goes in a later pass. That one saw the others too.
    host.connect(&sandbox, &journalling("j", &[&running]));
    let later = ended(&sandbox, &mut host, "docs", "failed");
    let later = all_back(&sandbox, &later);
    gone(&sandbox, &later);
    let api = sandbox.api();
    let with_log = |job: &str| (api.job(job).unwrap()["status"].clone(), log_of(&api, job).len());
    assert_eq!(with_log(&newest), (json!("succeeded"), 1));
    assert_eq!(with_log(&running), (json!("running"), 1));
    assert_eq!(with_log(&long), (json!("failed"), 1), "it ended just now");
    assert_eq!(with_log(&odd_id), (json!("failed"), 1), "whoever made its id had a wrong clock");
    assert!(api.job(&lost).unwrap()["lost_at"].is_string());

    let last = host.finish(&running, "failed", 1);
    host.settled(last);
    over(&api, &running);
    let running = back(&sandbox, &running, &["ended_at"]);
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
    let sandbox = Sandbox::start_with(&[("FLEET_KEEP_LOGS", "1h"), ("FLEET_KEEP_JOBS", "30d")]).unwrap();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let running = begun(&sandbox, &mut host, "docs");
    let odd_id = ended(&sandbox, &mut host, "docs", "failed");
    let old = ended(&sandbox, &mut host, "docs", "succeeded");
    let odd_id = back(&sandbox, &odd_id, &[]);
    let old = all_back(&sandbox, &old);
    let empty = || match chunks(&sandbox, &old) {
        0 => Ok(()),
        some => Err(Failure::new(format!("{some} chunks are left"))),
    };
    eventually("the log to be gone", LIMIT, empty).unwrap();
    let api = sandbox.api();
    assert_eq!((&api.job(&old).unwrap()["status"], log_of(&api, &old).len()), (&json!("succeeded"), 0));
    assert_eq!((log_of(&api, &running).len(), log_of(&api, &odd_id).len()), (1, 1));
}

#[test]
fn a_coordinator_that_was_away_for_long_is_not_sure_of_its_clock_and_deletes_nothing() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let old = ended(&sandbox, &mut host, "docs", "failed");
    host.disconnect();
    let keep = [("FLEET_KEEP_JOBS", "24h")];
    let metrics = |sandbox: &Sandbox| sandbox.api().call("GET", "/metrics", None, &[]).unwrap().text;
    // What was written last is of three days ago: it was away, or its clock is ahead.
    for table in [
        "UPDATE hosts SET last_seen_at = last_seen_at - interval '3 days' RETURNING id",
        "UPDATE jobs SET created_at = created_at - interval '3 days', ended_at = ended_at - interval '3 days' RETURNING id",
    ] {
        sandbox.database.query(table).unwrap();
    }
    sandbox.restart_with(&keep).unwrap();
    assert!(metrics(&sandbox).contains("fleet_clock_in_doubt 1\n"));
    assert!(sandbox.coordinator.process().output().contains("no history is deleted"));
    host.connect(&sandbox, &journalling("j", &[]));
    let seen = "SELECT last_seen_at FROM hosts";
    let before = sandbox.database.query(seen).unwrap();
    host.say("heartbeat", json!({"sent_at": "2026-03-01T02:00:00Z"}));
    // Signs of life are written less often than it is looked for old history.
    let written = || match sandbox.database.query(seen).unwrap() == before {
        true => Err(Failure::new("it is not written")),
        false => Ok(()),
    };
    eventually("a sign of life to be written", LIMIT, written).unwrap();
    assert_eq!(status(&sandbox.api(), &format!("/v1/jobs/{old}")), 200);
    sandbox.restart_with(&keep).unwrap();
    assert!(metrics(&sandbox).contains("fleet_clock_in_doubt 0\n"));
    gone(&sandbox, &old);
}
