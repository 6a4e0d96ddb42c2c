//! The newest agent: those that are older are told of it, when it comes out and whenever they connect.

mod support;

use fleet_integration::Sandbox;
use serde_json::{Value, json};
use support::{Host, ask, core, repository};

/// What a host's agent was told before this job was sent, which is asked for now.
fn told(sandbox: &Sandbox, host: &mut Host) -> Vec<Value> {
    let told = host.sent_so_far(&sandbox.api());
    told.into_iter().filter(|envelope| envelope["type"] == "agent.update.available").collect()
}

#[test]
fn agents_that_are_older_are_told_of_a_release() {
    let mut sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    assert_eq!(ask(&api, "GET", "/v1/agent-release", &Value::Null).status, 404);
    let mut old = Host::ready_as(&sandbox, "old", &repository, &json!({"agent_version": "0.9.0"}));
    let mut new = Host::ready_as(&sandbox, "new", &repository, &json!({"agent_version": "0.10.0"}));
    let release = json!({"latest_version": "0.10.0", "package_url": "https://example.org/agent.deb", "changelog": "x"});
    let answer = ask(&api, "PUT", "/v1/agent-release", &release);
    let tag = answer.header("etag").map(str::to_owned).expect("a tag");
    assert_eq!(answer.ok().unwrap(), release);
    assert_eq!(old.take("agent.update.available"), release);
    assert!(told(&sandbox, &mut new).is_empty(), "it is the newest");

    // Who connects later is told, also by a coordinator that was started since.
    sandbox.take_down();
    sandbox.bring_back().unwrap();
    let api = sandbox.api();
    assert_eq!(api.get("/v1/agent-release").unwrap(), release);
    old.open(&sandbox);
    old.hello(&json!({"agent_version": "0.9.0"}));
    assert_eq!(old.take("agent.update.available"), release);
    new.connect(&sandbox, &json!({"agent_version": "0.11.0-rc1"}));
    assert!(told(&sandbox, &mut new).is_empty(), "it is newer than that");
    old.connect(&sandbox, &core());

    let newer = json!({"latest_version": "0.11.0", "package_url": "https://example.org/agent.deb"});
    let with = |tag: &str| api.call("PUT", "/v1/agent-release", Some(&newer), &[("If-Match", tag)]).unwrap();
    assert_eq!(with("\"another\"").status, 412);
    assert_eq!(with(&tag).status, 200);
    assert_eq!(new.take("agent.update.available")["latest_version"], "0.11.0");
    assert_eq!(with(&tag).status, 412, "it is another now");
    let bad = ask(&api, "PUT", "/v1/agent-release", &json!({"latest_version": "", "package_url": "a\nb"}));
    assert_eq!(bad.status, 422, "{}", bad.text);
}
