//! The ledger of expected runs, and the question of each morning: what is overdue?

use super::check::path_id;
use super::clock::now;
use super::failures::read;
use super::hosts::in_service;
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfOverdue, PageOfTimes};
use super::params::Params;
use super::problem::Problem;
use super::reach::reach;
use super::routes::resource;
use crate::db::overdue::{self, Overdue, Place};
use crate::db::runs::{self, Run, Whose};
use crate::services::Services;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/hosts/{id}/runs", [web::get().to(of_host)], "GET"));
    config.service(resource("/runs", [web::get().to(of_history)], "GET"));
    config.service(resource("/repositories/{id}/runs", [web::get().to(of_repository)], "GET"));
    config.service(resource("/overdue", [web::get().to(what_is_overdue)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(of_host, of_history, of_repository, what_is_overdue))]
pub(super) struct Api;

#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
struct RunView {
    id: Uuid,
    #[schema(value_type = schemas::Kind)]
    kind: String,
    host_id: Option<Uuid>,
    source_group: Option<String>,
    schedule_id: Option<Uuid>,
    repository_id: Option<Uuid>,
    due_at: Timestamp,
    #[schema(value_type = schemas::RunOutcome)]
    outcome: String,
    reason: Option<String>,
    /// Of the latest attempt; none was made of what was missed or skipped.
    job_id: Option<Uuid>,
    attempts: i64,
    changed_at: Timestamp,
}

impl From<Run> for RunView {
    fn from(row: Run) -> Self {
        let has_job = row.has_job();
        Self {
            id: row.id,
            kind: row.kind,
            host_id: row.host_id,
            source_group: row.source_group,
            schedule_id: row.schedule_id,
            repository_id: row.repository_id,
            due_at: row.due_at,
            outcome: row.outcome,
            reason: row.reason,
            job_id: row.job_id.filter(|_| has_job),
            attempts: if has_job { row.attempt } else { 0 },
            changed_at: row.changed_at,
        }
    }
}

/// Runs of a host that were due, the latest first
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}/runs",
    params(PageOfTimes),
    responses((status = 200, body = List<RunView>))
)]
async fn of_host(
    services: web::Data<Services>,
    id: web::Path<String>,
    params: Params,
) -> Result<HttpResponse, Problem> {
    let host = in_service(&services, &id).await?.id;
    list(&services, Whose::Host(host), &params).await
}

/// Runs of a host that may be out of service, the latest first
#[utoipa::path(
    get,
    path = "/v1/runs",
    params(PageOfTimes, ("host_id" = Uuid, Query)),
    responses((status = 200, body = List<RunView>), (status = 404, description = "There has been no such host."))
)]
async fn of_history(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&["host_id", LIMIT, CURSOR])?;
    let host = super::hosts::of_history(&services, &params).await?;
    page_of(&services, Whose::Host(host.id), &params).await
}

/// Maintenance of a repository that was due, the latest first
#[utoipa::path(
    get,
    path = "/v1/repositories/{id}/runs",
    params(PageOfTimes),
    responses((status = 200, body = List<RunView>))
)]
async fn of_repository(
    services: web::Data<Services>,
    id: web::Path<String>,
    params: Params,
) -> Result<HttpResponse, Problem> {
    let id = path_id("repository", &id)?;
    let found = read(&services, async |reader| crate::db::repositories::find(reader, id).await).await?;
    found.ok_or_else(|| super::check::no("repository"))?;
    list(&services, Whose::Repository(id), &params).await
}

async fn list(services: &Services, whose: Whose, params: &Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    page_of(services, whose, params).await
}

async fn page_of(services: &Services, whose: Whose, params: &Params) -> Result<HttpResponse, Problem> {
    let page: Page<(Timestamp, Uuid)> = Page::of(params)?;
    let rows = read(services, async |reader| runs::list(reader, whose, page.after, page.rows()).await).await?;
    Ok(HttpResponse::Ok().json(page.list(rows, |run| (run.due_at, run.id), RunView::from)))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Overdue)]
struct OverdueView {
    #[schema(value_type = schemas::Kind)]
    kind: String,
    /// Of a backup, as its source group.
    host_id: Option<Uuid>,
    source_group: Option<String>,
    /// Of maintenance.
    repository_id: Option<Uuid>,
    /// Within how long of the last time it must succeed.
    rpo_seconds: Option<i64>,
    last_success_at: Option<Timestamp>,
    overdue_since: Timestamp,
}

impl From<Overdue> for OverdueView {
    fn from(row: Overdue) -> Self {
        Self {
            kind: row.kind,
            host_id: row.host_id,
            source_group: row.source_group,
            repository_id: row.repository_id,
            rpo_seconds: row.within_seconds,
            last_success_at: row.last_success_at,
            overdue_since: row.overdue_at,
        }
    }
}

/// What has not succeeded within its time, the longest first
#[utoipa::path(
    get,
    path = "/v1/overdue",
    params(PageOfOverdue),
    responses((status = 200, body = List<OverdueView>))
)]
async fn what_is_overdue(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page: Page<Place> = Page::of(&params)?;
    let after = page.after.as_ref();
    let seen = reach(&services).await?;
    let rows = async |reader: &mut _| overdue::list(reader, now(), seen.as_ref(), after, page.rows()).await;
    let rows = read(&services, rows).await?;
    Ok(HttpResponse::Ok().json(page.list(rows, Overdue::place, OverdueView::from)))
}
