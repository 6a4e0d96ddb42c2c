//! Memory of the coordinator per idle, identified agent.
//!
//! Every agent connects, says hello, sends heartbeats and, within a job, a burst of 1 MiB of log lines; the job ends, and
//! agents are idle again. What is resident then, less what was before the first agent, is divided by their number.
//! Floor: a bare actix-web-actors session that echoes, after the same heartbeats and no burst, which is the least that
//! the framework takes. Checked: every job has succeeded, every line is stored, every host is online.
//!
//! One round: memory does not depend on the hour.

use super::echo::EchoServer;
use super::http::Request;
use super::lines::{Line, frames};
use super::meter::resident;
use super::pool::Pool;
use super::report::{Goal, Row};
use super::rig::{Rig, expect};
use super::{Scale, Scaled};
use crate::Failure;
use crate::swarm::{Conduct, Event, Host, Order, Swarm};
use chrono::Utc;
use fleet_wire::JobId;
use std::sync::Arc;
use std::time::Duration;

const AGENTS: Scaled = Scaled { full: 19_000, quick: 200 };
const HOSTS_A_REPOSITORY: usize = 100;
/// A burst is this many lines of this many bytes: 1 MiB.
const BURST_LINES: usize = 256;
const LINE_BYTES: usize = 4096;
/// Agents that are in their burst at once.
const BURSTING: usize = 64;
const CLIENTS: usize = 8;
/// Longer than an ended job is kept in memory for lines that come late.
const QUIET: Duration = Duration::from_secs(15);
/// What the heartbeats before the burst are spread over.
const BEATS: Duration = Duration::from_secs(5);
/// Stands in for the job in frames that are made once; as long as a real id.
const ANY_JOB: &str = "00000000-0000-0000-0000-000000000000";

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let count = AGENTS.agents(scale);
    let mut rig = Rig::start()?;
    let hosts = rig.fleet(count, HOSTS_A_REPOSITORY)?;
    let figure = coordinator(&mut rig, &hosts)?;
    let floor = bare(&rig, &hosts)?;
    let what = format!("memory per idle agent, {count} agents");
    let row = |what, figure, goal| Row::beside(what, "KiB", &[(figure, floor)], "echo session", goal);
    Ok(vec![
        row(what, figure.after_burst, Goal::RatioAtMost(1.1)),
        row("— before its burst".to_owned(), figure.before_burst, Goal::None),
    ])
}

fn per_agent(before: u64, after: u64, agents: usize) -> f64 {
    after.saturating_sub(before) as f64 / 1024.0 / agents as f64
}

/// KiB of an agent.
struct Figure {
    before_burst: f64,
    after_burst: f64,
}

fn coordinator(rig: &mut Rig, hosts: &[Host]) -> Result<Figure, Failure> {
    let (id, address) = (rig.coordinator_id(), rig.address()?);
    let before = resident(id)?;
    let token = rig.coordinator.admin_token().to_owned();
    let requests: Vec<Request> = hosts.iter().map(|host| Request::job(&host.id, &token)).collect();
    let (connected, after) = rig.runtime.block_on(async {
        let mut swarm = Swarm::connected(address, hosts, "bench", Conduct::Running).await?;
        swarm.heartbeats(BEATS).await;
        let connected = resident(id)?;
        let heart = swarm.heart();
        let burst = burst(&mut swarm, address, requests).await;
        heart.abort();
        burst?;
        swarm.heartbeats(QUIET).await;
        Ok::<_, Failure>((connected, resident(id)?))
    })?;
    let lines = hosts.len() * BURST_LINES;
    expect("lines", rig.number("SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM log_chunks")?, lines)?;
    expect("jobs", rig.number("SELECT count(*) FROM jobs WHERE status = 'succeeded'")?, hosts.len())?;
    expect("hosts online", rig.number("SELECT count(*) FROM hosts WHERE online")?, hosts.len())?;
    Ok(Figure {
        before_burst: per_agent(before, connected, hosts.len()),
        after_burst: per_agent(before, after, hosts.len()),
    })
}

/// Lets every agent have a job and burst, some at a time.
async fn burst(swarm: &mut Swarm, address: std::net::SocketAddr, requests: Vec<Request>) -> Result<(), Failure> {
    let template = Template::new();
    let count = requests.len();
    let mut jobs = vec![None; count];
    let pool = Pool::connect(address, CLIENTS).await?;
    let mut requests = requests.into_iter();
    requests.by_ref().take(BURSTING).for_each(|request| pool.submit(request));
    let mut settled = 0;
    while settled < count {
        match swarm.next().await? {
            Event::Run { agent, job_id, .. } => {
                let bytes = template.of(&job_id);
                jobs[agent] = Some(job_id);
                swarm.tell(agent, Order::WriteNumbered { bytes, last_id: Template::LAST_ID });
            }
            Event::Acknowledged { agent, up_to, .. } if up_to == Template::LAST_ID => {
                if let Some(job_id) = jobs[agent].take() {
                    swarm.tell(agent, Order::Finish(job_id));
                }
            }
            Event::Settled { .. } => {
                settled += 1;
                if let Some(request) = requests.next() {
                    pool.submit(request);
                }
            }
            _ => {}
        }
    }
    pool.all().await.map(drop)
}

/// The frames of a burst, made once, and where the job stands in them.
struct Template {
    bytes: Arc<[u8]>,
    places: Vec<usize>,
}

impl Template {
    /// An agent has said `command.result` and `job.started` before its first line.
    const LAST_ID: u64 = 2 + BURST_LINES as u64;

    fn new() -> Self {
        // As compressible as text, so that the disk is not what is measured.
        let payload: String = (0..).map(|n| format!("file {n} ")).take(LINE_BYTES).collect();
        let payload = payload[..LINE_BYTES].to_owned();
        let line = |seq| Line { seq, ts: Utc::now(), payload: payload.clone() };
        let lines: Vec<Line> = (0..BURST_LINES as i64).map(line).collect();
        let bytes = frames(&ANY_JOB.into(), &lines, 3);
        let job = ANY_JOB.as_bytes();
        let places = bytes.windows(job.len()).enumerate().filter(|(_, window)| *window == job).map(|(at, _)| at);
        Self { places: places.collect(), bytes: Arc::clone(&bytes) }
    }

    fn of(&self, job_id: &JobId) -> Arc<[u8]> {
        let mut bytes = self.bytes.to_vec();
        for place in &self.places {
            bytes[*place..*place + ANY_JOB.len()].copy_from_slice(job_id.as_str().as_bytes());
        }
        bytes.into()
    }
}

/// The bare session after heartbeats.
fn bare(rig: &Rig, hosts: &[Host]) -> Result<f64, Failure> {
    let server = EchoServer::start()?;
    let (id, count) = (server.id(), hosts.len());
    let echoed = |event: &Event| matches!(event, Event::Echoed);
    let before = resident(id)?;
    let after = rig.runtime.block_on(async {
        let mut swarm = Swarm::connected(server.address, hosts, "bench", Conduct::Echo).await?;
        for _ in 0..2 {
            swarm.heartbeats(BEATS).await;
            swarm.wait_for("heartbeats that came back", count, echoed).await?;
        }
        resident(id)
    })?;
    Ok(per_agent(before, after, count))
}
