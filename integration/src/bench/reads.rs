//! Reading one job over REST: one that runs, and old ones.
//!
//! 32 keep-alive connections read as fast as they are answered. Floor for the running job: a bare server that answers
//! with one word, by the same clients. Floor for old jobs, taken at random out of a hundred thousand: `pgbench -S`, one
//! row by its key, with as many connections. Checked: every answer is a success, and the job in it is the one asked for.

use super::echo::EchoServer;
use super::http::{Client, Request};
use super::logs::Flood;
use super::report::{Goal, Row};
use super::rig::{Rig, number};
use super::{Scale, Scaled};
use crate::process::command;
use crate::{Context, Failure, postgres_programs};
use futures_util::future::try_join_all;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLIENTS: usize = 32;
const ROUNDS: Scaled = Scaled { full: 3, quick: 1 };
const MILLIS: Scaled = Scaled { full: 3_000, quick: 500 };
const OLD_JOBS: Scaled = Scaled { full: 100_000, quick: 1_000 };
/// Jobs that are read in turn.
const READ: usize = 1_000;

pub(super) fn run(scale: Scale) -> Result<Vec<Row>, Failure> {
    let span = Duration::from_millis(MILLIS.at(scale) as u64);
    let rig = Rig::start()?;
    let hosts = rig.fleet(1, 1)?;
    let (address, token) = (rig.address()?, rig.coordinator.admin_token().to_owned());
    rig.database.query(&old_jobs(OLD_JOBS.at(scale)))?;
    rig.database.query("VACUUM ANALYZE jobs")?;
    let request = |id: &String| (Request::get(&format!("/v1/jobs/{id}"), &token), id.clone());
    let old = rig.database.query(&format!("SELECT id FROM jobs ORDER BY random() LIMIT {READ}"))?;
    let old: Vec<(Request, String)> = old.iter().flatten().flatten().map(request).collect();
    let flood = rig.runtime.block_on(Flood::start(address, &token, &hosts))?;
    let live = rig.database.query("SELECT id FROM jobs WHERE status = 'running'")?;
    let live: Vec<(Request, String)> = live.iter().flatten().flatten().map(request).collect();
    let server = EchoServer::start()?;
    let plain = vec![(Request::get("/plaintext", ""), "hello".to_owned())];
    pgbench(&rig, &["-i", "-q", "-s", "1"])?;
    let rate = |address, requests: &Vec<_>| rig.runtime.block_on(requests_a_second(address, requests, span));
    let (mut running, mut past) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS.at(scale) {
        running.push((rate(address, &live)?, rate(server.address, &plain)?));
        past.push((rate(address, &old)?, selects(&rig, span)?));
    }
    drop(flood);
    if number(&rig.database, "SELECT count(*) FROM jobs WHERE status = 'running'")? < 1.0 {
        return Err(Failure::new("NOT CORRECT: the job that was read while it runs does not run"));
    }
    Ok(vec![
        Row::beside("GET of a live job", "/s", &running, "plaintext", Goal::RatioAtLeast(0.6)),
        Row::beside("GET of an old job", "/s", &past, "pgbench -S", Goal::RatioAtLeast(0.5)),
    ])
}

/// Makes `count` jobs that are over, on the hosts that are there.
fn old_jobs(count: usize) -> String {
    format!(
        "INSERT INTO jobs (id, host_id, repository_id, kind, status, origin, source_group, command, created_at,
             dispatched_at, accepted_at, started_at, finished_at, began_at, ended_at, exit_code)
         SELECT gen_random_uuid(), hosts.id, hosts.repository_id, 'backup', 'succeeded', 'operator', 'data',
             '{{\"job_id\": \"x\", \"kind\": \"backup\", \"includes\": [\"/srv/data\"], \"tag\": \"data\"}}', at, at, at, at, at, at, at, 0
         FROM generate_series(1, {count}) AS n, LATERAL (SELECT now() - n * interval '1 minute' AS at) AS its,
             (SELECT * FROM hosts LIMIT 1) AS hosts"
    )
}

/// Requests a second of all clients together; every answer must hold the text beside its request.
async fn requests_a_second(
    address: SocketAddr,
    requests: &[(Request, String)],
    span: Duration,
) -> Result<f64, Failure> {
    if requests.is_empty() {
        return Err(Failure::new("there is nothing to read"));
    }
    let requests: Arc<[_]> = requests.into();
    let clients = try_join_all((0..CLIENTS).map(|_| Client::connect(address))).await?;
    let began = Instant::now();
    let read = |(index, mut client): (usize, Client)| {
        let requests = Arc::clone(&requests);
        async move {
            let mut count = 0_usize;
            while began.elapsed() < span {
                let (request, text) = &requests[(index * 31 + count) % requests.len()];
                let body = client.call(request).await?;
                if !body.windows(text.len()).any(|window| window == text.as_bytes()) {
                    return Err(Failure::new(format!("NOT CORRECT: no {text} in {}", String::from_utf8_lossy(body))));
                }
                count += 1;
            }
            Ok(count)
        }
    };
    let tasks: Vec<_> = clients.into_iter().enumerate().map(|client| tokio::spawn(read(client))).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Transactions a second of `pgbench -S`.
fn selects(rig: &Rig, span: Duration) -> Result<f64, Failure> {
    let (clients, seconds) = (CLIENTS.to_string(), span.as_secs().max(1).to_string());
    let output = pgbench(rig, &["-S", "-n", "-c", &clients, "-j", "2", "-T", &seconds])?;
    let tps = output.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.ok_or_else(|| Failure::new(format!("pgbench says no tps: {output}")))
}

fn pgbench(rig: &Rig, args: &[&str]) -> Result<String, Failure> {
    let beside = postgres_programs()?.join("pgbench");
    let mut pgbench: Command = command(if beside.exists() { &beside } else { Path::new("pgbench") }, None);
    let output = pgbench.args(args).arg(rig.floor.url()).output().context("pgbench")?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Failure::new(format!("pgbench: {}", String::from_utf8_lossy(&output.stderr))))
    }
}
