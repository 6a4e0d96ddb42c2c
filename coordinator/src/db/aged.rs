//! What goes by its age alone: the next rows from before a time, a few at once.

use super::history::first_id_of;
use super::statement::statement;
use crate::persistence::Write;
use diesel::QueryResult;
use diesel::sql_types::{BigInt, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use fleet_wire::Timestamp;

/// Rows in a batch: few, for a batch is part of a transaction in which others wait for theirs.
const ROWS: i64 = 200;

/// What can go like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aged {
    /// Runs of the ledger that are settled, by when they were due and last changed.
    Runs,
    /// Rows of the audit log, by when their request came.
    Audit,
    /// What was asked under an `Idempotency-Key`, by when it was first asked.
    Keys,
}

/// Deletes the next rows of one kind. Asked again it deletes the next ones.
#[derive(Clone, Copy, Debug)]
pub struct ForgetAged {
    /// Of what.
    pub what: Aged,
    /// From before this time.
    pub before: Timestamp,
}

impl Write for ForgetAged {
    /// Nothing if there is none left.
    type Output = Option<()>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let gone = match self.what {
            Aged::Runs => statement(
                "DELETE FROM runs USING (
                     SELECT id FROM runs
                     WHERE due_at < $1 AND changed_at < $2 AND outcome NOT IN ('expected', 'running', 'retrying')
                     ORDER BY due_at LIMIT $3
                 ) AS old WHERE runs.id = old.id",
            )
            .bind::<Timestamptz, _>(self.before)
            .bind::<Timestamptz, _>(self.before),
            Aged::Audit => statement(
                "DELETE FROM audit USING (SELECT id FROM audit WHERE id < $1 ORDER BY id LIMIT $2) AS old
                 WHERE audit.id = old.id",
            )
            .bind::<SqlUuid, _>(first_id_of(self.before)),
            Aged::Keys => statement(
                "DELETE FROM idempotency_keys USING (
                     SELECT name FROM idempotency_keys WHERE claimed_at <= $1 ORDER BY claimed_at LIMIT $2
                 ) AS old WHERE idempotency_keys.name = old.name",
            )
            .bind::<Timestamptz, _>(self.before),
        };
        // The audit log lets go of rows for this statement alone: other writes share the transaction.
        let guarded = self.what == Aged::Audit;
        if guarded {
            connection.batch_execute("SET LOCAL fleet.audit_retention = 'on'").await?;
        }
        let gone = gone.bind::<BigInt, _>(ROWS).execute(connection).await?;
        if guarded {
            connection.batch_execute("SET LOCAL fleet.audit_retention = 'off'").await?;
        }
        Ok(i64::try_from(gone).is_ok_and(|gone| gone >= ROWS).then_some(()))
    }
}
