//! The first minute of a connection, as an agent written from the contract alone sees it: who is let in, what it is
//! told first, and how it is sent away.

mod support;

use fleet_integration::{FakeAgent, Received, Sandbox};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use support::{Host, core, group, journalling, repository, until};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

const MIB: usize = 1024 * 1024;

/// What comes until the first `command.run`, or the end.
fn burst(host: &mut Host) -> Vec<Value> {
    let mut before = Vec::new();
    loop {
        match host.receive() {
            Received::Envelope(envelope) if envelope["type"] == "command.run" => return before,
            Received::Envelope(envelope) => before.push(envelope),
            end => panic!("{end:?} after {before:?}"),
        }
    }
}

/// The `error` and the close that a connection ends in.
fn refusal(agent: &mut FakeAgent) -> (Value, u16) {
    let error = agent.expect("error").unwrap();
    let (code, reason) = agent.expect_close().unwrap();
    assert!(!reason.is_empty(), "a close says why");
    (error, code.expect("a close code"))
}

fn fragment(first: bool, last: bool, bytes: Vec<u8>) -> Message {
    let kind = if first { Data::Text } else { Data::Continue };
    Message::Frame(Frame::message(bytes, OpCode::Data(kind), last))
}

#[test]
fn the_agent_gets_its_credentials_then_its_schedules_and_then_work() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let body = json!({
        "name": "main", "url": "rest:http://127.0.0.1:1/r", "password": "pw", "username": "host", "credential": "login",
        "admin": {"username": "boss", "credential": "boss-login"}, "append_only": true,
    });
    let repository = api.post("/v1/repositories", &body).unwrap()["id"].as_str().unwrap().to_owned();
    let mut host = Host::enroll(&sandbox, "web-1", &repository);
    let caps = json!({"bandwidth_up_kbps": 500, "hook_shell": "/bin/bash"});
    api.call("PATCH", &format!("/v1/hosts/{}", host.id), Some(&caps), &[]).unwrap().ok().unwrap();
    host.open(&sandbox);
    host.hello(&core());
    let told = burst(&mut host);
    let types: Vec<_> = told.iter().map(|envelope| envelope["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["config.update", "config.update", "schedule.set"]);
    let (admin, everyday) = (&told[0]["payload"], &told[1]["payload"]);
    assert_eq!(admin["slot"], "admin");
    assert_eq!((&admin["repo_username"], &admin["repo_credential"]), (&json!("boss"), &json!("boss-login")));
    assert_eq!((&admin["repo_url"], &admin["repo_password"]), (&json!("rest:http://127.0.0.1:1/r"), &json!("pw")));
    assert!(matches!(everyday["slot"].as_str(), None | Some("" | "repo")), "{everyday}");
    assert_eq!((&everyday["repo_username"], &everyday["repo_credential"]), (&json!("host"), &json!("login")));
    assert_eq!((&everyday["bandwidth_up_kbps"], &everyday["hook_shell"]), (&json!(500), &json!("/bin/bash")));
    let schedules = &told[2]["payload"];
    assert_eq!(schedules["schedules"], json!([]));
    // It is told back which version is in force.
    host.say("schedule.ack", json!({"version": schedules["version"], "applied_at": "2026-03-01T02:00:00Z"}));
    let path = format!("/v1/hosts/{}", host.id);
    until(&api, &path, |host| host["applied_schedule_version"] == schedules["version"]);
}

#[test]
fn the_host_is_what_its_token_and_its_hello_say() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::enroll(&sandbox, "web-1", &repository);
    let path = format!("/v1/hosts/{}", host.id);
    let before = sandbox.api().get(&path).unwrap();
    assert_eq!((&before["status"], &before["agent_version"]), (&json!("offline"), &Value::Null));
    host.name = "another-name".to_owned();
    let hello = json!({
        "agent_version": "9.8.7", "restic_version": "0.14.0", "os": "windows", "arch": "arm64",
        "boot_time": "2026-03-01T03:00:00.123456789+02:00",
    });
    host.connect(&sandbox, &hello);
    let known = until(&sandbox.api(), &path, |host| host["status"] == "online");
    assert_eq!(known["hostname"], "web-1", "the token says which host this is");
    for field in ["agent_version", "restic_version", "os", "arch"] {
        assert_eq!(known[field], hello[field], "{field}");
    }
    assert_eq!(known["protocol_version"], 1);
    assert!(known["boot_time"].as_str().unwrap().starts_with("2026-03-01T01:00:00.12345"), "{known}");
    assert!(known["last_seen_at"].is_string(), "{known}");
}

#[test]
fn a_version_that_is_not_spoken_is_refused_clearly() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    for (version, to_upgrade) in [(99, "coordinator"), (0, "agent")] {
        let mut host = Host::enroll(&sandbox, &format!("speaks-{version}"), &repository);
        host.open(&sandbox);
        host.hello(&json!({"protocol_version": version}));
        let (error, code) = refusal(host.agent());
        assert_eq!(code, 4000);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(&version.to_string()) && message.contains(&format!("upgrade the {to_upgrade}")),
            "{message}"
        );
        assert_eq!(sandbox.api().get(&format!("/v1/hosts/{}", host.id)).unwrap()["status"], "offline");
    }
}

#[test]
fn what_is_no_hello_or_no_envelope_ends_the_connection() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::enroll(&sandbox, "web-1", &repository);
    let early = r#"{"type": "job.finished", "payload": {"job_id": "x", "status": "failed", "exit_code": 1}}"#;
    let heartbeat = r#"{"type": "heartbeat", "payload": {"sent_at": "2026-03-01T02:00:00Z"}}"#;
    for text in [heartbeat, early, r#"{"type": "of.tomorrow"}"#, "", "no JSON", "[]", "{", r#"{"payload": {}}"#] {
        host.open(&sandbox);
        host.agent().send_text(text).unwrap();
        assert_eq!(refusal(host.agent()).1, 1002, "{text:?} before hello");
    }
    let half = r#"{"type": "log.stream", "payload": {"job_id": "x", "seq": 1, "ts": "", "stream": "stdout", "payload": "\ud800"}}"#;
    let not_over = r#"{"type": "job.finished", "payload": {"job_id": "x", "status": "running", "exit_code": 0}}"#;
    let hello = r#"{"type": "hello", "payload": {"protocol_version": 1}}"#;
    for text in ["", "no JSON", "[]", r#"{"type": "heartbeat", "payload": []}"#, half, not_over, hello] {
        host.connect(&sandbox, &core());
        host.agent().send_text(text).unwrap();
        assert_eq!(refusal(host.agent()).1, 1002, "{text:?} after hello");
    }
    host.connect(&sandbox, &core());
    host.agent().send_raw(Message::binary(heartbeat.as_bytes().to_vec())).unwrap();
    let (error, code) = refusal(host.agent());
    assert_eq!(code, 1002);
    assert!(error["message"].as_str().unwrap().contains("binary"), "{error}");
    // Nobody else is disturbed: the host itself may come again.
    host.connect(&sandbox, &core());
}

#[test]
fn a_message_may_come_in_fragments_with_a_ping_between() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::enroll(&sandbox, "web-1", &repository);
    host.open(&sandbox);
    let hello = r#"{"type": "hello", "payload": {"protocol_version": 1, "hostname": "wéb-1", "agent_version": "é"}}"#;
    let bytes = hello.as_bytes();
    let last = bytes.len() - 1;
    // One byte a frame, so that characters are cut too.
    for (index, byte) in bytes.iter().enumerate() {
        host.agent().send_raw(fragment(index == 0, index == last, vec![*byte])).unwrap();
        if index == last / 2 {
            host.agent().send_raw(Message::Ping(b"here?".to_vec().into())).unwrap();
        }
    }
    host.next("schedule.set");
    let path = format!("/v1/hosts/{}", host.id);
    until(&sandbox.api(), &path, |host| host["agent_version"] == "é");
}

#[test]
fn what_newer_peers_say_is_ignored() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::enroll(&sandbox, "web-1", &repository);
    let hello = json!({"capabilities": ["ack", "telepathy"], "journal": "j", "of_tomorrow": {"a": [1]}, "os": "plan9"});
    host.connect(&sandbox, &hello);
    host.say("heartbeat", json!({"sent_at": "2026-03-01T02:00:00Z", "mood": "fine"}));
    host.agent().send_text(r#"{"type": "of.tomorrow", "id": "7", "payload": [1, 2], "more": true}"#).unwrap();
    host.say_as(8, "schedule.ack", json!({"version": 1, "applied_at": "0001-01-01T00:00:00Z", "x": null}));
    host.settled(8);
    let path = format!("/v1/hosts/{}", host.id);
    assert_eq!(sandbox.api().get(&path).unwrap()["applied_schedule_version"], 1);
}

#[test]
fn sixteen_mebibytes_are_accepted_and_one_byte_more_is_not() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &journalling("j", &[]));
    let job = sandbox.api().run_job(&host.id, &json!({"kind": "check"})).unwrap();
    host.run("check");
    let envelope = |payload: &str| {
        json!({"type": "log.stream", "id": "9", "payload": support::line(&job, 0, payload)}).to_string()
    };
    let room = 16 * MIB - envelope("").len();
    host.say_as(8, "schedule.ack", json!({"version": 1}));
    host.agent().send_text(envelope(&"x".repeat(room))).unwrap();
    host.say_as(10, "schedule.ack", json!({"version": 1}));
    host.settled(10);
    assert_eq!(support::log_of(&sandbox.api(), &job)[0].1.len(), room);
    host.agent().send_text(envelope(&"x".repeat(room + 1))).unwrap();
    assert_eq!(refusal(host.agent()).1, 1009);
}

#[test]
fn an_oversized_message_is_refused_before_it_is_there() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::enroll(&sandbox, "web-1", &repository);
    // A masked text frame that only declares its length.
    for declared in [16 * MIB as u64 + 1, 1 << 40, i64::MAX.cast_unsigned()] {
        host.connect(&sandbox, &core());
        let mut header = vec![0x81, 0x80 | 127];
        header.extend(declared.to_be_bytes());
        header.extend([1, 2, 3, 4]);
        host.agent().write_bytes(&header).unwrap();
        assert_eq!(refusal(host.agent()).1, 1009, "{declared} bytes declared");
    }
    // The second fragment is over the sum, and it only declares that.
    host.connect(&sandbox, &core());
    host.agent().send_raw(fragment(true, false, vec![b'x'; 10 * MIB])).unwrap();
    host.agent().send_raw(fragment(false, false, vec![b'x'; 6 * MIB])).unwrap();
    let mut header = vec![0x00, 0x80 | 127];
    header.extend((8 * MIB as u64).to_be_bytes());
    header.extend([1, 2, 3, 4]);
    host.agent().write_bytes(&header).unwrap();
    assert_eq!(refusal(host.agent()).1, 1009);
}

#[test]
fn who_has_no_good_token_stays_outside() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let host = Host::enroll(&sandbox, "web-1", &repository);
    for token in ["", "wrong", sandbox.coordinator.admin_token()] {
        let refused = FakeAgent::connect(sandbox.coordinator.address(), token).unwrap_err().to_string();
        assert!(refused.contains("401"), "{token:?}: {refused}");
    }
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let reply = sandbox.api().call("GET", "/v1/agent/connect", None, &upgrade).unwrap();
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    // The agent's token opens the socket and nothing else.
    let as_agent = sandbox.api().with_token(&host.token);
    assert_eq!(as_agent.call("GET", "/v1/hosts", None, &[]).unwrap().status, 401);
    // A host that is removed is sent away, and does not come in again.
    let mut host = host;
    host.connect(&sandbox, &core());
    let path = format!("/v1/hosts/{}", host.id);
    assert_eq!(sandbox.api().call("DELETE", &path, None, &[]).unwrap().status, 204);
    assert_eq!(refusal(host.agent()).1, 1008);
    let refused = FakeAgent::connect(sandbox.coordinator.address(), &host.token).unwrap_err().to_string();
    assert!(refused.contains("401"), "{refused}");
}

#[test]
fn a_request_and_an_upgrade_that_come_together_are_both_answered() {
    let sandbox = Sandbox::start().unwrap();
    let (_, token) = sandbox.enroll("web-1", None).unwrap();
    let requests = format!(
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /v1/agent/connect HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut socket = TcpStream::connect(sandbox.coordinator.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(requests.as_bytes()).unwrap();
    let mut answers = String::new();
    while !answers.contains("sec-websocket-accept") {
        let mut piece = [0; 1024];
        let count = socket.read(&mut piece).unwrap_or_else(|error| panic!("{error} after {answers}"));
        assert!(count > 0, "the end after {answers}");
        answers.push_str(&String::from_utf8_lossy(&piece[..count]).to_lowercase());
    }
    let [first, second] = ["http/1.1 200", "http/1.1 101"].map(|status| answers.find(status));
    assert!(first == Some(0) && second > first, "{answers}");
}

#[test]
fn a_second_connection_replaces_the_first_and_outlives_its_goodbye() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut host = Host::ready(&sandbox, "web-1", &repository);
    group(&api, &host.id, "docs", Value::Null);
    let mut first = FakeAgent::connect(sandbox.coordinator.address(), &host.token).unwrap();
    first.hello("web-1", &core()).unwrap();
    assert_eq!(refusal(host.agent()).1, 4001, "the older one goes");
    first.expect("schedule.set").unwrap();
    host.connect(&sandbox, &core());
    assert_eq!(refusal(&mut first).1, 4001);
    // The goodbye of the one that was replaced comes late.
    drop(first);
    let job = support::backup(&api, &host.id, "docs");
    assert_eq!(host.run("backup"), job, "the newer connection gets the work");
    host.finish(&job, "succeeded", 0);
    assert_eq!(support::over(&api, &job)["status"], "succeeded");
    assert_eq!(api.get(&format!("/v1/hosts/{}", host.id)).unwrap()["status"], "online");
}

#[test]
fn a_connection_that_says_nothing_replaces_nobody() {
    let sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let mut host = Host::ready(&sandbox, "web-1", &repository);
    let mut silent = FakeAgent::connect(sandbox.coordinator.address(), &host.token).unwrap();
    silent.send_text("nonsense").unwrap();
    refusal(&mut silent);
    assert_eq!(host.sent_so_far(&sandbox.api()), Vec::<Value>::new(), "still connected and not bothered");
}

#[test]
fn a_host_without_a_repository_connects_and_starts_when_it_gets_one() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (id, token) = sandbox.enroll("web-1", None).unwrap();
    let mut agent = FakeAgent::connect(sandbox.coordinator.address(), &token).unwrap();
    agent.hello("web-1", &core()).unwrap();
    let first = agent.receive().unwrap();
    let Received::Envelope(first) = first else { panic!("{first:?}") };
    if first["type"] == "config.update" {
        let told = &first["payload"];
        assert!(told["repo_url"].is_null() && told["repo_password"].is_null(), "{told}");
        agent.expect("schedule.set").unwrap();
    } else {
        assert_eq!(first["type"], "schedule.set");
    }
    let refused = api.call("POST", &format!("/v1/hosts/{id}/jobs"), Some(&json!({"kind": "check"})), &[]).unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text);
    agent.send("repo.stats", json!({"snapshot_count": 3})).unwrap();
    assert_eq!(agent.expect("error").unwrap()["code"], "no_repository");

    let repository = repository(&sandbox);
    let body = json!({"repository_id": repository});
    api.call("PATCH", &format!("/v1/hosts/{id}"), Some(&body), &[]).unwrap().ok().unwrap();
    let admin = agent.expect("config.update").unwrap();
    assert_eq!((&admin["slot"], &admin["repo_url"]), (&json!("admin"), &json!("/srv/repository")));
    assert_eq!(agent.expect("config.update").unwrap()["repo_password"], "the password");
    assert_eq!(agent.expect("command.run").unwrap()["kind"], "init");
}

#[test]
fn changed_settings_are_told_at_once() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut host = Host::ready(&sandbox, "web-1", &repository);
    let host_path = format!("/v1/hosts/{}", host.id);
    let repository_path = format!("/v1/repositories/{repository}");
    let patch = |path: &str, body: Value| api.call("PATCH", path, Some(&body), &[]).unwrap().ok().unwrap();
    let everyday = |host: &mut Host| {
        let told = host.take("config.update");
        assert_eq!(told["slot"], "admin");
        (told, host.take("config.update"))
    };
    patch(&host_path, json!({"bandwidth_down_kbps": 77}));
    assert_eq!(everyday(&mut host).1["bandwidth_down_kbps"], 77);
    patch(&host_path, json!({"bandwidth_down_kbps": null}));
    assert!(everyday(&mut host).1["bandwidth_down_kbps"].as_i64().is_some_and(|cap| cap <= 0), "a cap is cleared by 0");
    patch(&repository_path, json!({"password": "the new password"}));
    let (admin, repo) = everyday(&mut host);
    assert_eq!(
        (&admin["repo_password"], &repo["repo_password"]),
        (&json!("the new password"), &json!("the new password"))
    );
    patch(&host_path, json!({"labels": {"a": "b"}}));
    patch(&repository_path, json!({"admin": {"password": "only for deleting"}}));
    let (admin, repo) = everyday(&mut host);
    assert_eq!(
        (&admin["repo_password"], &repo["repo_password"]),
        (&json!("only for deleting"), &json!("the new password"))
    );
}

#[test]
fn an_append_only_repository_without_admin_credential_fills_one_slot() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let body = json!({"name": "main", "url": "/srv/r", "password": "pw", "append_only": true});
    let repository = api.post("/v1/repositories", &body).unwrap()["id"].as_str().unwrap().to_owned();
    let mut host = Host::enroll(&sandbox, "web-1", &repository);
    host.open(&sandbox);
    host.hello(&core());
    let told = burst(&mut host);
    let types: Vec<_> = told.iter().map(|envelope| envelope["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["config.update", "schedule.set"]);
    assert_ne!(told[0]["payload"]["slot"], "admin");
    // What could only fail is refused when it is asked for.
    group(&api, &host.id, "docs", json!({"keep_last": 1}));
    for kind in ["prune", "forget"] {
        let path = format!("/v1/hosts/{}/jobs", host.id);
        let refused = api.call("POST", &path, Some(&json!({"kind": kind})), &[]).unwrap();
        assert_eq!(refused.status, 409, "{kind}: {}", refused.text);
        assert!(refused.problem().contains("admin"), "{}", refused.problem());
    }
    // An agent that understands `clear` is told that it has no admin credential any longer.
    host.open(&sandbox);
    host.hello(&journalling("j", &[]));
    let admin = host.take("config.update");
    assert_eq!(admin["slot"], "admin");
    assert!(admin["repo_url"].is_null() && admin["repo_password"].is_null(), "{admin}");
    let cleared = json!(["repo_url", "repo_password", "repo_username", "repo_credential"]);
    assert_eq!(admin["clear"], cleared);
}
