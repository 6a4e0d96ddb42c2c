//! Maintenance of repositories: when what is due, and who may do it.

use super::runs::expect_all;
use super::schema::{maintenance, repositories};
use crate::maintenance::expected;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// When one kind is due, as it stands in its row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = maintenance, treat_none_as_null = true)]
#[allow(missing_docs, reason = "the columns; the migration says what they mean")]
pub struct Entry {
    pub repository_id: Uuid,
    pub kind: String,
    pub cron: String,
    pub timezone: String,
    pub enabled: bool,
    pub subset: Option<String>,
    pub interval_seconds: i64,
    pub next_due_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
    pub last_subset: Option<String>,
    pub overdue_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The maintenance of these repositories.
///
/// # Errors
/// The database's.
pub async fn of_repositories(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<Vec<Entry>> {
    maintenance::table
        .filter(maintenance::repository_id.eq_any(ids))
        .order((maintenance::repository_id, maintenance::kind))
        .select(Entry::as_select())
        .load(connection)
        .await
}

/// At most `limit` entries that have something due by `now`, the longest due first.
///
/// # Errors
/// The database's.
pub async fn due(connection: &mut AsyncPgConnection, now: Timestamp, limit: i64) -> QueryResult<Vec<Entry>> {
    maintenance::table
        .filter(maintenance::next_due_at.le(now))
        .order(maintenance::next_due_at)
        .limit(limit)
        .select(Entry::as_select())
        .load(connection)
        .await
}

/// All entries that have something due: three a repository at most.
///
/// # Errors
/// The database's.
pub async fn timetables(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Entry>> {
    maintenance::table
        .filter(maintenance::next_due_at.is_not_null())
        .order((maintenance::repository_id, maintenance::kind))
        .select(Entry::as_select())
        .load(connection)
        .await
}

/// Who may maintain a repository, and how much a forget may delete.
#[derive(Clone, Copy, Debug, PartialEq, AsChangeset)]
#[diesel(table_name = repositories, treat_none_as_null = true)]
#[allow(missing_docs, reason = "the columns; the migration says what they mean")]
pub struct Rules {
    pub runner_host_id: Option<Uuid>,
    pub forget_max_snapshots: Option<i64>,
    pub forget_max_share: Option<f64>,
}

/// What came of a [`Put`].
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// It is stored; the hosts that use the repository.
    Done(Vec<Uuid>),
    /// There is no such repository.
    NotFound,
    /// The runner is no host of the repository.
    NoRunner,
}

/// Stores the maintenance of a repository whole.
#[derive(Clone, Debug)]
pub struct Put {
    /// The repository.
    pub repository_id: Uuid,
    /// Its entries, one a kind; what the last runs came to stays.
    pub entries: Vec<Entry>,
    /// Who may do it.
    pub rules: Rules,
    /// Now.
    pub at: Timestamp,
}

impl Write for Put {
    type Output = Stored;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Stored> {
        let id = self.repository_id;
        let found = repositories::table.find(id).select(repositories::id).first::<Uuid>(connection).await.optional()?;
        if found.is_none() {
            return Ok(Stored::NotFound);
        }
        let using = super::hosts::using(connection, id).await?;
        if self.rules.runner_host_id.is_some_and(|runner| !using.contains(&runner)) {
            return Ok(Stored::NoRunner);
        }
        let before = of_repositories(connection, &[id]).await?;
        for entry in before.iter().filter(|entry| entry.updated_at < self.at) {
            // What was due until now, which the ticker may not have come to.
            let (rows, _) = expected(entry, self.at, usize::MAX);
            expect_all(connection, &rows).await?;
        }
        diesel::delete(maintenance::table.filter(maintenance::repository_id.eq(id))).execute(connection).await?;
        for entry in &self.entries {
            let mut row = entry.clone();
            if let Some(before) = before.iter().find(|before| before.kind == entry.kind) {
                row.created_at = before.created_at;
                row.last_success_at = before.last_success_at;
                row.last_subset.clone_from(&before.last_subset);
            }
            let since = row.last_success_at.unwrap_or(row.created_at).min(self.at);
            row.overdue_at =
                row.enabled.then(|| since + chrono::TimeDelta::seconds(row.interval_seconds.saturating_mul(2)));
            diesel::insert_into(maintenance::table).values(&row).execute(connection).await?;
        }
        diesel::update(repositories::table.find(id)).set(self.rules).execute(connection).await?;
        Ok(Stored::Done(using))
    }

    fn is_change(stored: &Stored) -> bool {
        matches!(stored, Stored::Done(_))
    }
}

/// Whether a host is the runner of a repository other than `stays`. Without it any host could maintain that, so it has to be
/// replaced before it goes.
///
/// # Errors
/// The database's.
pub async fn is_runner(connection: &mut AsyncPgConnection, host_id: Uuid, stays: Option<Uuid>) -> QueryResult<bool> {
    let of_host = repositories::table.filter(repositories::runner_host_id.eq(host_id)).select(repositories::id);
    let found: Vec<Uuid> = of_host.load(connection).await?;
    Ok(found.into_iter().any(|id| Some(id) != stays))
}
