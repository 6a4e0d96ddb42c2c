//! Operations as REST shows them.

use crate::db::operations::{Asked, Operation, Part, Tally};
use crate::operation::Look;
use fleet_wire::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// An operation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operation)]
pub(super) struct OperationView {
    id: Uuid,
    kind: String,
    state: &'static str,
    #[serde(flatten)]
    request: Asked,
    canaries: i64,
    max_parallel: Option<i64>,
    stop_after_failures: Option<i64>,
    retry_of: Option<Uuid>,
    requested_by: Option<String>,
    created_at: Timestamp,
    cancel_requested_at: Option<Timestamp>,
    halted_at: Option<Timestamp>,
    halt_reason: Option<String>,
    ended_at: Option<Timestamp>,
    counts: Counts,
}

/// How its members stand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperationCounts)]
struct Counts {
    jobs: i64,
    /// Members that got no job.
    skipped: i64,
    queued: i64,
    running: i64,
    /// The partial ones with them.
    succeeded: i64,
    partial: i64,
    failed: i64,
    cancelled: i64,
}

/// An operation as the ledger has it, which knows the counts of one that is over.
pub(super) fn stored(operation: Operation) -> OperationView {
    let Operation { succeeded, partial, failed, cancelled, .. } = operation;
    let queued = if operation.ended_at.is_none() { operation.jobs } else { 0 };
    view(operation, queued, 0, Tally { succeeded, partial, failed, cancelled })
}

/// An operation for somebody who may see a part of its hosts: only those count.
pub(super) fn part((part, operation): (Part, Operation)) -> OperationView {
    let operation = Operation { jobs: part.jobs, skipped: part.skipped, ..operation };
    view(operation, part.queued, part.running, part.tally)
}

/// An operation that is not over.
pub(super) fn live(look: Look) -> OperationView {
    view(look.record, look.queued, look.running, look.tally)
}

fn view(operation: Operation, queued: i64, running: i64, tally: Tally) -> OperationView {
    let Tally { succeeded, partial, failed, cancelled } = tally;
    OperationView {
        state: state(&operation, &tally),
        counts: Counts {
            jobs: operation.jobs,
            skipped: operation.skipped,
            queued,
            running,
            succeeded,
            partial,
            failed,
            cancelled,
        },
        id: operation.id,
        kind: operation.kind,
        request: operation.request.0,
        canaries: operation.canaries,
        max_parallel: operation.max_parallel,
        stop_after_failures: operation.stop_after_failures,
        retry_of: operation.retry_of,
        requested_by: operation.requested_by,
        created_at: operation.created_at,
        cancel_requested_at: operation.cancel_requested_at,
        halted_at: operation.halted_at,
        halt_reason: operation.halt_reason,
        ended_at: operation.ended_at,
    }
}

/// One word for it. Those that end in -ing are on their way.
fn state(operation: &Operation, tally: &Tally) -> &'static str {
    let stopped = (operation.cancel_requested_at.is_some(), operation.halted_at.is_some());
    match (operation.ended_at.is_some(), stopped) {
        (false, (true, _)) => "cancelling",
        (false, (false, true)) => "halting",
        (false, (false, false)) => "running",
        (true, (true, _)) => "cancelled",
        (true, (false, true)) => "halted",
        (true, (false, false)) if tally.failed + tally.cancelled > 0 => "failed",
        (true, (false, false)) => "succeeded",
    }
}
