//! Lists of jobs.

use super::view::{JobView, obstacles, view};
use crate::db::hosts::{self, Wanted};
use crate::db::job_lists::{self, Filter};
use crate::db::source_groups;
use crate::http::failures::read as read_from;
use crate::http::hosts::labels;
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

/// What lists of jobs are filtered by.
pub(in crate::http) const FILTERS: [&str; 12] = [
    "host_id",
    "hostname",
    "label",
    "repository_id",
    "kind",
    "status",
    "partial",
    "origin",
    "source_group",
    "schedule_id",
    "since",
    "until",
];

/// Which jobs a list has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only for the document")]
pub(in crate::http) struct JobFilter {
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
    /// Only those that were made earlier.
    until: Option<Timestamp>,
    #[param(value_type = Option<schemas::AnyText>)]
    repository_id: Option<String>,
    /// Of the host that is called so, or was.
    #[param(value_type = Option<schemas::AnyText>)]
    hostname: Option<String>,
    /// Labels that the host carries, all of them: `name=value`.
    #[param(value_type = Option<Vec<schemas::LabelFilter>>, style = Form, explode = true)]
    label: Option<Vec<String>>,
    /// Only those that read not all of what they should, or only others.
    partial: Option<bool>,
    /// Of the hosts that the other filters name, or else of those that have such a group now.
    #[param(value_type = Option<schemas::AnyText>)]
    source_group: Option<String>,
    #[param(value_type = Option<schemas::AnyText>)]
    schedule_id: Option<String>,
}

/// Jobs, the newest first
#[utoipa::path(
    get,
    path = "/v1/jobs",
    params(PageOfTimes, JobFilter, ("operation_id" = Option<schemas::AnyText>, Query)),
    responses((status = 200, body = List<JobView>))
)]
pub(super) async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[&FILTERS[..], &["operation_id", LIMIT, CURSOR]].concat())?;
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
    let schedule_id = id(params, "schedule_id")?;
    let hosts = hosts(services, params, schedule_id).await?;
    let source_group = params.one("source_group")?.map(str::to_owned);
    let filter = Filter {
        operation_id,
        until: params.time("until")?,
        repository_id: id(params, "repository_id")?,
        source_group,
        schedule_id,
        partial: yes_or_no(params, "partial")?,
        host_id: id(params, "host_id")?,
        kind: literal(params, "kind")?,
        status: literal(params, "status")?,
        origin: literal(params, "origin")?,
        since: params.time("since")?,
        within: both(reach(services).await?.map(|reach| reach.hosts), hosts),
        after: page.after,
    };
    let found = read_from(services, async |reader| job_lists::list(reader, &filter, page.rows()).await).await?;
    let page = page.list(found, |job| (job.new.created_at, job.new.id), |job| job);
    let mut obstacles = obstacles(services, &page.items).await?;
    let items = page.items.iter().map(|job| view(services, job, &mut obstacles)).collect();
    Ok(HttpResponse::Ok().json(List { items, next_cursor: page.next_cursor }))
}

/// The hosts that the filters mean, if they mean some: those out of service too.
async fn hosts(services: &Services, params: &Params, schedule_id: Option<Uuid>) -> Result<Option<Vec<Uuid>>, Problem> {
    let wanted = Wanted { hostname: params.one("hostname")?.map(str::to_owned), labels: labels(params)? };
    let group = params.one("source_group")?;
    let named = if !wanted.is_any() {
        Some(read_from(services, async |reader| hosts::ids(reader, &wanted).await).await?)
    } else if let Some(group) = group.filter(|_| schedule_id.is_none()) {
        Some(read_from(services, async |reader| source_groups::hosts_with(reader, group).await).await?)
    } else {
        None
    };
    let Some(schedule_id) = schedule_id else { return Ok(named) };
    let schedule = services.schedules.get(schedule_id).await?;
    Ok(both(named, Some(schedule.iter().map(|schedule| schedule.host_id).collect())))
}

/// A parameter that is `true` or `false`.
fn yes_or_no(params: &Params, name: &str) -> Result<Option<bool>, Problem> {
    params.one(name)?.map(|text| text.parse().map_err(|_| bad_param(name, "must be true or false"))).transpose()
}

/// Those in both, where both say something.
fn both(one: Option<Vec<Uuid>>, other: Option<Vec<Uuid>>) -> Option<Vec<Uuid>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.into_iter().filter(|id| other.contains(id)).collect()),
        (one, other) => one.or(other),
    }
}

/// A parameter that must be one of a few words.
fn literal<T: FromStr<Err = String>>(params: &Params, name: &str) -> Result<Option<T>, Problem> {
    params.one(name)?.map(|text| text.parse().map_err(|error| bad_param(name, error))).transpose()
}
