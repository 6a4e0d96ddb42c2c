//! The floors in SQL: the least that has to be paid for the same result in the same PostgreSQL, in a database of their
//! own. Everything is prepared, and nothing but the statements is counted.

use super::lines::Line;
use super::report::Latencies;
use crate::swarm::STATS;
use crate::{Context, Failure};
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The tables of the floors. A job has what its four transitions write; a log line has a row.
const TABLES: &str = "
    DROP TABLE IF EXISTS probe, jobs, lines, lines_with_key;
    CREATE TABLE probe (id uuid PRIMARY KEY);
    CREATE TABLE jobs (id uuid PRIMARY KEY, host_id uuid NOT NULL, kind text NOT NULL, status text NOT NULL,
        command text NOT NULL, created_at timestamptz NOT NULL, accepted_at timestamptz, started_at timestamptz,
        finished_at timestamptz, exit_code bigint, stats text);
    CREATE TABLE lines (job_id uuid NOT NULL, seq bigint NOT NULL, ts timestamptz NOT NULL, stream text NOT NULL,
        payload text NOT NULL);
    CREATE TABLE lines_with_key (LIKE lines, PRIMARY KEY (job_id, seq));";
/// About what the coordinator's command is.
const COMMAND: &str =
    r#"{"job_id":"018f4e7c-0000-7000-8000-000000000000","kind":"backup","includes":["/srv/data"],"tag":"data"}"#;

const INSERT: &str = "INSERT INTO jobs (id, host_id, kind, status, command, created_at)
    VALUES ($1, $2, 'backup', 'queued', $3, $4)";
const ACCEPT: &str = "UPDATE jobs SET accepted_at = $2 WHERE id = $1";
const START: &str = "UPDATE jobs SET status = 'running', started_at = $2 WHERE id = $1";
const FINISH: &str = "UPDATE jobs SET status = 'succeeded', finished_at = $2, exit_code = 0, stats = $3 WHERE id = $1";

// Every row has values of its own, as the coordinator's have.
const INSERT_MANY: &str = "INSERT INTO jobs (id, host_id, kind, status, command, created_at)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])";
const ACCEPT_MANY: &str = "UPDATE jobs SET accepted_at = news.at
    FROM unnest($1::uuid[], $2::timestamptz[]) AS news (id, at) WHERE jobs.id = news.id";
const START_MANY: &str = "UPDATE jobs SET status = 'running', started_at = news.at
    FROM unnest($1::uuid[], $2::timestamptz[]) AS news (id, at) WHERE jobs.id = news.id";
const FINISH_MANY: &str =
    "UPDATE jobs SET status = 'succeeded', finished_at = news.at, exit_code = 0, stats = news.stats
    FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS news (id, at, stats) WHERE jobs.id = news.id";

/// A connection.
///
/// # Errors
/// The server refuses it.
pub(super) async fn connect(url: &str) -> Result<Client, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connecting to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

/// A connection to a database with fresh tables.
///
/// # Errors
/// The server refuses.
pub(super) async fn prepare(url: &str) -> Result<Client, Failure> {
    let client = connect(url).await?;
    client.batch_execute(TABLES).await.context("the floors' tables")?;
    Ok(client)
}

/// How long a commit of one row takes, `count` times, one every `pace`.
///
/// # Errors
/// The database's.
pub(super) async fn commits(client: &Client, count: usize, pace: Duration) -> Result<Latencies, Failure> {
    let insert = client.prepare("INSERT INTO probe VALUES ($1)").await?;
    let mut ticks = tokio::time::interval(pace);
    let mut latencies = Latencies::default();
    for _ in 0..count {
        ticks.tick().await;
        let began = Instant::now();
        client.execute(&insert, &[&Uuid::new_v4()]).await?;
        latencies.add(began.elapsed());
    }
    Ok(latencies)
}

/// Jobs a second through four transitions, in transactions of `batch` jobs, on one connection.
///
/// # Errors
/// The database's.
pub(super) async fn batched_jobs(client: &Client, count: usize, batch: usize) -> Result<f64, Failure> {
    let insert = client.prepare(INSERT_MANY).await?;
    let (accept, start) = (client.prepare(ACCEPT_MANY).await?, client.prepare(START_MANY).await?);
    let finish = client.prepare(FINISH_MANY).await?;
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    let began = Instant::now();
    for ids in ids.chunks(batch) {
        let now: Vec<DateTime<Utc>> = vec![Utc::now(); ids.len()];
        let text = |text| vec![text; ids.len()];
        client.execute(&insert, &[&ids, &ids, &text("backup"), &text("queued"), &text(COMMAND), &now]).await?;
        client.execute(&accept, &[&ids, &now]).await?;
        client.execute(&start, &[&ids, &now]).await?;
        client.execute(&finish, &[&ids, &now, &text(STATS)]).await?;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Jobs a second through four transitions, a commit each, from `clients` connections that take one job after the other.
///
/// # Errors
/// The database's.
pub(super) async fn single_jobs(url: &str, clients: usize, each: usize) -> Result<f64, Failure> {
    let connections = try_join_all((0..clients).map(|_| connect(url))).await?;
    let ready = Arc::new(tokio::sync::Barrier::new(clients + 1));
    let mut tasks = Vec::new();
    for client in connections {
        let ready = Arc::clone(&ready);
        tasks.push(tokio::spawn(async move {
            let (insert, accept) = (client.prepare(INSERT).await?, client.prepare(ACCEPT).await?);
            let (start, finish) = (client.prepare(START).await?, client.prepare(FINISH).await?);
            ready.wait().await;
            for _ in 0..each {
                let (id, now) = (Uuid::now_v7(), Utc::now());
                client.execute(&insert, &[&id, &id, &COMMAND, &now]).await?;
                client.execute(&accept, &[&id, &now]).await?;
                client.execute(&start, &[&id, &now]).await?;
                client.execute(&finish, &[&id, &now, &STATS]).await?;
            }
            Ok::<_, Failure>(())
        }));
    }
    ready.wait().await;
    let began = Instant::now();
    for task in tasks {
        task.await??;
    }
    Ok((clients * each) as f64 / began.elapsed().as_secs_f64())
}

/// Lines a second through `COPY … (FORMAT binary)` into `table` on one connection, `batch` lines a transaction.
///
/// # Errors
/// The database's.
pub(super) async fn copied_lines(client: &Client, table: &str, lines: &[Line], batch: usize) -> Result<f64, Failure> {
    let copy = client.prepare(&format!("COPY {table} FROM STDIN (FORMAT binary)")).await?;
    let types = [Type::UUID, Type::INT8, Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT];
    let job_id = Uuid::now_v7();
    let began = Instant::now();
    for lines in lines.chunks(batch) {
        let sink = client.copy_in(&copy).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
        for line in lines {
            writer.as_mut().write(&[&job_id, &line.seq, &line.ts, &"stdout", &line.payload]).await?;
        }
        writer.finish().await?;
    }
    Ok(lines.len() as f64 / began.elapsed().as_secs_f64())
}
