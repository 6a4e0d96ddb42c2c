//! Log lines, from the agents' sockets until they are durable: how many a second, and what they take on disk and in
//! the WAL.
//!
//! Some agents run a job each and write lines of about 120 bytes as fast as the coordinator reads, one WebSocket message
//! a line, until the last is acknowledged. Floor for the speed: one connection's `COPY (FORMAT binary)` of the same lines
//! into a table without any index, 1,000 lines a transaction. Floor for disk and WAL: a row a line, copied likewise into
//! a table with the key (job, seq) that finding a job's lines needs. A trickle, a line at a time from some agents, is
//! measured as it comes in. Then the jobs end, their logs are compacted, and what their chunks take is measured again, in
//! a table of their own: the room that compaction leaves free stays with the first one and is used by what comes next.
//! Checked: every line is stored once, before and after, and a log that is read over REST is what was sent.

use super::floors;
use super::http::Request;
use super::lines::{Line, frames, lines};
use super::pool::Pool;
use super::report::{Goal, Round, Row};
use super::rig::{Rig, expect, number};
use super::{Scale, Scaled};
use crate::swarm::{Conduct, Event, Host, Order, Swarm};
use crate::{Context, Database, Failure};
use fleet_wire::JobId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SENDERS: usize = 8;
const LINES: Scaled = Scaled { full: 400_000, quick: 8_000 };
const ROUNDS: Scaled = Scaled { full: 3, quick: 1 };
const COPY_BATCH: usize = 1_000;
const TRICKLING: usize = 20;
const TRICKLED_LINES: Scaled = Scaled { full: 200, quick: 20 };
const TRICKLE_PACE: Duration = Duration::from_millis(40);
/// Lines that come in bulk into logs that are compacted: fewer, for that is done at leisure.
const COMPACTED_LINES: Scaled = Scaled { full: 100_000, quick: 8_000 };
/// Within this time logs are compacted.
const COMPACTED_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let rig = Rig::start()?;
    let hosts = rig.fleet(2 * SENDERS + TRICKLING, 100)?;
    let (senders, others) = hosts.split_at(SENDERS);
    let (ending, trickling) = others.split_at(SENDERS);
    let (address, token) = (rig.address()?, rig.coordinator.admin_token());
    let client = rig.runtime.block_on(floors::prepare(&rig.floor.url()))?;
    let copied = lines(LINES.at(scale), 0);
    let mut flood = rig.runtime.block_on(Flood::start(address, token, senders))?;
    let (mut speed, mut disk, mut wal) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS.at(scale) {
        let prepared = flood.prepare(LINES.at(scale) / SENDERS, 1);
        let (figure, stored) = Stored::measure(&rig.database, "log_chunks", || {
            let took = rig.runtime.block_on(flood.send(prepared, None))?;
            Ok(LINES.at(scale) as f64 / took.as_secs_f64())
        })?;
        let copy = |table| rig.runtime.block_on(floors::copied_lines(&client, table, &copied, COPY_BATCH));
        let floor = copy("lines")?;
        let (_, rows) = Stored::measure(&rig.floor, "lines_with_key", || copy("lines_with_key"))?;
        speed.push((figure, floor));
        disk.push((stored.disk / copied.len() as f64, rows.disk / copied.len() as f64));
        wal.push((stored.wal / copied.len() as f64, rows.wal / copied.len() as f64));
    }
    flood.check(&rig)?;
    let mut bulk = rig.runtime.block_on(Flood::start(address, token, ending))?;
    let prepared = bulk.prepare(COMPACTED_LINES.at(scale) / SENDERS, 1);
    rig.runtime.block_on(bulk.send(prepared, None))?;
    let bulk = compact(&rig, &mut bulk, disk.iter().map(|of| of.1))?;
    let (trickled, each, slow) = trickle(&rig, trickling, TRICKLED_LINES.at(scale))?;
    let copy = format!("COPY BINARY, {COPY_BATCH} a commit");
    Ok(vec![
        Row::beside("log lines, socket to durable", "lines/s", &speed, &copy, Goal::RatioAtLeast(1.0)),
        Row::beside("— on disk, a line", "bytes", &disk, "a row a line", Goal::RatioAtMost(0.25)),
        Row::beside("— in the WAL, a line", "bytes", &wal, "a row a line", Goal::RatioAtMost(0.2)),
        Row::beside("— on disk, compacted, a line", "bytes", &bulk, "a row a line", Goal::RatioAtMost(0.25)),
        Row::alone(
            "— on disk, compacted, a line (stretch)",
            "bytes",
            &bulk.iter().map(|of| of.0).collect::<Vec<_>>(),
            Goal::FigureAtMost(29.0),
        ),
        Row::beside(
            format!("— on disk, a line of {trickled} that trickle in"),
            "bytes",
            &each,
            "a row a line",
            Goal::None,
        ),
        Row::beside("— the same, compacted", "bytes", &slow, "a row a line", Goal::RatioAtMost(0.25)),
    ])
}

/// Ends the jobs and waits until their logs are compacted: what a line takes then, beside rows.
fn compact(rig: &Rig, flood: &mut Flood, rows: impl Iterator<Item = f64>) -> Result<Vec<Round>, Failure> {
    rig.runtime.block_on(flood.finish())?;
    // They ended a while ago, so that nothing is waited for.
    rig.database.query("UPDATE jobs SET ended_at = ended_at - interval '1 hour' WHERE outcome <> 'open'")?;
    let began = Instant::now();
    let loose = format!("SELECT count(*) FROM log_chunks WHERE NOT compacted AND job_id IN ({})", flood.ids());
    loop {
        let loose = rig.number(&loose)?;
        if loose == 0.0 {
            break;
        }
        if began.elapsed() > COMPACTED_WITHIN {
            return Err(Failure::new(format!("NOT CORRECT: {loose} chunks are not compacted")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    flood.check(rig)?;
    let size = |ids: &str| -> Result<f64, Failure> {
        // What a table without anything else grows by.
        rig.database.query("CREATE TABLE alone (LIKE log_chunks INCLUDING ALL)")?;
        let empty = rig.number("SELECT pg_total_relation_size('alone')")?;
        rig.database.query(&format!("INSERT INTO alone SELECT * FROM log_chunks WHERE job_id IN ({ids})"))?;
        let size = rig.number("SELECT pg_total_relation_size('alone')")? - empty;
        rig.database.query("DROP TABLE alone")?;
        Ok(size)
    };
    let each = size(&flood.ids())? / (flood.sent * flood.jobs.len()) as f64;
    Ok(rows.map(|row| (each, row)).collect())
}

/// What a table and the WAL grew by.
struct Stored {
    disk: f64,
    wal: f64,
}

impl Stored {
    /// Does something and sees what that took. A checkpoint before it lets every page be written to the WAL whole once,
    /// on both sides.
    fn measure<T>(
        database: &Database,
        table: &str,
        job: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<(T, Self), Failure> {
        let look = || {
            let disk = number(database, &format!("SELECT pg_total_relation_size('{table}')"))?;
            let wal = number(database, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")?;
            Ok::<_, Failure>((disk, wal))
        };
        database.query("CHECKPOINT")?;
        let before = look()?;
        let done = job()?;
        let after = look()?;
        Ok((done, Self { disk: after.0 - before.0, wal: after.1 - before.1 }))
    }
}

/// Agents that write log lines, each within one job that goes on.
pub(super) struct Flood {
    swarm: Swarm,
    jobs: Vec<JobId>,
    /// How many lines each has sent; they are alike in that.
    sent: usize,
}

/// What a job's agent has said before its first line.
const SAID_BEFORE: u64 = 2;

/// Frames for every agent, in slices, each with the id of its last line.
pub(super) struct Prepared(Vec<Vec<(Arc<[u8]>, u64)>>);

impl Flood {
    /// Connects the agents of `hosts` and starts their jobs.
    ///
    /// # Errors
    /// They do not come that far.
    pub(super) async fn start(address: SocketAddr, token: &str, hosts: &[Host]) -> Result<Self, Failure> {
        let mut swarm = Swarm::connected(address, hosts, "bench", Conduct::Running).await?;
        let pool = Pool::connect(address, 4).await?;
        hosts.iter().for_each(|host| pool.submit(Request::job(&host.id, token)));
        pool.all().await?;
        let mut jobs: Vec<Option<JobId>> = vec![None; hosts.len()];
        let mut running = 0;
        while running < hosts.len() {
            match swarm.next().await? {
                Event::Run { agent, job_id, .. } => jobs[agent] = Some(job_id),
                Event::Acknowledged { up_to: SAID_BEFORE, .. } => running += 1,
                _ => {}
            }
        }
        Ok(Self { swarm, jobs: jobs.into_iter().flatten().collect(), sent: 0 })
    }

    /// Makes the next `each` lines of every agent, in slices of about the same size.
    pub(super) fn prepare(&mut self, each: usize, slices: usize) -> Prepared {
        let sent = self.sent;
        self.sent += each;
        let of_job = |(agent, job_id): (usize, &JobId)| {
            let fresh = self.lines_of(agent, sent, each);
            let mut last = SAID_BEFORE + sent as u64;
            let slice = |lines: &[Line]| {
                let first = last + 1;
                last += lines.len() as u64;
                (frames(job_id, lines, first), last)
            };
            fresh.chunks(each.div_ceil(slices)).map(slice).collect()
        };
        Prepared(self.jobs.iter().enumerate().map(of_job).collect())
    }

    fn lines_of(&self, agent: usize, from: usize, count: usize) -> Vec<Line> {
        let mut fresh = lines(count, (from * self.jobs.len() + agent) as u64 + 1);
        fresh.iter_mut().for_each(|line| line.seq += from as i64);
        fresh
    }

    /// Writes them, a slice of every agent each `pace` or all at once, and waits until the last is acknowledged.
    ///
    /// # Errors
    /// An agent was lost.
    pub(super) async fn send(
        &mut self,
        Prepared(prepared): Prepared,
        pace: Option<Duration>,
    ) -> Result<Duration, Failure> {
        let began = Instant::now();
        let rounds = prepared.iter().map(Vec::len).max().unwrap_or(0);
        for round in 0..rounds {
            for (agent, slices) in prepared.iter().enumerate() {
                if let Some((bytes, last_id)) = slices.get(round) {
                    self.swarm.tell(agent, Order::WriteNumbered { bytes: Arc::clone(bytes), last_id: *last_id });
                }
            }
            if let Some(pace) = pace {
                tokio::time::sleep((pace * (round as u32 + 1)).saturating_sub(began.elapsed())).await;
            }
        }
        let last = SAID_BEFORE + self.sent as u64;
        let done = |event: &Event| matches!(event, Event::Acknowledged { up_to, .. } if *up_to == last);
        let agents = self.jobs.len();
        self.swarm.wait_for("agents whose lines are durable", agents, done).await?;
        Ok(began.elapsed())
    }

    /// Compares what was sent with what is stored.
    ///
    /// # Errors
    /// They differ.
    pub(super) fn check(&self, rig: &Rig) -> Result<(), Failure> {
        let sql = format!(
            "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM log_chunks WHERE job_id IN ({})",
            self.ids()
        );
        expect("log lines", rig.number(&sql)?, self.sent * self.jobs.len())
    }

    /// The ids of the jobs, for SQL.
    fn ids(&self) -> String {
        self.jobs.iter().map(|job| format!("'{job}'")).collect::<Vec<_>>().join(",")
    }

    /// Lets the jobs end.
    ///
    /// # Errors
    /// They do not.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        for (agent, job_id) in self.jobs.iter().enumerate() {
            self.swarm.tell(agent, Order::Finish(job_id.clone()));
        }
        let settled = |event: &Event| matches!(event, Event::Settled { .. });
        self.swarm.wait_for("jobs that have ended", self.jobs.len(), settled).await
    }
}

/// Lines that come one at a time from some agents: how many, and bytes on disk for each beside rows, as they come in and
/// compacted.
fn trickle(rig: &Rig, hosts: &[Host], each: usize) -> Result<(usize, Vec<Round>, Vec<Round>), Failure> {
    let (address, token) = (rig.address()?, rig.coordinator.admin_token());
    let mut flood = rig.runtime.block_on(Flood::start(address, token, hosts))?;
    let prepared = flood.prepare(each, each);
    let count = each * hosts.len();
    let (_, stored) = Stored::measure(&rig.database, "log_chunks", || {
        rig.runtime.block_on(flood.send(prepared, Some(TRICKLE_PACE)))
    })?;
    flood.check(rig)?;
    let row = lines(count, 7);
    let (_, rows) = Stored::measure(&rig.floor, "lines_with_key", || {
        rig.runtime.block_on(async {
            let client = floors::connect(&rig.floor.url()).await?;
            floors::copied_lines(&client, "lines_with_key", &row, COPY_BATCH).await
        })
    })?;
    let rows = rows.disk / count as f64;
    let compacted = compact(rig, &mut flood, [rows].into_iter())?;
    let job = flood.jobs[0].to_string();
    let sent: Vec<String> = flood.lines_of(0, 0, each).into_iter().map(|line| line.payload).collect();
    let read = rig.coordinator.api().logs(&job).context("a log over REST")?;
    let read: Vec<&str> = read.iter().filter_map(|line| line["payload"].as_str()).collect();
    if read != sent {
        return Err(Failure::new(format!("NOT CORRECT: the log of job {job} is not what was sent")));
    }
    Ok((count, vec![(stored.disk / count as f64, rows)], compacted))
}
