//! The times of the jobs that are not over.

use super::jobs::OPEN;
use super::schema::jobs;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Kind, Status, Timestamp};
use uuid::Uuid;

/// A job that is not over, as far as its deadlines need it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the columns")]
pub struct OpenJob {
    pub id: Uuid,
    pub host_id: Uuid,
    pub kind: Kind,
    pub status: Status,
    pub created_at: Timestamp,
    pub dispatched_at: Option<Timestamp>,
    pub accepted_at: Option<Timestamp>,
    pub began_at: Option<Timestamp>,
    pub cancel_requested_at: Option<Timestamp>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = jobs)]
struct Row {
    id: Uuid,
    host_id: Uuid,
    kind: String,
    status: String,
    created_at: Timestamp,
    dispatched_at: Option<Timestamp>,
    accepted_at: Option<Timestamp>,
    began_at: Option<Timestamp>,
    cancel_requested_at: Option<Timestamp>,
}

impl Row {
    /// `None` for a kind that a newer version made.
    fn read(self) -> Option<OpenJob> {
        Some(OpenJob {
            id: self.id,
            host_id: self.host_id,
            kind: self.kind.parse().ok()?,
            status: self.status.parse().ok()?,
            created_at: self.created_at,
            dispatched_at: self.dispatched_at,
            accepted_at: self.accepted_at,
            began_at: self.began_at,
            cancel_requested_at: self.cancel_requested_at,
        })
    }
}

/// Every job that is not over.
///
/// # Errors
/// The database's.
pub async fn open(connection: &mut AsyncPgConnection) -> QueryResult<Vec<OpenJob>> {
    let rows: Vec<Row> =
        jobs::table.filter(jobs::status.eq_any(OPEN)).select(Row::as_select()).load(connection).await?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}
