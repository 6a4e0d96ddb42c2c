//! Jobs: what they are for ever, and the state they are in.

use super::json::Json;
use super::lookup::Source;
use super::schema::jobs;
use super::statement::statement;
use super::storable;
use chrono::SubsecRound;
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{CommandRun, JobProgress, Status, Timestamp};
use futures_util::TryStreamExt;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use uuid::Uuid;

/// The statuses that a job can leave.
pub(super) const OPEN: [&str; 2] = [Status::Queued.as_str(), Status::Running.as_str()];
/// The outcome of those that have not left them: the column is made from the status.
pub(super) const OPEN_OUTCOME: &str = "open";

/// Who asks for what an agent's cron has made a job of.
pub const REQUESTED_BY_AGENT: &str = "agent";

/// What a job is from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = jobs)]
pub struct NewJob {
    /// Its id, which is also its id on the wire.
    pub id: Uuid,
    /// The host that runs it.
    pub host_id: Uuid,
    /// The repository it works on.
    pub repository_id: Uuid,
    /// A [`fleet_wire::Kind`].
    pub kind: String,
    /// An [`Origin`].
    pub origin: String,
    /// The source group, for a backup.
    pub source_group: Option<String>,
    /// The schedule that wanted it.
    pub schedule_id: Option<Uuid>,
    /// For when the schedule wanted it.
    pub scheduled_at: Option<Timestamp>,
    /// 1, or more for a retry.
    pub attempt: i64,
    /// The job that this one tries again.
    pub retry_of: Option<Uuid>,
    /// The run of the ledger that it is an attempt at.
    pub run_id: Option<Uuid>,
    /// Who asked for it.
    pub requested_by: Option<String>,
    /// The `command.run` as it is sent.
    pub command: Json<CommandRun>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The operation that it is part of.
    pub operation_id: Option<Uuid>,
}

/// A time as a column holds it: Postgres counts in microseconds.
fn stored_time(time: Timestamp) -> Timestamp {
    time.trunc_subsecs(6)
}

impl NewJob {
    /// Whether its agent has made it: it may be at work on it before it is told.
    pub fn is_of_agent(&self) -> bool {
        self.requested_by.as_deref() == Some(REQUESTED_BY_AGENT)
    }

    /// The same under another id.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self.command.0.job_id = id.to_string().into();
        self
    }

    /// The same as it reads once it is stored.
    #[must_use]
    pub fn as_stored(self) -> Self {
        Self { scheduled_at: self.scheduled_at.map(stored_time), created_at: stored_time(self.created_at), ..self }
    }
}

#[cfg(test)]
impl NewJob {
    /// A job for tests, which an operator has just asked for.
    pub(crate) fn sample(id: Uuid, host_id: Uuid, repository_id: Uuid, kind: fleet_wire::Kind) -> Self {
        Self {
            id,
            host_id,
            repository_id,
            kind: kind.as_str().to_owned(),
            origin: Origin::Operator.as_str().to_owned(),
            source_group: None,
            schedule_id: None,
            scheduled_at: None,
            attempt: 1,
            retry_of: None,
            run_id: None,
            operation_id: None,
            requested_by: None,
            command: Json(CommandRun::new(id.to_string().into(), kind)),
            created_at: chrono::Utc::now(),
        }
    }
}

/// Why there is a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of the REST API")]
pub enum Origin {
    Operator,
    Schedule,
    Maintenance,
    FirstConnect,
    Retry,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Operator, Self::Schedule, Self::Maintenance, Self::FirstConnect, Self::Retry];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Schedule => "schedule",
            Self::Maintenance => "maintenance",
            Self::FirstConnect => "first_connect",
            Self::Retry => "retry",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|origin| origin.as_str() == text)
            .ok_or_else(|| format!("{text:?} is none of {}", known()))
    }
}

/// The state a job is in. All of it is written whenever any of it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct JobState {
    /// Where it stands.
    pub status: Status,
    /// A snapshot was made, but not of everything.
    pub partial: bool,
    /// When `command.run` was let go: from then on the agent may have it.
    pub dispatched_at: Option<Timestamp>,
    /// The journal of the agent that it was sent to, if that has one.
    pub journal: Option<String>,
    /// When the agent had it on its disk.
    pub accepted_at: Option<Timestamp>,
    /// When it began, by the agent's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the agent's clock.
    pub finished_at: Option<Timestamp>,
    /// When somebody asked for its end.
    pub cancel_requested_at: Option<Timestamp>,
    /// When the coordinator learned that it began.
    pub began_at: Option<Timestamp>,
    /// When the coordinator learned of its end.
    pub ended_at: Option<Timestamp>,
    /// When the coordinator stopped waiting for a report, although the agent may still be at work.
    pub lost_at: Option<Timestamp>,
    /// When a lost job gave its lease back.
    pub released_at: Option<Timestamp>,
    /// restic's exit code.
    pub exit_code: Option<i64>,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// restic's summary, as JSON text.
    pub stats: Option<String>,
    /// How far it was when this was written.
    pub progress: Option<JobProgress>,
}

impl JobState {
    /// A job that was just made.
    pub fn new() -> Self {
        Self {
            status: Status::Queued,
            partial: false,
            dispatched_at: None,
            journal: None,
            accepted_at: None,
            started_at: None,
            finished_at: None,
            cancel_requested_at: None,
            began_at: None,
            ended_at: None,
            lost_at: None,
            released_at: None,
            exit_code: None,
            error: None,
            stats: None,
            progress: None,
        }
    }
}

impl JobState {
    /// Whether an agent may be at work on it: then nobody else may have its repository in a way that conflicts.
    pub fn holds_lease(&self) -> bool {
        let out = self.dispatched_at.is_some() && !self.status.is_terminal();
        out || (self.lost_at.is_some() && self.released_at.is_none())
    }

    /// The same as it reads once it is stored.
    #[must_use]
    pub fn as_stored(mut self) -> Self {
        let times = [
            &mut self.dispatched_at,
            &mut self.accepted_at,
            &mut self.started_at,
            &mut self.finished_at,
            &mut self.cancel_requested_at,
            &mut self.began_at,
            &mut self.ended_at,
            &mut self.lost_at,
            &mut self.released_at,
        ];
        times.into_iter().for_each(|time| *time = time.map(stored_time));
        for text in [&mut self.journal, &mut self.error, &mut self.stats] {
            *text = text.take().map(|text| if text.contains('\0') { storable(&text) } else { text });
        }
        self
    }

    /// Whether it has ended and nobody can be at work on it.
    pub fn is_over_for_good(&self) -> bool {
        self.status.is_terminal() && !self.holds_lease()
    }
}

impl Default for JobState {
    fn default() -> Self {
        Self::new()
    }
}

/// The columns of [`JobState`] as they stand in the row.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = jobs)]
pub(super) struct StateRow {
    status: String,
    partial: bool,
    dispatched_at: Option<Timestamp>,
    journal: Option<String>,
    accepted_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    cancel_requested_at: Option<Timestamp>,
    began_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    lost_at: Option<Timestamp>,
    released_at: Option<Timestamp>,
    exit_code: Option<i64>,
    error: Option<String>,
    stats: Option<String>,
    progress: Option<Json<JobProgress>>,
}

impl From<StateRow> for JobState {
    fn from(row: StateRow) -> Self {
        Self {
            // The column's CHECK allows the five literals only.
            status: row.status.parse().unwrap_or(Status::Failed),
            partial: row.partial,
            dispatched_at: row.dispatched_at,
            journal: row.journal,
            accepted_at: row.accepted_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            cancel_requested_at: row.cancel_requested_at,
            began_at: row.began_at,
            ended_at: row.ended_at,
            lost_at: row.lost_at,
            released_at: row.released_at,
            exit_code: row.exit_code,
            error: row.error,
            stats: row.stats,
            progress: row.progress.map(|Json(progress)| progress),
        }
    }
}

/// A job, whole. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What it is.
    pub new: Arc<NewJob>,
    /// The state it is in.
    pub state: Arc<JobState>,
}

impl Job {
    /// A job in a state. All that wait share one: there may be a hundred thousand.
    pub fn of(new: NewJob, state: JobState) -> Self {
        static WAITING: LazyLock<Arc<JobState>> = LazyLock::new(Arc::default);
        let state = if state == **WAITING { Arc::clone(&WAITING) } else { Arc::new(state) };
        Self { new: Arc::new(new), state }
    }
}

impl From<(NewJob, StateRow)> for Job {
    fn from((new, state): (NewJob, StateRow)) -> Self {
        Self::of(new, state.into())
    }
}

pub(super) type Columns =
    (diesel::dsl::AsSelect<NewJob, diesel::pg::Pg>, diesel::dsl::AsSelect<StateRow, diesel::pg::Pg>);

pub(super) fn columns() -> Columns {
    (NewJob::as_select(), StateRow::as_select())
}

/// A job to be made, and the state that it begins with if it goes out at once. Of that only the dispatch is stored.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// The job.
    pub new: &'a NewJob,
    /// Absent if it waits.
    pub state: Option<&'a JobState>,
}

/// Makes rows; one that is there already is left as it is. No row is made for a host that is gone, was taken out of
/// service or got another repository since its job was planned: its lease would be on the wrong one. Nor is one made for a
/// job that did not get the run that it claims.
///
/// # Errors
/// The database's.
pub async fn insert_many(mut connection: &AsyncPgConnection, jobs: &[Beginning<'_>]) -> QueryResult<()> {
    fn column<'a, T>(jobs: &[Beginning<'a>], field: impl Fn(&'a NewJob) -> T) -> Vec<T> {
        jobs.iter().map(|job| field(job.new)).collect()
    }
    fn begun<'a, T>(jobs: &[Beginning<'a>], field: impl Fn(&'a JobState) -> Option<T>) -> Vec<Option<T>> {
        jobs.iter().map(|job| job.state.and_then(&field)).collect()
    }
    if jobs.is_empty() {
        return Ok(());
    }
    let query = statement(
        "INSERT INTO jobs (id, host_id, repository_id, kind, origin, source_group, schedule_id, scheduled_at, attempt,
             retry_of, requested_by, command, created_at, dispatched_at, journal, run_id, operation_id, status)
         SELECT news.*, 'queued' FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) AS news (id,
             host_id, repository_id, kind, origin, source_group, schedule_id, scheduled_at, attempt, retry_of,
             requested_by, command, created_at, dispatched_at, journal, run_id, operation_id)
         JOIN hosts ON hosts.id = news.host_id
         LEFT JOIN runs ON runs.id = news.run_id AND runs.job_id = news.id AND runs.outcome = 'running'
         WHERE hosts.repository_id = news.repository_id AND hosts.decommissioned_at IS NULL
             AND (news.run_id IS NULL OR runs.id IS NOT NULL)
         ON CONFLICT (id) DO NOTHING",
    );
    query
        .bind::<Array<SqlUuid>, _>(column(jobs, |job| job.id))
        .bind::<Array<SqlUuid>, _>(column(jobs, |job| job.host_id))
        .bind::<Array<SqlUuid>, _>(column(jobs, |job| job.repository_id))
        .bind::<Array<Text>, _>(column(jobs, |job| job.kind.as_str()))
        .bind::<Array<Text>, _>(column(jobs, |job| job.origin.as_str()))
        .bind::<Array<Nullable<Text>>, _>(column(jobs, |job| job.source_group.as_deref()))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(jobs, |job| job.schedule_id))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(jobs, |job| job.scheduled_at))
        .bind::<Array<BigInt>, _>(column(jobs, |job| job.attempt))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(jobs, |job| job.retry_of))
        .bind::<Array<Nullable<Text>>, _>(column(jobs, |job| job.requested_by.as_deref()))
        .bind::<Array<Jsonb>, _>(column(jobs, |job| &job.command))
        .bind::<Array<Timestamptz>, _>(column(jobs, |job| job.created_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(begun(jobs, |state| state.dispatched_at))
        .bind::<Array<Nullable<Text>>, _>(begun(jobs, |state| state.journal.as_deref()))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(jobs, |job| job.run_id))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(jobs, |job| job.operation_id))
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// Which of `ids` are jobs that were made and have not moved since. An id that an agent has made may be that of another job,
/// or of one that is over.
///
/// # Errors
/// The database's.
pub async fn present(mut connection: &AsyncPgConnection, ids: &[Uuid]) -> QueryResult<HashSet<Uuid>> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let unmoved = jobs::accepted_at.is_null().and(jobs::began_at.is_null()).and(jobs::outcome.eq(OPEN_OUTCOME));
    let found = jobs::table.filter(jobs::id.eq_any(ids).and(unmoved)).select(jobs::id).load(&mut connection).await?;
    Ok(found.into_iter().collect())
}

/// Writes states. A row in a terminal status keeps that status whatever is asked. A successful init is noted at its
/// host, in the same statement.
///
/// # Errors
/// The database's.
pub async fn update_states(mut connection: &AsyncPgConnection, states: &HashMap<Uuid, &JobState>) -> QueryResult<()> {
    if states.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(states: &HashMap<Uuid, &'a JobState>, field: impl Fn(&'a JobState) -> T) -> Vec<T> {
        states.values().map(|state| field(state)).collect()
    }
    let ids: Vec<Uuid> = states.keys().copied().collect();
    let query = statement(
        "WITH news AS (
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) AS news (id, status,
                 partial, dispatched_at, accepted_at, started_at, finished_at, cancel_requested_at, ended_at, exit_code, error,
                 stats, progress, journal, began_at, lost_at, released_at)
         ), changed AS (
             UPDATE jobs SET status = news.status, partial = news.partial, dispatched_at = news.dispatched_at,
                 accepted_at = news.accepted_at, started_at = news.started_at, finished_at = news.finished_at,
                 cancel_requested_at = news.cancel_requested_at, ended_at = news.ended_at, exit_code = news.exit_code,
                 error = news.error, stats = news.stats, progress = news.progress, journal = news.journal,
                 began_at = news.began_at, lost_at = news.lost_at, released_at = news.released_at
             FROM news WHERE jobs.id = news.id AND (jobs.status IN ('queued', 'running') OR jobs.status = news.status)
             RETURNING jobs.host_id, jobs.repository_id, jobs.kind, jobs.status
         )
         UPDATE hosts SET initialized_repository_id = changed.repository_id FROM changed
         WHERE changed.kind = 'init' AND changed.status = 'succeeded' AND hosts.id = changed.host_id",
    );
    query
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Text>, _>(column(states, |state| state.status.as_str()))
        .bind::<Array<Bool>, _>(column(states, |state| state.partial))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.dispatched_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.accepted_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.started_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.finished_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.cancel_requested_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.ended_at))
        .bind::<Array<Nullable<BigInt>>, _>(column(states, |state| state.exit_code))
        .bind::<Array<Nullable<Text>>, _>(column(states, |state| state.error.as_deref().map(storable)))
        .bind::<Array<Nullable<Text>>, _>(column(states, |state| state.stats.as_deref().map(storable)))
        .bind::<Array<Nullable<Jsonb>>, _>(column(states, |state| state.progress.clone().map(Json)))
        .bind::<Array<Nullable<Text>>, _>(column(states, |state| state.journal.as_deref().map(storable)))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.began_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.lost_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(states, |state| state.released_at))
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// One job.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Job>> {
    let row = jobs::table.find(id).select(columns()).first::<(NewJob, StateRow)>(connection).await.optional()?;
    Ok(row.map(Job::from))
}

/// Jobs by their ids.
#[derive(Debug)]
pub struct ById;

impl Source for ById {
    type Key = Uuid;
    type Value = Job;

    async fn find(mut connection: &AsyncPgConnection, keys: &[Uuid]) -> QueryResult<HashMap<Uuid, Job>> {
        let rows = jobs::table.filter(jobs::id.eq_any(keys)).select(columns());
        let rows = rows.load::<(NewJob, StateRow)>(&mut connection).await?;
        Ok(rows.into_iter().map(|row| (row.0.id, Job::from(row))).collect())
    }
}

/// Which of `ids` are jobs of this host that are over and hold no lease.
///
/// # Errors
/// The database's.
pub async fn over_among(connection: &mut AsyncPgConnection, host_id: Uuid, ids: &[Uuid]) -> QueryResult<Vec<Uuid>> {
    jobs::table
        .filter(jobs::id.eq_any(ids).and(jobs::host_id.eq(host_id)).and(jobs::status.ne_all(OPEN)))
        .filter(jobs::lost_at.is_null().or(jobs::released_at.is_not_null()))
        .select(jobs::id)
        .load(connection)
        .await
}

/// Whether a job is not over. A literal, for the planner must see that an index holds just these.
pub(super) fn is_open() -> SqlLiteral<Bool> {
    sql("jobs.outcome = 'open'")
}

/// Whether a job is not over or still holds a lease.
pub(super) fn matters() -> SqlLiteral<Bool> {
    sql("(jobs.outcome = 'open' OR (jobs.lost_at IS NOT NULL AND jobs.released_at IS NULL))")
}

/// Every job that is not over or still holds a lease, oldest first.
///
/// # Errors
/// The database's.
pub async fn open(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Job>> {
    // In the order of the index that holds just these: with another, or with the lost ones in the same query, all of a
    // hundred thousand are sorted on disk. They are read as they come, for there may be many.
    let open = jobs::table.filter(is_open()).order((jobs::created_at.desc(), jobs::id.desc())).select(columns());
    let open = open.load_stream::<(NewJob, StateRow)>(connection).await?;
    let mut found: Vec<Job> = open.map_ok(Job::from).try_collect().await?;
    let lost = jobs::table.filter(jobs::lost_at.is_not_null().and(jobs::released_at.is_null())).select(columns());
    let lost = lost.load::<(NewJob, StateRow)>(connection).await?;
    found.extend(lost.into_iter().map(Job::from));
    found.sort_unstable_by_key(|job| (job.new.created_at, job.new.id));
    // A lost job is over, but nothing depends on that here.
    found.dedup_by_key(|job| job.new.id);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_in_memory_reads_as_what_is_stored() {
        let time = chrono::DateTime::from_timestamp(1_790_000_000, 123_456_789).expect("a time");
        let state = JobState { ended_at: Some(time), error: Some("a\0b".to_owned()), ..JobState::new() }.as_stored();
        assert_eq!(state.ended_at.map(|time| time.timestamp_subsec_nanos()), Some(123_456_000));
        assert_eq!(state.error.as_deref(), Some("a\u{fffd}b"));
    }
}
