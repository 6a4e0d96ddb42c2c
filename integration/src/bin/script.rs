//! A script as this project's users write them: triggers a check on each host of a list, and waits until all are over. It may be
//! killed at any moment, and its connections may break: it is just run again, and asks for all once more, under the same keys.
//!
//! `script URL HOSTS` with the token in `TOKEN`; `HOSTS` is a file with a host's id a line. Says `HOST JOB` for each answer.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

use fleet_integration::{Api, Context, Failure};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs, process, thread};

/// Hosts that are asked for at once.
const CLIENTS: usize = 4;
/// Of so many requests one has a client that does not wait for the answer.
const IMPATIENT: u64 = 3;
/// For how long that one waits at most, in microseconds: some requests come through, some answers don't.
const PATIENCE: u64 = 8_000;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, list] = &arguments[..] else { return Err(Failure::new("usage: script URL HOSTS")) };
    let token = env::var("TOKEN").context("TOKEN")?;
    let hosts = fs::read_to_string(list).context(list)?;
    let mut hosts: Vec<&str> = hosts.lines().collect();
    let mut dice = Dice(u64::from(process::id()));
    // Each life begins elsewhere: what is not asked for in one is in the next.
    let first = usize::try_from(dice.below(u64::try_from(hosts.len())?))?;
    hosts.rotate_left(first);
    let next = AtomicUsize::new(0);
    let client = |mut dice: Dice| {
        while let Some(host) = hosts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let job = trigger(url, &token, host, &mut dice);
            println!("{host} {job}");
            wait(url, &token, &job);
        }
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let dice = Dice(dice.next());
            scope.spawn(move || client(dice));
        }
    });
    Ok(())
}

/// Asks for the check of a host until it is answered; gives the job's id.
fn trigger(url: &str, token: &str, host: &str, dice: &mut Dice) -> String {
    let key = format!("nightly-check-{host}");
    let (patient, path) = (Api::new(url, token), format!("/v1/hosts/{host}/jobs"));
    loop {
        let hasty = Api::with_limit(url, token, Duration::from_micros(1 + dice.below(PATIENCE)));
        let api = if dice.below(IMPATIENT) == 0 { &hasty } else { &patient };
        match api.call("POST", &path, Some(&json!({"kind": "check"})), &[("Idempotency-Key", &key)]) {
            Ok(reply) if reply.status == 202 => return reply.json["id"].as_str().unwrap_or_default().to_owned(),
            // The coordinator is just starting, or the request that nobody waited for is still under way.
            Ok(reply) if [409, 503].contains(&reply.status) => {}
            Ok(reply) => fail(&format!("{path}: {}", reply.problem())),
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a job has succeeded.
fn wait(url: &str, token: &str, job: &str) {
    let api = Api::new(url, token);
    loop {
        match api.call("GET", &format!("/v1/jobs/{job}?wait=20"), None, &[]) {
            Ok(reply) if reply.json["status"] == "succeeded" => return,
            Ok(reply) if reply.json["status"] == "failed" || reply.status == 404 => fail(&reply.text),
            Ok(_) | Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Ends the script: the test shows what it has said.
fn fail(why: &str) -> ! {
    println!("{why}");
    process::exit(1)
}

/// Numbers that nobody foresees.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    fn below(&mut self, range: u64) -> u64 {
        self.next() % range
    }
}
