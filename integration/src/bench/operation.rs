//! One operation over the whole fleet, in one request: a job on every agent, until all of them have durably succeeded.
//!
//! The agents say what they have to say step by step, each step once the one before it is acknowledged, so that every
//! job takes its four transitions to the disk one after the other: made, accepted, begun, ended. Floor: the same four
//! for as many jobs in SQL on one connection, in transactions of 1,000 jobs. For information: the same with agents that
//! say all three at once, and with all hosts in a single repository. Checked: that many jobs have succeeded, and so have
//! the operations.

use super::floors;
use super::http::{Client, Request};
use super::report::{Goal, Round, Row};
use super::rig::{Rig, expect};
use super::{Scale, Scaled};
use crate::Failure;
use crate::swarm::{Conduct, Event, Host, Swarm};
use std::net::SocketAddr;
use std::time::Instant;

const AGENTS: Scaled = Scaled { full: 10_000, quick: 300 };
const HOSTS_A_REPOSITORY: usize = 100;
const ROUNDS: Scaled = Scaled { full: 3, quick: 1 };
const SQL_BATCH: usize = 1_000;

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let count = AGENTS.agents(scale);
    let stepwise = measure(scale, HOSTS_A_REPOSITORY, ROUNDS.at(scale), Conduct::Stepwise)?;
    let at_once = measure(scale, HOSTS_A_REPOSITORY, 1, Conduct::AtOnce)?;
    let shared = measure(scale, count, 1, Conduct::Stepwise)?;
    let floor = format!("SQL, {SQL_BATCH} jobs a commit");
    let what = format!("one operation over {count} agents");
    Ok(vec![
        Row::beside(what, "jobs/s", &stepwise, &floor, Goal::RatioAtLeast(0.3)),
        Row::beside("— reported at once, not step by step", "jobs/s", &at_once, &floor, Goal::None),
        Row::beside("— all of them in one repository", "jobs/s", &shared, &floor, Goal::None),
    ])
}

fn measure(scale: Scale, a_repository: usize, rounds: usize, conduct: Conduct) -> Result<Vec<Round>, Failure> {
    let count = AGENTS.agents(scale);
    let rig = Rig::start()?;
    let hosts = rig.fleet(count, a_repository)?;
    let (address, token) = (rig.address()?, rig.coordinator.admin_token().to_owned());
    let client = rig.runtime.block_on(floors::prepare(&rig.floor.url()))?;
    let mut swarm = rig.runtime.block_on(Swarm::connected(address, &hosts, "bench", conduct))?;
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let took = rig.runtime.block_on(operation(&mut swarm, address, &token, &hosts))?;
        let floor = rig.runtime.block_on(floors::batched_jobs(&client, count, SQL_BATCH))?;
        measured.push((count as f64 / took, floor));
    }
    expect("jobs", rig.number("SELECT count(*) FROM jobs WHERE status = 'succeeded'")?, count * rounds)?;
    Ok(measured)
}

/// Has a backup run on all hosts; gives how long it took, in seconds.
async fn operation(swarm: &mut Swarm, address: SocketAddr, token: &str, hosts: &[Host]) -> Result<f64, Failure> {
    let mut client = Client::connect(address).await?;
    let began = Instant::now();
    let id = client.submit(&Request::operation(token)).await?;
    let settled = |event: &Event| matches!(event, Event::Settled { .. });
    swarm.wait_for("jobs that have succeeded", hosts.len(), settled).await?;
    let took = began.elapsed().as_secs_f64();
    // Its own end is written behind that of its last job.
    let ended = client.json(&Request::get(&format!("/v1/operations/{id}?wait=60"), token)).await?;
    let (state, succeeded) = (&ended["state"], &ended["counts"]["succeeded"]);
    if *state != "succeeded" || *succeeded != hosts.len() {
        return Err(Failure::new(format!("NOT CORRECT: the operation is {state}, {succeeded} of its jobs succeeded")));
    }
    Ok(took)
}
