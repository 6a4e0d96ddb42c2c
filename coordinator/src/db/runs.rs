//! The ledger of expected runs: what was due when, and what became of it.
//!
//! A row is made when a run is due, or when its agent fires it, whichever is known first; its id is made from what is
//! due when, so both make the same. It follows the job of its latest attempt, and is written in the transactions that
//! make that job and end it.

use super::jobs::NewJob;
use super::maintenance;
use super::schema::runs;
use super::statement::statement;
use super::storable;
use crate::maintenance::KINDS;
use crate::persistence::Write;
use chrono::SubsecRound;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Kind, Timestamp};
use futures_util::future::{join, try_join3};
use sha2::{Digest, Sha256};
use std::fmt;
use uuid::{Builder, Uuid};

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is due, and nothing was heard of it yet.
    Expected,
    /// Its job is not over.
    Running,
    /// An attempt has failed, and there will be another.
    Retrying,
    /// Done.
    Succeeded,
    /// Done, but not everything could be read.
    Partial,
    /// The last attempt has failed.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// Nobody did it.
    Missed,
    /// It was not to be done.
    Skipped,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Expected,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Partial,
        Self::Failed,
        Self::Cancelled,
        Self::Missed,
        Self::Skipped,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Missed => "missed",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `attempt` of a run that was skipped without a word of its agent: if that tells of a firing later, the firing is
/// judged, and what it has run by itself is adopted.
pub const UNHEARD_OF: i64 = 0;

/// A run as it stands in its row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = runs)]
#[allow(missing_docs, reason = "the columns; the migration says what they mean")]
pub struct Run {
    pub id: Uuid,
    pub kind: String,
    pub host_id: Option<Uuid>,
    pub source_group: Option<String>,
    pub schedule_id: Option<Uuid>,
    pub repository_id: Option<Uuid>,
    pub due_at: Timestamp,
    pub outcome: String,
    pub reason: Option<String>,
    pub job_id: Option<Uuid>,
    pub attempt: i64,
    pub changed_at: Timestamp,
}

impl Run {
    /// The backup of a group that a schedule wants at `due_at`.
    pub fn of_schedule(schedule_id: Uuid, host_id: Uuid, group: &str, due_at: Timestamp, now: Timestamp) -> Self {
        let due_at = due_at.trunc_subsecs(6);
        Self {
            id: id_of(&[schedule_id.as_bytes(), group.as_bytes()], due_at),
            kind: Kind::Backup.as_str().to_owned(),
            host_id: Some(host_id),
            source_group: Some(group.to_owned()),
            schedule_id: Some(schedule_id),
            repository_id: None,
            due_at,
            outcome: Outcome::Expected.as_str().to_owned(),
            reason: None,
            job_id: None,
            attempt: 1,
            changed_at: now.trunc_subsecs(6),
        }
    }

    /// A repository's maintenance of a kind that is due at `due_at`; one host's part of it if each does its own.
    pub fn of_maintenance(
        repository_id: Uuid,
        kind: &str,
        host_id: Option<Uuid>,
        due_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        let due_at = due_at.trunc_subsecs(6);
        let host = host_id.map(Uuid::into_bytes).unwrap_or_default();
        Self {
            id: id_of(&[repository_id.as_bytes(), kind.as_bytes(), &host], due_at),
            kind: kind.to_owned(),
            host_id,
            source_group: None,
            schedule_id: None,
            repository_id: Some(repository_id),
            due_at,
            outcome: Outcome::Expected.as_str().to_owned(),
            reason: None,
            job_id: None,
            attempt: 1,
            changed_at: now.trunc_subsecs(6),
        }
    }

    /// Whether its `job_id` is that of a job.
    pub fn has_job(&self) -> bool {
        let none = [Outcome::Expected, Outcome::Missed, Outcome::Skipped];
        self.job_id.is_some() && none.iter().all(|outcome| outcome.as_str() != self.outcome)
    }

    /// The same with an outcome and why.
    #[must_use]
    pub fn with(self, outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome: outcome.as_str().to_owned(), reason: Some(storable(&reason.into())), ..self }
    }
}

/// The id of what is due: the same whoever finds it due.
fn id_of(what: &[&[u8]], due_at: Timestamp) -> Uuid {
    let mut digest = Sha256::new();
    for part in what {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(due_at.timestamp_micros().to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// A job's claim to be the next attempt at a run. The job is made only if it gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The run, whose row is made if there is none.
    pub run: Run,
    /// The job of the attempt before, which has failed.
    pub previous: Option<Uuid>,
}

/// Gives runs to their jobs, but none to an id that is another job's already.
///
/// # Errors
/// The database's.
pub async fn claim_many(connection: &AsyncPgConnection, claims: &[(&NewJob, &Claim)]) -> QueryResult<()> {
    if claims.is_empty() {
        return Ok(());
    }
    let mut again = connection;
    let rows: Vec<&Run> = claims.iter().map(|(_, claim)| &claim.run).collect();
    let query = statement(
        "UPDATE runs SET outcome = 'running', reason = NULL, job_id = claims.job_id, attempt = claims.attempt,
             repository_id = claims.repository_id, changed_at = claims.at
         FROM unnest($1, $2, $3, $4, $5, $6, $7)
             AS claims (run_id, job_id, host_id, attempt, repository_id, previous, at)
         WHERE runs.id = claims.run_id AND (runs.outcome IN ('expected', 'missed')
             OR (runs.outcome = 'retrying' AND runs.job_id = claims.previous)
             OR (runs.outcome = 'skipped' AND (runs.job_id = claims.job_id OR runs.attempt = 0)))
             AND EXISTS (SELECT FROM hosts WHERE hosts.id = claims.host_id AND hosts.decommissioned_at IS NULL
                 AND hosts.repository_id = claims.repository_id)
             AND NOT EXISTS (SELECT FROM jobs
                 WHERE jobs.id = claims.job_id AND jobs.run_id IS DISTINCT FROM claims.run_id)",
    );
    let claim = query
        .bind::<Array<SqlUuid>, _>(rows.iter().map(|run| run.id).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(claims.iter().map(|(job, _)| job.id).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(claims.iter().map(|(job, _)| job.host_id).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(claims.iter().map(|(job, _)| job.attempt).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(claims.iter().map(|(job, _)| job.repository_id).collect::<Vec<_>>())
        .bind::<Array<Nullable<SqlUuid>>, _>(claims.iter().map(|(_, claim)| claim.previous).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(rows.iter().map(|run| run.changed_at).collect::<Vec<_>>());
    let (made, claimed) = join(put(connection, INSERT, &rows), claim.execute(&mut again)).await;
    made?;
    claimed.map(drop)
}

/// Makes rows; one that is there already is left as it is.
const INSERT: &str =
    "INSERT INTO runs (id, kind, host_id, source_group, schedule_id, repository_id, due_at, outcome, reason, job_id,
         attempt, changed_at)
     SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING";

/// The same; one of which nothing was heard is changed.
const NOTE: &str =
    "INSERT INTO runs (id, kind, host_id, source_group, schedule_id, repository_id, due_at, outcome, reason, job_id,
         attempt, changed_at)
     SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
     ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason, job_id = excluded.job_id,
         attempt = excluded.attempt, changed_at = excluded.changed_at
     WHERE runs.outcome IN ('expected', 'missed') OR (runs.outcome = 'skipped' AND runs.attempt = 0)";

/// Makes rows of what is due; one that is there already is left as it is.
///
/// # Errors
/// The database's.
pub(super) async fn expect_all(connection: &AsyncPgConnection, rows: &[Run]) -> QueryResult<()> {
    let rows: Vec<&Run> = rows.iter().collect();
    put(connection, INSERT, &rows).await
}

async fn put(mut connection: &AsyncPgConnection, sql: &'static str, rows: &[&Run]) -> QueryResult<()> {
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
    try_join3(
        settle_runs(connection, &of_runs),
        note_success(connection, &backups),
        maintenance::note_endings(connection, &of_maintenance),
    )
    .await?;
    Ok(())
}

fn column<'a, T>(endings: &[&'a Ending], field: impl Fn(&'a Ending) -> T) -> Vec<T> {
    endings.iter().map(|ending| field(ending)).collect()
}

/// By how much the pause before an attempt is stretched, so that what fails together does not come back together: 0.8 to
/// 1.2, the same whenever it is asked.
fn spread(job_id: Uuid) -> f64 {
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

async fn note_success(mut connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
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

/// The run that an agent may have done although it was skipped or missed, by the id that it would give the job.
///
/// # Errors
/// The database's.
pub async fn adoptable(connection: &mut AsyncPgConnection, job_id: Uuid, host_id: Uuid) -> QueryResult<Option<Run>> {
    let left = diesel::dsl::sql::<Bool>("runs.outcome IN ('missed', 'skipped')");
    let of_host = runs::job_id.eq(job_id).and(runs::host_id.eq(host_id));
    runs::table.filter(of_host.and(left)).select(Run::as_select()).first(connection).await.optional()
}

/// Whose runs a list holds.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    /// A host's: the backups of its groups, and its part of maintenance.
    Host(Uuid),
    /// A repository's maintenance.
    Repository(Uuid),
}

/// At most `limit` runs, the latest due first, from behind `after`.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    whose: Whose,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> QueryResult<Vec<Run>> {
    let mut query = runs::table.select(Run::as_select()).into_boxed();
    query = match whose {
        Whose::Host(id) => query.filter(runs::host_id.eq(id)),
        Whose::Repository(id) => query.filter(runs::repository_id.eq(id).and(runs::schedule_id.is_null())),
    };
    if let Some((due_at, id)) = after {
        let place = diesel::dsl::sql::<Bool>("(runs.due_at, runs.id) < (").bind::<Timestamptz, _>(due_at);
        query = query.filter(place.sql(", ").bind::<SqlUuid, _>(id).sql(")"));
    }
    query.order((runs::due_at.desc(), runs::id.desc())).limit(limit).load(connection).await
}

/// How many runs that were due since a time came to what.
///
/// # Errors
/// The database's.
pub async fn count_since(connection: &mut AsyncPgConnection, since: Timestamp) -> QueryResult<Vec<(String, i64)>> {
    runs::table
        .filter(runs::due_at.ge(since))
        .group_by(runs::outcome)
        .select((runs::outcome, diesel::dsl::count_star()))
        .load(connection)
        .await
}

/// Maintenance that is not over, of at most about `limit` runs: of whole repositories, from behind the repository `after`.
///
/// # Errors
/// The database's.
pub async fn open_maintenance(connection: &mut AsyncPgConnection, after: Uuid, limit: i64) -> QueryResult<Vec<Run>> {
    let open = || {
        let open = diesel::dsl::sql::<Bool>("runs.schedule_id IS NULL AND runs.outcome IN ('expected', 'running')");
        runs::table.filter(open).select(Run::as_select())
    };
    let mut found: Vec<Run> = open()
        .filter(runs::repository_id.gt(after))
        .order((runs::repository_id, runs::due_at))
        .limit(limit)
        .load(connection)
        .await?;
    // The last repository may be cut off.
    if i64::try_from(found.len()).is_ok_and(|count| count == limit) {
        let last = found.last().and_then(|run| run.repository_id);
        found.retain(|run| run.repository_id != last);
        let rest = open().filter(runs::repository_id.eq(last)).order(runs::due_at);
        found.extend(rest.load::<Run>(connection).await?);
    }
    Ok(found)
}

/// At most `limit` runs whose next attempt is to be made, the longest due first.
///
/// # Errors
/// The database's.
pub async fn to_retry(connection: &mut AsyncPgConnection, now: Timestamp, limit: i64) -> QueryResult<Vec<Run>> {
    let retrying = diesel::dsl::sql::<Bool>("runs.outcome = 'retrying'");
    runs::table
        .filter(runs::retry_at.le(now).and(retrying))
        .order((runs::retry_at, runs::id))
        .limit(limit)
        .select(Run::as_select())
        .load(connection)
        .await
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

/// Notes what is due: makes rows, and moves schedules on to what is due next.
#[derive(Clone, Debug)]
pub struct Expect {
    /// What is due. One that is there already is left as it is.
    pub rows: Vec<Run>,
    /// (schedule, what was due next, what is due next after the rows).
    pub moved: Vec<(Uuid, Timestamp, Option<Timestamp>)>,
}

impl Write for Expect {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        expect_all(connection, &self.rows).await?;
        // One that was changed meanwhile has another next time.
        let query = statement(
            "UPDATE schedules SET next_due_at = moved.next FROM unnest($1, $2, $3) AS moved (id, last, next)
             WHERE schedules.id = moved.id AND schedules.next_due_at = moved.last",
        );
        query
            .bind::<Array<SqlUuid>, _>(self.moved.iter().map(|moved| moved.0).collect::<Vec<_>>())
            .bind::<Array<Timestamptz>, _>(self.moved.iter().map(|moved| moved.1).collect::<Vec<_>>())
            .bind::<Array<Nullable<Timestamptz>>, _>(self.moved.iter().map(|moved| moved.2).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn attempts_are_spread_and_come_when_they_were_said_to_come() {
        let spreads: Vec<f64> = (0..1000).map(|job| spread(Uuid::from_u128(job))).collect();
        assert!(spreads.iter().all(|spread| (0.8..=1.2).contains(spread)));
        let mean = spreads.iter().sum::<f64>() / 1000.0;
        assert!((0.97..1.03).contains(&mean), "{mean}");
        assert_eq!(spread(Uuid::from_u128(5)).to_bits(), spreads[5].to_bits());
    }

    #[test]
    fn what_is_due_has_one_id_and_nothing_else_has_it() {
        let at = |seconds: i64| DateTime::from_timestamp(1_790_000_000 + seconds, 0).expect("a time");
        let run = |schedule, group, seconds| {
            Run::of_schedule(Uuid::from_u128(schedule), Uuid::from_u128(9), group, at(seconds), at(99)).id
        };
        assert_eq!(run(1, "docs", 0), run(1, "docs", 0));
        let others = [run(1, "docs", 60), run(1, "doc", 0), run(2, "docs", 0)];
        assert!(others.iter().all(|other| *other != run(1, "docs", 0)));
    }
}
