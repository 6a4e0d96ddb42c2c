//! Jobs over REST: run, list, read, wait, cancel.

mod list;
mod run;
mod view;

pub(super) use list::{FILTERS, JobFilter, list_of};
pub(super) use view::JobView;

use super::failures::told_in_time;
use super::params::Params;
use super::problem::Problem;
use super::routes::resource;
use crate::db::jobs::Job;
use crate::dispatcher::Tell;
use crate::job::{Cancel, Job as JobActor, NotWritten, Release};
use crate::request::{self, Request};
use crate::services::Services;
use actix::{Handler, Message};
use actix_web::{HttpResponse, web};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::OpenApi;
use uuid::Uuid;
use view::show;

/// The longest `?wait=`, in seconds.
pub(super) const LONGEST_WAIT: i64 = 60;
/// How often, and how fast, a cancel is tried for a job that is just being made.
const CANCEL_TRIES: usize = 10;
const CANCEL_PAUSE: Duration = Duration::from_millis(50);

/// Adds the routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/hosts/{id}/jobs", [web::post().to(run::run)], "POST"))
        .service(resource("/jobs", [web::get().to(list::list)], "GET"))
        .service(resource("/jobs/{id}", [web::get().to(read)], "GET"))
        .service(resource("/jobs/{id}/cancel", [web::post().to(cancel)], "POST"))
        .service(resource("/jobs/{id}/release", [web::post().to(release)], "POST"))
        .service(resource("/jobs/{id}/logs", [web::get().to(super::logs::read)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(run::run, list::list, read, cancel, release))]
pub(super) struct Api;

fn no_job() -> Problem {
    Problem::not_found("there is no such job")
}

/// The job that a path names.
pub(super) async fn find(services: &Services, id: &str) -> Result<Job, Problem> {
    let id: Uuid = id.parse().map_err(|_| no_job())?;
    look_up(services, id).await?.ok_or_else(no_job)
}

async fn look_up(services: &Services, id: Uuid) -> Result<Option<Job>, Problem> {
    match services.live.read(id) {
        Some(job) => Ok(Some(job)),
        None => Ok(services.jobs.get(id).await?),
    }
}

/// A job; with `wait`, as soon as it is over or the time is up
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    params(("wait" = Option<i64>, Query, description = "Seconds.", minimum = 0, maximum = 60)),
    responses((status = 200, body = JobView))
)]
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
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", responses((status = 202, body = JobView)))]
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
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/release",
    responses((status = 202, body = JobView), (status = 409, description = "The job is not over."))
)]
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
