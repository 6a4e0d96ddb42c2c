//! What is asked of the ledger.

use super::Run;
use crate::db::schema::{hosts, jobs, repositories, runs};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// The run that an agent may have done although it was skipped or missed, by the id that it would give the job.
///
/// # Errors
/// The database's.
pub async fn adoptable(connection: &mut AsyncPgConnection, job_id: Uuid, host_id: Uuid) -> QueryResult<Option<Run>> {
    let left = diesel::dsl::sql::<Bool>("runs.outcome IN ('missed', 'skipped')");
    let of_host = runs::job_id.eq(job_id).and(runs::host_id.eq(host_id));
    runs::table.filter(of_host.and(left)).select(Run::as_select()).first(connection).await.optional()
}

/// Whose runs a list holds.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    /// A host's: the backups of its groups, and its part of maintenance.
    Host(Uuid),
    /// A repository's maintenance.
    Repository(Uuid),
}

/// At most `limit` runs, the latest due first, from behind `after`.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    whose: Whose,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> QueryResult<Vec<Run>> {
    let mut query = runs::table.select(Run::as_select()).into_boxed();
    query = match whose {
        Whose::Host(id) => query.filter(runs::host_id.eq(id)),
        Whose::Repository(id) => query.filter(runs::repository_id.eq(id).and(runs::schedule_id.is_null())),
    };
    if let Some((due_at, id)) = after {
        let place = diesel::dsl::sql::<Bool>("(runs.due_at, runs.id) < (").bind::<Timestamptz, _>(due_at);
        query = query.filter(place.sql(", ").bind::<SqlUuid, _>(id).sql(")"));
    }
    query.order((runs::due_at.desc(), runs::id.desc())).limit(limit).load(connection).await
}

/// How many runs that were due since a time came to what.
///
/// # Errors
/// The database's.
pub async fn count_since(connection: &mut AsyncPgConnection, since: Timestamp) -> QueryResult<Vec<(String, i64)>> {
    runs::table
        .filter(runs::due_at.ge(since))
        .group_by(runs::outcome)
        .select((runs::outcome, diesel::dsl::count_star()))
        .load(connection)
        .await
}

/// Maintenance that is not over, of at most about `limit` runs: of whole repositories, from behind the repository `after`.
///
/// # Errors
/// The database's.
pub async fn open_maintenance(connection: &mut AsyncPgConnection, after: Uuid, limit: i64) -> QueryResult<Vec<Run>> {
    let open = || {
        let open = diesel::dsl::sql::<Bool>("runs.schedule_id IS NULL AND runs.outcome IN ('expected', 'running')");
        runs::table.filter(open).select(Run::as_select())
    };
    let mut found: Vec<Run> = open()
        .filter(runs::repository_id.gt(after))
        .order((runs::repository_id, runs::due_at))
        .limit(limit)
        .load(connection)
        .await?;
    // The last repository may be cut off.
    if i64::try_from(found.len()).is_ok_and(|count| count == limit) {
        let last = found.last().and_then(|run| run.repository_id);
        found.retain(|run| run.repository_id != last);
        let rest = open().filter(runs::repository_id.eq(last)).order(runs::due_at);
        found.extend(rest.load::<Run>(connection).await?);
    }
    Ok(found)
}

/// At most `limit` runs whose next attempt is to be made, the longest due first.
///
/// # Errors
/// The database's.
pub async fn to_retry(connection: &mut AsyncPgConnection, now: Timestamp, limit: i64) -> QueryResult<Vec<Run>> {
    let retrying = diesel::dsl::sql::<Bool>("runs.outcome = 'retrying'");
    runs::table
        .filter(runs::retry_at.le(now).and(retrying))
        .order((runs::retry_at, runs::id))
        .limit(limit)
        .select(Run::as_select())
        .load(connection)
        .await
}

/// Maintenance that waits for a host which is offline, although any host of its repository may do it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stranded {
    /// The run, with the job that waits.
    pub run: Run,
    /// The host's name.
    pub hostname: String,
}

/// At most `limit` of what is [`Stranded`], from behind `after` (the repository, the run).
///
/// # Errors
/// The database's.
pub async fn stranded(
    connection: &mut AsyncPgConnection,
    (repository, run): (Uuid, Uuid),
    limit: i64,
) -> QueryResult<Vec<Stranded>> {
    let running = diesel::dsl::sql::<Bool>("runs.schedule_id IS NULL AND runs.outcome = 'running'");
    let waits = jobs::dispatched_at.is_null().and(jobs::outcome.eq("open"));
    let of_any_host = runs::host_id.is_null().and(repositories::runner_host_id.is_null());
    let later = runs::repository_id.gt(repository).or(runs::repository_id.eq(repository).and(runs::id.gt(run)));
    let found: Vec<(Run, String)> = runs::table
        .inner_join(jobs::table.on(runs::job_id.eq(jobs::id.nullable())))
        .inner_join(hosts::table.on(hosts::id.eq(jobs::host_id)))
        .inner_join(repositories::table.on(repositories::id.eq(jobs::repository_id)))
        .filter(running.and(waits).and(of_any_host).and(hosts::online.eq(false)))
        .filter(runs::repository_id.ge(repository).and(later))
        .order((runs::repository_id, runs::id))
        .limit(limit)
        .select((Run::as_select(), hosts::hostname))
        .load(connection)
        .await?;
    Ok(found.into_iter().map(|(run, hostname)| Stranded { run, hostname }).collect())
}
