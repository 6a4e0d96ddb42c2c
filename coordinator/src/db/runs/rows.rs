//! Rows of the ledger: made, or changed while nothing was heard of them.

use super::Run;
use crate::db::statement::statement;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// What makes rows, up to what becomes of one that is there already.
macro_rules! insert {
    ($conflict:literal) => {
        concat!(
            "INSERT INTO runs (id, kind, host_id, source_group, schedule_id, repository_id, due_at, outcome, reason,
                 job_id, attempt, changed_at)
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) ",
            $conflict
        )
    };
}

/// Makes rows; one that is there already is left as it is.
pub(super) const INSERT: &str = insert!("DO NOTHING");

/// The same; one of which nothing was heard is changed.
const NOTE: &str = insert!(
    "DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason, job_id = excluded.job_id,
         attempt = excluded.attempt, changed_at = excluded.changed_at
     WHERE runs.outcome IN ('expected', 'missed') OR (runs.outcome = 'skipped' AND runs.attempt = 0)"
);

/// Makes rows of what is due; one that is there already is left as it is.
///
/// # Errors
/// The database's.
pub(in crate::db) async fn expect_all(connection: &AsyncPgConnection, rows: &[Run]) -> QueryResult<()> {
    let rows: Vec<&Run> = rows.iter().collect();
    put(connection, INSERT, &rows).await
}

/// Writes `rows` with one of the statements above.
pub(super) async fn put(mut connection: &AsyncPgConnection, sql: &'static str, rows: &[&Run]) -> QueryResult<()> {
    fn column<'a, T>(rows: &[&'a Run], field: impl Fn(&'a Run) -> T) -> Vec<T> {
        rows.iter().map(|row| field(row)).collect()
    }
    statement(sql)
        .bind::<Array<SqlUuid>, _>(column(rows, |row| row.id))
        .bind::<Array<Text>, _>(column(rows, |row| row.kind.as_str()))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(rows, |row| row.host_id))
        .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.source_group.as_deref()))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(rows, |row| row.schedule_id))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(rows, |row| row.repository_id))
        .bind::<Array<Timestamptz>, _>(column(rows, |row| row.due_at))
        .bind::<Array<Text>, _>(column(rows, |row| row.outcome.as_str()))
        .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.reason.as_deref()))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(rows, |row| row.job_id))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.attempt))
        .bind::<Array<Timestamptz>, _>(column(rows, |row| row.changed_at))
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// Notes that runs were skipped or missed. One of which more is known already is left as it is.
#[derive(Clone, Debug)]
pub struct NoteRuns(pub Vec<Run>);

impl Write for NoteRuns {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let rows: Vec<&Run> = self.0.iter().collect();
        put(connection, NOTE, &rows).await
    }
}
