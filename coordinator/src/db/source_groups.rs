//! Source groups: what a host backs up under one name, and how long that is kept.

use super::json::Json;
use super::schedules;
use super::schema::{hosts, schedules as of_schedules, source_groups};
use crate::persistence::Write;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{RetentionPolicy, Timestamp};
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

/// A source group as it stands in its row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = source_groups, treat_none_as_null = true)]
#[allow(missing_docs, reason = "the columns; the names are the REST API's")]
pub struct SourceGroup {
    pub host_id: Uuid,
    pub name: String,
    pub includes: Json<Vec<String>>,
    pub excludes: Json<Vec<String>>,
    pub retention: Option<Json<RetentionPolicy>>,
    pub retry_max: i64,
    pub retry_backoff_seconds: i64,
    pub pre_hook: Option<String>,
    pub post_hook: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub rpo_seconds: Option<i64>,
}

/// One source group.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, host_id: Uuid, name: &str) -> QueryResult<Option<SourceGroup>> {
    source_groups::table.find((host_id, name)).select(SourceGroup::as_select()).first(connection).await.optional()
}

/// The hosts that have a source group of this name.
///
/// # Errors
/// The database's.
pub async fn hosts_with(connection: &mut AsyncPgConnection, name: &str) -> QueryResult<Vec<Uuid>> {
    source_groups::table.filter(source_groups::name.eq(name)).select(source_groups::host_id).load(connection).await
}

/// At most `limit` source groups of a host, by name, from behind the name `after`.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    host_id: Uuid,
    after: Option<&str>,
    limit: i64,
) -> QueryResult<Vec<SourceGroup>> {
    let mut query =
        source_groups::table.filter(source_groups::host_id.eq(host_id)).select(SourceGroup::as_select()).into_boxed();
    if let Some(name) = after {
        query = query.filter(source_groups::name.gt(name));
    }
    query.order(source_groups::name).limit(limit).load(connection).await
}

/// The source groups of these hosts; none asks nothing.
///
/// # Errors
/// The database's.
pub async fn of_hosts(connection: &mut AsyncPgConnection, hosts: &[Uuid]) -> QueryResult<Vec<SourceGroup>> {
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    let of_hosts = source_groups::table.filter(source_groups::host_id.eq_any(hosts));
    of_hosts.select(SourceGroup::as_select()).load(connection).await
}

/// What came of a [`Put`].
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// There was none of that name.
    Created(SourceGroup),
    /// It took the place of another.
    Replaced(SourceGroup),
    /// There is one of that name, which was to be left alone.
    Taken,
    /// There is no such host.
    NoHost,
}

/// Stores a source group whole.
#[derive(Clone, Debug)]
pub struct Put {
    /// The group; when it replaces another, that one's `created_at` stays.
    pub group: SourceGroup,
    /// Whether it may take the place of another.
    pub replace: bool,
}

impl Write for Put {
    type Output = Stored;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let Self { group, replace } = self;
        let host = hosts::table.find(group.host_id).filter(hosts::decommissioned_at.is_null()).select(hosts::id);
        if host.first::<Uuid>(connection).await.optional()?.is_none() {
            return Ok(Stored::NoHost);
        }
        let Some(before) = find(connection, group.host_id, &group.name).await? else {
            let row = diesel::insert_into(source_groups::table).values(group).returning(SourceGroup::as_returning());
            let row = row.get_result(connection).await?;
            schedules::expect_success(connection, &[group.host_id]).await?;
            return Ok(Stored::Created(row));
        };
        // A repeated write finds its own row.
        let own = before.created_at == group.created_at;
        if !replace && !own {
            return Ok(Stored::Taken);
        }
        let row = SourceGroup { created_at: before.created_at, ..group.clone() };
        let differs = row != SourceGroup { updated_at: row.updated_at, ..before };
        let row = diesel::update(source_groups::table.find((row.host_id, row.name.clone())))
            .set(row)
            .returning(SourceGroup::as_returning())
            .get_result(connection)
            .await?;
        if differs && is_scheduled(connection, group.host_id, &row.name).await? {
            schedules::changed(connection, group.host_id).await?;
        } else {
            schedules::expect_success(connection, &[group.host_id]).await?;
        }
        Ok(if own { Stored::Created(row) } else { Stored::Replaced(row) })
    }

    fn is_change(stored: &Stored) -> bool {
        matches!(stored, Stored::Created(_) | Stored::Replaced(_))
    }
}

/// Whether a schedule of the host has the group.
async fn is_scheduled(connection: &mut AsyncPgConnection, host_id: Uuid, name: &str) -> QueryResult<bool> {
    let has_it = of_schedules::source_groups.contains(Json(vec![name.to_owned()]));
    let of_host = of_schedules::host_id.eq(host_id).and(of_schedules::deleted_at.is_null());
    diesel::select(diesel::dsl::exists(of_schedules::table.filter(of_host.and(has_it)))).get_result(connection).await
}

/// What came of a [`Delete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// There was none.
    NotFound,
    /// A schedule has it.
    Scheduled,
}

/// Deletes a source group. Snapshots that were made of it stay.
#[derive(Debug)]
pub struct Delete {
    host_id: Uuid,
    name: String,
    /// Set once the row was seen, so that a repeated write says what the first one said.
    seen: AtomicBool,
}

impl Delete {
    /// Deletes the group `name` of a host.
    pub fn new(host_id: Uuid, name: String) -> Self {
        Self { host_id, name, seen: AtomicBool::new(false) }
    }
}

impl Write for Delete {
    type Output = Deleted;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        if is_scheduled(connection, self.host_id, &self.name).await? {
            return Ok(Deleted::Scheduled);
        }
        let row = source_groups::table.find((self.host_id, &self.name));
        let gone = diesel::delete(row).execute(connection).await? > 0;
        let gone = self.seen.fetch_or(gone, Ordering::Relaxed) || gone;
        Ok(if gone { Deleted::Gone } else { Deleted::NotFound })
    }

    fn is_change(deleted: &Deleted) -> bool {
        *deleted == Deleted::Gone
    }
}
