//! Keeps `docs/protocol.md` true: each of its examples is read with the real types, and says nothing that they do not.

use fleet_wire::{Decoded, Message, ToAgent, ToCoordinator, decode, encode};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/protocol.md");

const FROM_AGENTS: &[&str] = &[
    "hello",
    "heartbeat",
    "command.result",
    "job.started",
    "job.progress",
    "job.finished",
    "log.stream",
    "snapshots.report",
    "repo.stats",
    "schedule.ack",
    "schedule.fire",
    "error",
];
const FROM_THE_COORDINATOR: &[&str] =
    &["command.run", "command.cancel", "config.update", "schedule.set", "agent.update.available", "ack", "error"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Agent,
    Coordinator,
}

/// Every example of the page with who says it: the section's sender, or in the session the line's.
fn examples() -> Vec<(Sender, &'static str)> {
    let (mut found, mut section, mut fence) = (Vec::new(), None, None);
    for line in PAGE.lines() {
        match (fence, line) {
            (None, "## From agent to coordinator") => section = Some(Sender::Agent),
            (None, "## From coordinator to agent") => section = Some(Sender::Coordinator),
            (None, _) if line.starts_with("## ") => section = None,
            (None, _) => fence = line.strip_prefix("```"),
            (Some(_), "```") => fence = None,
            (Some("json"), _) => found.push((section.expect("an example belongs to a direction"), line)),
            (Some("session"), _) => match line.split_at(2) {
                ("> ", text) => found.push((Sender::Agent, text)),
                ("< ", text) => found.push((Sender::Coordinator, text)),
                _ => panic!("who says this? {line}"),
            },
            (Some(other), _) => panic!("a block of {other:?}, which nothing checks: {line}"),
        }
    }
    assert_eq!(fence, None, "a block is not closed");
    found
}

/// The example's type, if it reads as `M` and every field in it is one that was understood.
fn check<M: Message + Serialize>(text: &str) -> String {
    match decode::<M>(text) {
        Ok(Decoded::Known { id, message }) => {
            let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
            let understood = encode(id.as_ref(), &message);
            assert_eq!(json(text), json(&understood), "fields that are not understood, or not needed");
            message.type_name().to_owned()
        }
        Ok(Decoded::Unknown { type_name, .. }) => panic!("{type_name} is not said in this direction: {text}"),
        Err(error) => panic!("{error}: {text}"),
    }
}

#[test]
fn every_example_is_what_the_types_say() {
    let (mut agents, mut coordinators) = (BTreeSet::new(), BTreeSet::new());
    for (sender, text) in examples() {
        match sender {
            Sender::Agent => agents.insert(check::<ToCoordinator>(text)),
            Sender::Coordinator => coordinators.insert(check::<ToAgent>(text)),
        };
    }
    let all = |types: &[&str]| types.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(agents, all(FROM_AGENTS), "each message has an example");
    assert_eq!(coordinators, all(FROM_THE_COORDINATOR), "each message has an example");
}

#[test]
fn the_numbers_of_the_page_are_those_of_the_code() {
    use fleet_wire::{HEARTBEAT_INTERVAL, MAX_MESSAGE_BYTES, OFFLINE_AFTER, PROTOCOL_VERSION, close};
    assert_eq!((HEARTBEAT_INTERVAL.as_secs(), OFFLINE_AFTER.as_secs(), MAX_MESSAGE_BYTES), (30, 90, 16_777_216));
    for said in ["every 30 s", "silent for 90 s", "16,777,216 bytes", &format!("(today: {PROTOCOL_VERSION})")] {
        assert!(PAGE.contains(said), "the page does not say {said:?}");
    }
    let codes = [
        close::GOING_AWAY,
        close::MALFORMED,
        close::NOT_ALLOWED,
        close::TOO_BIG,
        close::VERSION_NOT_SPOKEN,
        close::REPLACED,
    ];
    for code in codes {
        assert!(PAGE.contains(&format!("\n| {code} |")), "close code {code} is not explained");
    }
}
