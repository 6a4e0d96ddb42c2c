//! What the end of a job means for the ledger: its run is settled or tried again, and a success is noted.

use super::{Outcome, success};
use crate::db::stale_locks::{self, Lock};
use crate::db::statement::statement;
use crate::db::storable;
use crate::maintenance::KINDS;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Kind, Timestamp};
use futures_util::future::try_join4;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The end of a job, as the ledger of runs and the question what is overdue need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// The job.
    pub job_id: Uuid,
    /// The run that it was an attempt at.
    pub run_id: Option<Uuid>,
    /// Where.
    pub host_id: Uuid,
    /// In which repository.
    pub repository_id: Uuid,
    /// What it was to do.
    pub kind: String,
    /// The group, of a backup.
    pub source_group: Option<String>,
    /// What a check has read of the data.
    pub subset: Option<String>,
    /// It covers all of the repository, if it is maintenance.
    pub whole: bool,
    /// What became of it.
    pub outcome: Outcome,
    /// A failure that another attempt may mend.
    pub may_retry: bool,
    /// A lock that kept it from its work.
    pub lock: Option<Box<Lock>>,
    /// What went wrong.
    pub reason: Option<String>,
    /// When the coordinator learned of it.
    pub at: Timestamp,
    /// Until when what it has done counts: an agent may tell of it days later.
    pub done_at: Timestamp,
}

/// Notes how jobs have ended: at their runs, and if they succeeded at their source groups.
///
/// # Errors
/// The database's.
pub async fn settle_many(connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
    let of_runs: Vec<_> = endings.iter().copied().filter(|ending| ending.run_id.is_some()).collect();
    let done = |ending: &&&Ending| matches!(ending.outcome, Outcome::Succeeded | Outcome::Partial);
    let is_backup = |ending: &&&Ending| ending.kind == Kind::Backup.as_str();
    let backups: Vec<&Ending> = endings.iter().filter(is_backup).filter(done).copied().collect();
    let ran = |ending: &&&Ending| matches!(ending.outcome, Outcome::Succeeded | Outcome::Partial | Outcome::Failed);
    let is_maintenance = |ending: &&&Ending| KINDS.iter().any(|kind| kind.as_str() == ending.kind);
    let of_maintenance: Vec<&Ending> = endings.iter().filter(is_maintenance).filter(ran).copied().collect();
    try_join4(
        settle_runs(connection, &of_runs),
        success::note_backups(connection, &backups),
        success::note_maintenance(connection, &of_maintenance),
        stale_locks::note(connection, endings),
    )
    .await?;
    Ok(())
}

/// One field of each ending.
pub(in crate::db) fn column<'a, T>(endings: &[&'a Ending], field: impl Fn(&'a Ending) -> T) -> Vec<T> {
    endings.iter().map(|ending| field(ending)).collect()
}

/// By how much the pause before an attempt is stretched, so that what fails together does not come back together: 0.8 to
/// 1.2, the same whenever it is asked.
pub(crate) fn spread(job_id: Uuid) -> f64 {
    let digest = Sha256::digest(job_id.as_bytes());
    0.8 + 0.4 * f64::from(digest[0]) / 256.0
}

/// At an end a run is settled, or waits for its next attempt: twice as long each time, a week at most.
async fn settle_runs(mut connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
    if endings.is_empty() {
        return Ok(());
    }
    let query = statement(
        "UPDATE runs SET reason = ended.reason, changed_at = ended.at, outcome =
             CASE WHEN ended.may_retry AND runs.attempt <= groups.retry_max THEN 'retrying' ELSE ended.outcome END,
             retry_at = ended.at + ended.spread * interval '1 second'
                 * least(groups.retry_backoff_seconds * power(2, runs.attempt - 1), 604800)
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
             AS ended (run_id, job_id, host_id, source_group, outcome, may_retry, reason, at, spread)
         LEFT JOIN source_groups groups ON groups.host_id = ended.host_id AND groups.name = ended.source_group
         WHERE runs.id = ended.run_id AND runs.job_id = ended.job_id AND runs.outcome = 'running'",
    );
    query
        .bind::<Array<Nullable<SqlUuid>>, _>(column(endings, |ending| ending.run_id))
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.job_id))
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.host_id))
        .bind::<Array<Nullable<Text>>, _>(column(endings, |ending| ending.source_group.as_deref()))
        .bind::<Array<Text>, _>(column(endings, |ending| ending.outcome.as_str()))
        .bind::<Array<Bool>, _>(column(endings, |ending| ending.may_retry))
        .bind::<Array<Nullable<Text>>, _>(column(endings, |ending| ending.reason.as_deref()))
        .bind::<Array<Timestamptz>, _>(column(endings, |ending| ending.at))
        .bind::<Array<Double>, _>(column(endings, |ending| spread(ending.job_id)))
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// Notes that there will be no more attempts at these runs: (run, job of the last attempt, why).
#[derive(Clone, Debug)]
pub struct GiveUpRetries(pub Vec<(Uuid, Option<Uuid>, String)>);

impl Write for GiveUpRetries {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let query = statement(
            "UPDATE runs SET outcome = 'failed', reason = concat_ws('; ', runs.reason, given_up.why)
             FROM unnest($1, $2, $3) AS given_up (run_id, job_id, why)
             WHERE runs.id = given_up.run_id AND runs.job_id = given_up.job_id AND runs.outcome = 'retrying'",
        );
        query
            .bind::<Array<SqlUuid>, _>(self.0.iter().map(|given_up| given_up.0).collect::<Vec<_>>())
            .bind::<Array<Nullable<SqlUuid>>, _>(self.0.iter().map(|given_up| given_up.1).collect::<Vec<_>>())
            .bind::<Array<Text>, _>(self.0.iter().map(|given_up| storable(&given_up.2)).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_spread_and_come_when_they_were_said_to_come() {
        let spreads: Vec<f64> = (0..1000).map(|job| spread(Uuid::from_u128(job))).collect();
        assert!(spreads.iter().all(|spread| (0.8..=1.2).contains(spread)));
        let mean = spreads.iter().sum::<f64>() / 1000.0;
        assert!((0.97..1.03).contains(&mean), "{mean}");
        assert_eq!(spread(Uuid::from_u128(5)).to_bits(), spreads[5].to_bits());
    }
}
