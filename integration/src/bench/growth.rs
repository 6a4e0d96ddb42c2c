//! The same dispatch with more and more agents connected.
//!
//! For each number of agents: the time from POST to `command.run` at 100 jobs a second, beside a commit probe; the first
//! page of the hosts' list, and what of a core the coordinator takes while nothing but heartbeats happens, which may
//! grow with the agents but not faster. Checked: every job has succeeded.

use super::dispatch::{Load, PACE};
use super::floors;
use super::http::{Client, Request};
use super::meter::cpu;
use super::report::{Goal, Latencies, Row};
use super::rig::Rig;
use super::{Scale, Scaled};
use crate::Failure;
use crate::swarm::{Conduct, Swarm};
use std::time::{Duration, Instant};

const SIZES: [Scaled; 4] = [
    Scaled { full: 100, quick: 10 },
    Scaled { full: 1_000, quick: 50 },
    Scaled { full: 10_000, quick: 100 },
    Scaled { full: 19_000, quick: 200 },
];
const HOSTS_A_REPOSITORY: usize = 100;
const JOBS: Scaled = Scaled { full: 200, quick: 20 };
const ROUNDS: Scaled = Scaled { full: 2, quick: 1 };
const LISTS: usize = 20;
const QUIET: Scaled = Scaled { full: 8, quick: 2 };

/// The numbers of agents, the largest last.
fn sizes(scale: Scale) -> Vec<usize> {
    let most = SIZES[SIZES.len() - 1].agents(scale);
    SIZES.iter().map(|size| size.at(scale)).filter(|size| *size < most).chain([most]).collect()
}

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let sizes = sizes(scale);
    let most = sizes[sizes.len() - 1];
    let mut rig = Rig::start()?;
    let hosts = rig.fleet(most, HOSTS_A_REPOSITORY)?;
    let (address, id) = (rig.address()?, rig.coordinator_id());
    let client = rig.runtime.block_on(floors::prepare(&rig.floor.url()))?;
    let list = Request::get("/v1/hosts?status=online&limit=100", rig.coordinator.admin_token());
    let mut load = Load::new(&rig, &hosts[..sizes[0]])?;
    let mut rows = Vec::new();
    let mut first_list = None;
    for agents in sizes {
        let mut swarm = rig.runtime.block_on(Swarm::connected(address, &hosts[..agents], "bench", Conduct::AtOnce))?;
        let quiet = Duration::from_secs(QUIET.at(scale) as u64);
        let before = cpu(id)?;
        // At their usual pace, so many of them come in that time.
        rig.runtime.block_on(swarm.heartbeats(quiet));
        let share = (cpu(id)? - before).as_secs_f64() / quiet.as_secs_f64() * 100.0;
        let mut medians = Vec::new();
        for _ in 0..ROUNDS.at(scale) {
            let commits = rig.runtime.block_on(floors::commits(&client, JOBS.at(scale) / 2, PACE))?;
            let (run, _) = rig.runtime.block_on(load.jobs(&mut swarm, JOBS.at(scale)))?;
            medians.push((run.millis(0.5), commits.millis(0.5) + 1.0));
        }
        let listed = rig.runtime.block_on(async {
            let mut client = Client::connect(address).await?;
            let mut latencies = Latencies::default();
            for _ in 0..LISTS {
                let began = Instant::now();
                client.call(&list).await?;
                latencies.add(began.elapsed());
            }
            Ok::<_, Failure>(latencies.millis(0.5))
        })?;
        let first = *first_list.get_or_insert(listed);
        let what = |what: &str| format!("{agents} agents: {what}");
        rows.push(Row::beside(
            what("POST to command.run, p50"),
            "ms",
            &medians,
            "commit + 1 ms",
            Goal::RatioAtMost(1.0),
        ));
        rows.push(Row::beside(what("first page of hosts"), "ms", &[(listed, first)], "fewest", Goal::RatioAtMost(2.0)));
        let pace = format!("a heartbeat of each in {} s", QUIET.at(scale));
        rows.push(Row::alone(what(&pace), "% of a core", &[share], Goal::None));
    }
    load.check(&rig)?;
    Ok(rows)
}
