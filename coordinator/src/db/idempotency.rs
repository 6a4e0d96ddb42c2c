//! What was asked under an `Idempotency-Key`, and what was answered.

use super::schema::idempotency_keys;
use super::statement::statement;
use crate::persistence::Write;
use crate::request::Claim;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// Rows that are deleted at once.
const FORGOTTEN_AT_ONCE: i64 = 200;

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

/// Keeps the answer to what was asked under a key.
#[derive(Clone, Debug)]
pub struct PutAnswer {
    /// What was asked.
    pub claim: Claim,
    /// The answer, sealed.
    pub answer: Vec<u8>,
}

impl Write for PutAnswer {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        put_many(connection, &[(&self.claim, None, Some(&self.answer))]).await
    }
}

/// Deletes the next keys that were claimed before a time.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// The time.
    pub before: Timestamp,
}

impl Write for Forget {
    /// Nothing if there is none left.
    type Output = Option<()>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let gone = statement(
            "DELETE FROM idempotency_keys USING (
                 SELECT name FROM idempotency_keys WHERE claimed_at <= $1 ORDER BY claimed_at LIMIT $2
             ) AS old WHERE idempotency_keys.name = old.name",
        );
        let gone = gone.bind::<Timestamptz, _>(self.before).bind::<BigInt, _>(FORGOTTEN_AT_ONCE);
        let gone = gone.execute(connection).await?;
        Ok(i64::try_from(gone).is_ok_and(|gone| gone >= FORGOTTEN_AT_ONCE).then_some(()))
    }
}
