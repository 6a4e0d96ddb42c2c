//! Jobs over REST: run, list, read, wait, cancel.

use super::body::Body;
use super::clock::now;
use super::failures::{dispatched, in_time, read as read_from, told_in_time};
use super::page::{CURSOR, LIMIT, List, Page};
use super::params::{Params, bad_param};
use super::problem::{FieldError, Problem};
use super::reach::{check_kind, reach};
use super::routes::resource;
use crate::db::job_lists::{self, Filter};
use crate::db::jobs::{Job, NewJob, Origin};
use crate::db::planning::Planning;
use crate::dispatcher::{Explain, Submit, Submitted, Tell};
use crate::job::plan::{Cause, Objection, Wish, plan};
use crate::job::{Cancel, Job as JobActor, NotWritten, Release};
use crate::persistence::WriteError;
use crate::request::{self, Request};
use crate::services::Services;
use actix::{Handler, Message};
use actix_web::http::header;
use actix_web::{HttpResponse, HttpResponseBuilder, web};
use chrono::{TimeDelta, Utc};
use fleet_wire::{Cap, ForgetGroup, ForgetLimit, JobProgress, Kind, RawJson, Status, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The longest `?wait=`, in seconds.
pub(super) const LONGEST_WAIT: i64 = 60;
/// How often, and how fast, a cancel is tried for a job that is just being made.
const CANCEL_TRIES: usize = 10;
const CANCEL_PAUSE: Duration = Duration::from_millis(50);

/// For how long a forget that was refused can be confirmed: what it would delete changes with time.
const CONFIRMABLE: TimeDelta = TimeDelta::days(7);

/// Adds the routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/hosts/{id}/jobs", [web::post().to(run)], "POST"))
        .service(resource("/jobs", [web::get().to(list)], "GET"))
        .service(resource("/jobs/{id}", [web::get().to(read)], "GET"))
        .service(resource("/jobs/{id}/cancel", [web::post().to(cancel)], "POST"))
        .service(resource("/jobs/{id}/release", [web::post().to(release)], "POST"))
        .service(resource("/jobs/{id}/logs", [web::get().to(super::logs::read)], "GET"));
}

/// A job as REST shows it.
#[derive(Debug, Serialize)]
struct JobView<'a> {
    id: Uuid,
    host_id: Uuid,
    repository_id: Uuid,
    kind: &'a str,
    status: Status,
    partial: bool,
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
    stats: Option<RawJson>,
    progress: Option<ProgressView>,
}

#[derive(Debug, Serialize)]
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
    fn new(job: &'a Job, waiting_for: Option<String>, progress: Option<JobProgress>) -> Self {
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
fn waits_at_agent(job: &Job) -> Option<String> {
    let state = &job.state;
    match (state.status, state.dispatched_at, state.accepted_at) {
        (Status::Queued, Some(_), None) => Some("the agent to accept it".to_owned()),
        (Status::Queued, Some(_), Some(_)) => Some("its turn at the agent".to_owned()),
        _ => None,
    }
}

/// What the waiting ones of `jobs` wait for, which only the running coordinator knows.
async fn obstacles(services: &Services, jobs: &[Job]) -> Result<HashMap<Uuid, String>, Problem> {
    let waits = |job: &&Job| job.state.status == Status::Queued && job.state.dispatched_at.is_none();
    let waiting: Vec<Uuid> = jobs.iter().filter(waits).map(|job| job.new.id).collect();
    if waiting.is_empty() {
        return Ok(HashMap::new());
    }
    in_time(async { Ok(services.dispatcher.send(Explain { jobs: waiting }).await?) }).await
}

/// A job with what only the running coordinator knows.
fn view<'a>(services: &Services, job: &'a Job, obstacles: &mut HashMap<Uuid, String>) -> JobView<'a> {
    let waiting_for = obstacles.remove(&job.new.id).or_else(|| waits_at_agent(job));
    JobView::new(job, waiting_for, services.board.progress(job.new.id))
}

/// The answer that shows a job.
async fn show(services: &Services, mut answer: HttpResponseBuilder, job: &Job) -> Result<HttpResponse, Problem> {
    let mut obstacles = obstacles(services, std::slice::from_ref(job)).await?;
    Ok(answer.json(view(services, job, &mut obstacles)))
}

fn no_job() -> Problem {
    Problem::not_found("there is no such job")
}

/// The job that a path names.
pub(super) async fn find(services: &Services, id: &str) -> Result<Job, Problem> {
    let id: Uuid = id.parse().map_err(|_| no_job())?;
    if let Some(job) = services.live.read(id) {
        return Ok(job);
    }
    services.jobs.get(id).await?.ok_or_else(no_job)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunRequest {
    kind: Kind,
    source_group: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    bandwidth_up_kbps: Option<i64>,
    bandwidth_down_kbps: Option<i64>,
    /// A forget only reports what it would delete.
    #[serde(default)]
    dry_run: bool,
    /// A forget that was refused for what it would delete: a person wants it all the same.
    confirm: Option<String>,
}

impl RunRequest {
    fn wish(self, confirmed: Option<Confirmed>) -> Wish {
        let (limit, forget_groups) = confirmed.map(|confirmed| (confirmed.limit, confirmed.groups)).unzip();
        Wish {
            dry_run: self.dry_run,
            limit,
            forget_groups: forget_groups.unwrap_or_default(),
            source_group: self.source_group,
            args: self.args,
            bandwidth_up_kbps: self.bandwidth_up_kbps.map_or(Cap::Unchanged, Cap::present),
            bandwidth_down_kbps: self.bandwidth_down_kbps.map_or(Cap::Unchanged, Cap::present),
        }
    }
}

async fn run(
    services: web::Data<Services>,
    host_id: web::Path<String>,
    Body(request): Body<RunRequest>,
) -> Result<HttpResponse, Problem> {
    if let Some(job) = made_before(&services).await? {
        return accepted(&job, None);
    }
    let no_host = || Problem::not_found("there is no such host");
    let host_id: Uuid = host_id.parse().map_err(|_| no_host())?;
    let cause = Cause { origin: Origin::Operator, requested_by: request::caller_name(), at: now() };
    let kind = request.kind;
    let confirmed = confirmed(&services, host_id, &request).await?;
    let wish = request.wish(confirmed);
    let known = services.planning.get(host_id).await?.ok_or_else(no_host)?;
    let Planning { host, repository, groups } = &*known;
    let repository =
        repository.as_ref().ok_or_else(|| Problem::conflict("this host has no repository: assign one first"))?;
    check_kind(&services, kind, repository.id).await?;
    let new = plan(kind, &wish, host, repository, groups, cause).map_err(|objections| {
        let field = |objection: Objection| FieldError::new(objection.pointer, objection.detail);
        Problem::invalid(objections.into_iter().map(field).collect())
    })?;
    let Submitted { job, waiting_for } = submit(&services, new.with_id(request::new_id())).await?;
    accepted(&job, waiting_for)
}

/// The job that a repeated request has made before a crash.
async fn made_before(services: &Services) -> Result<Option<Job>, Problem> {
    let Some(id) = request::made_before() else { return Ok(None) };
    Ok(Some(find(services, &id.to_string()).await?))
}

fn accepted(job: &Job, waiting_for: Option<String>) -> Result<HttpResponse, Problem> {
    let location = (header::LOCATION, format!("/v1/jobs/{}", job.new.id));
    let waiting_for = waiting_for.or_else(|| waits_at_agent(job));
    Ok(HttpResponse::Accepted().insert_header(location).json(JobView::new(job, waiting_for, None)))
}

/// What a person confirms: a forget that was refused for what it would delete. It may delete as much as that one would
/// have, of the same groups.
struct Confirmed {
    limit: ForgetLimit,
    groups: Vec<ForgetGroup>,
}

async fn confirmed(services: &Services, host_id: Uuid, request: &RunRequest) -> Result<Option<Confirmed>, Problem> {
    let Some(confirm) = &request.confirm else { return Ok(None) };
    let wrong = |detail: &str| Problem::invalid_field("/confirm", detail);
    if request.kind != Kind::Forget || request.dry_run || request.source_group.is_some() {
        return Err(wrong(
            "only a forget that deletes can be confirmed, and it has the groups of the one that was refused",
        ));
    }
    let refused = find(services, confirm).await.map_err(|_| wrong("there is no such job"))?;
    if refused.new.host_id != host_id || refused.new.kind != Kind::Forget.as_str() {
        return Err(wrong("that job is no forget of this host"));
    }
    let was_limited = refused.state.status == Status::Failed && refused.new.command.0.forget_limit.is_some();
    let over = refused.state.stats.as_deref().filter(|_| was_limited).and_then(would_remove);
    let snapshots = over.ok_or_else(|| wrong("that job was not refused for what it would delete"))?;
    let ended = refused.state.ended_at.unwrap_or(refused.new.created_at);
    if Utc::now() - ended > CONFIRMABLE {
        return Err(wrong("that job was refused too long ago: let it be refused once more, and look at the list"));
    }
    let limit = ForgetLimit { snapshots: Some(snapshots), share: None };
    Ok(Some(Confirmed { limit, groups: refused.new.command.0.forget_groups.clone() }))
}

/// How many snapshots a forget would have deleted, by the stats of the one that was refused.
fn would_remove(stats: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Preview {
        dry_run: bool,
        removed: i64,
    }
    serde_json::from_str(stats).ok().filter(|preview: &Preview| preview.dry_run).map(|preview| preview.removed)
}

async fn submit(services: &Services, new: NewJob) -> Result<Submitted, Problem> {
    request::note(&new.kind);
    match dispatched(services, |request| Submit { request, ..Submit::wish(new) }).await? {
        Ok(submitted) => Ok(submitted),
        Err(WriteError::Rejected(diesel::result::Error::NotFound)) => {
            Err(Problem::conflict("the host was removed or got another repository meanwhile"))
        }
        Err(error) => Err(error.into()),
    }
}

async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&["host_id", "kind", "status", "origin", "since", "operation_id", LIMIT, CURSOR])?;
    let operation_id = id(&params, "operation_id")?;
    list_of(&services, &params, operation_id).await
}

/// A parameter that is an id. One that is none is nobody's: the list is empty.
fn id(params: &Params, name: &str) -> Result<Option<Uuid>, Problem> {
    Ok(params.one(name)?.map(|id| id.parse().unwrap_or(Uuid::nil())))
}

/// The jobs that `params` want, all or those of an operation.
pub(super) async fn list_of(
    services: &Services,
    params: &Params,
    operation_id: Option<Uuid>,
) -> Result<HttpResponse, Problem> {
    let page: Page<(Timestamp, Uuid)> = Page::of(params)?;
    let filter = Filter {
        operation_id,
        host_id: id(params, "host_id")?,
        kind: literal(params, "kind")?,
        status: literal(params, "status")?,
        origin: literal(params, "origin")?,
        since: params.time("since")?,
        within: reach(services).await?.map(|reach| reach.hosts),
        after: page.after,
    };
    let found = read_from(services, async |reader| job_lists::list(reader, &filter, page.rows()).await).await?;
    let page = page.list(found, |job| (job.new.created_at, job.new.id), |job| job);
    let mut obstacles = obstacles(services, &page.items).await?;
    let items = page.items.iter().map(|job| view(services, job, &mut obstacles)).collect();
    Ok(HttpResponse::Ok().json(List { items, next_cursor: page.next_cursor }))
}

/// A parameter that must be one of a few words.
fn literal<T: FromStr<Err = String>>(params: &Params, name: &str) -> Result<Option<T>, Problem> {
    params.one(name)?.map(|text| text.parse().map_err(|error| bad_param(name, error))).transpose()
}

async fn read(services: web::Data<Services>, id: web::Path<String>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&["wait"])?;
    let wait = params.number("wait", 0..=LONGEST_WAIT)?.unwrap_or(0);
    let job = when_over(&services, &id, Duration::from_secs(wait.unsigned_abs())).await?;
    show(&services, HttpResponse::Ok(), &job).await
}

/// The job when it is over, or as it is after `wait`.
async fn when_over(services: &Services, id: &str, wait: Duration) -> Result<Job, Problem> {
    let give_up = Instant::now() + wait;
    let mut job = find(services, id).await?;
    while !job.state.status.is_terminal() && !wait.is_zero() {
        let watch = services.board.watch(job.new.id);
        let changed = watch.changed();
        // Read again after the watch began: a change in between would be missed.
        job = find(services, id).await?;
        if job.state.status.is_terminal() || tokio::time::timeout_at(give_up, changed).await.is_err() {
            break;
        }
        job = find(services, id).await?;
    }
    Ok(job)
}

/// Tells a job what the current request wants of it; false if there is nobody to tell.
async fn tell<M>(
    services: &Services,
    job_id: Uuid,
    message: impl FnOnce(Option<Arc<Request>>) -> M,
) -> Result<bool, Problem>
where
    M: Message<Result = Result<(), NotWritten>> + Send + 'static,
    JobActor: Handler<M>,
{
    let request = request::to_record();
    let message = message(request.clone());
    let told = told_in_time(async { Ok(services.dispatcher.send(Tell { job_id, message }).await??) }).await?;
    if !told && let Some(request) = request {
        request.settled(false);
    }
    Ok(told)
}

/// The same answer however often it is asked: the job, which ends or has ended. The agent is told before anything is
/// read, so that a cancel works while the database is away.
async fn cancel(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let job_id: Uuid = id.parse().map_err(|_| no_job())?;
    for _ in 0..CANCEL_TRIES {
        let told = tell(&services, job_id, |request| Cancel { request }).await?;
        let job = find(&services, &id).await.map_err(|error| if told { Problem::outcome_unknown() } else { error })?;
        if told || job.state.status.is_terminal() {
            return show(&services, HttpResponse::Accepted(), &job).await;
        }
        // It was stored a moment ago and the dispatcher has yet to learn of it.
        actix::clock::sleep(CANCEL_PAUSE).await;
    }
    Err(Problem::unavailable("the job is just being made: try again"))
}

/// A person knows that nobody is at work on a lost job any more: its repository is free again.
async fn release(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let job = find(&services, &id).await?;
    if !job.state.status.is_terminal() {
        return Err(Problem::conflict("the job is not over: cancel it first"));
    }
    if job.state.holds_lease() {
        tell(&services, job.new.id, |request| Release { request }).await?;
    }
    let job = find(&services, &id).await?;
    show(&services, HttpResponse::Accepted(), &job).await
}
