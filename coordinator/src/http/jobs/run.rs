//! `POST /v1/hosts/{id}/jobs`: somebody wants a host to do something.

use super::view::{JobView, in_words, waits_at_agent};
use super::{find, look_up};
use crate::db::jobs::{Job, NewJob, Origin};
use crate::db::planning::Planning;
use crate::dispatcher::{Submit, Submitted};
use crate::http::body::Body;
use crate::http::clock::now;
use crate::http::failures::dispatched;
use crate::http::idempotency::gone_since;
use crate::http::openapi::schemas;
use crate::http::problem::{FieldError, Problem};
use crate::http::reach::check_kind;
use crate::job::plan::{Cause, Objection, Wish, objections, plan};
use crate::persistence::WriteError;
use crate::request;
use crate::services::Services;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use chrono::TimeDelta;
use fleet_wire::{Cap, ForgetGroup, ForgetLimit, Kind, Status};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// For how long a forget that was refused can be confirmed: what it would delete changes with time.
const CONFIRMABLE: TimeDelta = TimeDelta::days(7);

/// What a host is to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewJob)]
pub(super) struct RunRequest {
    #[schema(value_type = schemas::Kind)]
    kind: Kind,
    /// Of a backup; of a forget, to keep it to that one.
    #[schema(value_type = Option<schemas::GroupName>)]
    source_group: Option<String>,
    /// Of a check: what it reads.
    #[serde(default)]
    #[schema(value_type = Vec<schemas::CheckSubset>, max_items = 1)]
    args: Vec<String>,
    #[schema(value_type = Option<schemas::JobCap>)]
    bandwidth_up_kbps: Option<i64>,
    #[schema(value_type = Option<schemas::JobCap>)]
    bandwidth_down_kbps: Option<i64>,
    /// A forget only reports what it would delete.
    #[serde(default)]
    dry_run: bool,
    /// A forget that was refused for what it would delete: a person wants it all the same.
    #[schema(value_type = Option<Uuid>)]
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

/// Starts a job on a host
#[utoipa::path(
    post,
    path = "/v1/hosts/{id}/jobs",
    request_body = RunRequest,
    responses(
        (status = 202, body = JobView, headers(("Location" = String))),
        (status = 409, description = "It can't be done as host and repository are now.")
    )
)]
pub(super) async fn run(
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
    let fields = |objections: Vec<Objection>| -> Vec<FieldError> {
        objections.into_iter().map(|objection| FieldError::new(objection.pointer, objection.detail)).collect()
    };
    let senseless = objections(kind, &wish);
    if !senseless.is_empty() {
        return Err(Problem::invalid(fields(senseless)));
    }
    let known = services.planning.get(host_id).await?.ok_or_else(no_host)?;
    let Planning { host, repository, groups } = &*known;
    let repository =
        repository.as_ref().ok_or_else(|| Problem::conflict("this host has no repository: assign one first"))?;
    check_kind(&services, kind, repository.id).await?;
    let new = plan(kind, &wish, host, repository, groups, cause);
    let new = new.map_err(|objections| Problem::conflicts(fields(objections)))?;
    let Submitted { job, waiting_for } = submit(&services, new.with_id(request::new_id())).await?;
    let obstacle = waiting_for.map(|obstacle| (job.new.id, obstacle)).into_iter().collect();
    // It is made: what it waits for is worth no failure.
    let waiting_for = in_words(&services, obstacle).await.ok().and_then(|mut words| words.remove(&job.new.id));
    accepted(&job, waiting_for)
}

/// The job that a repeated request has made before a crash.
async fn made_before(services: &Services) -> Result<Option<Job>, Problem> {
    let Some(id) = request::made_before() else { return Ok(None) };
    look_up(services, id).await?.ok_or_else(gone_since).map(Some)
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
    let wrong = |detail: &str| Problem::conflicting_field("/confirm", detail);
    if request.kind != Kind::Forget || request.dry_run || request.source_group.is_some() {
        return Err(Problem::invalid_field(
            "/confirm",
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
    if now() - ended > CONFIRMABLE {
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
