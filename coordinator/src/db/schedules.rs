//! Schedules: when a host's agent backs up which of its source groups. A deleted one stays in its row, for an agent that
//! has not heard of it may still fire it.

use super::json::Json;
use super::lookup::Source;
use super::runs::expect_all;
use super::schema::{hosts, schedules, source_groups};
use super::statement::statement;
use crate::expected;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{Array, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Schedules that a host may have: all of them go out in one message.
pub const MOST_OF_A_HOST: i64 = 200;

/// A schedule as it stands in its row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schedules, treat_none_as_null = true)]
#[allow(missing_docs, reason = "the columns; the names are the REST API's, and the migration says what they mean")]
pub struct Schedule {
    pub id: Uuid,
    pub host_id: Uuid,
    pub cron: String,
    pub timezone: String,
    pub enabled: bool,
    pub source_groups: Json<Vec<String>>,
    pub catch_up_seconds: i64,
    pub bandwidth_up_kbps: Option<i64>,
    pub bandwidth_down_kbps: Option<i64>,
    pub interval_seconds: i64,
    pub version: i64,
    pub next_due_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub deleted_at: Option<Timestamp>,
    pub name: Option<String>,
}

/// One schedule of a host.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, host_id: Uuid, id: Uuid) -> QueryResult<Option<Schedule>> {
    let of_host = schedules::host_id.eq(host_id).and(schedules::deleted_at.is_null());
    schedules::table.find(id).filter(of_host).select(Schedule::as_select()).first(connection).await.optional()
}

/// At most `limit` schedules of a host, oldest first, from behind `after`.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    host_id: Uuid,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> QueryResult<Vec<Schedule>> {
    let of_host = schedules::host_id.eq(host_id).and(schedules::deleted_at.is_null());
    let mut query = schedules::table.filter(of_host).select(Schedule::as_select()).into_boxed();
    if let Some((created_at, id)) = after {
        let later = schedules::created_at.eq(created_at).and(schedules::id.gt(id));
        query = query.filter(schedules::created_at.gt(created_at).or(later));
    }
    query.order((schedules::created_at, schedules::id)).limit(limit).load(connection).await
}

/// All schedules of these hosts, oldest first.
///
/// # Errors
/// The database's.
pub async fn of_hosts(connection: &mut AsyncPgConnection, hosts: &[Uuid]) -> QueryResult<Vec<Schedule>> {
    schedules::table
        .filter(schedules::host_id.eq_any(hosts).and(schedules::deleted_at.is_null()))
        .order((schedules::created_at, schedules::id))
        .select(Schedule::as_select())
        .load(connection)
        .await
}

/// At most `limit` schedules that have something due by `now`, the longest due first.
///
/// # Errors
/// The database's.
pub async fn due(connection: &mut AsyncPgConnection, now: Timestamp, limit: i64) -> QueryResult<Vec<Schedule>> {
    schedules::table
        .filter(schedules::next_due_at.le(now))
        .order(schedules::next_due_at)
        .limit(limit)
        .select(Schedule::as_select())
        .load(connection)
        .await
}

/// At most `limit` schedules that have something due, by their ids, from behind `after`.
///
/// # Errors
/// The database's.
pub async fn timetables(connection: &mut AsyncPgConnection, after: Uuid, limit: i64) -> QueryResult<Vec<Schedule>> {
    schedules::table
        .filter(schedules::id.gt(after).and(schedules::next_due_at.is_not_null()))
        .order(schedules::id)
        .limit(limit)
        .select(Schedule::as_select())
        .load(connection)
        .await
}

/// Schedules by their ids, deleted ones too.
#[derive(Debug)]
pub struct ById;

impl Source for ById {
    type Key = Uuid;
    type Value = Arc<Schedule>;

    async fn find(mut connection: &AsyncPgConnection, keys: &[Uuid]) -> QueryResult<HashMap<Uuid, Arc<Schedule>>> {
        let rows: Vec<Schedule> = schedules::table
            .filter(schedules::id.eq_any(keys))
            .select(Schedule::as_select())
            .load(&mut connection)
            .await?;
        Ok(rows.into_iter().map(|row| (row.id, Arc::new(row))).collect())
    }
}

/// The schedules of a host have changed, or what they are made of: raises their version, and computes anew within how
/// long its groups' backups must succeed.
///
/// # Errors
/// The database's.
pub async fn changed(connection: &mut AsyncPgConnection, host_id: Uuid) -> QueryResult<i64> {
    let version: i64 = diesel::update(hosts::table.find(host_id))
        .set(hosts::schedule_version.eq(hosts::schedule_version + 1))
        .returning(hosts::schedule_version)
        .get_result(connection)
        .await?;
    expect_success(connection, &[host_id]).await?;
    Ok(version)
}

/// A pause has begun or ended, which is part of what these hosts' agents are told: raises the version of their schedules.
///
/// # Errors
/// The database's.
pub async fn raise_versions(connection: &mut AsyncPgConnection, hosts: &[Uuid]) -> QueryResult<()> {
    diesel::update(hosts::table.filter(hosts::id.eq_any(hosts)))
        .set(hosts::schedule_version.eq(hosts::schedule_version + 1))
        .execute(connection)
        .await?;
    Ok(())
}

/// Computes within how long the backups of these hosts' groups must succeed, and from when on they are overdue. What was
/// noted by a clock that was ahead counts from now.
///
/// # Errors
/// The database's.
pub async fn expect_success(connection: &mut AsyncPgConnection, hosts: &[Uuid]) -> QueryResult<()> {
    let query = statement(
        "WITH wanted AS (
             SELECT g.host_id, g.name, coalesce(g.rpo_seconds, 2 * min(s.interval_seconds)) AS seconds,
                 least(coalesce(g.last_success_at, min(s.created_at), g.created_at), now()) AS since
             FROM source_groups g LEFT JOIN schedules s ON s.host_id = g.host_id AND s.deleted_at IS NULL
                 AND s.enabled AND s.source_groups @> to_jsonb(g.name)
             WHERE g.host_id = ANY ($1) GROUP BY g.host_id, g.name)
         UPDATE source_groups g
         SET success_within_seconds = wanted.seconds, overdue_at = wanted.since + wanted.seconds * interval '1 second'
         FROM wanted WHERE g.host_id = wanted.host_id AND g.name = wanted.name",
    );
    query.bind::<Array<SqlUuid>, _>(hosts).execute(connection).await?;
    Ok(())
}

/// Ends all schedules of a host, which is taken out of service.
///
/// # Errors
/// The database's.
pub async fn end_all(connection: &mut AsyncPgConnection, host_id: Uuid, at: Timestamp) -> QueryResult<()> {
    let of_host = schedules::host_id.eq(host_id).and(schedules::deleted_at.is_null());
    let gone = (schedules::deleted_at.eq(at), schedules::next_due_at.eq(None::<Timestamp>));
    diesel::update(schedules::table.filter(of_host)).set(gone).execute(connection).await?;
    diesel::update(source_groups::table.filter(source_groups::host_id.eq(host_id)))
        .set((source_groups::overdue_at.eq(None::<Timestamp>), source_groups::success_within_seconds.eq(None::<i64>)))
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes what a schedule had due until it is changed, which the ticker may not have come to.
async fn expect_until(connection: &mut AsyncPgConnection, before: &Schedule, until: Timestamp) -> QueryResult<()> {
    let (rows, _) = expected::of(before, until, usize::MAX);
    expect_all(connection, &rows).await
}

/// What came of a [`Put`].
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// It is stored like this.
    Done(Box<Schedule>),
    /// There is no such host, or no such schedule of it.
    NotFound,
    /// The host has no source groups of these names.
    NoGroups(Vec<String>),
    /// The host has as many as it may have.
    TooMany,
}

/// Stores a schedule whole.
#[derive(Clone, Debug)]
pub struct Put {
    /// The schedule; its version is found out.
    pub schedule: Schedule,
    /// Whether it takes the place of one that is there, whose `created_at` stays.
    pub replace: bool,
}

impl Write for Put {
    type Output = Stored;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Stored> {
        let Schedule { id, host_id, ref source_groups, .. } = self.schedule;
        let in_service = hosts::table.find(host_id).filter(hosts::decommissioned_at.is_null()).select(hosts::id);
        if in_service.first::<Uuid>(connection).await.optional()?.is_none() {
            return Ok(Stored::NotFound);
        }
        let known: Vec<String> = source_groups::table
            .filter(source_groups::host_id.eq(host_id).and(source_groups::name.eq_any(&source_groups.0)))
            .select(source_groups::name)
            .load(connection)
            .await?;
        let unknown: Vec<String> = source_groups.0.iter().filter(|name| !known.contains(name)).cloned().collect();
        if !unknown.is_empty() {
            return Ok(Stored::NoGroups(unknown));
        }
        let before = find(connection, host_id, id).await?;
        let mut row = self.schedule.clone();
        match before {
            None if self.replace => return Ok(Stored::NotFound),
            None => {
                let of_host = schedules::host_id.eq(host_id).and(schedules::deleted_at.is_null());
                let count: i64 = schedules::table.filter(of_host).count().get_result(connection).await?;
                if count >= MOST_OF_A_HOST {
                    return Ok(Stored::TooMany);
                }
            }
            // A repeated write: it is done.
            Some(before) if !self.replace || before.updated_at == row.updated_at => {
                return Ok(Stored::Done(Box::new(before)));
            }
            Some(before) => {
                row.created_at = before.created_at;
                row.name.clone_from(&before.name);
                expect_until(connection, &before, row.updated_at).await?;
            }
        }
        diesel::insert_into(schedules::table)
            .values(&row)
            .on_conflict(schedules::id)
            .do_update()
            .set(&row)
            .execute(connection)
            .await?;
        row.version = changed(connection, host_id).await?;
        diesel::update(schedules::table.find(id)).set(schedules::version.eq(row.version)).execute(connection).await?;
        Ok(Stored::Done(Box::new(row)))
    }

    fn is_change(stored: &Stored) -> bool {
        matches!(stored, Stored::Done(_))
    }
}

/// Deletes a schedule. What is in the ledger of it stays.
#[derive(Clone, Debug)]
pub struct Delete {
    /// Whose.
    pub host_id: Uuid,
    /// Which.
    pub id: Uuid,
    /// Now.
    pub at: Timestamp,
}

impl Write for Delete {
    /// Whether there was one.
    type Output = bool;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<bool> {
        let row = schedules::table.find(self.id).filter(schedules::host_id.eq(self.host_id));
        let deleted_at: Option<Option<Timestamp>> =
            row.select(schedules::deleted_at).first(connection).await.optional()?;
        match deleted_at {
            None => Ok(false),
            // A repeated write says what the first one said.
            Some(Some(at)) => Ok(at == self.at),
            Some(None) => {
                let gone = (schedules::deleted_at.eq(self.at), schedules::next_due_at.eq(None::<Timestamp>));
                diesel::update(row).set(gone).execute(connection).await?;
                changed(connection, self.host_id).await?;
                Ok(true)
            }
        }
    }

    fn is_change(gone: &bool) -> bool {
        *gone
    }
}
