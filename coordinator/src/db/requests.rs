//! What is written of a request in the transaction that does what it asks: its record in the audit log, and its claim if it has
//! an `Idempotency-Key`.

use super::audit::{self, Outcome, Record};
use super::idempotency;
use crate::request::Request;
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::try_join;
use uuid::Uuid;

/// Records what was done for requests, what is for a job only if that was made in this transaction; and what changed nothing.
/// All statements are sent before the first is answered. They must be the last of their transaction: the first waits for whoever
/// adds to the audit log.
///
/// # Errors
/// The database's.
pub async fn record(
    connection: &AsyncPgConnection,
    done: &[(&Request, Option<Uuid>)],
    unchanged: &[&Record],
) -> QueryResult<()> {
    let of = |request: &Request| Some(Record::of(request, request.subject.as_ref()?, Outcome::Done, None));
    let records = done.iter().filter_map(|(request, job)| Some((of(request)?, *job)));
    let records: Vec<_> = records.chain(unchanged.iter().map(|record| ((*record).clone(), None))).collect();
    let claims: Vec<_> = done.iter().filter_map(|(request, job)| Some((request.claim()?, *job))).collect();
    try_join(audit::insert_many(connection, &records), idempotency::claim_many(connection, &claims)).await?;
    Ok(())
}
