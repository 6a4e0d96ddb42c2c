//! When backups and maintenance have succeeded, and so from when on they are overdue.

use super::Outcome;
use super::endings::{Ending, column};
use crate::db::statement::statement;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// Notes that backups have succeeded. A success that was told late is none of what is newer; one in the future was noted by
/// a wrong clock.
pub(super) async fn note_backups(mut connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
    if endings.is_empty() {
        return Ok(());
    }
    let query = statement(
        "UPDATE source_groups groups SET last_success_at = done.at,
             overdue_at = done.at + groups.success_within_seconds * interval '1 second'
         FROM (SELECT host_id, name, max(at) AS at FROM unnest($1, $2, $3) AS ended (host_id, name, at)
             GROUP BY host_id, name) AS done
         WHERE groups.host_id = done.host_id AND groups.name = done.name
             AND (groups.last_success_at IS NULL OR groups.last_success_at < done.at OR groups.last_success_at > now())",
    );
    query
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.host_id))
        .bind::<Array<Nullable<Text>>, _>(column(endings, |ending| ending.source_group.as_deref()))
        .bind::<Array<Timestamptz>, _>(column(endings, |ending| ending.done_at))
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// Notes that maintenance has ended. What covers the whole repository counts as a success; of what each host did for itself,
/// the last part does. What a check of a run has read is passed on even if it found errors: the next one reads on.
///
/// # Errors
/// The database's.
pub(super) async fn note_maintenance(mut connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
    if endings.is_empty() {
        return Ok(());
    }
    // One row is asked for, where the plan of an EXISTS may read all runs into memory.
    let query = statement(
        "WITH ended AS (
             SELECT ended.*, ended.succeeded AND (ended.whole OR (runs.host_id IS NOT NULL AND (
                 SELECT part.id FROM runs AS part WHERE part.repository_id = ended.repository_id
                     AND part.schedule_id IS NULL AND part.due_at = runs.due_at AND part.kind = ended.kind
                     AND part.host_id IS NOT NULL AND part.outcome <> 'succeeded' LIMIT 1) IS NULL)) AS done
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
