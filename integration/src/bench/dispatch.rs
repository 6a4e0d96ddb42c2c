//! From the POST of a job, which is durable first, to `command.run` at its agent.
//!
//! Jobs are asked for at a steady pace on idle agents, which report the whole lifecycle at once. Measured is the time
//! from the first byte of the request until the agent has read the command; both ends are this process. Floor: a commit
//! of one row by a connection of its own, at the same pace, right before; the goal allows a millisecond more, and a
//! tail of three medians. Then the same while other agents write log lines at half of what the coordinator takes in,
//! measured right before too. Checked: every job that was asked for has come to an agent, and has succeeded.

use super::floors;
use super::http::Request;
use super::logs::Flood;
use super::pool::Pool;
use super::report::{Goal, Latencies, Row};
use super::rig::{Rig, expect};
use super::{Scale, Scaled};
use crate::Failure;
use crate::swarm::{Conduct, Event, Host, Swarm};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const AGENTS: Scaled = Scaled { full: 1_000, quick: 50 };
const HOSTS_A_REPOSITORY: usize = 100;
/// 100 a second.
pub(super) const PACE: Duration = Duration::from_millis(10);
/// Jobs of one round.
const JOBS: Scaled = Scaled { full: 500, quick: 50 };
const ROUNDS: Scaled = Scaled { full: 4, quick: 2 };
/// More than are ever busy at that pace.
const CLIENTS: usize = 16;
/// A commit takes its time on the disk, the rest may take this much, in milliseconds.
const ALLOWANCE: f64 = 1.0;

const FLOODING: usize = 8;
const FLOODED_ROUNDS: Scaled = Scaled { full: 3, quick: 1 };
/// Lines that show how many the coordinator takes in a second.
const LIMIT_LINES: Scaled = Scaled { full: 400_000, quick: 8_000 };
/// Flooding agents write this often.
const SLICE: Duration = Duration::from_millis(20);

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let rig = Rig::start()?;
    let hosts = rig.fleet(AGENTS.at(scale), HOSTS_A_REPOSITORY)?;
    let address = rig.address()?;
    let mut swarm = rig.runtime.block_on(Swarm::connected(address, &hosts, "bench", Conduct::AtOnce))?;
    let client = rig.runtime.block_on(floors::prepare(&rig.floor.url()))?;
    let mut load = Load::new(&rig, &hosts)?;
    let (mut medians, mut tails, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS.at(scale) {
        let commits = rig.runtime.block_on(floors::commits(&client, JOBS.at(scale) / 2, PACE))?;
        let (run, answered) = rig.runtime.block_on(load.jobs(&mut swarm, JOBS.at(scale)))?;
        medians.push((run.millis(0.5), commits.millis(0.5) + ALLOWANCE));
        tails.push((run.millis(0.99), run.millis(0.5)));
        answers.push((answered.millis(0.5), commits.millis(0.5)));
    }
    load.check(&rig)?;
    Ok(vec![
        Row::beside("POST to command.run at 100/s, p50", "ms", &medians, "commit + 1 ms", Goal::RatioAtMost(1.0)),
        Row::beside("— p99", "ms", &tails, "its p50", Goal::RatioAtMost(3.0)),
        Row::beside("— POST to its answer, p50", "ms", &answers, "commit", Goal::None),
    ])
}

pub(super) fn run_in_flood(scale: Scale) -> Result<Vec<Row>, Failure> {
    let rig = Rig::start()?;
    let hosts = rig.fleet(AGENTS.at(scale) + FLOODING, HOSTS_A_REPOSITORY)?;
    let (flooding, hosts) = hosts.split_at(FLOODING);
    let (address, token) = (rig.address()?, rig.coordinator.admin_token().to_owned());
    let mut swarm = rig.runtime.block_on(Swarm::connected(address, hosts, "bench", Conduct::AtOnce))?;
    let mut flood = rig.runtime.block_on(Flood::start(address, &token, flooding))?;
    let mut load = Load::new(&rig, hosts)?;
    let (mut tails, mut paces) = (Vec::new(), Vec::new());
    let (mut idle_all, mut flooded_all) = (Latencies::default(), Latencies::default());
    for _ in 0..FLOODED_ROUNDS.at(scale) {
        let lines = LIMIT_LINES.at(scale) / FLOODING;
        let prepared = flood.prepare(lines, 1);
        let took = rig.runtime.block_on(flood.send(prepared, None))?;
        let half = lines as f64 / took.as_secs_f64() / 2.0;
        let (idle, _) = rig.runtime.block_on(load.jobs(&mut swarm, JOBS.at(scale)))?;
        let span = PACE * JOBS.at(scale) as u32;
        let slices = span.as_millis() / SLICE.as_millis();
        let prepared = flood.prepare((half * span.as_secs_f64()) as usize, slices as usize);
        let (sent, loaded) = rig
            .runtime
            .block_on(async { tokio::join!(flood.send(prepared, Some(SLICE)), load.jobs(&mut swarm, JOBS.at(scale))) });
        sent?;
        let (loaded, _) = loaded?;
        tails.push((loaded.millis(0.99), idle.millis(0.99)));
        paces.push(half * FLOODING as f64);
        idle_all.extend(&idle);
        flooded_all.extend(&loaded);
    }
    load.check(&rig)?;
    flood.check(&rig)?;
    let halves = (flooded_all.millis(0.5), idle_all.millis(0.5));
    Ok(vec![
        Row::beside("POST to command.run in a flood of lines, p99", "ms", &tails, "idle p99", Goal::RatioAtMost(3.0)),
        Row::beside("— p50", "ms", &[halves], "idle p50", Goal::None),
        Row::alone("— the flood: half of what is taken in", "lines/s", &paces, Goal::None),
    ])
}

/// Jobs at a steady pace, round robin over the hosts.
pub(super) struct Load {
    address: SocketAddr,
    requests: Vec<Request>,
    asked: usize,
}

impl Load {
    /// On these hosts.
    ///
    /// # Errors
    /// The coordinator's address is none.
    pub(super) fn new(rig: &Rig, hosts: &[Host]) -> Result<Self, Failure> {
        let token = rig.coordinator.admin_token();
        let requests = hosts.iter().map(|host| Request::job(&host.id, token)).collect();
        Ok(Self { address: rig.address()?, requests, asked: 0 })
    }

    /// Asks for `count` jobs and waits until they are over: how long each took to come to its agent, and to be answered.
    ///
    /// # Errors
    /// One of them does not.
    pub(super) async fn jobs(&mut self, swarm: &mut Swarm, count: usize) -> Result<(Latencies, Latencies), Failure> {
        let pool = Pool::connect(self.address, CLIENTS).await?;
        let mut ticks = tokio::time::interval(PACE);
        for _ in 0..count {
            ticks.tick().await;
            pool.submit(self.requests[self.asked % self.requests.len()].clone());
            self.asked += 1;
        }
        let mut came: HashMap<String, Instant> = HashMap::new();
        let mut settled = 0;
        while settled < count {
            match swarm.next().await? {
                Event::Run { job_id, at, .. } => drop(came.insert(job_id.to_string(), at)),
                Event::Settled { .. } => settled += 1,
                _ => {}
            }
        }
        let (mut run, mut answered) = (Latencies::default(), Latencies::default());
        for job in pool.all().await? {
            let at = came.get(&job.job_id).ok_or_else(|| Failure::new(format!("job {} never came", job.job_id)))?;
            run.add(at.saturating_duration_since(job.began));
            answered.add(job.answered_in);
        }
        Ok((run, answered))
    }

    /// Compares what was asked for with what has succeeded.
    ///
    /// # Errors
    /// They differ.
    pub(super) fn check(&self, rig: &Rig) -> Result<(), Failure> {
        expect("jobs", rig.number("SELECT count(*) FROM jobs WHERE status = 'succeeded'")?, self.asked)
    }
}
