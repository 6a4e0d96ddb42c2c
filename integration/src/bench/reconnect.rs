//! All agents reconnect at once, as after a restart of the coordinator or of the network.
//!
//! From the first connection until the last agent has its settings: upgrade, authentication, hello, the durable upsert
//! of the host, and the burst of answers. Floor: the same number of bare upgrades to an actix-web-actors session, by the
//! same generator. Checked: the database has this round's version of every agent.

use super::echo::EchoServer;
use super::meter::{cpu, wait_for_files};
use super::report::{Goal, Row};
use super::rig::{Rig, expect};
use super::{Scale, Scaled};
use crate::Failure;
use crate::swarm::{Conduct, Host, Swarm};
use std::net::SocketAddr;
use std::time::Instant;

const AGENTS: Scaled = Scaled { full: 10_000, quick: 300 };
const HOSTS_A_REPOSITORY: usize = 100;
const ROUNDS: Scaled = Scaled { full: 3, quick: 2 };
/// Open files of a server that has no agents any more: its own, and some for the database.
const NO_AGENTS: usize = 60;

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let count = AGENTS.agents(scale);
    let mut rig = Rig::start()?;
    let hosts = rig.fleet(count, HOSTS_A_REPOSITORY)?;
    let server = EchoServer::start()?;
    let (address, id) = (rig.address()?, rig.coordinator_id());
    let (mut rounds, mut costs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS.at(scale) {
        let version = format!("round-{round}");
        let before = cpu(id)?;
        let figure = rate(&rig, address, &hosts, &version, Conduct::Silent)?;
        costs.push((cpu(id)? - before).as_secs_f64() * 1e6 / count as f64);
        let greeted =
            rig.number(&format!("SELECT count(*) FROM hosts WHERE online AND agent_version = '{version}'"))?;
        expect("hosts that said hello", greeted, count)?;
        wait_for_files(id, NO_AGENTS)?;
        let floor = rate(&rig, server.address, &hosts, &version, Conduct::Echo)?;
        wait_for_files(server.id(), NO_AGENTS)?;
        rounds.push((figure, floor));
    }
    let what = format!("{count} agents reconnect at once");
    Ok(vec![
        Row::beside(what, "agents/s", &rounds, "bare upgrades", Goal::RatioAtLeast(0.4)),
        Row::alone("— the coordinator's CPU for each", "µs", &costs, Goal::None),
    ])
}

fn rate(rig: &Rig, address: SocketAddr, hosts: &[Host], version: &str, conduct: Conduct) -> Result<f64, Failure> {
    rig.runtime.block_on(async {
        let began = Instant::now();
        let _swarm = Swarm::connected(address, hosts, version, conduct).await?;
        Ok(hosts.len() as f64 / began.elapsed().as_secs_f64())
    })
}
