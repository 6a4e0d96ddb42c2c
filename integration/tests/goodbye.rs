//! What an agent has said counts, however its connection ends right after. An agent without a journal says it once.

mod support;

use fleet_integration::Sandbox;
use serde_json::Value;
use support::{Host, backup, core, group, job_when, log_of, over, repository};
use tokio_tungstenite::tungstenite::Message;

const LINES: i64 = 500;

/// A job is reported as a whole, and then the connection ends in the way that `end` makes it.
fn report_and(end: impl Fn(&mut Host)) {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "go-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);
    for round in 0..3 {
        let job = backup(&api, &host.id, "docs");
        assert_eq!(host.run("backup"), job);
        host.accept(&job);
        host.start(&job, "backup");
        for seq in 0..LINES {
            host.log(&job, seq, "a line");
        }
        host.finish(&job, "succeeded", 0);
        end(&mut host);
        assert_eq!(over(&api, &job)["status"], "succeeded", "round {round}");
        job_when(&api, &job, |_| log_of(&api, &job).len() == usize::try_from(LINES).unwrap());
        host.connect(&sandbox, &core());
    }
}

#[test]
fn a_goodbye_takes_nothing_back() {
    report_and(|host| host.agent().send_raw(Message::Close(None)).unwrap());
}

#[test]
fn a_connection_that_just_ends_takes_nothing_back() {
    report_and(Host::disconnect);
}

#[test]
fn a_malformed_message_takes_nothing_back() {
    report_and(|host| host.agent().send_text("nonsense").unwrap());
}

#[test]
fn a_message_that_is_too_large_takes_nothing_back() {
    report_and(|host| {
        let header = [0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        host.agent().write_bytes(&header).unwrap();
    });
}
