//! `/v1/hosts/{id}/schedules`.

use super::body::Body;
use super::check::{Check, LINE, no, path_id};
use super::clock::now;
use super::failures::{read, settled_settings};
use super::hosts::in_service;
use super::idempotency::gone_since;
use super::if_match::{IfMatch, etag};
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfTimes};
use super::params::Params;
use super::problem::Problem;
use super::routes::resource;
use crate::db::json::Json;
use crate::db::schedules::{self, Delete, MOST_OF_A_HOST, Put, Schedule, Stored};
use crate::db::tags::Thing;
use crate::request;
use crate::services::Services;
use crate::timetable::{NoTimetable, Timetable};
use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// Firings that a schedule shows.
const NEXT_RUNS: usize = 5;
/// How late a missed firing is caught up unless the schedule says, in seconds.
const USUAL_CATCH_UP: i64 = 24 * 60 * 60;
const LONGEST_CATCH_UP: i64 = 31 * 24 * 60 * 60;
const UTC: &str = "UTC";

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/hosts/{id}/schedules", [web::post().to(create), web::get().to(list)], "POST, GET"));
    config.service(resource(
        "/hosts/{id}/schedules/{schedule}",
        [web::get().to(get), web::put().to(put), web::delete().to(delete)],
        "GET, PUT, DELETE",
    ));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(create, list, get, put, delete))]
pub(super) struct Api;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScheduleSettings)]
pub(super) struct ScheduleBody {
    #[schema(value_type = schemas::Cron)]
    cron: String,
    /// UTC unless it is said.
    #[schema(value_type = Option<schemas::TimeZone>)]
    timezone: Option<String>,
    enabled: Option<bool>,
    #[schema(value_type = Vec<schemas::GroupName>, min_items = 1)]
    source_groups: Vec<String>,
    /// How late a missed firing is caught up; a day unless it is said.
    #[schema(minimum = 0, maximum = 2678400)]
    catch_up_seconds: Option<i64>,
    #[schema(value_type = Option<schemas::Kbps>)]
    bandwidth_up_kbps: Option<i64>,
    #[schema(value_type = Option<schemas::Kbps>)]
    bandwidth_down_kbps: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Schedule)]
struct ScheduleView {
    id: Uuid,
    /// What the document of the fleet calls it.
    name: Option<String>,
    cron: String,
    timezone: String,
    enabled: bool,
    source_groups: Vec<String>,
    catch_up_seconds: i64,
    bandwidth_up_kbps: Option<i64>,
    bandwidth_down_kbps: Option<i64>,
    version: i64,
    next_runs: Vec<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Schedule> for ScheduleView {
    fn from(row: Schedule) -> Self {
        let timetable = Timetable::parse(&row.cron, &row.timezone).ok().filter(|_| row.enabled);
        let next_runs = timetable.iter().flat_map(|timetable| timetable.after(now()).take(NEXT_RUNS)).collect();
        Self {
            id: row.id,
            name: row.name,
            cron: row.cron,
            timezone: row.timezone,
            enabled: row.enabled,
            source_groups: row.source_groups.0,
            catch_up_seconds: row.catch_up_seconds,
            bandwidth_up_kbps: row.bandwidth_up_kbps,
            bandwidth_down_kbps: row.bandwidth_down_kbps,
            version: row.version,
            next_runs,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl ScheduleBody {
    /// The row of this schedule, if everything in it makes sense.
    fn into_row(self, host_id: Uuid, id: Uuid) -> Result<Schedule, Problem> {
        let mut check = Check::default();
        let row = self.checked(&mut check, host_id, id);
        check.done()?;
        Ok(row)
    }

    /// The row of this schedule, with what is wrong in it noted.
    pub(super) fn checked(self, check: &mut Check, host_id: Uuid, id: Uuid) -> Schedule {
        let now = now();
        let timezone = self.timezone.unwrap_or_else(|| UTC.to_owned());
        let catch_up_seconds = self.catch_up_seconds.unwrap_or(USUAL_CATCH_UP);

        let timetable = timetable(check, "", &self.cron, &timezone);
        if self.source_groups.is_empty() {
            check.wrong("/source_groups", "needs at least one source group");
        }
        let mut names = HashSet::new();
        for (index, name) in self.source_groups.iter().enumerate() {
            if !names.insert(name) {
                check.wrong(&format!("/source_groups/{index}"), "stands there twice");
            }
        }
        check.number("/catch_up_seconds", catch_up_seconds, 0..=LONGEST_CATCH_UP);
        check.cap("/bandwidth_up_kbps", self.bandwidth_up_kbps.unwrap_or(0));
        check.cap("/bandwidth_down_kbps", self.bandwidth_down_kbps.unwrap_or(0));

        let enabled = self.enabled.unwrap_or(true);
        Schedule {
            id,
            host_id,
            cron: self.cron,
            timezone,
            enabled,
            source_groups: Json(self.source_groups),
            catch_up_seconds,
            bandwidth_up_kbps: self.bandwidth_up_kbps,
            bandwidth_down_kbps: self.bandwidth_down_kbps,
            interval_seconds: timetable.as_ref().map_or(0, |timetable| timetable.interval_seconds(now)),
            version: 0,
            next_due_at: timetable.filter(|_| enabled).and_then(|timetable| timetable.next_after(now)),
            created_at: now,
            updated_at: now,
            deleted_at: None,
            name: None,
        }
    }
}

/// Reads `cron` and `timezone`, which stand under `pointer`.
pub(super) fn timetable(check: &mut Check, pointer: &str, cron: &str, timezone: &str) -> Option<Timetable> {
    check.short(&format!("{pointer}/cron"), cron, LINE);
    match Timetable::parse(cron, timezone) {
        Ok(timetable) => return Some(timetable),
        Err(NoTimetable::Expression(error)) => check.wrong(&format!("{pointer}/cron"), error.to_string()),
        Err(NoTimetable::Zone(error)) => check.wrong(&format!("{pointer}/timezone"), error.to_string()),
    }
    None
}

/// Adds a schedule
#[utoipa::path(
    post,
    path = "/v1/hosts/{id}/schedules",
    request_body = ScheduleBody,
    responses(
        (status = 201, body = ScheduleView, headers(("ETag" = String), ("Location" = String))),
        (status = 409, description = "It has no such source group, or as many schedules as it may.")
    )
)]
async fn create(
    services: web::Data<Services>,
    id: web::Path<String>,
    Body(body): Body<ScheduleBody>,
) -> Result<HttpResponse, Problem> {
    let host_id = path_id("host", &id)?;
    if let Some(id) = request::made_before() {
        let row = read(&services, async |reader| schedules::find(reader, host_id, id).await).await?;
        return Ok(created(row.ok_or_else(gone_since)?));
    }
    let schedule = body.into_row(host_id, request::new_id())?;
    store(services, IfMatch(None), Put { schedule, replace: false }).await
}

/// Replaces a schedule
#[utoipa::path(
    put,
    path = "/v1/hosts/{id}/schedules/{schedule}",
    request_body = ScheduleBody,
    responses((status = 412), (status = 200, body = ScheduleView, headers(("ETag" = String))), (status = 409, description = "The host has no such source group."))
)]
async fn put(
    services: web::Data<Services>,
    path: web::Path<(String, String)>,
    if_match: IfMatch,
    Body(body): Body<ScheduleBody>,
) -> Result<HttpResponse, Problem> {
    let (host_id, id) = (path_id("host", &path.0)?, path_id("schedule", &path.1)?);
    store(services, if_match, Put { schedule: body.into_row(host_id, id)?, replace: true }).await
}

/// Stores it, and has the agent told.
async fn store(services: web::Data<Services>, if_match: IfMatch, put: Put) -> Result<HttpResponse, Problem> {
    let (host_id, replace) = (put.schedule.host_id, put.replace);
    let thing = Thing::Schedule(host_id, put.schedule.id);
    let changed = move |stored: &Stored| matches!(stored, Stored::Done(_)).then_some(host_id);
    let stored = settled_settings(services, if_match, thing, put, changed);
    match stored.await? {
        Stored::Done(row) if replace => {
            Ok(HttpResponse::Ok().insert_header(etag(&*row)).json(ScheduleView::from(*row)))
        }
        Stored::Done(row) => Ok(created(*row)),
        Stored::NotFound if replace => Err(no("schedule")),
        Stored::NotFound => Err(no("host")),
        Stored::NoGroups(names) => {
            let names = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            Err(Problem::conflicting_field("/source_groups", format!("the host has no source group {names}")))
        }
        Stored::TooMany => Err(Problem::conflict(format!("a host may have {MOST_OF_A_HOST} schedules"))),
    }
}

fn created(row: Schedule) -> HttpResponse {
    let location = format!("/v1/hosts/{}/schedules/{}", row.host_id, row.id);
    let mut answer = HttpResponse::Created();
    answer.insert_header((LOCATION, location)).insert_header(etag(&row)).json(ScheduleView::from(row))
}

/// Schedules of a host, the oldest first
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}/schedules",
    params(PageOfTimes),
    responses((status = 200, body = List<ScheduleView>))
)]
async fn list(services: web::Data<Services>, id: web::Path<String>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page: Page<(Timestamp, Uuid)> = Page::of(&params)?;
    let host = in_service(&services, &id).await?.id;
    let rows = read(&services, async |reader| schedules::list(reader, host, page.after, page.rows()).await).await?;
    Ok(HttpResponse::Ok().json(page.list(rows, |row| (row.created_at, row.id), ScheduleView::from)))
}

/// A schedule
#[utoipa::path(get, path = "/v1/hosts/{id}/schedules/{schedule}", responses((status = 200, body = ScheduleView, headers(("ETag" = String)))))]
async fn get(services: web::Data<Services>, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let host = in_service(&services, &path.0).await?.id;
    let id = path_id("schedule", &path.1)?;
    let row = read(&services, async |reader| schedules::find(reader, host, id).await).await?;
    let row = row.ok_or_else(|| no("schedule"))?;
    Ok(HttpResponse::Ok().insert_header(etag(&row)).json(ScheduleView::from(row)))
}

/// Removes a schedule
#[utoipa::path(delete, path = "/v1/hosts/{id}/schedules/{schedule}", responses((status = 412), (status = 204)))]
async fn delete(
    services: web::Data<Services>,
    path: web::Path<(String, String)>,
    if_match: IfMatch,
) -> Result<HttpResponse, Problem> {
    let (host_id, id) = (path_id("host", &path.0)?, path_id("schedule", &path.1)?);
    let (thing, delete) = (Thing::Schedule(host_id, id), Delete { host_id, id, at: now() });
    let gone = settled_settings(services, if_match, thing, delete, move |gone| gone.then_some(host_id));
    if gone.await? { Ok(HttpResponse::NoContent().finish()) } else { Err(no("schedule")) }
}
