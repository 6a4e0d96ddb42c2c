//! Gives runs to the jobs that are their next attempts.

use super::Run;
use super::rows::{INSERT, put};
use crate::db::jobs::NewJob;
use crate::db::statement::statement;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::join;
use uuid::Uuid;

/// A job's claim to be the next attempt at a run. The job is made only if it gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The run, whose row is made if there is none.
    pub run: Run,
    /// The job of the attempt before, which has failed.
    pub previous: Option<Uuid>,
}

/// Gives runs to their jobs, but none to an id that is another job's already.
///
/// # Errors
/// The database's.
pub async fn claim_many(connection: &AsyncPgConnection, claims: &[(&NewJob, &Claim)]) -> QueryResult<()> {
    if claims.is_empty() {
        return Ok(());
    }
    let mut again = connection;
    let rows: Vec<&Run> = claims.iter().map(|(_, claim)| &claim.run).collect();
    let query = statement(
        "UPDATE runs SET outcome = 'running', reason = NULL, job_id = claims.job_id, attempt = claims.attempt,
             repository_id = claims.repository_id, changed_at = claims.at
         FROM unnest($1, $2, $3, $4, $5, $6, $7)
             AS claims (run_id, job_id, host_id, attempt, repository_id, previous, at)
         WHERE runs.id = claims.run_id AND (runs.outcome IN ('expected', 'missed')
             OR (runs.outcome = 'retrying' AND runs.job_id = claims.previous)
             OR (runs.outcome = 'skipped' AND (runs.job_id = claims.job_id OR runs.attempt = 0)))
             AND EXISTS (SELECT FROM hosts WHERE hosts.id = claims.host_id AND hosts.decommissioned_at IS NULL
                 AND hosts.repository_id = claims.repository_id)
             AND NOT EXISTS (SELECT FROM jobs
                 WHERE jobs.id = claims.job_id AND jobs.run_id IS DISTINCT FROM claims.run_id)",
    );
    let claim = query
        .bind::<Array<SqlUuid>, _>(rows.iter().map(|run| run.id).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(claims.iter().map(|(job, _)| job.id).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(claims.iter().map(|(job, _)| job.host_id).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(claims.iter().map(|(job, _)| job.attempt).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(claims.iter().map(|(job, _)| job.repository_id).collect::<Vec<_>>())
        .bind::<Array<Nullable<SqlUuid>>, _>(claims.iter().map(|(_, claim)| claim.previous).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(rows.iter().map(|run| run.changed_at).collect::<Vec<_>>());
    let (made, claimed) = join(put(connection, INSERT, &rows), claim.execute(&mut again)).await;
    made?;
    claimed.map(drop)
}
