//! What has come due: rows are made of it, and what it is due by moves on.

use super::Run;
use super::rows::expect_all;
use crate::db::statement::statement;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// A timetable moves on to what is due next.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// A schedule, or a repository.
    pub id: Uuid,
    /// The kind, of a repository's maintenance.
    pub kind: Option<String>,
    /// What was due next. One that was changed meanwhile has another next time, and keeps it.
    pub last: Timestamp,
    /// What is due next from now on.
    pub next: Option<Timestamp>,
}

/// Notes what is due: makes rows, and moves timetables on.
#[derive(Clone, Debug)]
pub struct Expect {
    /// What is due. One that is there already is left as it is.
    pub rows: Vec<Run>,
    /// What is due next after the rows.
    pub moved: Vec<Moved>,
}

impl Write for Expect {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        expect_all(connection, &self.rows).await?;
        move_all(connection, &self.moved).await
    }
}

async fn move_all(connection: &mut AsyncPgConnection, moved: &[Moved]) -> QueryResult<()> {
    let (of_schedules, of_repositories): (Vec<_>, Vec<_>) = moved.iter().partition(|moved| moved.kind.is_none());
    move_on(connection, OF_SCHEDULES, &of_schedules).await?;
    move_on(connection, OF_REPOSITORIES, &of_repositories).await
}

const OF_SCHEDULES: &str = "UPDATE schedules SET next_due_at = moved.next
     FROM unnest($1, $2, $3, $4) AS moved (id, kind, last, next)
     WHERE schedules.id = moved.id AND schedules.next_due_at = moved.last";

const OF_REPOSITORIES: &str = "UPDATE maintenance SET next_due_at = moved.next
     FROM unnest($1, $2, $3, $4) AS moved (id, kind, last, next)
     WHERE maintenance.repository_id = moved.id AND maintenance.kind = moved.kind
         AND maintenance.next_due_at = moved.last";

async fn move_on(connection: &mut AsyncPgConnection, sql: &'static str, moved: &[&Moved]) -> QueryResult<()> {
    if moved.is_empty() {
        return Ok(());
    }
    statement(sql)
        .bind::<Array<SqlUuid>, _>(moved.iter().map(|moved| moved.id).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(moved.iter().map(|moved| moved.kind.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(moved.iter().map(|moved| moved.last).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>, _>(moved.iter().map(|moved| moved.next).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes that nothing came of what was due before a time; a batch of it at once.
#[derive(Clone, Copy, Debug)]
pub struct MarkMissed {
    /// What was due before this.
    pub due_before: Timestamp,
    /// Now.
    pub at: Timestamp,
    /// At most so many.
    pub most: i64,
}

impl Write for MarkMissed {
    /// How many there were.
    type Output = usize;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<usize> {
        let query = statement(
            "UPDATE runs SET outcome = 'missed', changed_at = $1,
                 reason = CASE WHEN hosts.online THEN 'its agent did not fire' ELSE 'its host was offline' END
             FROM (SELECT id, host_id FROM runs WHERE outcome = 'expected' AND schedule_id IS NOT NULL AND due_at < $2
                 ORDER BY due_at, id LIMIT $3) AS late
             LEFT JOIN hosts ON hosts.id = late.host_id
             WHERE runs.id = late.id AND runs.outcome = 'expected'",
        );
        query
            .bind::<Timestamptz, _>(self.at)
            .bind::<Timestamptz, _>(self.due_before)
            .bind::<BigInt, _>(self.most)
            .execute(connection)
            .await
    }
}

/// Puts right what a clock that was ahead has written.
#[derive(Clone, Debug)]
pub struct SetRight {
    /// Timetables that are due sooner than they say.
    pub sooner: Vec<Moved>,
    /// Now.
    pub now: Timestamp,
}

impl Write for SetRight {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        move_all(connection, &self.sooner).await?;
        // Nothing can be due, or missed, in the future. What agents gave an id they may have run by themselves.
        let gone = "DELETE FROM runs
             WHERE due_at > $1 AND job_id IS NULL AND outcome IN ('expected', 'missed', 'skipped')";
        statement(gone).bind::<Timestamptz, _>(self.now).execute(connection).await?;
        // What was given up by that clock, although it was due just before.
        let open = "UPDATE runs SET outcome = 'expected', reason = NULL, changed_at = $1
             WHERE due_at > $1 - interval '1 day' AND changed_at > $1 AND job_id IS NULL AND outcome = 'missed'";
        statement(open).bind::<Timestamptz, _>(self.now).execute(connection).await?;
        // An attempt comes as long after the failure as it was to come.
        let retry = "UPDATE runs SET retry_at = $1 + (retry_at - changed_at), changed_at = $1
             WHERE outcome = 'retrying' AND changed_at > $1";
        for sql in [retry, SUCCESSES_OF_GROUPS, SUCCESSES_OF_REPOSITORIES, PAUSES] {
            statement(sql).bind::<Timestamptz, _>(self.now).execute(connection).await?;
        }
        Ok(())
    }
}

/// When a backup has succeeded in truth is not known; that it has by now is. What is overdue later than its time after now
/// counts from a time in the future.
const SUCCESSES_OF_GROUPS: &str = "UPDATE source_groups SET
         last_success_at = CASE WHEN last_success_at > $1 THEN $1 ELSE last_success_at END,
         overdue_at = CASE WHEN overdue_at > $1 + success_within_seconds * interval '1 second'
             THEN $1 + success_within_seconds * interval '1 second' ELSE overdue_at END
     WHERE last_success_at > $1 OR overdue_at > $1 + success_within_seconds * interval '1 second'";

const SUCCESSES_OF_REPOSITORIES: &str = "UPDATE maintenance SET
         last_success_at = CASE WHEN last_success_at > $1 THEN $1 ELSE last_success_at END,
         overdue_at = CASE WHEN overdue_at > $1 + 2 * interval_seconds * interval '1 second'
             THEN $1 + 2 * interval_seconds * interval '1 second' ELSE overdue_at END
     WHERE last_success_at > $1 OR overdue_at > $1 + 2 * interval_seconds * interval '1 second'";

const PAUSES: &str = "UPDATE pauses SET since = $1 WHERE since > $1";
