//! The agent on its wire, against a coordinator on a real socket.

mod support;

use fleet_wire::{Kind, Message, ScheduleSet, ToCoordinator};
use std::os::unix::fs::PermissionsExt;
use support::{Agent, Coordinator, job, repository};

fn schedules(version: i64) -> ScheduleSet {
    ScheduleSet { version, schedules: Vec::new() }
}

#[tokio::test]
async fn hello_then_heartbeat_then_the_burst_is_applied_and_acknowledged() {
    let coordinator = Coordinator::bind().await;
    let agent = Agent::running(&coordinator.url);
    let (mut peer, hello) = coordinator.hello(&agent).await;
    assert_eq!((&hello["protocol_version"], &hello["hostname"]), (&1.into(), &"testhost".into()));
    assert_eq!((&hello["capabilities"], &hello["os"]), (&serde_json::json!(["ack", "forget-guard"]), &"linux".into()));
    assert!(hello["restic_version"].as_str().unwrap().starts_with("0."), "{hello}");
    assert!(hello["boot_time"].is_string() && hello["journal"].is_string() && hello.get("jobs").is_none(), "{hello}");
    assert_eq!(peer.next().await["type"], "heartbeat");

    peer.send(repository(agent.home.path())).await;
    peer.send_text(r#"{"type":"of.the.future","payload":{"x":1}}"#).await;
    peer.send(schedules(41)).await;
    let ack = peer.expect("schedule.ack", None).await;
    assert_eq!((&ack["payload"]["version"], &ack["id"]), (&41.into(), &"1".into()));
    let file = agent.data_dir().join("settings.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let stored: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((&stored["repo"]["password"], &stored["schedule_version"]), (&"sesame".into(), &41.into()));
    assert!(!agent.log().contains("sesame"));
}

#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_and_what_is_is_not() {
    let coordinator = Coordinator::bind().await;
    let agent = Agent::running(&coordinator.url);
    let (mut peer, _) = coordinator.hello(&agent).await;
    for version in 1..=3 {
        peer.send(schedules(version)).await;
        peer.expect("schedule.ack", None).await;
    }
    drop(peer);
    let (mut peer, _) = coordinator.hello(&agent).await;
    let mut again = Vec::new();
    for _ in 0..3 {
        again.push(peer.expect("schedule.ack", None).await);
    }
    let ids: Vec<_> = again.iter().map(|ack| (ack["id"].clone(), ack["payload"]["version"].clone())).collect();
    assert_eq!(ids, [("1".into(), 1.into()), ("2".into(), 2.into()), ("3".into(), 3.into())]);
    peer.ack(&again[1]).await;
    // Answered after the ack was read, so the ack is on its way to disk before the next connection asks.
    peer.send(schedules(4)).await;
    peer.expect("schedule.ack", None).await;
    drop(peer);
    let (mut peer, _) = coordinator.hello(&agent).await;
    let rest = [peer.expect("schedule.ack", None).await, peer.expect("schedule.ack", None).await];
    assert_eq!(rest.map(|ack| ack["payload"]["version"].clone()), [3, 4]);
}

#[tokio::test]
async fn an_unreadable_message_is_answered_closed_and_followed_by_a_new_connection() {
    let coordinator = Coordinator::bind().await;
    let agent = Agent::running(&coordinator.url);
    let (mut peer, _) = coordinator.hello(&agent).await;
    peer.send_text(r#"{"type":"command.run","id":"9","payload":{"job_id":7}}"#).await;
    let error = peer.expect("error", None).await;
    assert_eq!((&error["id"], &error["payload"]["code"]), (&"9".into(), &"malformed".into()));
    assert_eq!(peer.closed().await, Some(1002));
    drop(peer);
    let (mut peer, _) = coordinator.hello(&agent).await;
    peer.send_text(&format!(r#"{{"type":"{}"}}"#, "x".repeat(16 * 1024 * 1024))).await;
    assert_eq!(peer.closed().await, Some(1009));
    drop(peer);
    coordinator.hello(&agent).await;
}

#[tokio::test]
async fn a_replaced_agent_waits_five_minutes_and_says_why() {
    let coordinator = Coordinator::bind().await;
    let agent = Agent::running(&coordinator.url);
    let (peer, _) = coordinator.hello(&agent).await;
    peer.close(4001).await;
    agent.logs("next connection in 3").await;
    let log = agent.log();
    let wait = log.split("next connection in ").nth(1).unwrap().split(' ').next().unwrap();
    assert!((300.0..=330.0).contains(&wait.parse::<f64>().unwrap()), "{log}");
    assert!(log.contains("enrol it as a host of its own"), "{log}");
}

#[tokio::test]
async fn a_refused_agent_says_what_to_do_and_ends_when_told() {
    let coordinator = Coordinator::bind().await;
    let mut agent = Agent::running(&coordinator.url);
    coordinator.answer("401 Unauthorized", "").await;
    agent.logs("enrol this host again").await;
    agent.logs("next connection in").await;
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(agent.ended().await.code(), Some(0));
}

#[tokio::test]
async fn without_restic_jobs_are_refused_with_the_reason() {
    let coordinator = Coordinator::bind().await;
    let mut agent = Agent::enrolled(&coordinator.url);
    let mut command = agent.command();
    agent.start_as(command.env("FLEET_RESTIC", "/nonexistent/restic"));
    let (mut peer, hello) = coordinator.hello(&agent).await;
    assert_eq!(hello["restic_version"], "");
    peer.send(repository(agent.home.path())).await;
    peer.send(job("j", Kind::Init)).await;
    let result = peer.expect("command.result", Some("j")).await;
    assert_eq!(result["payload"]["accepted"], false);
    assert!(result["payload"]["error"].as_str().unwrap().contains("FLEET_RESTIC"), "{result}");
}

#[tokio::test]
async fn a_large_outbox_arrives_whole_and_in_order() {
    let coordinator = Coordinator::bind().await;
    let agent = Agent::running(&coordinator.url);
    let (mut peer, _) = coordinator.hello(&agent).await;
    for version in 1..=2000 {
        peer.send(schedules(version)).await;
    }
    for version in 1..=2000 {
        assert_eq!(peer.expect("schedule.ack", None).await["payload"]["version"], version);
    }
    drop(peer);
    let (mut peer, _) = coordinator.hello(&agent).await;
    for version in 1..=2000 {
        let ack = peer.expect("schedule.ack", None).await;
        assert_eq!((&ack["payload"]["version"], &ack["id"]), (&version.into(), &version.to_string().into()));
        let read = ToCoordinator::read("schedule.ack", &ack["payload"].to_string());
        assert!(matches!(read, Some(Ok(ToCoordinator::ScheduleAck(_)))));
    }
}
