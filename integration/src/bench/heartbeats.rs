//! What heartbeats cost while nothing else happens.
//!
//! Every agent sends one every 30 s, spread evenly. Measured is the coordinator's processor time, as a share of one core,
//! and the transactions that its database has committed meanwhile, for a heartbeat. Floor: the same messages to bare
//! echo sessions. The goal is absolute and processor time hardly depends on the hour, so the floor comes after and not
//! in between: both at once would need more open files than a process may have. Checked: every host was seen since.

use super::echo::EchoServer;
use super::meter::cpu;
use super::report::{Goal, Row, median};
use super::rig::Rig;
use super::{Scale, Scaled};
use crate::swarm::{Conduct, Event, Host, Swarm};
use crate::{Failure, eventually};
use fleet_wire::HEARTBEAT_INTERVAL;
use std::net::SocketAddr;
use std::time::Duration;

const AGENTS: Scaled = Scaled { full: 19_000, quick: 300 };
const HOSTS_A_REPOSITORY: usize = 100;
const INTERVALS: Scaled = Scaled { full: 1, quick: 1 };
/// Signs of life are written down at intervals.
const PRESENCE_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let count = AGENTS.agents(scale);
    let interval = if scale.quick { HEARTBEAT_INTERVAL / 6 } else { HEARTBEAT_INTERVAL };
    let mut rig = Rig::start()?;
    let hosts = rig.fleet(count, HOSTS_A_REPOSITORY)?;
    let (address, id) = (rig.address()?, rig.coordinator_id());
    let mut load = Load::connect(&rig, address, &hosts, Conduct::Silent)?;
    let (mut shares, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..INTERVALS.at(scale) {
        let began = rig.number("SELECT extract(epoch FROM now())")?;
        let before = committed(&rig)?;
        shares.push(load.share(&rig, id, interval)?);
        commits.push((committed(&rig)? - before) / count as f64);
        eventually("every host to be seen", PRESENCE_LIMIT, || {
            let unseen = format!("SELECT count(*) FROM hosts WHERE last_seen_at < to_timestamp({began})");
            let unseen = rig.number(&unseen)?;
            if unseen == 0.0 { Ok(()) } else { Err(Failure::new(format!("NOT CORRECT: {unseen} were not"))) }
        })?;
    }
    drop(load);
    let server = EchoServer::start()?;
    let mut load = Load::connect(&rig, server.address, &hosts, Conduct::Echo)?;
    let floor = load.share(&rig, server.id(), interval)?;
    let rounds: Vec<_> = shares.iter().map(|share| (*share, floor)).collect();
    let pace = format!("{count} agents, one every {} s", interval.as_secs());
    Ok(vec![
        Row::beside(format!("heartbeats of {pace}"), "% of a core", &rounds, "echo", Goal::FigureAtMost(2.0)),
        Row::alone("— commits for each", "", &[median(commits)], Goal::FigureAtMost(0.01)),
    ])
}

/// Transactions that were committed in the coordinator's database so far, as far as is known outside of it.
fn committed(rig: &Rig) -> Result<f64, Failure> {
    let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    rig.number(sql)
}

/// Agents that do nothing but send heartbeats.
struct Load {
    swarm: Swarm,
    echo: bool,
    count: usize,
}

impl Load {
    /// Connects them, and lets one interval pass in which what connecting has left behind is done.
    fn connect(rig: &Rig, address: SocketAddr, hosts: &[Host], conduct: Conduct) -> Result<Self, Failure> {
        let swarm = rig.runtime.block_on(Swarm::connected(address, hosts, "bench", conduct))?;
        let mut load = Self { swarm, echo: conduct == Conduct::Echo, count: hosts.len() };
        rig.runtime.block_on(load.beat(Duration::from_secs(12)))?;
        Ok(load)
    }

    async fn beat(&mut self, interval: Duration) -> Result<(), Failure> {
        self.swarm.heartbeats(interval).await;
        if self.echo {
            let echoed = |event: &Event| matches!(event, Event::Echoed);
            self.swarm.wait_for("heartbeats that came back", self.count, echoed).await?;
        }
        Ok(())
    }

    /// The share of a core, in percent, that process `id` has while every agent sends one heartbeat.
    fn share(&mut self, rig: &Rig, id: u32, interval: Duration) -> Result<f64, Failure> {
        let before = cpu(id)?;
        rig.runtime.block_on(self.beat(interval))?;
        Ok((cpu(id)? - before).as_secs_f64() / interval.as_secs_f64() * 100.0)
    }
}
