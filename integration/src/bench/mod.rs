//! `./dev bench`: how fast and how small it is, beside what the same costs at least on the same machine at the same time.
//!
//! A benchmark starts the real coordinator (release build) over a PostgreSQL of its own, lets the swarm of simulated
//! agents (`crate::swarm`) loose on it, and measures its floor in the same run, turn and turn about: absolute figures change
//! with the machine and the hour, ratios do so much less. What was counted is then looked up in the database; a
//! benchmark whose count is not found there fails. A goal that is missed stays in the table.

mod agent_at_rest;
mod dispatch;
mod echo;
mod floors;
mod growth;
mod heartbeats;
mod http;
mod lines;
mod logs;
mod memory;
mod meter;
mod operation;
mod pool;
mod reads;
mod reconnect;
mod report;
mod rig;
mod single;
mod tables;

pub use echo::serve as serve_echo;
pub use report::{Goal, Row, table};

use crate::{Failure, swarm};

/// Lets this process, and those that it starts, have as many open files as it may: a socket for each agent on both sides.
///
/// # Errors
/// The system refuses.
pub fn raise_open_files() -> Result<(), Failure> {
    swarm::raise_open_files()
}

/// How much is done; by default what the goals are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// The same steps in small, in seconds: shows that a benchmark works; its figures say little.
    pub quick: bool,
    /// So many agents, in benchmarks that are about their number: `memory`, `reconnect`, `heartbeats`, `operation` and
    /// `growth`, for which it is the largest.
    pub agents: Option<usize>,
}

/// A number at either scale.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    full: usize,
    quick: usize,
}

impl Scaled {
    const fn at(self, scale: Scale) -> usize {
        if scale.quick { self.quick } else { self.full }
    }

    /// The same, for a number of agents: it may be given on the command line.
    fn agents(self, scale: Scale) -> usize {
        scale.agents.unwrap_or(self.at(scale))
    }
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Benchmark {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    run: fn(Scale) -> Result<Vec<Row>, Failure>,
}

impl Benchmark {
    /// Runs it.
    ///
    /// # Errors
    /// Something did not work, or what was counted is not in the database.
    pub fn run(&self, scale: Scale) -> Result<Vec<Row>, Failure> {
        (self.run)(scale)
    }
}

/// All of them, in the order in which they run.
pub const ALL: &[Benchmark] = &[
    Benchmark { name: "memory", about: "memory per idle agent", run: memory::run },
    Benchmark { name: "reconnect", about: "all agents reconnect at once", run: reconnect::run },
    Benchmark { name: "heartbeats", about: "what heartbeats cost", run: heartbeats::run },
    Benchmark { name: "dispatch", about: "from POST to command.run", run: dispatch::run },
    Benchmark { name: "flood", about: "the same while logs flood in", run: dispatch::run_in_flood },
    Benchmark { name: "operation", about: "one job on every agent", run: operation::run },
    Benchmark { name: "single", about: "whole lifecycles, one after the other", run: single::run },
    Benchmark { name: "logs", about: "log lines: speed, disk and WAL", run: logs::run },
    Benchmark { name: "reads", about: "reading a job over REST", run: reads::run },
    Benchmark { name: "agent", about: "the agent at rest", run: agent_at_rest::run },
    Benchmark { name: "growth", about: "the same with more agents", run: growth::run },
    Benchmark { name: "tables", about: "the same with millions of old jobs; the start", run: tables::run },
];
