//! The database goes away and comes back: nobody is disconnected, nothing that was reported is lost, and who asks for
//! something gets an honest answer.

mod support;

use fleet_integration::{Sandbox, eventually};
use serde_json::{Value, json};
use support::{LIMIT, job_when, journalling, log_of, running_on_own_server as running};

fn status_of(sandbox: &Sandbox, method: &str, path: &str, body: Option<&Value>) -> u16 {
    sandbox.api().call(method, path, body, &[]).unwrap().status
}

#[test]
fn what_is_reported_meanwhile_is_acknowledged_once_it_is_back() {
    let (sandbox, mut server, mut host, job) = running();
    server.stop().unwrap();
    for seq in 0..100 {
        host.log(&job, seq, "said while nobody could write it down");
    }
    let last = host.finish(&job, "succeeded", 0);
    assert_eq!(status_of(&sandbox, "GET", "/readyz", None), 503);
    assert_eq!(status_of(&sandbox, "GET", "/healthz", None), 200);
    server.start_again().unwrap();
    host.settled(last);
    let api = sandbox.api();
    job_when(&api, &job, |job| job["status"] == "succeeded");
    assert_eq!(log_of(&api, &job).len(), 100);
    eventually("/readyz", LIMIT, || match status_of(&sandbox, "GET", "/readyz", None) {
        200 => Ok(()),
        status => Err(status),
    })
    .unwrap();
}

#[test]
fn a_write_is_refused_as_not_done_and_is_not_done_later() {
    let (sandbox, mut server, mut host, job) = running();
    server.stop().unwrap();
    let check = json!({"kind": "check"});
    let path = format!("/v1/hosts/{}/jobs", host.id);
    let refused = sandbox.api().call("POST", &path, Some(&check), &[]).unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    server.start_again().unwrap();
    let last = host.finish(&job, "succeeded", 0);
    host.settled(last);
    let jobs = sandbox.api().list("/v1/jobs?kind=check").unwrap();
    assert!(jobs.is_empty(), "what was refused has not happened: {jobs:?}");
    // The same connection still takes jobs.
    let check = sandbox.api().run_job(&host.id, &check).unwrap();
    assert_eq!(host.run("check"), check);
}

#[test]
fn a_cancel_reaches_the_agent_all_the_same() {
    cancel_while_away(&[]);
}

#[test]
fn and_so_does_one_under_a_key() {
    cancel_while_away(&[("Idempotency-Key", "a")]);
}

fn cancel_while_away(headers: &[(&str, &str)]) {
    let (sandbox, mut server, mut host, job) = running();
    let (api, cancel) = (sandbox.api(), format!("/v1/jobs/{job}/cancel"));
    server.stop().unwrap();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| api.call("POST", &cancel, None, headers).unwrap());
        assert_eq!(host.take("command.cancel")["job_id"], job);
        asked.join().unwrap()
    });
    assert_eq!(asked.status, 503, "it can't be promised yet: {}", asked.text);
    server.start_again().unwrap();
    let last = host.finish(&job, "cancelled", 130);
    host.settled(last);
    let cancelled = job_when(&sandbox.api(), &job, |job| job["status"] == "cancelled");
    assert!(cancelled["cancel_requested_at"].is_string(), "{cancelled}");
    assert_eq!(api.call("POST", &cancel, None, headers).unwrap().status, 202);
    let done = api.list("/v1/audit?outcome=done").unwrap();
    assert_eq!(done.iter().filter(|row| row["route"] == "/v1/jobs/{id}/cancel").count(), 1, "{done:?}");
}

#[test]
fn an_agent_that_connects_meanwhile_is_welcomed_once_it_is_back() {
    let (sandbox, mut server, mut host, job) = running();
    host.disconnect();
    server.stop().unwrap();
    // Its token can't be looked up now.
    let upgrade = sandbox.api().with_token("any").call("GET", "/v1/agent/connect", None, &[]).unwrap();
    assert_eq!(upgrade.status, 503);
    server.start_again().unwrap();
    eventually("the upgrade", LIMIT, || {
        match sandbox.api().with_token("any").call("GET", "/v1/agent/connect", None, &[]).unwrap().status {
            401 => Ok(()),
            status => Err(status),
        }
    })
    .unwrap();
    host.connect(&sandbox, &journalling("j", &[&job]));
    let last = host.finish(&job, "succeeded", 0);
    host.settled(last);
    assert_eq!(sandbox.api().job(&job).unwrap()["status"], "succeeded");
}
