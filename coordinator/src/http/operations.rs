//! `/v1/operations`: one wish for many hosts.

use super::body::Body;
use super::check::{no, path_id};
use super::clock::now;
use super::failures::{WAIT_LIMIT, dispatched, read, told_in_time};
use super::idempotency::gone_since;
use super::jobs::{FILTERS, JobFilter, JobView, LONGEST_WAIT, list_of};
use super::openapi::schemas;
use super::operation_request::{OperationRequest, Plan};
use super::operation_views::{self, OperationView};
use super::page::{CURSOR, LIMIT, List, Page, PageOfIds, PageOfNumbers, PageOfTimes};
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::reach::{check_kind, reach};
use super::routes::resource;
use crate::db::jobs::Origin;
use crate::db::json::Json;
use crate::db::operations::{self, Asked, Ended, Operation, Skipped};
use crate::db::pauses::Target;
use crate::db::planning::{self, Selection};
use crate::dispatcher::SubmitOperation;
use crate::job::plan::Cause;
use crate::operation::select::{Member, Per, members};
use crate::operation::{Ask, Cancel};
use crate::persistence::{Outcome, WriteError};
use crate::request;
use crate::services::Services;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use fleet_wire::{Kind, Status, Timestamp};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// Of how many reasons the answer tells when no host can run it.
const REASONS: usize = 5;

/// Adds the routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/operations", [web::post().to(make), web::get().to(list)], "GET, POST"))
        .service(resource("/operations/{id}", [web::get().to(get)], "GET"))
        .service(resource("/operations/{id}/jobs", [web::get().to(jobs)], "GET"))
        .service(resource("/operations/{id}/skipped", [web::get().to(skipped)], "GET"))
        .service(resource("/operations/{id}/cancel", [web::post().to(cancel)], "POST"))
        .service(resource("/operations/{id}/retry", [web::post().to(retry)], "POST"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(make, list, get, jobs, skipped, cancel, retry))]
pub(super) struct Api;

/// Starts an operation, or with `dry_run` says whom it would hit
#[utoipa::path(
    post,
    path = "/v1/operations",
    params(PageOfNumbers),
    request_body = OperationRequest,
    responses(
        (status = 200, description = "What would be done: nothing was.", body = Preview),
        (status = 202, body = OperationView, headers(("Location" = String))),
        (status = 409, description = "No host would run it.")
    )
)]
async fn make(
    services: web::Data<Services>,
    params: Params,
    Body(request): Body<OperationRequest>,
) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    if let Some(operation) = made_before(&services).await? {
        return accepted(&services, operation).await;
    }
    let page = Page::of(&params)?;
    let dry_run = request.dry_run;
    let plan = Plan::of(request)?;
    let cause = Cause { origin: Origin::Operator, requested_by: request::caller_name(), at: now() };
    let (members, unknown) = plan_members(&services, &plan, &cause).await?;
    if dry_run {
        return Ok(preview(&plan, members, unknown, &page));
    }
    submit(&services, plan, members, unknown, &cause, HashMap::new(), None).await
}

/// The members that `plan` means, and the ids that are no host's.
async fn plan_members(services: &Services, plan: &Plan, cause: &Cause) -> Result<(Vec<Member>, Vec<Uuid>), Problem> {
    let selection = limited(&plan.selection)?;
    let known = read(services, async |reader| planning::of_selection(reader, &selection).await).await?;
    let there: HashSet<Uuid> = known.iter().map(|known| known.host.id).collect();
    let narrowed =
        !plan.selection.labels.is_empty() || plan.selection.online.is_some() || plan.selection.repository_id.is_some();
    // Of those that something else left out nobody knows whether they are there, and they were not meant.
    let ids = plan.selection.ids.iter().flatten().filter(|_| !narrowed);
    let unknown: BTreeSet<Uuid> = ids.filter(|id| !there.contains(id)).copied().collect();
    let unknown = unknown.into_iter().collect();
    let can_go =
        |host_id| services.board.ready_for(host_id).is_some() && services.pauses.get(Target::Host(host_id)).is_none();
    let members = members(plan.kind, plan.per, &plan.wish(), known, can_go, cause);
    for repository_id in members.iter().filter_map(|member| member.repository_id).collect::<BTreeSet<Uuid>>() {
        check_kind(services, plan.kind, repository_id).await?;
    }
    Ok((members, unknown))
}

/// Of what is selected, what the current request may touch.
fn limited(selection: &Selection) -> Result<Selection, Problem> {
    let mut selection = selection.clone();
    for (name, value) in request::host_limit().unwrap_or_default() {
        if selection.labels.insert(name, value.clone()).is_some_and(|wanted| wanted != value) {
            return Err(Problem::forbidden("this token is limited to hosts with other labels"));
        }
    }
    Ok(selection)
}

/// The operation that a repeated request has made before a crash.
async fn made_before(services: &Services) -> Result<Option<Operation>, Problem> {
    let Some(id) = request::made_before() else { return Ok(None) };
    let found = read(services, async |reader| operations::find(reader, id).await).await?;
    found.ok_or_else(gone_since).map(Some)
}

const NO_HOST: &str = "there is no host with this id in service";

#[derive(Serialize, ToSchema)]
struct Preview {
    #[schema(value_type = schemas::Kind)]
    kind: Kind,
    per: Per,
    counts: PreviewCounts,
    items: Vec<PreviewItem>,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct PreviewCounts {
    jobs: usize,
    skipped: usize,
}

#[derive(Serialize, ToSchema)]
struct PreviewItem {
    host_id: Uuid,
    hostname: Option<String>,
    repository_id: Option<Uuid>,
    /// Why it would get no job.
    skipped: Option<String>,
}

/// What would be done; nothing is.
fn preview(plan: &Plan, members: Vec<Member>, unknown: Vec<Uuid>, page: &Page<i64>) -> HttpResponse {
    let jobs = members.iter().filter(|member| member.job.is_ok()).count();
    let counts = PreviewCounts { jobs, skipped: members.len() + unknown.len() - jobs };
    let of_member = |member: Member| PreviewItem {
        host_id: member.host_id,
        hostname: Some(member.hostname),
        repository_id: member.repository_id,
        skipped: member.job.err(),
    };
    let of_nobody =
        |host_id| PreviewItem { host_id, hostname: None, repository_id: None, skipped: Some(NO_HOST.to_owned()) };
    let items = members.into_iter().map(of_member).chain(unknown.into_iter().map(of_nobody)).zip(1_i64..);
    let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
    let rows = items.skip_while(|(_, place)| page.after.is_some_and(|after| *place <= after)).take(rows).collect();
    let List { items, next_cursor } = page.list(rows, |(_, place)| *place, |(item, _)| item);
    HttpResponse::Ok().json(Preview { kind: plan.kind, per: plan.per, counts, items, next_cursor })
}

/// Makes the operation. `retries` tells, by host, which job a job tries again.
async fn submit(
    services: &Services,
    plan: Plan,
    members: Vec<Member>,
    unknown: Vec<Uuid>,
    cause: &Cause,
    retries: HashMap<Uuid, Ended>,
    retry_of: Option<Uuid>,
) -> Result<HttpResponse, Problem> {
    let id = request::new_id();
    let mut jobs = Vec::with_capacity(members.len());
    let mut skipped: Vec<Skipped> =
        unknown.into_iter().map(|host_id| Skipped { host_id, reason: NO_HOST.to_owned() }).collect();
    for Member { host_id, job, .. } in members {
        match job {
            Ok(mut job) => {
                job.operation_id = Some(id);
                if let Some(retried) = retries.get(&host_id) {
                    job.retry_of = Some(retried.job_id);
                    job.attempt = retried.attempt + 1;
                }
                jobs.push(job);
            }
            Err(reason) => skipped.push(Skipped { host_id, reason }),
        }
    }
    if jobs.is_empty() {
        return Err(nobody(&skipped));
    }
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let operation = Operation {
        id,
        kind: plan.kind.as_str().to_owned(),
        request: Json(plan.asked),
        retry_of,
        requested_by: Some(cause.requested_by.clone()),
        created_at: cause.at,
        canaries: plan.canaries,
        max_parallel: plan.max_parallel,
        stop_after_failures: plan.stop_after_failures,
        jobs: count(jobs.len()),
        skipped: count(skipped.len()),
        cancel_requested_at: None,
        halted_at: None,
        halt_reason: None,
        ended_at: None,
        succeeded: 0,
        partial: 0,
        failed: 0,
        cancelled: 0,
    };
    request::note(&operation.kind);
    match dispatched(services, |request| SubmitOperation { operation, jobs, skipped, request }).await? {
        Ok(operation) => accepted(services, operation).await,
        Err(WriteError::Rejected(error)) => Err(Problem::internal(error)),
        Err(error) => Err(error.into()),
    }
}

/// 409: nobody would run it.
fn nobody(skipped: &[Skipped]) -> Problem {
    if skipped.is_empty() {
        return Problem::conflicting_field("/selector", "no host in service is like that");
    }
    let reason = |skipped: &Skipped| {
        FieldError::new("/selector", format!("host {} can't run it: {}", skipped.host_id, skipped.reason))
    };
    Problem::conflicts(skipped.iter().take(REASONS).map(reason).collect())
}

async fn accepted(services: &Services, operation: Operation) -> Result<HttpResponse, Problem> {
    let location = (header::LOCATION, format!("/v1/operations/{}", operation.id));
    let view = show(services, operation).await?;
    Ok(HttpResponse::Accepted().insert_header(location).json(view))
}

/// Operations as the current request may see them.
async fn views(services: &Services, rows: Vec<Operation>) -> Result<Vec<OperationView>, Problem> {
    let Some(reach) = reach(services).await? else {
        return Ok(stream::iter(rows).then(|row| live(services, row)).collect().await);
    };
    let mut counts = read(services, async |reader| operations::counts_of(reader, &rows, &reach.hosts).await).await?;
    Ok(rows
        .into_iter()
        .map(|row| (counts.remove(&row.id).unwrap_or_default(), row))
        .map(operation_views::part)
        .collect())
}

async fn show(services: &Services, operation: Operation) -> Result<Option<OperationView>, Problem> {
    Ok(views(services, vec![operation]).await?.pop())
}

/// An operation with what only the running coordinator knows.
async fn live(services: &Services, operation: Operation) -> OperationView {
    let actor = if operation.ended_at.is_none() { services.operations.get(operation.id) } else { None };
    let Some(actor) = actor else { return operation_views::stored(operation) };
    match tokio::time::timeout(WAIT_LIMIT, actor.send(Ask)).await {
        Ok(Ok(look)) => operation_views::live(look),
        // It has ended a moment ago, or is about to.
        _ => operation_views::stored(operation),
    }
}

/// The operation of a path.
async fn find(services: &Services, id: &str) -> Result<Operation, Problem> {
    let id = path_id("operation", id)?;
    let found = read(services, async |reader| operations::find(reader, id).await).await?;
    found.ok_or_else(|| no("operation"))
}

/// Operations, the newest first
#[utoipa::path(
    get,
    path = "/v1/operations",
    params(PageOfTimes),
    responses((status = 200, body = List<OperationView>))
)]
async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page: Page<(Timestamp, Uuid)> = Page::of(&params)?;
    let hosts = reach(&services).await?.map(|reach| reach.hosts);
    let rows = async |reader: &mut _| operations::list(reader, hosts.as_deref(), page.after, page.rows()).await;
    let rows = read(&services, rows).await?;
    let List { items, next_cursor } = page.list(rows, |row| (row.created_at, row.id), |row| row);
    Ok(HttpResponse::Ok().json(List { items: views(&services, items).await?, next_cursor }))
}

/// An operation; with `wait`, as soon as it is over or the time is up
#[utoipa::path(
    get,
    path = "/v1/operations/{id}",
    params(("wait" = Option<i64>, Query, description = "Seconds.", minimum = 0, maximum = 60)),
    responses((status = 200, body = OperationView))
)]
async fn get(services: web::Data<Services>, id: web::Path<String>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&["wait"])?;
    let wait = params.number("wait", 0..=LONGEST_WAIT)?.unwrap_or(0);
    let give_up = Instant::now() + Duration::from_secs(wait.unsigned_abs());
    let mut operation = find(&services, &id).await?;
    while operation.ended_at.is_none() && wait > 0 {
        let watch = services.board.watch(operation.id);
        let changed = watch.changed();
        // Read again after the watch began: a change in between would be missed.
        operation = find(&services, &id).await?;
        if operation.ended_at.is_some() || tokio::time::timeout_at(give_up, changed).await.is_err() {
            break;
        }
        operation = find(&services, &id).await?;
    }
    Ok(HttpResponse::Ok().json(show(&services, operation).await?))
}

/// Jobs of an operation, the newest first
#[utoipa::path(
    get,
    path = "/v1/operations/{id}/jobs",
    params(PageOfTimes, JobFilter),
    responses((status = 200, body = List<JobView>))
)]
async fn jobs(services: web::Data<Services>, id: web::Path<String>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[&FILTERS[..], &[LIMIT, CURSOR]].concat())?;
    let operation = find(&services, &id).await?;
    list_of(&services, &params, Some(operation.id)).await
}

#[derive(Serialize, ToSchema)]
#[schema(as = SkippedHost)]
struct SkippedView {
    host_id: Uuid,
    reason: String,
}

/// Hosts that an operation gave no job, and why
#[utoipa::path(
    get,
    path = "/v1/operations/{id}/skipped",
    params(PageOfIds),
    responses((status = 200, body = List<SkippedView>))
)]
async fn skipped(
    services: web::Data<Services>,
    id: web::Path<String>,
    params: Params,
) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page: Page<Uuid> = Page::of(&params)?;
    let operation = find(&services, &id).await?;
    let hosts = reach(&services).await?.map(|reach| reach.hosts);
    let rows = async |reader: &mut _| {
        operations::skipped(reader, operation.id, hosts.as_deref(), page.after, page.rows()).await
    };
    let rows = read(&services, rows).await?;
    let view = |row: Skipped| SkippedView { host_id: row.host_id, reason: row.reason };
    Ok(HttpResponse::Ok().json(page.list(rows, |row| row.host_id, view)))
}

/// The same answer however often it is asked: the operation, which ends or has ended.
#[utoipa::path(post, path = "/v1/operations/{id}/cancel", responses((status = 202, body = OperationView)))]
async fn cancel(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let operation = find(&services, &id).await?;
    if let Some(actor) = services.operations.get(operation.id) {
        let (request, told) = Outcome::of_now();
        told_in_time(async {
            let first = actor.send(Cancel { request }).await.unwrap_or(Ok(false)); // it has just ended
            told.is(&first, |first| *first);
            Ok(first?)
        })
        .await?;
    } else if operation.ended_at.is_none() && find(&services, &id).await?.ended_at.is_none() {
        return Err(Problem::unavailable("the operation is just being made: try again"));
    }
    let operation = find(&services, &id).await?;
    Ok(HttpResponse::Accepted().json(show(&services, operation).await?))
}

/// What of an operation is tried again.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Retried {
    Failed,
    Cancelled,
    Skipped,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RetryRequest {
    /// `failed` unless it is said.
    #[serde(default = "failed")]
    outcomes: Vec<Retried>,
}

fn failed() -> Vec<Retried> {
    vec![Retried::Failed]
}

/// A new operation for the hosts whose jobs failed, planned anew.
#[utoipa::path(
    post,
    path = "/v1/operations/{id}/retry",
    request_body = RetryRequest,
    responses(
        (status = 202, body = OperationView, headers(("Location" = String))),
        (status = 409, description = "It is not over, or there is nothing to try again.")
    )
)]
async fn retry(
    services: web::Data<Services>,
    id: web::Path<String>,
    Body(RetryRequest { outcomes }): Body<RetryRequest>,
) -> Result<HttpResponse, Problem> {
    if let Some(operation) = made_before(&services).await? {
        return accepted(&services, operation).await;
    }
    let before = find(&services, &id).await?;
    if before.ended_at.is_none() {
        return Err(Problem::conflict("the operation is not over: cancel it, or wait for its end"));
    }
    let (retries, mut hosts) = to_retry(&services, before.id, &outcomes).await?;
    hosts.extend(retries.keys());
    if hosts.is_empty() {
        return Err(Problem::conflict("there is nothing to try again"));
    }
    // A kind of a newer version can't be planned here.
    let kind: Kind = before.kind.parse().map_err(|_| Problem::conflict("this version does not know its kind"))?;
    let per = if before.request.0.per == Per::Repository.to_string() { Per::Repository } else { Per::Host };
    let words = outcomes.iter().filter_map(|outcome| serde_json::to_value(outcome).ok()?.as_str().map(str::to_owned));
    let plan = Plan {
        kind,
        per,
        asked: Asked { outcomes: words.collect(), ..before.request.0 },
        selection: Selection { ids: Some(hosts), ..Selection::default() },
        canaries: before.canaries,
        max_parallel: before.max_parallel,
        stop_after_failures: before.stop_after_failures,
    };
    let cause = Cause { origin: Origin::Retry, requested_by: request::caller_name(), at: now() };
    let (members, unknown) = plan_members(&services, &plan, &cause).await?;
    submit(&services, plan, members, unknown, &cause, retries, Some(before.id)).await
}

/// The jobs to try again, by their hosts, and the hosts that had none.
async fn to_retry(
    services: &Services,
    id: Uuid,
    outcomes: &[Retried],
) -> Result<(HashMap<Uuid, Ended>, Vec<Uuid>), Problem> {
    let status = |outcome: &Retried| match outcome {
        Retried::Failed => Some(Status::Failed),
        Retried::Cancelled => Some(Status::Cancelled),
        Retried::Skipped => None,
    };
    let statuses: Vec<Status> = outcomes.iter().filter_map(status).collect();
    let with_skipped = outcomes.contains(&Retried::Skipped);
    let (ended, skipped) = read(services, async |reader| {
        let ended = operations::ended(reader, id, &statuses).await?;
        let skipped =
            if with_skipped { operations::skipped(reader, id, None, None, i64::MAX).await? } else { Vec::new() };
        Ok((ended, skipped))
    })
    .await?;
    let by_host = ended.into_iter().map(|job| (job.host_id, job)).collect();
    Ok((by_host, skipped.into_iter().map(|skipped| skipped.host_id).collect()))
}
