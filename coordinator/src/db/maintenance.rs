//! Maintenance of repositories: when what is due, and who may do it.

use super::runs::{Ending, Outcome, Run, expect_all};
use super::schema::{maintenance, repositories};
use super::statement::statement;
use crate::maintenance::expected;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
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

/// Notes what maintenance is due: makes rows, and moves entries on to what is due next.
#[derive(Clone, Debug)]
pub struct Expect {
    /// What is due. One that is there already is left as it is.
    pub rows: Vec<Run>,
    /// (repository, kind, what was due next, what is due next after the rows).
    pub moved: Vec<(Uuid, String, Timestamp, Option<Timestamp>)>,
}

impl Write for Expect {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        expect_all(connection, &self.rows).await?;
        // One that was changed meanwhile has another next time.
        let query = statement(
            "UPDATE maintenance SET next_due_at = moved.next FROM unnest($1, $2, $3, $4) AS moved (id, kind, last, next)
             WHERE maintenance.repository_id = moved.id AND maintenance.kind = moved.kind
                 AND maintenance.next_due_at = moved.last",
        );
        query
            .bind::<Array<SqlUuid>, _>(self.moved.iter().map(|moved| moved.0).collect::<Vec<_>>())
            .bind::<Array<Text>, _>(self.moved.iter().map(|moved| moved.1.as_str()).collect::<Vec<_>>())
            .bind::<Array<Timestamptz>, _>(self.moved.iter().map(|moved| moved.2).collect::<Vec<_>>())
            .bind::<Array<Nullable<Timestamptz>>, _>(self.moved.iter().map(|moved| moved.3).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }
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
            let since = row.last_success_at.unwrap_or(row.created_at);
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

/// Notes that maintenance has ended. What covers the whole repository counts as a success; of what each host did for itself,
/// the last part does. What a check of a run has read is passed on even if it found errors: the next one reads on.
///
/// # Errors
/// The database's.
pub(super) async fn note_endings(mut connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
    fn column<'a, T>(endings: &[&'a Ending], field: impl Fn(&'a Ending) -> T) -> Vec<T> {
        endings.iter().map(|ending| field(ending)).collect()
    }
    if endings.is_empty() {
        return Ok(());
    }
    let query = statement(
        "WITH ended AS (
             SELECT ended.*, ended.succeeded AND (ended.whole OR (runs.host_id IS NOT NULL AND NOT EXISTS (
                 SELECT FROM runs AS part WHERE part.repository_id = ended.repository_id AND part.schedule_id IS NULL
                     AND part.due_at = runs.due_at AND part.kind = ended.kind AND part.host_id IS NOT NULL
                     AND part.outcome <> 'succeeded'))) AS done
             FROM unnest($1, $2, $3, $4, $5, $6, $7)
                 AS ended (repository_id, kind, run_id, subset, succeeded, whole, at)
             LEFT JOIN runs ON runs.id = ended.run_id
         )
         UPDATE maintenance SET last_subset = coalesce(latest.subset, maintenance.last_subset),
             last_success_at = CASE WHEN latest.done THEN latest.at ELSE maintenance.last_success_at END,
             overdue_at = CASE WHEN latest.done AND maintenance.enabled
                 THEN latest.at + 2 * maintenance.interval_seconds * interval '1 second' ELSE maintenance.overdue_at END
         FROM (SELECT DISTINCT ON (repository_id, kind) * FROM ended ORDER BY repository_id, kind, done DESC, at DESC)
             AS latest
         WHERE maintenance.repository_id = latest.repository_id AND maintenance.kind = latest.kind",
    );
    let succeeded = |ending: &Ending| matches!(ending.outcome, Outcome::Succeeded | Outcome::Partial);
    // What an operator has checked says nothing of what is next.
    let subset = |ending: &'_ Ending| ending.subset.clone().filter(|_| ending.run_id.is_some());
    query
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.repository_id))
        .bind::<Array<Text>, _>(column(endings, |ending| ending.kind.as_str()))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(endings, |ending| ending.run_id))
        .bind::<Array<Nullable<Text>>, _>(column(endings, subset))
        .bind::<Array<Bool>, _>(column(endings, succeeded))
        .bind::<Array<Bool>, _>(column(endings, |ending| ending.whole))
        .bind::<Array<Timestamptz>, _>(column(endings, |ending| ending.at))
        .execute(&mut connection)
        .await?;
    Ok(())
}
