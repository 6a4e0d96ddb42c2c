//! Who is online, as far as it shows within seconds.

mod support;

use fleet_integration::Sandbox;
use serde_json::{Value, json};
use support::{Host, core, repository, until};

#[test]
fn a_host_is_online_from_its_hello_on_and_through_a_short_absence() {
    let mut sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::enroll(&sandbox, "web-1", &repository);
    let never = Host::enroll(&sandbox, "web-2", &repository);
    let path = format!("/v1/hosts/{}", host.id);
    let listed = |sandbox: &Sandbox, status: &str| -> Vec<Value> {
        let hosts = sandbox.api().list(&format!("/v1/hosts?status={status}")).unwrap();
        hosts.into_iter().map(|host| host["id"].clone()).collect()
    };
    host.open(&sandbox);
    assert_eq!(sandbox.api().get(&path).unwrap()["status"], "offline", "a connection that has said nothing");
    host.connect(&sandbox, &core());
    assert_eq!(listed(&sandbox, "online"), [json!(host.id)]);
    assert_eq!(listed(&sandbox, "offline"), [json!(never.id)]);

    let seen = |host: &Value| host["last_seen_at"].as_str().unwrap().to_owned();
    let before = seen(&sandbox.api().get(&path).unwrap());
    host.say("heartbeat", json!({"sent_at": "2031-01-01T00:00:00Z"}));
    let after = until(&sandbox.api(), &path, |host| seen(host) > before);
    assert!(seen(&after).as_str() < "2031", "by the coordinator's clock: {after}");

    // Heard of within 90 seconds is online, whether a connection is open or not.
    host.disconnect();
    let job = sandbox.api().run_job(&host.id, &json!({"kind": "unlock"})).unwrap();
    support::job_when(&sandbox.api(), &job, |job| job["waiting_for"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(sandbox.api().get(&path).unwrap()["status"], "online");

    // A restart of the coordinator takes nobody offline either.
    sandbox.restart_with(&[]).unwrap();
    assert_eq!(listed(&sandbox, "online"), [json!(host.id)]);
    assert_eq!(listed(&sandbox, "offline"), [json!(never.id)]);
}
