//! Lists of jobs.

use super::view::{JobView, obstacles, view};
use crate::db::job_lists::{self, Filter};
use crate::http::failures::read as read_from;
use crate::http::openapi::schemas;
use crate::http::page::{CURSOR, LIMIT, List, Page, PageOfTimes};
use crate::http::params::{Params, bad_param};
use crate::http::problem::Problem;
use crate::http::reach::reach;
use crate::services::Services;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use std::str::FromStr;
use utoipa::IntoParams;
use uuid::Uuid;

/// Which jobs a list has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only for the document")]
struct JobFilter {
    #[param(value_type = Option<schemas::AnyText>)]
    host_id: Option<String>,
    #[param(value_type = Option<schemas::Kind>)]
    kind: Option<String>,
    #[param(value_type = Option<schemas::JobStatus>)]
    status: Option<String>,
    #[param(value_type = Option<schemas::JobOrigin>)]
    origin: Option<String>,
    /// Only those that were made then or later.
    since: Option<Timestamp>,
    #[param(value_type = Option<schemas::AnyText>)]
    operation_id: Option<String>,
}

/// Jobs, the newest first
#[utoipa::path(
    get,
    path = "/v1/jobs",
    params(PageOfTimes, JobFilter),
    responses((status = 200, body = List<JobView>))
)]
pub(super) async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&["host_id", "kind", "status", "origin", "since", "operation_id", LIMIT, CURSOR])?;
    let operation_id = id(&params, "operation_id")?;
    list_of(&services, &params, operation_id).await
}

/// A parameter that is an id. One that is none is nobody's: the list is empty.
fn id(params: &Params, name: &str) -> Result<Option<Uuid>, Problem> {
    Ok(params.one(name)?.map(|id| id.parse().unwrap_or(Uuid::nil())))
}

/// The jobs that `params` want, all or those of an operation.
pub(in crate::http) async fn list_of(
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
