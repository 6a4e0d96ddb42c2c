//! Every job ends: deadlines, and what becomes of the lease of a job whose agent may still be at work.

mod support;

use fleet_integration::Sandbox;
use serde_json::{Value, json};
use support::{Host, backup, core, group, job_when, journalling, over, repository};

/// A coordinator with one short deadline, and a host that keeps a journal and was sent a backup.
fn with_backup(variable: &str) -> (Sandbox, Host, String) {
    let sandbox = Sandbox::start_with(&[(variable, "1s")]).unwrap();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let job = backup(&sandbox.api(), &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    (sandbox, host, job)
}

fn error_of(job: &Value) -> &str {
    job["error"].as_str().unwrap_or_default()
}

#[test]
fn a_job_that_can_not_be_sent_expires() {
    let sandbox = Sandbox::start_with(&[("FLEET_QUEUED_LIMIT", "1s")]).unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);
    host.disconnect();
    let job = job_when(&api, &backup(&api, &host.id, "docs"), |job| job["status"] == "failed");
    assert!(error_of(&job).contains("expired"), "{job}");
    // It is not sent when the host is back after all.
    host.connect(&sandbox, &core());
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
}

#[test]
fn a_job_that_is_not_accepted_in_time_is_lost_and_says_both_when_it_is_reported_after_all() {
    let (sandbox, mut host, job) = with_backup("FLEET_ACCEPT_LIMIT");
    let api = sandbox.api();
    let lost = over(&api, &job);
    assert_eq!(lost["status"], "failed");
    assert!(error_of(&lost).contains("did not accept"), "{lost}");
    // The agent may be at work on it: an exclusive job waits.
    let check = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    let waiting = api.job(&check).unwrap();
    assert!(waiting["waiting_for"].as_str().is_some_and(|text| text.contains(&job)), "{waiting}");
    host.accept(&job);
    host.start(&job, "backup");
    let last = host.finish(&job, "succeeded", 0);
    host.settled(last);
    let both = api.job(&job).unwrap();
    assert_eq!((&both["status"], &both["exit_code"]), (&json!("failed"), &json!(0)));
    assert!(error_of(&both).contains("did not accept") && error_of(&both).contains("succeeded"), "{both}");
    assert_eq!(host.run("check"), check, "the lease is free");
}

#[test]
fn a_person_can_release_what_a_lost_job_holds() {
    let (sandbox, mut host, job) = with_backup("FLEET_ACCEPT_LIMIT");
    let api = sandbox.api();
    let running = api.call("POST", &format!("/v1/jobs/{job}/release"), None, &[]).unwrap();
    assert_eq!(running.status, 409, "a job that is not over can't be released");
    over(&api, &job);
    let check = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    assert_eq!(api.call("POST", &format!("/v1/jobs/{job}/release"), None, &[]).unwrap().status, 202);
    assert_eq!(host.run("check"), check);
}

#[test]
fn an_agent_that_comes_back_without_a_lost_job_frees_its_lease() {
    let (sandbox, mut host, job) = with_backup("FLEET_ACCEPT_LIMIT");
    let api = sandbox.api();
    over(&api, &job);
    let check = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    host.connect(&sandbox, &journalling("j", &[]));
    assert_eq!(host.run("check"), check);
}

#[test]
fn a_job_that_is_over_here_is_called_off_where_an_agent_still_lists_it() {
    let (sandbox, mut host, job) = with_backup("FLEET_ACCEPT_LIMIT");
    let api = sandbox.api();
    over(&api, &job);
    assert_eq!(api.call("POST", &format!("/v1/jobs/{job}/release"), None, &[]).unwrap().status, 202);
    job_when(&api, &job, |job| job["error"].is_string());
    // It has it after all: nobody else would know, and its repository may be somebody else's by now.
    let prune = api.run_job(&host.id, &json!({"kind": "prune"})).unwrap();
    assert_eq!(host.run("prune"), prune);
    host.connect(&sandbox, &journalling("j", &[&job]));
    assert_eq!(host.take("command.cancel")["job_id"], job);
}

#[test]
fn an_agent_that_stays_away_loses_its_jobs() {
    let (sandbox, mut host, job) = with_backup("FLEET_AGENT_LOST_LIMIT");
    host.accept(&job);
    let last = host.start(&job, "backup");
    host.settled(last);
    host.disconnect();
    let lost = over(&sandbox.api(), &job);
    assert_eq!(lost["status"], "failed");
    assert!(error_of(&lost).contains("agent lost"), "{lost}");
}

#[test]
fn a_job_that_runs_too_long_is_cancelled_and_one_that_ignores_it_is_lost() {
    let sandbox = Sandbox::start_with(&[("FLEET_BACKUP_LIMIT", "1s"), ("FLEET_CANCEL_LIMIT", "1s")]).unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);
    let job = backup(&api, &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    host.start(&job, "backup");
    assert_eq!(host.take("command.cancel")["job_id"], job);
    let lost = over(&api, &job);
    assert_eq!(lost["status"], "failed");
    assert!(error_of(&lost).contains("cancel was not answered"), "{lost}");
}
