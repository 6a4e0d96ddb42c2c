//! Jobs as REST shows them.

use crate::db::jobs::Job;
use crate::dispatcher::Explain;
use crate::dispatcher::admission::Obstacle;
use crate::http::failures::in_time;
use crate::http::openapi::schemas;
use crate::http::problem::Problem;
use crate::http::reach::reach;
use crate::services::Services;
use actix_web::{HttpResponse, HttpResponseBuilder};
use fleet_wire::{JobProgress, RawJson, Status, Timestamp};
use serde::Serialize;
use std::collections::HashMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// A job as REST shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(in crate::http) struct JobView<'a> {
    id: Uuid,
    host_id: Uuid,
    repository_id: Uuid,
    #[schema(value_type = schemas::Kind)]
    kind: &'a str,
    #[schema(value_type = schemas::JobStatus)]
    status: Status,
    partial: bool,
    #[schema(value_type = schemas::JobOrigin)]
    origin: &'a str,
    source_group: Option<&'a str>,
    schedule_id: Option<Uuid>,
    scheduled_at: Option<Timestamp>,
    attempt: i64,
    retry_of: Option<Uuid>,
    operation_id: Option<Uuid>,
    requested_by: Option<&'a str>,
    /// What keeps a queued job from starting.
    waiting_for: Option<String>,
    created_at: Timestamp,
    dispatched_at: Option<Timestamp>,
    accepted_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    cancel_requested_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    lost_at: Option<Timestamp>,
    released_at: Option<Timestamp>,
    exit_code: Option<i64>,
    error: Option<&'a str>,
    /// What restic summed up, as it is.
    #[schema(schema_with = schemas::anything)]
    stats: Option<RawJson>,
    progress: Option<ProgressView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Progress)]
struct ProgressView {
    percent_done: f64,
    files_done: i64,
    total_files: i64,
    bytes_done: i64,
    total_bytes: i64,
    eta_seconds: i64,
    throughput_bps: i64,
}

impl From<JobProgress> for ProgressView {
    fn from(progress: JobProgress) -> Self {
        Self {
            percent_done: progress.percent_done,
            files_done: progress.files_done,
            total_files: progress.total_files,
            bytes_done: progress.bytes_done,
            total_bytes: progress.total_bytes,
            eta_seconds: progress.eta_seconds,
            throughput_bps: progress.throughput_bps,
        }
    }
}

impl<'a> JobView<'a> {
    pub(super) fn new(job: &'a Job, waiting_for: Option<String>, progress: Option<JobProgress>) -> Self {
        let (new, state) = (&*job.new, &*job.state);
        Self {
            id: new.id,
            host_id: new.host_id,
            repository_id: new.repository_id,
            kind: &new.kind,
            status: state.status,
            partial: state.partial,
            origin: &new.origin,
            source_group: new.source_group.as_deref(),
            schedule_id: new.schedule_id,
            scheduled_at: new.scheduled_at,
            attempt: new.attempt,
            retry_of: new.retry_of,
            operation_id: new.operation_id,
            requested_by: new.requested_by.as_deref(),
            waiting_for,
            created_at: new.created_at,
            dispatched_at: state.dispatched_at,
            accepted_at: state.accepted_at,
            started_at: state.started_at,
            finished_at: state.finished_at,
            cancel_requested_at: state.cancel_requested_at,
            ended_at: state.ended_at,
            lost_at: state.lost_at,
            released_at: state.released_at,
            exit_code: state.exit_code,
            error: state.error.as_deref(),
            // What agents report is JSON by the wire's types.
            stats: state.stats.clone().and_then(|stats| RawJson::new(stats).ok()),
            progress: progress.or_else(|| state.progress.clone()).map(ProgressView::from),
        }
    }
}

/// What a job that was let go still waits for, as far as the ledger tells.
pub(super) fn waits_at_agent(job: &Job) -> Option<String> {
    let state = &job.state;
    match (state.status, state.dispatched_at, state.accepted_at) {
        (Status::Queued, Some(_), None) => Some("the agent to accept it".to_owned()),
        (Status::Queued, Some(_), Some(_)) => Some("its turn at the agent".to_owned()),
        _ => None,
    }
}

/// What the waiting ones of `jobs` wait for, which only the running coordinator knows, as the current request may hear of it.
pub(super) async fn obstacles(services: &Services, jobs: &[Job]) -> Result<HashMap<Uuid, String>, Problem> {
    let waits = |job: &&Job| job.state.status == Status::Queued && job.state.dispatched_at.is_none();
    let waiting: Vec<Uuid> = jobs.iter().filter(waits).map(|job| job.new.id).collect();
    if waiting.is_empty() {
        return Ok(HashMap::new());
    }
    let found = in_time(async { Ok(services.dispatcher.send(Explain { jobs: waiting }).await?) }).await?;
    in_words(services, found).await
}

/// The same of what is known already.
pub(super) async fn in_words(
    services: &Services,
    found: HashMap<Uuid, Obstacle>,
) -> Result<HashMap<Uuid, String>, Problem> {
    let reach = match found.values().any(|obstacle| obstacle.host().is_some()) {
        true => reach(services).await?,
        false => None,
    };
    let sees = |host: Uuid| reach.as_ref().is_none_or(|reach| reach.hosts.contains(&host));
    Ok(found.into_iter().map(|(job, obstacle)| (job, obstacle.describe(sees))).collect())
}

/// A job with what only the running coordinator knows.
pub(super) fn view<'a>(services: &Services, job: &'a Job, obstacles: &mut HashMap<Uuid, String>) -> JobView<'a> {
    let waiting_for = obstacles.remove(&job.new.id).or_else(|| waits_at_agent(job));
    JobView::new(job, waiting_for, services.board.progress(job.new.id))
}

/// The answer that shows a job.
pub(super) async fn show(
    services: &Services,
    mut answer: HttpResponseBuilder,
    job: &Job,
) -> Result<HttpResponse, Problem> {
    let mut obstacles = obstacles(services, std::slice::from_ref(job)).await?;
    Ok(answer.json(view(services, job, &mut obstacles)))
}
