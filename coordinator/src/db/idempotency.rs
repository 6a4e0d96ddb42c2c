//! What was asked under an `Idempotency-Key`, and what was answered.

use super::schema::idempotency_keys;
use super::statement::statement;
use crate::request::Claim;
use diesel::prelude::*;
use diesel::sql_types::{Array, Binary, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use std::collections::HashMap;
use uuid::Uuid;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = idempotency_keys)]
#[allow(missing_docs, reason = "the columns; the migration says what needs saying")]
pub struct Known {
    pub asked: Vec<u8>,
    pub claim: Uuid,
    pub claimed_at: Timestamp,
    pub answer: Option<Vec<u8>>,
}

/// What is known of a key that was claimed after a time.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, name: &[u8], after: Timestamp) -> QueryResult<Option<Known>> {
    let row = idempotency_keys::table.find(name).filter(idempotency_keys::claimed_at.gt(after));
    row.select(Known::as_select()).first(connection).await.optional()
}

/// Notes that what is asked is done, in the transaction that does it; of a job only if it was made.
///
/// # Errors
/// The database's.
pub async fn claim_many(connection: &AsyncPgConnection, claims: &[(&Claim, Option<Uuid>)]) -> QueryResult<()> {
    let rows: Vec<_> = claims.iter().map(|(claim, job)| (*claim, *job, None)).collect();
    put_many(connection, &rows).await
}

/// A claim, the job that must be there for it, and the answer if there is one.
type Row<'a> = (&'a Claim, Option<Uuid>, Option<&'a [u8]>);

/// Writes claims and answers. A key whose time is over is free: an earlier claim gives way to a later one.
async fn put_many(mut connection: &AsyncPgConnection, rows: &[Row<'_>]) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    // A join, as in the audit log, for the same reason.
    let query = statement(
        "INSERT INTO idempotency_keys (name, asked, claim, claimed_at, answer)
         SELECT news.name, news.asked, news.claim, news.claimed_at, news.answer
         FROM unnest($1, $2, $3, $4, $5, $6) AS news (name, asked, claim, claimed_at, answer, job_id)
         LEFT JOIN jobs ON jobs.id = news.job_id
         WHERE news.job_id IS NULL OR jobs.id IS NOT NULL
         ON CONFLICT (name) DO UPDATE SET asked = excluded.asked, claim = excluded.claim,
             claimed_at = excluded.claimed_at,
             answer = CASE WHEN idempotency_keys.claim = excluded.claim
                 THEN coalesce(excluded.answer, idempotency_keys.answer) ELSE excluded.answer END",
    );
    query
        .bind::<Array<Binary>, _>(rows.iter().map(|(claim, ..)| claim.name.as_slice()).collect::<Vec<_>>())
        .bind::<Array<Binary>, _>(rows.iter().map(|(claim, ..)| claim.asked.as_slice()).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(rows.iter().map(|(claim, ..)| claim.id).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(rows.iter().map(|(claim, ..)| claim.at).collect::<Vec<_>>())
        .bind::<Array<Nullable<Binary>>, _>(rows.iter().map(|(.., answer)| *answer).collect::<Vec<_>>())
        .bind::<Array<Nullable<SqlUuid>>, _>(rows.iter().map(|(_, job, _)| *job).collect::<Vec<_>>())
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// Keeps the answers, sealed, to what was asked under keys.
///
/// # Errors
/// The database's.
pub async fn put_answers(connection: &AsyncPgConnection, answers: &[(&Claim, &[u8])]) -> QueryResult<()> {
    // A statement may write a row once: the latest answer under a key counts.
    let latest: HashMap<&[u8], Row<'_>> =
        answers.iter().map(|(claim, answer)| (&claim.name[..], (*claim, None, Some(*answer)))).collect();
    put_many(connection, &latest.into_values().collect::<Vec<_>>()).await
}
