//! Operations over a fleet of agents that say what a test wants: who is hit and when, and what is left of it when
//! something goes wrong, the coordinator's death included.

mod support;

use fleet_integration::{Api, Coordinator, CoordinatorSettings, Crowd, Failure, Sandbox, eventually};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::thread;
use std::time::Duration;
use support::blocker::Blocker;
use support::{Host, enroll_many, job_when, journalling, over, until};

/// A thousand agents.
const LONG: Duration = Duration::from_secs(180);

/// A host with a journal and a repository of its own. Names say the order in which members go.
fn host(sandbox: &Sandbox, name: &str) -> Host {
    let repository = sandbox.api().create_repository(name, &format!("/nowhere/{name}"), "password").unwrap();
    Host::ready_as(sandbox, name, &repository, &journalling(name, &[]))
}

fn hosts(sandbox: &Sandbox, names: &[&str]) -> Vec<Host> {
    names.iter().map(|name| host(sandbox, name)).collect()
}

/// Has a check run in every repository, with these limits; gives the operation's path.
fn check_all(api: &Api, limits: &Value) -> String {
    let mut body = json!({"kind": "check", "selector": {"all": true}});
    body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
    let made = api.post("/v1/operations", &body).unwrap();
    format!("/v1/operations/{}", made["id"].as_str().unwrap())
}

/// Takes the check that a host is sent, and begins it.
fn begin(host: &mut Host) -> String {
    let job = host.run("check");
    host.accept(&job);
    let last = host.start(&job, "check");
    host.settled(last);
    job
}

fn finish(host: &mut Host, job: &str, status: &str) {
    let last = host.finish(job, status, i64::from(status != "succeeded"));
    host.settled(last);
}

/// The job of a host in an operation.
fn job_of(api: &Api, operation: &str, host: &Host) -> Value {
    api.get(&format!("{operation}/jobs?host_id={}", host.id)).unwrap()["items"][0].clone()
}

/// An operation once it is over.
fn ended(api: &Api, operation: &str) -> Value {
    until(api, &format!("{operation}?wait=20"), |operation| operation["ended_at"].is_string())
}

/// Its counts: (queued, running, succeeded, failed, cancelled).
fn counts(operation: &Value) -> (i64, i64, i64, i64, i64) {
    let count = |name: &str| operation["counts"][name].as_i64().unwrap();
    (count("queued"), count("running"), count("succeeded"), count("failed"), count("cancelled"))
}

#[test]
fn every_host_gets_its_job_and_the_counts_tell_how_far_it_is() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut fleet = hosts(&sandbox, &["a", "b", "c"]);
    let operation = check_all(&api, &json!({}));
    let jobs: Vec<String> = fleet.iter_mut().map(begin).collect();
    assert_eq!(counts(&until(&api, &operation, |found| counts(found).1 == 3)), (0, 3, 0, 0, 0));
    finish(&mut fleet[0], &jobs[0], "succeeded");
    let last = fleet[1].finish(&jobs[1], "succeeded", 3); // partial
    fleet[1].settled(last);
    assert_eq!(counts(&until(&api, &operation, |found| counts(found).2 == 2)), (0, 1, 2, 0, 0));
    finish(&mut fleet[2], &jobs[2], "failed");
    let ended = ended(&api, &operation);
    assert_eq!((counts(&ended), &ended["counts"]["partial"]), ((0, 0, 2, 1, 0), &json!(1)));
    assert_eq!(ended["state"], "failed");

    // Only what failed is tried again, and this time it works.
    let retry = api.post(&format!("{operation}/retry"), &json!({})).unwrap();
    let retry = format!("/v1/operations/{}", retry["id"].as_str().unwrap());
    let again = begin(&mut fleet[2]);
    assert_eq!(api.job(&again).unwrap()["retry_of"], jobs[2].as_str());
    finish(&mut fleet[2], &again, "succeeded");
    let ended = support::until(&api, &format!("{retry}?wait=20"), |found| found["state"] == "succeeded");
    assert_eq!(counts(&ended), (0, 0, 1, 0, 0));
    for host in &mut fleet[..2] {
        assert!(host.runs_so_far(&api).is_empty());
    }
}

#[test]
fn the_rest_goes_once_the_canaries_have_succeeded() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut fleet = hosts(&sandbox, &["a", "b", "c"]);
    let operation = check_all(&sandbox.api(), &json!({"canaries": 1}));
    let canary = begin(&mut fleet[0]);
    let waits = job_of(&sandbox.api(), &operation, &fleet[1]);
    assert_eq!(waits["waiting_for"], "its operation lets others go first");
    for host in &mut fleet[1..] {
        assert!(host.runs_so_far(&sandbox.api()).is_empty());
    }
    // A new life of the coordinator still waits for the canary.
    sandbox.restart_with(&[]).unwrap();
    let api = sandbox.api();
    fleet[0].connect(&sandbox, &journalling("a", &[&canary]));
    fleet[1].connect(&sandbox, &journalling("b", &[]));
    fleet[2].connect(&sandbox, &journalling("c", &[]));
    for host in &mut fleet[1..] {
        assert!(host.runs_so_far(&api).is_empty());
    }
    assert_eq!(counts(&api.get(&operation).unwrap()), (2, 1, 0, 0, 0));
    finish(&mut fleet[0], &canary, "succeeded");
    for host in &mut fleet[1..] {
        let job = begin(host);
        finish(host, &job, "succeeded");
    }
    assert_eq!(ended(&api, &operation)["state"], "succeeded");
}

#[test]
fn a_canary_that_fails_halts_the_operation() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut fleet = hosts(&sandbox, &["a", "b", "c"]);
    let operation = check_all(&api, &json!({"canaries": 2}));
    let (first, second) = (begin(&mut fleet[0]), begin(&mut fleet[1]));
    finish(&mut fleet[0], &first, "failed");
    let halting = until(&api, &operation, |found| found["state"] == "halting");
    assert_eq!(halting["halt_reason"], format!("job {first}, a canary, is failed"));
    // What is out is left to end.
    finish(&mut fleet[1], &second, "succeeded");
    let ended = ended(&api, &operation);
    assert_eq!((&ended["state"], counts(&ended)), (&json!("halted"), (0, 0, 1, 1, 1)));
    let job = job_of(&api, &operation, &fleet[2]);
    assert_eq!((&job["status"], &job["error"]), (&json!("cancelled"), &json!("its operation was halted")));
    assert!(fleet[2].runs_so_far(&api).is_empty());
}

#[test]
fn too_many_failures_halt_it_also_across_a_restart() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut fleet = hosts(&sandbox, &["a", "b", "c", "d"]);
    let limits = json!({"max_parallel": 1, "stop_after_failures": 2});
    let operation = check_all(&sandbox.api(), &limits);
    let job = begin(&mut fleet[0]);
    finish(&mut fleet[0], &job, "failed");
    let second = begin(&mut fleet[1]);
    sandbox.restart_with(&[]).unwrap();
    let api = sandbox.api();
    for (host, name) in fleet.iter_mut().zip(["a", "b", "c", "d"]) {
        let jobs: &[&str] = if name == "b" { &[&second] } else { &[] };
        host.connect(&sandbox, &journalling(name, jobs));
    }
    finish(&mut fleet[1], &second, "failed");
    let ended = ended(&api, &operation);
    assert_eq!((&ended["state"], counts(&ended)), (&json!("halted"), (0, 0, 0, 2, 2)));
    assert_eq!(ended["halt_reason"], "2 of its jobs have failed");
    for host in &mut fleet[2..] {
        assert!(host.runs_so_far(&api).is_empty());
    }
}

#[test]
fn no_more_run_at_once_than_may_and_who_is_away_takes_no_place() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut fleet = hosts(&sandbox, &["a", "b", "c", "d"]);
    fleet[1].disconnect();
    until(&api, &format!("/v1/hosts/{}", fleet[1].id), |_| {
        let body = json!({"kind": "check", "selector": {"ids": [fleet[1].id, fleet[2].id]}, "dry_run": true});
        api.post("/v1/operations", &body).unwrap()["items"][1]["hostname"] == "b" // the last, for it is away
    });
    let operation = check_all(&api, &json!({"max_parallel": 2}));
    let (first, third) = (begin(&mut fleet[0]), begin(&mut fleet[2]));
    assert_eq!(job_of(&api, &operation, &fleet[1])["waiting_for"], "host is offline");
    assert!(fleet[3].runs_so_far(&api).is_empty());
    finish(&mut fleet[0], &first, "succeeded");
    let fourth = begin(&mut fleet[3]);
    // It is back, and has to wait for a place.
    fleet[1].connect(&sandbox, &journalling("b", &[]));
    assert!(fleet[1].runs_so_far(&api).is_empty());
    finish(&mut fleet[2], &third, "succeeded");
    let second = begin(&mut fleet[1]);
    finish(&mut fleet[1], &second, "succeeded");
    finish(&mut fleet[3], &fourth, "succeeded");
    assert_eq!(ended(&api, &operation)["state"], "succeeded");
}

#[test]
fn a_cancel_reaches_what_is_out_and_what_waits() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut fleet = hosts(&sandbox, &["a", "b", "c"]);
    let operation = check_all(&sandbox.api(), &json!({"max_parallel": 1}));
    let job = begin(&mut fleet[0]);
    let cancelled = sandbox.api().post(&format!("{operation}/cancel"), &json!({})).unwrap();
    assert_eq!(cancelled["state"], "cancelling");
    assert_eq!(fleet[0].take("command.cancel")["job_id"], job.as_str());
    // The next life of the coordinator knows what is wanted.
    sandbox.restart_with(&[]).unwrap();
    let api = sandbox.api();
    fleet[0].connect(&sandbox, &journalling("a", &[&job]));
    assert_eq!(fleet[0].take("command.cancel")["job_id"], job.as_str());
    finish(&mut fleet[0], &job, "cancelled");
    let ended = ended(&api, &operation);
    assert_eq!((&ended["state"], counts(&ended)), (&json!("cancelled"), (0, 0, 0, 0, 3)));
    fleet[1].connect(&sandbox, &journalling("b", &[]));
    assert!(fleet[1].runs_so_far(&api).is_empty());
}

/// How many jobs are part of an operation, and how many operations there are.
fn in_ledger(sandbox: &Sandbox) -> (String, String) {
    let count = |what: &str| sandbox.database.query(&format!("SELECT count(*) FROM {what}")).unwrap()[0][0].clone();
    (count("jobs WHERE operation_id IS NOT NULL").unwrap(), count("operations").unwrap())
}

#[test]
fn all_of_it_is_there_or_nothing_and_others_need_not_wait() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut fleet = hosts(&sandbox, &["a", "b", "c"]);
    // The last that is written of an operation, behind all of its jobs.
    let blocker = Blocker::hold(&sandbox.database, "LOCK TABLE operation_skipped");
    let ids = [fleet[0].id.clone(), fleet[1].id.clone(), uuid::Uuid::new_v4().to_string()];
    let api = sandbox.api();
    let asked = thread::spawn(move || {
        let body = json!({"kind": "check", "selector": {"ids": ids}});
        api.call("POST", "/v1/operations", Some(&body), &[]).map(|reply| reply.status)
    });
    Blocker::until_waited_for(&sandbox.database, "operation_skipped");
    assert_eq!(in_ledger(&sandbox), ("0".to_owned(), "0".to_owned()), "it is not committed");
    // What another host is asked meanwhile is not held up.
    let api = sandbox.api();
    let other = api.run_job(&fleet[2].id, &json!({"kind": "check"})).unwrap();
    assert_eq!(begin(&mut fleet[2]), other);
    finish(&mut fleet[2], &other, "succeeded");
    assert_eq!(over(&api, &other)["status"], "succeeded");

    sandbox.coordinator.process().kill();
    assert!(asked.join().unwrap().is_err(), "nobody was promised anything");
    blocker.let_go();
    sandbox.restart_with(&[]).unwrap();
    assert_eq!(in_ledger(&sandbox), ("0".to_owned(), "0".to_owned()));
    let api = sandbox.api();
    fleet[0].connect(&sandbox, &journalling("a", &[]));
    let job = api.run_job(&fleet[0].id, &json!({"kind": "check"})).unwrap();
    assert_eq!(begin(&mut fleet[0]), job, "no lease is left of it");
}

#[test]
fn a_host_that_leaves_while_it_waits_is_cancelled_in_it() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut fleet = hosts(&sandbox, &["a", "b"]);
    let operation = check_all(&api, &json!({"canaries": 1}));
    let job = begin(&mut fleet[0]);
    api.call("DELETE", &format!("/v1/hosts/{}", fleet[1].id), None, &[]).unwrap().ok().unwrap();
    let gone = job_of(&api, &operation, &fleet[1]);
    job_when(&api, gone["id"].as_str().unwrap(), |job| job["status"] == "cancelled");
    finish(&mut fleet[0], &job, "succeeded");
    let ended = ended(&api, &operation);
    assert_eq!((&ended["state"], counts(&ended)), (&json!("failed"), (0, 0, 1, 0, 1)));
}

#[test]
fn a_thousand_hosts_get_one_job_each_though_the_coordinator_is_killed() {
    const AGENTS: usize = 1_000;
    let mut sandbox = Sandbox::start().unwrap();
    let hosts = enroll_many(&sandbox, AGENTS);
    let address = sandbox.coordinator.address().to_owned();
    let swarm = Crowd::start(&address, hosts).unwrap();
    let greeted = || match swarm.greeted() {
        AGENTS => Ok(()),
        some => Err(Failure::new(format!("{some} agents"))),
    };
    eventually("every agent to be greeted", LONG, greeted).unwrap();
    let initialised = || match sandbox.api().list("/v1/jobs?kind=init&status=succeeded") {
        Ok(jobs) if jobs.len() == AGENTS => Ok(()),
        seen => Err(format!("{:?}", seen.map(|jobs| jobs.len()))),
    };
    eventually("every init to be over", LONG, initialised).unwrap();

    let mut operations = Vec::new();
    for limits in [json!({}), json!({"canaries": 3, "max_parallel": 100})] {
        let mut body = json!({"kind": "unlock", "selector": {"all": true}});
        body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let made = sandbox.api().post("/v1/operations", &body).unwrap();
        assert_eq!((&made["counts"]["jobs"], &made["counts"]["skipped"]), (&json!(AGENTS), &json!(0)));
        let operation = format!("/v1/operations/{}", made["id"].as_str().unwrap());
        // The answer is a promise, and somewhere on the way it dies.
        sandbox.coordinator.process().kill();
        let settings = CoordinatorSettings {
            database_url: Some(sandbox.database.url()),
            listen: Some(address.clone()),
            ..CoordinatorSettings::default()
        };
        sandbox.coordinator = Coordinator::start(&sandbox.path("coordinator"), &settings).unwrap();
        let api = sandbox.api();
        let over = || match api.get(&format!("{operation}?wait=20")).unwrap() {
            found if found["state"] == "succeeded" => Ok(found),
            found => Err(Failure::new(found.to_string())),
        };
        let ended = eventually("the operation to succeed", LONG, over).unwrap();
        assert_eq!(ended["counts"]["succeeded"], AGENTS);
        operations.push(operation);
    }
    let api = sandbox.api();
    for operation in operations {
        let jobs = api.list(&format!("{operation}/jobs?limit=500&status=succeeded")).unwrap();
        let hit: HashSet<&str> = jobs.iter().map(|job| job["host_id"].as_str().unwrap()).collect();
        assert_eq!((jobs.len(), hit.len()), (AGENTS, AGENTS), "exactly one job a host");
    }
}
