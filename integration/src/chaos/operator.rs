//! Asks for jobs while things break, in a thread of its own, and remembers what was answered.

use super::dice::Dice;
use super::fleet::{Fleet, Host, SLOW, SMALL};
use super::schedule::{Wish, Work};
use crate::{Api, Failure, Reply};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a slow backup sends: at [`SLOW_KIB`] a second this takes some seconds.
const SLOW_BYTES: usize = 2 * 1024 * 1024;
const SLOW_KIB: u64 = 500;

/// What was asked, and what the answers were.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Jobs that were answered with 202.
    pub(super) accepted: Vec<String>,
    /// Requests for a job without an answer: it may be there or not.
    pub(super) unknown: usize,
    /// Requests for a job that were answered with 503: it is certainly not there.
    pub(super) refused: usize,
    /// Jobs whose end was asked for, whatever the answer was.
    pub(super) cancelled: BTreeSet<String>,
    /// Answers that nothing explains.
    pub(super) odd: Vec<String>,
}

/// The thread's handle.
#[derive(Debug)]
pub(super) struct Operator {
    wishes: Sender<Wish>,
    thread: JoinHandle<Asked>,
}

impl Operator {
    pub(super) fn start(fleet: &Fleet, seed: u64) -> Self {
        let (wishes, receiver) = channel();
        let (api, hosts, dice) = (fleet.api.clone(), fleet.hosts.clone(), Dice::new(seed).fork(0));
        let thread = thread::spawn(move || work(&receiver, &api, &hosts, dice));
        Self { wishes, thread }
    }

    /// Asks as soon as what was asked before is answered.
    pub(super) fn ask(&self, wish: Wish) {
        // A thread that is gone shows when it is joined.
        let _ = self.wishes.send(wish);
    }

    /// Waits for the last answer; does `meanwhile` as long.
    pub(super) fn finish(self, mut meanwhile: impl FnMut()) -> Asked {
        drop(self.wishes);
        while !self.thread.is_finished() {
            meanwhile();
            thread::sleep(Duration::from_millis(20));
        }
        let lost = |_| Asked { odd: vec!["the operator's thread has panicked".to_owned()], ..Asked::default() };
        self.thread.join().unwrap_or_else(lost)
    }
}

fn work(wishes: &Receiver<Wish>, api: &Api, hosts: &[Host], mut dice: Dice) -> Asked {
    let mut asked = Asked::default();
    for wish in wishes {
        match wish {
            Wish::Job(agent, work) => {
                let host = &hosts[agent];
                if work == Work::SlowBackup {
                    // New contents: what the repository has already is not sent again.
                    let _ = std::fs::write(&host.slow_file, noise(&mut dice));
                }
                let reply = api.call("POST", &format!("/v1/hosts/{}/jobs", host.id), Some(&body(work)), &[]);
                asked.note_job(reply);
            }
            Wish::Cancel(back) => {
                if let Some(job) = asked.accepted.iter().rev().nth(back).cloned() {
                    let reply = api.call("POST", &format!("/v1/jobs/{job}/cancel"), None, &[]);
                    asked.cancelled.insert(job);
                    asked.note_cancel(reply);
                }
            }
        }
    }
    asked
}

fn body(work: Work) -> Value {
    match work {
        Work::SmallBackup => json!({"kind": "backup", "source_group": SMALL}),
        Work::SlowBackup => json!({"kind": "backup", "source_group": SLOW, "bandwidth_up_kbps": SLOW_KIB}),
        Work::Forget => json!({"kind": "forget"}),
        Work::Check => json!({"kind": "check"}),
        Work::Prune => json!({"kind": "prune"}),
    }
}

/// What can't be compressed.
fn noise(dice: &mut Dice) -> Vec<u8> {
    (0..SLOW_BYTES / 8).flat_map(|_| dice.throw().to_le_bytes()).collect()
}

impl Asked {
    fn note_job(&mut self, reply: Result<Reply, Failure>) {
        match reply {
            Err(_) => self.unknown += 1,
            Ok(reply) if reply.status == 202 => match reply.json["id"].as_str() {
                Some(id) => self.accepted.push(id.to_owned()),
                None => self.odd.push(format!("202 without a job: {}", reply.text)),
            },
            Ok(reply) if reply.status == 503 => {
                self.refused += 1;
                if reply.header("Retry-After").is_none() {
                    self.odd.push("503 without Retry-After".to_owned());
                }
            }
            Ok(reply) => self.odd.push(reply.problem()),
        }
    }

    fn note_cancel(&mut self, reply: Result<Reply, Failure>) {
        match reply {
            Ok(reply) if !matches!(reply.status, 202 | 503) => self.odd.push(format!("cancel: {}", reply.problem())),
            _ => {}
        }
    }
}
