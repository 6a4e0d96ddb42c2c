//! Operations: one wish for many hosts, made with all its jobs in one transaction.

use super::hosts;
use super::jobs::{self, Beginning, JobState, NewJob};
use super::json::Json;
use super::newest::{Place, PlaceRow, newest};
use super::schema::{jobs as job_table, operation_skipped, operations};
use super::statement::{Statement, statement};
use crate::persistence::Write;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Status, Timestamp};
use futures_util::future::{try_join, try_join_all};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Jobs in one statement.
const JOBS_AT_ONCE: usize = 1_000;
/// Operations that are deleted at once: few, for each may have thousands of members that got no job.
const FORGOTTEN_AT_ONCE: i64 = 10;
/// Why a member that was planned got no job.
const CHANGED: &str = "the host was removed or got another repository meanwhile";

/// What was asked for, as it is kept with the operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the words of the REST API")]
pub struct Asked {
    pub selector: AskedSelector,
    /// One job for each `host`, or for each `repository`.
    pub per: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_group: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_up_kbps: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_down_kbps: Option<i64>,
    /// Of a retry: which outcomes are tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<String>,
}

/// Which hosts were asked for. Ids are counted only: there may be thousands, and the jobs tell whom they hit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the words of the REST API")]
pub struct AskedSelector {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<usize>,
}

/// An operation, whole. What its open jobs are at is not here.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = operations)]
#[allow(missing_docs, reason = "the columns; the migration says what needs saying")]
pub struct Operation {
    pub id: Uuid,
    pub kind: String,
    pub request: Json<Asked>,
    pub retry_of: Option<Uuid>,
    pub requested_by: Option<String>,
    pub created_at: Timestamp,
    pub canaries: i64,
    pub max_parallel: Option<i64>,
    pub stop_after_failures: Option<i64>,
    pub jobs: i64,
    pub skipped: i64,
    pub cancel_requested_at: Option<Timestamp>,
    pub halted_at: Option<Timestamp>,
    pub halt_reason: Option<String>,
    pub ended_at: Option<Timestamp>,
    pub succeeded: i64,
    pub partial: i64,
    pub failed: i64,
    pub cancelled: i64,
}

/// A host that was meant and got no job.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = operation_skipped)]
pub struct Skipped {
    /// The host, or an id that is none's.
    pub host_id: Uuid,
    /// Why, for people.
    pub reason: String,
}

/// Makes an operation and all of its jobs.
#[derive(Clone, Debug)]
pub struct Make {
    /// The operation; its counts are those of what follows.
    pub operation: Operation,
    /// Its jobs, with the state of those that go out at once.
    pub jobs: Vec<Made>,
    /// Those that get none.
    pub skipped: Vec<Skipped>,
}

impl Write for Make {
    /// The operation as it stands, and its jobs that were not made, for their host has changed.
    type Output = (Operation, HashSet<Uuid>);

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        hosts::hold_in_repositories(connection).await?;
        diesel::insert_into(operations::table)
            .values(self.operation.clone())
            .on_conflict_do_nothing()
            .execute(connection)
            .await?;
        let missing = self.insert_jobs(connection).await?;
        let changed = self.jobs.iter().filter(|(new, _)| missing.contains(&new.id));
        let changed = changed.map(|(new, _)| Skipped { host_id: new.host_id, reason: CHANGED.to_owned() });
        let skipped: Vec<Skipped> = self.skipped.iter().cloned().chain(changed).collect();
        insert_skipped(connection, &self.operation, &skipped).await?;
        let mut made = self.operation.clone();
        made.jobs -= i64::try_from(missing.len()).unwrap_or(i64::MAX);
        made.skipped = i64::try_from(skipped.len()).unwrap_or(i64::MAX);
        if !missing.is_empty() {
            diesel::update(operations::table.find(made.id))
                .set((operations::jobs.eq(made.jobs), operations::skipped.eq(made.skipped)))
                .execute(connection)
                .await?;
        }
        Ok((made, missing))
    }
}

impl Make {
    /// Makes the jobs; gives those that were not made. All statements are sent before the first is answered.
    async fn insert_jobs(&self, connection: &AsyncPgConnection) -> QueryResult<HashSet<Uuid>> {
        let inserts: Vec<_> = self.jobs.chunks(JOBS_AT_ONCE).map(|some| insert_some(connection, some)).collect();
        Ok(try_join_all(inserts).await?.into_iter().flatten().collect())
    }
}

/// A job, and its state if it goes out at once.
pub type Made = (Arc<NewJob>, Option<Arc<JobState>>);

/// Makes some jobs in one statement; gives those that were not made.
async fn insert_some(connection: &AsyncPgConnection, some: &[Made]) -> QueryResult<Vec<Uuid>> {
    let new: Vec<Beginning<'_>> = some.iter().map(|(new, state)| Beginning { new, state: state.as_deref() }).collect();
    let mut ids: Vec<Uuid> = some.iter().map(|(new, _)| new.id).collect();
    let ((), present) = try_join(jobs::insert_many(connection, &new), jobs::present(connection, &ids)).await?;
    ids.retain(|id| !present.contains(id));
    Ok(ids)
}

async fn insert_skipped(
    mut connection: &AsyncPgConnection,
    operation: &Operation,
    skipped: &[Skipped],
) -> QueryResult<()> {
    if skipped.is_empty() {
        return Ok(());
    }
    let query = statement(
        "INSERT INTO operation_skipped (operation_id, created_at, host_id, reason)
         SELECT $1, $2, news.host_id, news.reason FROM unnest($3, $4) AS news (host_id, reason)
         ON CONFLICT DO NOTHING",
    );
    query
        .bind::<SqlUuid, _>(operation.id)
        .bind::<Timestamptz, _>(operation.created_at)
        .bind::<Array<SqlUuid>, _>(skipped.iter().map(|skipped| skipped.host_id).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(skipped.iter().map(|skipped| skipped.reason.as_str()).collect::<Vec<_>>())
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// How many of an operation's jobs have ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Successes, the partial ones with them.
    pub succeeded: i64,
    /// Successes that lack some files.
    pub partial: i64,
    /// Failures.
    pub failed: i64,
    /// Those that were cancelled.
    pub cancelled: i64,
}

/// What can become of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A person wants its end.
    Cancel,
    /// Too much has failed.
    Halt {
        /// What, for people.
        reason: String,
    },
    /// The last of its jobs is over.
    End(Tally),
}

/// Writes down what became of an operation. What was written first stays.
#[derive(Clone, Debug)]
pub struct SaveChange {
    /// The operation.
    pub id: Uuid,
    /// What became of it.
    pub change: Change,
    /// Now, to the microsecond.
    pub at: Timestamp,
}

/// An operation as it stands, and whether what it is to be written has changed it; `None` if there is none.
pub type Saved = Option<(Operation, bool)>;

impl Write for SaveChange {
    type Output = Saved;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let row = operations::table.find(self.id);
        let open = row.filter(operations::ended_at.is_null());
        match &self.change {
            Change::Cancel => {
                diesel::update(open.filter(operations::cancel_requested_at.is_null()))
                    .set(operations::cancel_requested_at.eq(self.at))
                    .execute(connection)
                    .await?
            }
            Change::Halt { reason } => {
                diesel::update(open.filter(operations::halted_at.is_null()))
                    .set((operations::halted_at.eq(self.at), operations::halt_reason.eq(reason)))
                    .execute(connection)
                    .await?
            }
            Change::End(Tally { succeeded, partial, failed, cancelled }) => {
                diesel::update(open)
                    .set((
                        operations::ended_at.eq(self.at),
                        operations::succeeded.eq(succeeded),
                        operations::partial.eq(partial),
                        operations::failed.eq(failed),
                        operations::cancelled.eq(cancelled),
                    ))
                    .execute(connection)
                    .await?
            }
        };
        let found = find(connection, self.id).await?;
        // A repeated write finds its own time.
        Ok(found.map(|found| {
            let changed = self.written_in(&found) == Some(self.at);
            (found, changed)
        }))
    }

    fn is_change(saved: &Saved) -> bool {
        saved.as_ref().is_some_and(|(_, changed)| *changed)
    }
}

impl SaveChange {
    /// When what it writes was written.
    fn written_in(&self, row: &Operation) -> Option<Timestamp> {
        match self.change {
            Change::Cancel => row.cancel_requested_at,
            Change::Halt { .. } => row.halted_at,
            Change::End(_) => row.ended_at,
        }
    }
}

/// Deletes some operations that are over and were made before a time. Their jobs go by their own age.
#[derive(Clone, Debug)]
pub struct Forget {
    /// The time.
    pub made_before: Timestamp,
}

impl Write for Forget {
    /// Whether there were any: there may be more.
    type Output = Option<()>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let old: Vec<Uuid> = operations::table
            .filter(operations::created_at.lt(self.made_before).and(operations::ended_at.is_not_null()))
            .order((operations::created_at, operations::id))
            .limit(FORGOTTEN_AT_ONCE)
            .select(operations::id)
            .load(connection)
            .await?;
        diesel::delete(operations::table.filter(operations::id.eq_any(&old))).execute(connection).await?;
        Ok((!old.is_empty()).then_some(()))
    }
}

/// One operation.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Operation>> {
    operations::table.find(id).select(Operation::as_select()).first(connection).await.optional()
}

/// At most `limit` operations behind `after`, newest first; with `hosts`, those that mean any of them.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    hosts: Option<&[Uuid]>,
    after: Option<Place>,
    limit: i64,
) -> QueryResult<Vec<Operation>> {
    if let Some(hosts) = hosts {
        return list_of_hosts(connection, hosts, after, limit).await;
    }
    let mut query = operations::table.select(Operation::as_select()).into_boxed();
    if let Some((created_at, id)) = after {
        // Of rows, so that the index is entered there.
        let place = sql::<Bool>("(operations.created_at, operations.id) < (").bind::<Timestamptz, _>(created_at);
        query = query.filter(place.sql(", ").bind::<SqlUuid, _>(id).sql(")"));
    }
    query.order((operations::created_at.desc(), operations::id.desc())).limit(limit).load(connection).await
}

/// The operations that mean hosts are found by what they mean these hosts with: a job that was made together with the
/// operation, or a row that says why there is none.
async fn list_of_hosts(
    connection: &mut AsyncPgConnection,
    hosts: &[Uuid],
    mut after: Option<Place>,
    limit: i64,
) -> QueryResult<Vec<Operation>> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    loop {
        let places = newest(hosts, limit, async |hosts: &[Uuid], floor| {
            let rows: Vec<PlaceRow> = places(hosts, after, floor, limit).load(connection).await?;
            Ok(rows.into_iter().map(|row| (row.created_at, row.id)).collect())
        });
        let places = places.await?;
        let ids: Vec<Uuid> = places.iter().map(|(_, id)| *id).collect();
        let rows = operations::table.filter(operations::id.eq_any(ids)).select(Operation::as_select());
        let mut rows: Vec<Operation> = rows.load(connection).await?;
        rows.sort_unstable_by_key(|row| Reverse((row.created_at, row.id)));
        found.extend(rows);
        // An operation may be gone while a job of it stays: the page is filled up from behind it.
        if places.len() < most || found.len() >= most {
            found.truncate(most);
            return Ok(found);
        }
        after = places.last().copied();
    }
}

/// The places of the newest operations that mean `hosts`, before `after` and not before `floor`.
fn places(hosts: &[Uuid], after: Option<Place>, floor: Option<Place>, limit: i64) -> Statement<'_> {
    let query = statement(
        "SELECT part.created_at, part.operation_id AS id
         FROM unnest($1) AS seen (host_id),
             LATERAL (
                 (SELECT one.created_at, one.operation_id FROM jobs AS one
                  WHERE one.host_id = seen.host_id AND one.operation_id IS NOT NULL
                      AND (one.created_at, one.operation_id) < (coalesce($2, 'infinity'), $3)
                      AND (one.created_at, one.operation_id) >= (coalesce($4, '-infinity'), $5)
                  ORDER BY one.created_at DESC, one.operation_id DESC LIMIT $6)
                 UNION ALL
                 (SELECT one.created_at, one.operation_id FROM operation_skipped AS one
                  WHERE one.host_id = seen.host_id
                      AND (one.created_at, one.operation_id) < (coalesce($7, 'infinity'), $8)
                      AND (one.created_at, one.operation_id) >= (coalesce($9, '-infinity'), $10)
                  ORDER BY one.created_at DESC, one.operation_id DESC LIMIT $11)
             ) AS part
         GROUP BY part.created_at, part.operation_id
         ORDER BY part.created_at DESC, part.operation_id DESC LIMIT $12",
    );
    let (before, id) = after.unzip();
    let (since, first) = floor.unzip();
    let mut query = query.bind::<Array<SqlUuid>, _>(hosts);
    for _ in 0..2 {
        query = query
            .bind::<Nullable<Timestamptz>, _>(before)
            .bind::<SqlUuid, _>(id.unwrap_or(Uuid::max()))
            .bind::<Nullable<Timestamptz>, _>(since)
            .bind::<SqlUuid, _>(first.unwrap_or_default())
            .bind::<BigInt, _>(limit);
    }
    query.bind::<BigInt, _>(limit)
}

/// At most `limit` of those who got no job, behind `after`, by the host's id; with `hosts`, those among them.
///
/// # Errors
/// The database's.
pub async fn skipped(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    hosts: Option<&[Uuid]>,
    after: Option<Uuid>,
    limit: i64,
) -> QueryResult<Vec<Skipped>> {
    let mut query = operation_skipped::table
        .filter(operation_skipped::operation_id.eq(id).and(operation_skipped::host_id.gt(after.unwrap_or_default())))
        .select(Skipped::as_select())
        .into_boxed();
    if let Some(hosts) = hosts {
        query = query.filter(operation_skipped::host_id.eq_any(hosts));
    }
    query.order(operation_skipped::host_id).limit(limit).load(connection).await
}

/// How those of an operation's members stand that somebody may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of the REST API")]
pub struct Part {
    pub jobs: i64,
    pub skipped: i64,
    pub queued: i64,
    pub running: i64,
    pub tally: Tally,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = SqlUuid)]
    operation_id: Uuid,
    /// `None`: it got no job.
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
    #[diesel(sql_type = Bool)]
    partial: bool,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How the members of operations stand that are among `hosts`. A page of operations is read for by host and time: what each host
/// has in between is little else than that.
///
/// # Errors
/// The database's.
pub async fn counts_of(
    connection: &mut AsyncPgConnection,
    of: &[Operation],
    hosts: &[Uuid],
) -> QueryResult<HashMap<Uuid, Part>> {
    let times = || of.iter().map(|operation| operation.created_at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(HashMap::new()) };
    let query = statement(
        "SELECT part.operation_id, part.status, part.partial, count(*) AS count
         FROM unnest($1) AS seen (host_id),
             LATERAL (
                 SELECT one.operation_id, one.status, one.partial FROM jobs AS one
                 WHERE one.host_id = seen.host_id AND one.operation_id IS NOT NULL
                     AND one.created_at >= $2 AND one.created_at <= $3
                 UNION ALL
                 SELECT one.operation_id, NULL, false FROM operation_skipped AS one
                 WHERE one.host_id = seen.host_id AND one.created_at >= $4 AND one.created_at <= $5
             ) AS part
         GROUP BY part.operation_id, part.status, part.partial",
    );
    let query = query
        .bind::<Array<SqlUuid>, _>(hosts)
        .bind::<Timestamptz, _>(first)
        .bind::<Timestamptz, _>(last)
        .bind::<Timestamptz, _>(first)
        .bind::<Timestamptz, _>(last);
    let mut parts: HashMap<Uuid, Part> = HashMap::new();
    for Count { operation_id, status, partial, count } in query.load(connection).await? {
        let part = parts.entry(operation_id).or_default();
        let Some(status) = status else {
            part.skipped = count;
            continue;
        };
        part.jobs += count;
        // The column's CHECK allows the five literals only.
        match status.parse().unwrap_or(Status::Failed) {
            Status::Queued => part.queued += count,
            Status::Running => part.running += count,
            Status::Succeeded => part.tally.succeeded += count,
            Status::Failed => part.tally.failed += count,
            Status::Cancelled => part.tally.cancelled += count,
        }
        part.tally.partial += if partial { count } else { 0 };
    }
    Ok(parts)
}

/// A job of an operation, as far as a retry must know it.
#[derive(Clone, Debug, Queryable)]
pub struct Ended {
    /// The job.
    pub job_id: Uuid,
    /// Its host.
    pub host_id: Uuid,
    /// Its number among the tries.
    pub attempt: i64,
}

/// The jobs of an operation that ended in one of these statuses.
///
/// # Errors
/// The database's.
pub async fn ended(connection: &mut AsyncPgConnection, id: Uuid, statuses: &[Status]) -> QueryResult<Vec<Ended>> {
    let outcomes: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
    job_table::table
        .filter(job_table::operation_id.eq(id).and(job_table::outcome.eq_any(outcomes)))
        .select((job_table::id, job_table::host_id, job_table::attempt))
        .load(connection)
        .await
}

/// How one job of an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The job.
    pub job_id: Uuid,
    /// Its status.
    pub status: Status,
    /// It succeeded, but not wholly.
    pub partial: bool,
    /// It was let go.
    pub dispatched: bool,
}

/// The operations that are not over, each with how all of its jobs stand.
///
/// # Errors
/// The database's.
pub async fn open(connection: &mut AsyncPgConnection) -> QueryResult<Vec<(Operation, Vec<Standing>)>> {
    let open: Vec<Operation> = operations::table
        .filter(operations::ended_at.is_null())
        .order(operations::id)
        .select(Operation::as_select())
        .load(connection)
        .await?;
    let ids: Vec<Uuid> = open.iter().map(|operation| operation.id).collect();
    type Row = (Option<Uuid>, Uuid, String, bool, Option<Timestamp>);
    let rows: Vec<Row> = job_table::table
        .filter(job_table::operation_id.eq_any(ids))
        .select((
            job_table::operation_id,
            job_table::id,
            job_table::status,
            job_table::partial,
            job_table::dispatched_at,
        ))
        .load(connection)
        .await?;
    let mut standings: HashMap<Uuid, Vec<Standing>> = HashMap::new();
    for (operation_id, job_id, status, partial, dispatched_at) in rows {
        // The column's CHECK allows the five literals only.
        let status = status.parse().unwrap_or(Status::Failed);
        let standing = Standing { job_id, status, partial, dispatched: dispatched_at.is_some() };
        standings.entry(operation_id.unwrap_or_default()).or_default().push(standing);
    }
    let with_jobs = |operation: Operation| {
        let jobs = standings.remove(&operation.id).unwrap_or_default();
        (operation, jobs)
    };
    Ok(open.into_iter().map(with_jobs).collect())
}
