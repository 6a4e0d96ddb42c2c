//! Whole lifecycles from 64 clients, each of which asks for its next job when the last one has durably succeeded.
//!
//! The agents report step by step, each step once the one before it is acknowledged: four commits a job, but commits
//! that the coordinator may share between jobs. Floor: 64 connections that do the same four transitions in SQL, a commit
//! each (which PostgreSQL shares too, where it can). Checked: that many jobs have succeeded.

use super::floors;
use super::http::{Client, Request};
use super::report::{Goal, Row};
use super::rig::{Rig, expect};
use super::{Scale, Scaled};
use crate::Failure;
use crate::swarm::{Conduct, Event, Host, Swarm};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::sync::mpsc::unbounded_channel;

const CLIENTS: Scaled = Scaled { full: 64, quick: 8 };
const JOBS_A_CLIENT: Scaled = Scaled { full: 100, quick: 10 };
const ROUNDS: Scaled = Scaled { full: 3, quick: 1 };

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let (clients, each) = (CLIENTS.at(scale), JOBS_A_CLIENT.at(scale));
    let rig = Rig::start()?;
    let hosts = rig.fleet(clients, 1)?;
    let (address, token) = (rig.address()?, rig.coordinator.admin_token());
    rig.runtime.block_on(floors::prepare(&rig.floor.url()))?;
    let mut swarm = rig.runtime.block_on(Swarm::connected(address, &hosts, "bench", Conduct::Stepwise))?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS.at(scale) {
        let figure = rig.runtime.block_on(lifecycles(&mut swarm, address, token, &hosts, each))?;
        let floor = rig.runtime.block_on(floors::single_jobs(&rig.floor.url(), clients, each))?;
        rounds.push((figure, floor));
    }
    let jobs = clients * each * ROUNDS.at(scale);
    expect("jobs", rig.number("SELECT count(*) FROM jobs WHERE status = 'succeeded'")?, jobs)?;
    let what = format!("whole lifecycles, {clients} clients");
    Ok(vec![Row::beside(what, "jobs/s", &rounds, "SQL, 4 commits a job", Goal::RatioAtLeast(1.5))])
}

/// Jobs a second, from as many clients as there are hosts.
async fn lifecycles(
    swarm: &mut Swarm,
    address: SocketAddr,
    token: &str,
    hosts: &[Host],
    each: usize,
) -> Result<f64, Failure> {
    let mut connected = Vec::new();
    for host in hosts {
        connected.push((Client::connect(address).await?, Request::job(&host.id, token)));
    }
    let began = Instant::now();
    let (mut over, mut tasks) = (Vec::new(), Vec::new());
    for (mut client, request) in connected {
        let (sender, mut settled) = unbounded_channel::<()>();
        over.push(sender);
        tasks.push(tokio::spawn(async move {
            for _ in 0..each {
                client.submit(&request).await?;
                settled.recv().await.ok_or_else(|| Failure::new("the swarm is gone"))?;
            }
            Ok::<_, Failure>(())
        }));
    }
    let jobs = hosts.len() * each;
    for _ in 0..jobs {
        let agent = loop {
            if let Event::Settled { agent, .. } = swarm.next().await? {
                break agent;
            }
        };
        let _ = over[agent].send(()); // a client that has failed says so below
    }
    let took = began.elapsed().as_secs_f64();
    for task in tasks {
        task.await??;
    }
    Ok(jobs as f64 / took)
}
