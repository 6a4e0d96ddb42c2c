//! The chaos scenario: a real fleet under a seeded random schedule of kills, pauses, cut connections and database
//! stops, and a checker that compares what every agent did with what the coordinator says.
//!
//! `schedule` draws what happens from the seed, `fleet` does it, `operator` asks for jobs meanwhile, `recorder` stands
//! between agent and restic and keeps an independent record, `record` reads that, `checker` compares, `verdict` tells.

mod checker;
mod dice;
mod fleet;
mod lines;
mod operator;
mod proxy;
mod record;
mod recorder;
mod schedule;
mod unit;
mod verdict;

pub use recorder::record;
pub use verdict::Verdict;

use crate::Failure;
use fleet::Fleet;
use operator::Operator;
use schedule::What;
use std::thread;
use std::time::{Duration, Instant};

/// How often the fleet is looked after while nothing is due.
const TICK: Duration = Duration::from_millis(20);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The same seed gives the same schedule.
    pub seed: u64,
    /// How long things are broken; settling and checking come after that.
    pub length: Duration,
    /// How many agents; every two of them share a repository.
    pub agents: usize,
}

/// Runs the scenario; `tell` gets a line for whoever watches.
///
/// # Errors
/// The fleet can't be started. What the chaos brings about is in the verdict instead.
pub fn run(settings: Settings, tell: &mut dyn FnMut(&str)) -> Result<Verdict, Failure> {
    let events = schedule::draw(settings.seed, settings.length, settings.agents);
    tell(&format!("chaos with seed {}: {} events in {:?}", settings.seed, events.len(), settings.length));
    let mut fleet = Fleet::start(settings.agents)?;
    tell(&format!("the fleet is up, in {}", fleet.path("").display()));
    let operator = Operator::start(&fleet, settings.seed);
    let began = Instant::now();
    for event in events {
        while began.elapsed() < event.at {
            fleet.look_after();
            thread::sleep(TICK);
        }
        match event.what {
            What::Ask(wish) => operator.ask(wish),
            What::Break(fault) => {
                tell(&format!("{:7.2} s  {fault}", event.at.as_secs_f64()));
                fleet.apply(fault);
            }
        }
    }
    fleet.mend();
    tell(&format!("{:7.2} s  no more faults; settling", began.elapsed().as_secs_f64()));
    let asked = operator.finish(|| fleet.look_after());
    let settled = fleet.settle(tell);
    let mut verdict = checker::check(&fleet, &asked, settled);
    for (surprise, times) in fleet.surprises() {
        let told = if surprise.is_wrong { &mut verdict.details } else { &mut verdict.notes };
        told.push(format!("{times} times: {}", surprise.text));
    }
    if !verdict.is_good() {
        verdict.folder = Some(fleet.keep());
    }
    Ok(verdict)
}
