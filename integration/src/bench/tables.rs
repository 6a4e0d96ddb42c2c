//! The same with ten million old jobs and a hundred million log lines in the tables, and the start with all of them.
//!
//! Every read and the dispatch are measured with few old jobs in the tables, then with all; the goal is that they stay
//! flat. Then a hundred thousand jobs that are not over are added, and the coordinator is started: until it serves,
//! and what its ticker takes while nothing happens. Old rows are generated: jobs spread over the hosts and the last
//! years, one in a thousand failed; log chunks are copies of one that the coordinator wrote. Checked: the tables have
//! what was generated, and jobs still run.
//!
//! Few and many can't take turns: the floor of each is its own figure before.

use super::dispatch::Load;
use super::http::{Client, Request};
use super::logs::Flood;
use super::meter::cpu;
use super::report::{Goal, Latencies, Row};
use super::rig::{Rig, expect};
use super::{Scale, Scaled};
use crate::swarm::{Conduct, Host, Swarm};
use crate::{Context, Failure};
use std::time::{Duration, Instant};

const HOSTS: usize = 1_000;
const HOSTS_A_REPOSITORY: usize = 100;
/// So many that every list that is read has a full page, and no more.
const FEW_JOBS: usize = 20_000;
const OLD_JOBS: Scaled = Scaled { full: 10_000_000, quick: 40_000 };
const OLD_LINES: Scaled = Scaled { full: 100_000_000, quick: 200_000 };
const OPEN_JOBS: Scaled = Scaled { full: 100_000, quick: 1_000 };
/// Jobs on a page: as many as each host has when there are few.
const PAGE: usize = FEW_JOBS / HOSTS;
/// Lines that make a chunk to copy.
const CHUNK_LINES: usize = 1_000;
const READS: Scaled = Scaled { full: 30, quick: 5 };
const JOBS: Scaled = Scaled { full: 200, quick: 20 };
const QUIET: Duration = Duration::from_secs(10);
/// What counts as flat: noise of single milliseconds included.
const FLAT: f64 = 2.0;
/// A read that takes longer than this is not repeated.
const SLOW: Duration = Duration::from_secs(1);

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let mut rig = Rig::start_for_bulk()?;
    let hosts = rig.fleet(HOSTS, HOSTS_A_REPOSITORY)?;
    let address = rig.address()?;
    let token = rig.coordinator.admin_token().to_owned();
    rig.runtime.block_on(async {
        let mut flood = Flood::start(address, &token, &hosts[..1]).await?;
        let prepared = flood.prepare(CHUNK_LINES, 1);
        flood.send(prepared, None).await?;
        flood.finish().await
    })?;
    rig.stop_coordinator()?;
    fill(&rig, FEW_JOBS, FEW_JOBS)?;
    rig.start_coordinator()?;
    let small = Figures::measure(&rig, &hosts, scale)?;
    rig.stop_coordinator()?;
    fill(&rig, OLD_JOBS.at(scale), OLD_LINES.at(scale))?;
    let mut rows = Vec::new();
    let (old, few) = (format!("{} old jobs", OLD_JOBS.at(scale)), format!("{FEW_JOBS} old jobs"));
    rows.push(Row::alone(format!("start with {old}"), "s", &[start(&mut rig)?], Goal::FigureAtMost(1.0)));
    let full = Figures::measure(&rig, &hosts, scale)?;
    for ((what, before), (_, after)) in small.0.iter().zip(&full.0) {
        rows.push(Row::beside(format!("{old}: {what}"), "ms", &[(*after, *before)], &few, Goal::RatioAtMost(FLAT)));
    }
    rows.push(Row::alone("— ticker and all else, idle", "% of a core", &[quiet(&mut rig)?], Goal::None));
    rig.stop_coordinator()?;
    open_jobs(&rig, OPEN_JOBS.at(scale))?;
    let open = format!("{} open", OPEN_JOBS.at(scale));
    rows.push(Row::alone(format!("start with {old}, {open}"), "s", &[start(&mut rig)?], Goal::FigureAtMost(1.0)));
    rows.push(Row::alone("— ticker and all else, idle", "% of a core", &[quiet(&mut rig)?], Goal::None));
    Ok(rows)
}

/// Starts the coordinator; gives how long it took until it served, in seconds.
fn start(rig: &mut Rig) -> Result<f64, Failure> {
    let began = Instant::now();
    rig.start_coordinator()?;
    Ok(began.elapsed().as_secs_f64())
}

/// What the coordinator takes of a core while nothing happens, in percent.
fn quiet(rig: &mut Rig) -> Result<f64, Failure> {
    let id = rig.coordinator_id();
    let before = cpu(id)?;
    std::thread::sleep(QUIET);
    Ok((cpu(id)? - before).as_secs_f64() / QUIET.as_secs_f64() * 100.0)
}

/// What was measured, in milliseconds, by name.
struct Figures(Vec<(String, f64)>);

impl Figures {
    fn measure(rig: &Rig, hosts: &[Host], scale: Scale) -> Result<Self, Failure> {
        let address = rig.address()?;
        let token = rig.coordinator.admin_token().to_owned();
        let mut figures = Vec::new();
        let mut load = Load::new(rig, hosts)?;
        let dispatched = rig.runtime.block_on(async {
            let mut swarm = Swarm::connected(address, hosts, "bench", Conduct::AtOnce).await?;
            load.jobs(&mut swarm, JOBS.at(scale)).await
        })?;
        figures.push(("POST to command.run, p50".to_owned(), dispatched.0.millis(0.5)));
        let host = &hosts[hosts.len() / 2].id;
        let hour = chrono::Utc::now() - chrono::TimeDelta::hours(1);
        let since = format!("since={}", hour.format("%Y-%m-%dT%H:%M:%SZ"));
        let filters = [
            "",
            "status=succeeded",
            "status=failed",
            "status=running",
            "status=queued",
            "kind=backup",
            "kind=prune",
            "origin=schedule",
            &since,
            &format!("host_id={host}"),
            &format!("host_id={host}&status=failed"),
        ];
        for filter in filters {
            let path = format!("/v1/jobs?limit={PAGE}&{filter}").trim_end_matches('&').to_owned();
            let name = if filter.starts_with("since") { "since=an hour ago" } else { filter };
            let name = name.replace(host.as_str(), "…");
            let figure = rig.runtime.block_on(latency(rig, &path, &token, READS.at(scale)))?;
            figures.push((format!("GET /v1/jobs?{name}"), figure));
        }
        for path in ["/metrics", "/v1/hosts?limit=100"] {
            figures.push((format!("GET {path}"), rig.runtime.block_on(latency(rig, path, &token, READS.at(scale)))?));
        }
        let logged = rig.database.query("SELECT job_id FROM log_chunks LIMIT 1")?;
        let logged = logged.into_iter().flatten().flatten().next().ok_or_else(|| Failure::new("no log"))?;
        let path = format!("/v1/jobs/{logged}");
        figures.push(("GET of a job".to_owned(), rig.runtime.block_on(latency(rig, &path, &token, READS.at(scale)))?));
        Ok(Self(figures))
    }
}

/// The median time of a GET; of a slow one, the first. An answer that says no is as slow as it took.
async fn latency(rig: &Rig, path: &str, token: &str, count: usize) -> Result<f64, Failure> {
    let mut client = Client::connect(rig.address()?).await?;
    let request = Request::get(path, token);
    let mut latencies = Latencies::default();
    for _ in 0..count {
        let began = Instant::now();
        let answer = client.call(&request).await.map(drop);
        latencies.add(began.elapsed());
        if began.elapsed() > SLOW {
            break;
        }
        answer.context(path)?;
    }
    Ok(latencies.millis(0.5))
}

/// Fills the tables. What was in them goes, but for one log chunk, which is copied.
fn fill(rig: &Rig, jobs: usize, lines: usize) -> Result<(), Failure> {
    // Without foreign keys being looked up one by one, indexes being kept up, or the WAL: this is not what is measured.
    let indexes = rig
        .database
        .query("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'jobs' AND indexname <> 'jobs_pkey'")?;
    let indexes: Vec<(String, String)> = indexes
        .into_iter()
        .filter_map(|row| <[Option<String>; 2]>::try_from(row).ok())
        .filter_map(|[name, definition]| Some((name?, definition?)))
        .collect();
    let names = indexes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let definitions = indexes.iter().map(|(_, definition)| definition.as_str()).collect::<Vec<_>>().join(";");
    rig.database.query(&format!(
        "BEGIN;
         SET LOCAL session_replication_role = replica;
         SET LOCAL synchronous_commit = off;
         CREATE TEMP TABLE sample ON COMMIT DROP AS SELECT * FROM log_chunks ORDER BY last_seq - first_seq DESC LIMIT 1;
         CREATE TEMP TABLE fleet ON COMMIT DROP AS
             SELECT row_number() OVER () - 1 AS place, id, repository_id FROM hosts;
         CREATE INDEX ON fleet (place);
         ANALYZE fleet;
         TRUNCATE jobs, log_chunks;
         ALTER TABLE jobs DROP CONSTRAINT jobs_pkey CASCADE;
         DROP INDEX {names};
         INSERT INTO jobs (id, host_id, repository_id, kind, status, origin, source_group, command, created_at,
             dispatched_at, accepted_at, started_at, finished_at, began_at, ended_at, exit_code)
         SELECT (lpad(to_hex(n), 12, '0') || '7000800000000000' || lpad(to_hex(n % 65536), 4, '0'))::uuid,
             fleet.id, fleet.repository_id, 'backup', CASE WHEN n % 1000 = 0 THEN 'failed' ELSE 'succeeded' END,
             'operator', 'data',
             '{{\"job_id\": \"x\", \"kind\": \"backup\", \"includes\": [\"/srv/data\"], \"tag\": \"data\"}}',
             at, at, at, at, at, at, at, 0
         FROM generate_series(1, {jobs}) AS n
             JOIN fleet ON fleet.place = n % {HOSTS},
             LATERAL (SELECT now() - ({jobs} - n + 3600) * interval '10 seconds' AS at) AS its;
         ALTER TABLE jobs ADD PRIMARY KEY (id);
         {definitions};
         INSERT INTO log_chunks (job_id, first_seq, last_seq, compacted, data)
         SELECT (lpad(to_hex(n), 12, '0') || '7000800000000000' || lpad(to_hex(n % 65536), 4, '0'))::uuid,
             sample.first_seq, sample.last_seq, true, sample.data
         FROM sample, generate_series(1, LEAST({jobs}, {lines} / (sample.last_seq - sample.first_seq + 1))) AS n;
         ALTER TABLE log_chunks ADD FOREIGN KEY (job_id) REFERENCES jobs ON DELETE CASCADE NOT VALID;
         COMMIT"
    ))?;
    for sql in ["VACUUM ANALYZE jobs", "VACUUM ANALYZE log_chunks", "CHECKPOINT"] {
        rig.database.query(sql)?;
    }
    expect("old jobs", rig.number("SELECT count(*) FROM jobs")?, jobs)?;
    // Whole chunks only, and at most one a job.
    let stored = rig.number("SELECT sum(last_seq - first_seq + 1) FROM log_chunks")?;
    let short = lines as f64 - stored;
    if (0.0..=CHUNK_LINES as f64).contains(&short) {
        Ok(())
    } else {
        Err(Failure::new(format!("NOT CORRECT: {stored} log lines in the database, {lines} were to be generated")))
    }
}

/// Adds jobs that are not over: half of them wait, half are out.
fn open_jobs(rig: &Rig, count: usize) -> Result<(), Failure> {
    rig.database.query(&format!(
        "INSERT INTO jobs (id, host_id, repository_id, kind, status, origin, source_group, command, created_at,
             dispatched_at, accepted_at, began_at)
         SELECT gen_random_uuid(), hosts.id, hosts.repository_id, 'backup',
             CASE WHEN n % 2 = 0 THEN 'running' ELSE 'queued' END, 'operator', 'data',
             '{{\"job_id\": \"x\", \"kind\": \"backup\", \"includes\": [\"/srv/data\"], \"tag\": \"data\"}}', now(),
             CASE WHEN n % 2 = 0 THEN now() END, CASE WHEN n % 2 = 0 THEN now() END, CASE WHEN n % 2 = 0 THEN now() END
         FROM (SELECT row_number() OVER () AS host, id, repository_id FROM hosts) AS hosts
             JOIN generate_series(1, {count}) AS n ON hosts.host = n % {HOSTS} + 1"
    ))?;
    rig.database.query("VACUUM ANALYZE jobs")?;
    expect("open jobs", rig.number("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')")?, count)
}
