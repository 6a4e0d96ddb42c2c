//! What is wrong in the fleet for a while: what is so now, by the ledger, and what was so at the last look.

use super::json::Json;
use super::notices;
use super::statement::statement;
use crate::notify::condition::{Changes, Found, Key, Known};
use crate::notify::{Event, Outbox};
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use uuid::Uuid;

#[derive(QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = Text)]
    event: String,
    #[diesel(sql_type = SqlUuid)]
    subject: Uuid,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Timestamptz)]
    since: Timestamp,
    #[diesel(sql_type = Jsonb)]
    marks: Json<Vec<String>>,
    #[diesel(sql_type = Bool)]
    is_watched: bool,
}

/// What was wrong at the last look.
///
/// # Errors
/// The database's.
pub async fn known(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Known>> {
    let query = statement(
        "SELECT its.*, CASE event
             WHEN 'agent.lost' THEN hosts.decommissioned_at IS NULL AND hosts.online
             WHEN 'backup.overdue' THEN hosts.decommissioned_at IS NULL AND groups.overdue_at IS NOT NULL
             WHEN 'maintenance.overdue' THEN due.overdue_at IS NOT NULL
             ELSE repositories.id IS NOT NULL END IS TRUE AS is_watched
         FROM conditions its
             LEFT JOIN hosts ON hosts.id = its.subject
             LEFT JOIN source_groups groups ON groups.host_id = its.subject AND groups.name = its.name
             LEFT JOIN repositories ON repositories.id = its.subject
             LEFT JOIN maintenance due ON due.repository_id = its.subject AND due.kind = its.name",
    );
    let rows: Vec<KnownRow> = query.load(connection).await?;
    let of = |row: KnownRow| {
        let KnownRow { event, subject, name, since, marks: Json(marks), is_watched } = row;
        // One that this version does not know is another's, and stays.
        Some(Known { key: Key { event: Event::of(&event)?, subject, name }, since, marks, is_watched })
    };
    Ok(rows.into_iter().filter_map(of).collect())
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = Text)]
    event: String,
    #[diesel(sql_type = SqlUuid)]
    subject: Uuid,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Timestamptz)]
    since: Timestamp,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_success_at: Option<Timestamp>,
    #[diesel(sql_type = Nullable<BigInt>)]
    within_seconds: Option<i64>,
}

impl FoundRow {
    fn into_found(self) -> Option<Found> {
        let Self { event, subject, name, since, last_success_at, within_seconds } = self;
        let event = Event::of(&event)?;
        let mut data = Map::new();
        if event == Event::AgentLost {
            data.insert("last_seen_at".to_owned(), json!(since));
        } else {
            data.insert("last_success_at".to_owned(), json!(last_success_at));
            data.insert("within_seconds".to_owned(), json!(within_seconds));
        }
        Some(Found { key: Key { event, subject, name }, since, marks: Vec::new(), data })
    }
}

/// What is overdue at `now`, and which agents were not heard of since `silent_since`.
///
/// # Errors
/// The database's.
pub async fn found(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
    silent_since: Timestamp,
) -> QueryResult<Vec<Found>> {
    let query = statement(
        "WITH asked AS (SELECT $1 AS now, $2 AS silent_since)
         SELECT 'backup.overdue' AS event, host_id AS subject, name, overdue_at AS since, last_success_at,
             success_within_seconds AS within_seconds
         FROM asked JOIN source_groups ON overdue_at IS NOT NULL AND overdue_at <= asked.now
         UNION ALL
         SELECT 'maintenance.overdue', repository_id, kind, overdue_at, last_success_at, 2 * interval_seconds
         FROM asked JOIN maintenance ON overdue_at IS NOT NULL AND overdue_at <= asked.now
         UNION ALL
         SELECT 'agent.lost', id, '', last_seen_at, NULL, NULL
         FROM asked JOIN hosts ON NOT online AND decommissioned_at IS NULL AND last_seen_at < asked.silent_since",
    );
    let query = query.bind::<Timestamptz, _>(now).bind::<Timestamptz, _>(silent_since);
    let rows: Vec<FoundRow> = query.load(connection).await?;
    Ok(rows.into_iter().filter_map(FoundRow::into_found).collect())
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Repositories that may not be healthy at `now`: none that is not is left out.
///
/// # Errors
/// The database's.
pub async fn doubtful_repositories(connection: &mut AsyncPgConnection, now: Timestamp) -> QueryResult<Vec<Uuid>> {
    let query = statement(
        "SELECT repository_id AS id FROM maintenance WHERE overdue_at IS NOT NULL AND overdue_at <= $1
         UNION SELECT repository_id FROM stale_locks
         UNION SELECT repository_id FROM repository_stats WHERE field = 'last_check_status' AND value <> '\"ok\"'
         UNION SELECT repositories.id FROM repositories JOIN hosts ON hosts.id = runner_host_id WHERE NOT hosts.online",
    );
    let rows: Vec<Id> = query.bind::<Timestamptz, _>(now).load(connection).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Notes what is different, with what is to be told of it.
#[derive(Clone, Debug)]
pub struct Note {
    /// What is different.
    pub changes: Changes,
    /// Who wants to know.
    pub outbox: Arc<Outbox>,
}

impl Write for Note {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let Changes { held, over, notices } = &self.changes;
        let gone = statement(
            "DELETE FROM conditions USING unnest($1, $2, $3) AS gone (event, subject, name)
             WHERE conditions.event = gone.event AND conditions.subject = gone.subject AND conditions.name = gone.name",
        );
        gone.bind::<Array<Text>, _>(over.iter().map(|key| key.event.as_str()).collect::<Vec<_>>())
            .bind::<Array<SqlUuid>, _>(over.iter().map(|key| key.subject).collect::<Vec<_>>())
            .bind::<Array<Text>, _>(over.iter().map(|key| key.name.as_str()).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        let news = statement(
            "INSERT INTO conditions (event, subject, name, since, marks) SELECT * FROM unnest($1, $2, $3, $4, $5)
             ON CONFLICT (event, subject, name) DO UPDATE SET marks = excluded.marks",
        );
        news.bind::<Array<Text>, _>(held.iter().map(|known| known.key.event.as_str()).collect::<Vec<_>>())
            .bind::<Array<SqlUuid>, _>(held.iter().map(|known| known.key.subject).collect::<Vec<_>>())
            .bind::<Array<Text>, _>(held.iter().map(|known| known.key.name.as_str()).collect::<Vec<_>>())
            .bind::<Array<Timestamptz>, _>(held.iter().map(|known| known.since).collect::<Vec<_>>())
            .bind::<Array<Jsonb>, _>(held.iter().map(|known| Json(known.marks.clone())).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        let wanted: Vec<_> = notices.iter().filter(|notice| self.outbox.wants(notice.event)).cloned().collect();
        notices::write(connection, &wanted).await
    }
}

/// The `marks` and `data` of a repository that is not healthy.
pub fn of_repository(repository_id: Uuid, marks: Vec<String>, problems: Value, now: Timestamp) -> Found {
    let key = Key { event: Event::RepositoryUnhealthy, subject: repository_id, name: String::new() };
    Found { key, since: now, marks, data: Map::from_iter([("problems".to_owned(), problems)]) }
}
