//! Enrolment, and what the agent says when it can't start.

mod support;

use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use support::{Agent, Coordinator, TOKEN};

/// `fleet-agent enroll` at `url`.
fn enroll(agent: &Agent, url: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-agent"));
    agent.prepare(&mut command);
    command.arg("enroll").args(more).env("FLEET_SERVER", url).env("FLEET_ENROLL_TOKEN", "enrolment-token");
    command
}

/// Starts it, waits for its end, and gives its last message if it failed.
async fn fails(mut command: Command, agent: &mut Agent) -> String {
    agent.start_as(&mut command);
    let status = agent.ended().await;
    assert!(!status.success(), "{}", agent.log());
    let log = agent.log();
    log.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_enrolled_agent_keeps_its_identity_and_connects_with_it() {
    let coordinator = Coordinator::bind().await;
    let mut agent = Agent::enrolled("http://127.0.0.1:1");
    std::fs::remove_dir_all(agent.data_dir()).unwrap();
    agent.start_as(&mut enroll(&agent, &coordinator.url, &[]));
    let answer = format!(r#"{{"host_id":"h7","agent_token":"{TOKEN}"}}"#);
    let request = coordinator.answer("201 Created", &answer).await;
    assert!(agent.ended().await.success(), "{}", agent.log());
    assert!(request.starts_with("POST /v1/agent/enroll "), "{request}");
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&body["token"], &body["hostname"]), (&"enrolment-token".into(), &"testhost".into()));
    assert_eq!(body["os"], "linux");
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(agent.data_dir().join("identity.json")), 0o600);
    assert_eq!(mode(agent.data_dir()), 0o700);
    assert_eq!(agent.identity()["hostname"], "testhost");

    let again = fails(enroll(&agent, &coordinator.url, &[]), &mut agent).await;
    assert!(again.contains("h7") && again.contains("--force"), "{again}");
    agent.start();
    coordinator.hello(&agent).await;
    assert!(!agent.log().contains(TOKEN) && !agent.log().contains("enrolment-token"));
}

#[tokio::test]
async fn a_host_keeps_its_name_whatever_the_machine_is_called_later() {
    let coordinator = Coordinator::bind().await;
    // An agent that did not keep the name has enrolled it.
    let mut agent = Agent::running(&coordinator.url);
    let (_, hello) = coordinator.hello(&agent).await;
    assert_eq!(hello["hostname"], "testhost");
    let kept = agent.identity();
    assert_eq!(
        (&kept["hostname"], &kept["host_id"], &kept["agent_token"]),
        (&"testhost".into(), &"h1".into(), &TOKEN.into())
    );
    assert!(!agent.log().contains("renamed"), "{}", agent.log());
    agent.kill().await;

    let mut command = agent.command();
    agent.start_as(command.env("FLEET_HOSTNAME", "renamed"));
    let (_, hello) = coordinator.hello(&agent).await;
    assert_eq!(hello["hostname"], "testhost");
    assert_eq!(agent.identity(), kept);
    agent.logs("called renamed now").await;
}

#[tokio::test]
async fn a_refused_enrolment_shows_the_coordinators_reason() {
    let coordinator = Coordinator::bind().await;
    let mut agent = Agent::enrolled("http://127.0.0.1:1");
    agent.start_as(&mut enroll(&agent, &coordinator.url, &["--force"]));
    let problem = r#"{"title":"Gone","status":410,"detail":"this token was used before"}"#;
    coordinator.answer("410 Gone\r\ncontent-type: application/problem+json", problem).await;
    assert!(!agent.ended().await.success());
    assert!(agent.log().contains("(410): this token was used before"), "{}", agent.log());
    let identity = std::fs::read_to_string(agent.data_dir().join("identity.json")).unwrap();
    assert!(identity.contains("127.0.0.1:1"), "the old identity stays: {identity}");
}

#[tokio::test]
async fn nobody_there_and_no_encryption_are_clear_errors() {
    let mut agent = Agent::enrolled("http://192.0.2.1");
    // The discard port on this machine: nothing listens there.
    let message = fails(enroll(&agent, "http://127.0.0.1:9", &["--force"]), &mut agent).await;
    assert!(message.contains("can't reach http://127.0.0.1:9"), "{message}");
    let message = fails(enroll(&agent, "http://192.0.2.1", &["--force"]), &mut agent).await;
    assert!(message.contains("not encrypted") && message.contains("--allow-plain-http"), "{message}");
    let message = fails(agent.command(), &mut agent).await;
    assert!(message.contains("not encrypted"), "an identity from before is judged too: {message}");
}

#[tokio::test]
async fn missing_and_damaged_files_are_named_and_kept() {
    let mut agent = Agent::enrolled("http://127.0.0.1:1");
    for (file, advice) in [("settings.json", "delete it"), ("journal.redb", "move it away"), ("identity.json", "enrol")]
    {
        let path = agent.data_dir().join(file);
        let damaged = "not what was written here before ".repeat(200);
        std::fs::write(&path, &damaged).unwrap();
        let message = fails(agent.command(), &mut agent).await;
        assert!(message.contains(file) && message.contains(advice), "{message}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged, "never reset");
        std::fs::remove_file(&path).unwrap();
    }
    let message = fails(agent.command(), &mut agent).await;
    assert!(message.contains("not enrolled") && message.contains("fleet-agent enroll"), "{message}");
}

#[tokio::test]
async fn two_agents_do_not_share_a_data_folder() {
    let coordinator = Coordinator::bind().await;
    let mut first = Agent::running(&coordinator.url);
    coordinator.hello(&first).await;
    let mut second = Agent::enrolled(&coordinator.url);
    let mut command = second.command();
    command.env("FLEET_AGENT_DATA_DIR", first.data_dir());
    let message = fails(command, &mut second).await;
    assert!(message.contains("in use"), "{message}");
    first.signal(Signal::SIGINT);
    assert_eq!(first.ended().await.code(), Some(0));
}
