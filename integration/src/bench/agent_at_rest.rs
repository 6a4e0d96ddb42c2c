//! The real agent while it has nothing to do: resident memory and processor time; and the size of its program.
//!
//! It is enrolled, connected, has its settings and sends heartbeats. The goals are absolute: there is no floor.
//! Checked: the coordinator has it as online.

use super::meter::{cpu, resident};
use super::report::{Goal, Row};
use super::{Scale, Scaled};
use crate::{Context, Database, Failure, Sandbox, Server, program, restics};
use std::time::Duration;

const SECONDS: Scaled = Scaled { full: 65, quick: 5 };
const MIB: f64 = 1024.0 * 1024.0;
/// No more than one tick of the clock by which processor time is counted, as a share of a core over two heartbeats.
const MEASURABLE: f64 = 0.02;

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let server = Server::start()?;
    let sandbox = Sandbox::start_on(Database::on(&server)?, &[])?;
    let restic = restics()?.into_iter().next().ok_or_else(|| Failure::new("no restic"))?;
    let (repository, _) = sandbox.repository("rest", &restic)?;
    let (mut agent, host) = sandbox.agent("at-rest", &repository, &restic)?;
    // Its first job is the init of the repository; what comes after is rest.
    let init = sandbox.api().list(&format!("/v1/jobs?host_id={host}"))?;
    for job in init {
        sandbox.api().finished_job(&crate::api::text_of(&job, "id")?, Duration::from_secs(60))?;
    }
    let id = agent.process().id();
    let span = Duration::from_secs(SECONDS.at(scale) as u64);
    let before = cpu(id)?;
    std::thread::sleep(span);
    let share = (cpu(id)? - before).as_secs_f64() / span.as_secs_f64() * 100.0;
    let memory = resident(id)? as f64 / MIB;
    agent.online(&sandbox.api())?;
    let size = std::fs::metadata(program("fleet-agent")?).context("the agent's program")?.len() as f64 / MIB;
    Ok(vec![
        Row::alone("the agent at rest, resident", "MiB", &[memory], Goal::FigureAtMost(8.0)),
        Row::alone("— its CPU", "% of a core", &[share], Goal::FigureAtMost(MEASURABLE)),
        Row::alone("— its program", "MiB", &[size], Goal::FigureAtMost(12.0)),
    ])
}
