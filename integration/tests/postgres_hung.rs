//! The database hangs: connections stay, and nothing is answered. Everybody who asks gets an answer all the same, agents
//! stay connected, and all they report flows in once it goes on.

mod support;

use fleet_integration::{Api, Reply};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::thread;
use std::time::Duration;
use support::{Host, job_when, journalling, log_of, running_on_own_server as running};

/// What is promised is about 10 s; the rest is for a machine that does other things too.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

fn refused(reply: &Reply) -> String {
    assert_eq!(reply.status, 503, "{}", reply.problem());
    assert!(reply.header("retry-after").is_some());
    reply.json["type"].as_str().unwrap().to_owned()
}

/// Sends these requests at once; every answer comes in time.
fn all_at_once(api: &Api, requests: &[(&'static str, String, Option<Value>)]) -> Vec<Reply> {
    thread::scope(|scope| {
        let ask =
            |(method, path, body)| scope.spawn(move || api.call(method, path, Option::as_ref(body), &[]).unwrap());
        let asked: Vec<_> = requests.iter().map(|(method, path, body)| ask((*method, path, body))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}

#[test]
fn every_request_is_answered_and_what_is_refused_is_not_done_later() {
    let (sandbox, mut server, mut host, job) = running();
    let api = Api::with_limit(&sandbox.coordinator.url(), sandbox.coordinator.admin_token(), ANSWER_LIMIT);
    server.pause();
    let reads = ["/readyz", "/v1/hosts", "/v1/jobs", "/v1/repositories", "/v1/agent/connect"];
    let reads = reads.map(|path| ("GET", path.to_owned(), None));
    let named = |name: &str| json!({"name": name, "url": format!("/srv/{name}"), "password": "pw"});
    let names = ["a", "b", "c", "d", "e", "f"];
    let writes = names.map(|name| ("POST", "/v1/repositories".to_owned(), Some(named(name))));
    let requests = [&reads[..], &writes[..]].concat();
    let replies = all_at_once(&api, &requests);
    let kinds: Vec<String> = replies.iter().map(refused).collect();
    let kinds_of_writes = &kinds[reads.len()..];
    let not_done: HashSet<&str> = names
        .into_iter()
        .zip(kinds_of_writes)
        .filter_map(|(name, kind)| (kind == "/problems/unavailable").then_some(name))
        .collect();
    // One at most was in the transaction that hung, and nobody knows what becomes of it.
    assert!(not_done.len() + 1 >= names.len(), "{kinds_of_writes:?}");
    assert_eq!(api.call("GET", "/healthz", None, &[]).unwrap().status, 200);
    // A job that runs is known without the database.
    assert_eq!(api.job(&job).unwrap()["status"], "running");
    server.resume();
    let last = host.finish(&job, "succeeded", 0);
    host.settled(last);
    let there = api.list("/v1/repositories").unwrap();
    for repository in &there {
        assert!(!not_done.contains(repository["name"].as_str().unwrap()), "it was refused as not done: {repository}");
    }
}

#[test]
fn agents_are_heard_and_told_and_all_they_report_flows_in() {
    let (sandbox, mut server, mut host, job) = running();
    let mut other = Host::ready_as(&sandbox, "web-2", &repository_of_its_own(&sandbox), &journalling("k", &[]));
    server.pause();
    for seq in 0..100 {
        host.log(&job, seq, "said while the database hung");
    }
    let (api, cancel) = (sandbox.api(), format!("/v1/jobs/{job}/cancel"));
    let asked = thread::scope(|scope| {
        let asked = scope.spawn(|| api.call("POST", &cancel, None, &[("Idempotency-Key", "a")]).unwrap());
        assert_eq!(host.take("command.cancel")["job_id"], job);
        other.agent().ping().unwrap();
        host.agent().ping().unwrap();
        asked.join().unwrap()
    });
    assert_eq!(refused(&asked), "/problems/outcome-unknown", "the agent was told, and nothing is written yet");
    let last = host.finish(&job, "cancelled", 130);
    server.resume();
    // Over the same connections.
    host.settled(last);
    other.agent().ping().unwrap();
    let over = job_when(&api, &job, |job| job["status"] == "cancelled");
    assert!(over["cancel_requested_at"].is_string(), "{over}");
    assert_eq!(log_of(&api, &job).len(), 100);
    let online = api.list("/v1/hosts?status=online").unwrap();
    assert_eq!(online.len(), 2, "{online:?}");
}

fn repository_of_its_own(sandbox: &fleet_integration::Sandbox) -> String {
    sandbox.api().create_repository("other", "/srv/other", "pw").unwrap()
}
