//! `/v1/hosts/{id}/source-groups`.

use super::body::{Body, Object};
use super::check::{Check, HOOK, LINE, NAME, no};
use super::clock::now;
use super::failures::{read, settled_settings};
use super::hosts::in_service;
use super::idempotency::gone_since;
use super::if_match::{IfMatch, etag};
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfNames};
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::routes::resource;
use crate::db::hosts::Host;
use crate::db::json::Json;
use crate::db::source_groups::{self, Delete, Deleted, Put, SourceGroup, Stored};
use crate::db::tags::Thing;
use crate::paths::is_absolute;
use crate::request;
use crate::services::Services;
use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use fleet_wire::{RetentionError, RetentionPolicy, Timestamp, check_group_name};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// The pause before the first retry unless the group says, in seconds.
const USUAL_BACKOFF: i64 = 60;
const MOST_RETRIES: i64 = 100;
const LONGEST_BACKOFF: i64 = 7 * 24 * 60 * 60;
/// Within how long of the last one a backup must succeed, at most.
const LONGEST_RPO: i64 = 366 * 24 * 60 * 60;
const MOST_PATHS: usize = 10_000;

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/hosts/{id}/source-groups", [web::post().to(create), web::get().to(list)], "POST, GET"));
    config.service(resource(
        "/hosts/{id}/source-groups/{name}",
        [web::get().to(get), web::put().to(put), web::delete().to(delete)],
        "GET, PUT, DELETE",
    ));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(create, list, get, put, delete))]
pub(super) struct Api;

/// A policy as clients write it. A rule that we don't know must not be dropped: snapshots would go that it keeps.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Retention {
    #[schema(minimum = 0)]
    keep_last: Option<i64>,
    #[schema(minimum = 0)]
    keep_hourly: Option<i64>,
    #[schema(minimum = 0)]
    keep_daily: Option<i64>,
    #[schema(minimum = 0)]
    keep_weekly: Option<i64>,
    #[schema(minimum = 0)]
    keep_monthly: Option<i64>,
    #[schema(minimum = 0)]
    keep_yearly: Option<i64>,
}

impl From<Retention> for RetentionPolicy {
    fn from(given: Retention) -> Self {
        let Retention { keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly } = given;
        Self { keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SourceGroupSettings)]
pub(super) struct GroupBody {
    #[schema(value_type = Option<schemas::GroupName>)]
    name: Option<String>,
    /// Absolute paths, as the host's system writes them; at most 10,000.
    #[schema(value_type = Vec<schemas::HostPath>, min_items = 1)]
    includes: Vec<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<schemas::FilledText>>)]
    excludes: Option<Vec<String>>,
    /// Without one nothing is ever forgotten.
    #[schema(value_type = Option<Retention>)]
    retention: Option<Object<Retention>>,
    #[schema(minimum = 0, maximum = 100)]
    retry_max: Option<i64>,
    #[schema(minimum = 0, maximum = 604800)]
    retry_backoff_seconds: Option<i64>,
    /// Within how long of the last one a backup must succeed.
    #[schema(minimum = 60, maximum = 31622400)]
    rpo_seconds: Option<i64>,
    #[schema(value_type = Option<schemas::Hook>)]
    pre_hook: Option<String>,
    #[schema(value_type = Option<schemas::Hook>)]
    post_hook: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SourceGroup)]
struct GroupView {
    name: String,
    includes: Vec<String>,
    excludes: Vec<String>,
    #[schema(value_type = Option<Retention>)]
    retention: Option<RetentionPolicy>,
    retry_max: i64,
    retry_backoff_seconds: i64,
    rpo_seconds: Option<i64>,
    pre_hook: Option<String>,
    post_hook: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<SourceGroup> for GroupView {
    fn from(row: SourceGroup) -> Self {
        Self {
            name: row.name,
            includes: row.includes.0,
            excludes: row.excludes.0,
            retention: row.retention.map(|Json(policy)| policy),
            retry_max: row.retry_max,
            retry_backoff_seconds: row.retry_backoff_seconds,
            rpo_seconds: row.rpo_seconds,
            pre_hook: row.pre_hook,
            post_hook: row.post_hook,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl GroupBody {
    /// The row of this group for `host`, if everything in it makes sense.
    fn into_row(self, host: &Host, name: String) -> Result<SourceGroup, Problem> {
        let mut check = Check::default();
        let row = self.checked(&mut check, host.id, name);
        check.done()?;
        check_system(&host.os, &row.includes.0)?;
        Ok(row)
    }

    /// The row of this group, with what is wrong in it noted; whether its paths are those of the host's system is not looked at.
    pub(super) fn checked(self, check: &mut Check, host_id: Uuid, name: String) -> SourceGroup {
        let retention = self.retention.map(|Object(retention)| RetentionPolicy::from(retention));
        let excludes = self.excludes.unwrap_or_default();
        let retry_max = self.retry_max.unwrap_or(0);
        let retry_backoff_seconds = self.retry_backoff_seconds.unwrap_or(USUAL_BACKOFF);

        check_name(check, &name);
        check_includes(check, &self.includes);
        for (index, exclude) in excludes.iter().enumerate() {
            check.filled(&format!("/excludes/{index}"), exclude, LINE);
        }
        if excludes.len() > MOST_PATHS {
            check.wrong("/excludes", format!("may have {MOST_PATHS} patterns"));
        }
        if let Some(policy) = &retention {
            check_retention(check, policy);
        }
        check.number("/retry_max", retry_max, 0..=MOST_RETRIES);
        check.number("/retry_backoff_seconds", retry_backoff_seconds, 0..=LONGEST_BACKOFF);
        if let Some(seconds) = self.rpo_seconds {
            check.number("/rpo_seconds", seconds, 60..=LONGEST_RPO);
        }
        check.short("/pre_hook", self.pre_hook.as_deref().unwrap_or_default(), HOOK);
        check.short("/post_hook", self.post_hook.as_deref().unwrap_or_default(), HOOK);

        let now = now();
        SourceGroup {
            host_id,
            name,
            includes: Json(self.includes),
            excludes: Json(excludes),
            retention: retention.map(Json),
            retry_max,
            retry_backoff_seconds,
            pre_hook: self.pre_hook.filter(|hook| !hook.is_empty()),
            post_hook: self.post_hook.filter(|hook| !hook.is_empty()),
            created_at: now,
            updated_at: now,
            rpo_seconds: self.rpo_seconds,
        }
    }
}

fn check_name(check: &mut Check, name: &str) {
    if let Err(error) = check_group_name(name) {
        check.wrong("/name", error.to_string());
    } else if name == "." || name == ".." {
        check.wrong("/name", "can't be . or ..: no URL could name the group");
    }
    check.short("/name", name, NAME);
}

fn check_includes(check: &mut Check, includes: &[String]) {
    if includes.is_empty() {
        check.wrong("/includes", "needs at least one path");
    }
    if includes.len() > MOST_PATHS {
        check.wrong("/includes", format!("may have {MOST_PATHS} paths"));
    }
    for (index, path) in includes.iter().enumerate() {
        let pointer = format!("/includes/{index}");
        check.filled(&pointer, path, LINE);
        if !path.is_empty() && !["linux", "windows"].iter().any(|os| is_absolute(os, path)) {
            check.wrong(&pointer, "must be an absolute path");
        }
    }
}

/// 409 if a path is one of another system than the host's.
fn check_system(os: &str, includes: &[String]) -> Result<(), Problem> {
    let wrong = includes.iter().enumerate().filter(|(_, path)| !is_absolute(os, path));
    let detail = format!("must be an absolute path as {os} writes them, and the host has {os}");
    let errors: Vec<FieldError> =
        wrong.map(|(index, _)| FieldError::new(format!("/includes/{index}"), detail.clone())).collect();
    if errors.is_empty() { Ok(()) } else { Err(Problem::conflicts(errors)) }
}

fn check_retention(check: &mut Check, policy: &RetentionPolicy) {
    match policy.check() {
        Ok(()) => {}
        Err(error @ RetentionError::Negative { rule, .. }) => {
            check.wrong(&format!("/retention/{rule}"), error.to_string());
        }
        Err(error @ RetentionError::Empty) => check.wrong("/retention", error.to_string()),
    }
}

/// Adds a source group
#[utoipa::path(
    post,
    path = "/v1/hosts/{id}/source-groups",
    request_body = schemas::NewSourceGroup,
    responses(
        (status = 201, body = GroupView, headers(("ETag" = String), ("Location" = String))),
        (status = 409, description = "The host has one of this name, or another system.")
    )
)]
async fn create(
    services: web::Data<Services>,
    id: web::Path<String>,
    Body(body): Body<GroupBody>,
) -> Result<HttpResponse, Problem> {
    let host = in_service(&services, &id).await?;
    let name = body.name.clone().ok_or_else(|| Problem::invalid_field("/name", "is missing"))?;
    if request::was_done() {
        let row = read(&services, async |reader| source_groups::find(reader, host.id, &name).await).await?;
        let own = row.filter(|row| row.created_at == now());
        return Ok(created(own.ok_or_else(gone_since)?));
    }
    let group = body.into_row(&host, name)?;
    store(services, IfMatch(None), Put { group, replace: false }).await
}

/// Adds a source group, or replaces it
#[utoipa::path(
    put,
    path = "/v1/hosts/{id}/source-groups/{name}",
    params(("name" = schemas::GroupName, Path)),
    request_body = GroupBody,
    responses(
        (status = 412),
        (status = 200, body = GroupView, headers(("ETag" = String))),
        (status = 201, body = GroupView, headers(("ETag" = String), ("Location" = String))),
        (status = 409, description = "The host has another system, or the body another name.")
    )
)]
async fn put(
    services: web::Data<Services>,
    path: web::Path<(String, String)>,
    if_match: IfMatch,
    Body(body): Body<GroupBody>,
) -> Result<HttpResponse, Problem> {
    let (id, name) = path.into_inner();
    let host = in_service(&services, &id).await?;
    if body.name.as_ref().is_some_and(|given| *given != name) {
        return Err(Problem::conflicting_field("/name", "must be the name in the URL: a group can't be renamed"));
    }
    let group = body.into_row(&host, name)?;
    store(services, if_match, Put { group, replace: true }).await
}

/// Stores it, and has the agent told, whose schedules carry it.
async fn store(services: web::Data<Services>, if_match: IfMatch, put: Put) -> Result<HttpResponse, Problem> {
    let host = put.group.host_id;
    let thing = Thing::SourceGroup(host, put.group.name.clone());
    let replaced = move |stored: &Stored| matches!(stored, Stored::Replaced(_)).then_some(host);
    match settled_settings(services, if_match, thing, put, replaced).await? {
        Stored::Created(row) => Ok(created(row)),
        Stored::Replaced(row) => Ok(HttpResponse::Ok().insert_header(etag(&row)).json(GroupView::from(row))),
        Stored::Taken => Err(Problem::conflict("the host has a source group of this name: PUT replaces it")),
        Stored::NoHost => Err(no("host")),
    }
}

fn created(row: SourceGroup) -> HttpResponse {
    let location = format!("/v1/hosts/{}/source-groups/{}", row.host_id, segment(&row.name));
    let mut answer = HttpResponse::Created();
    answer.insert_header((LOCATION, location)).insert_header(etag(&row)).json(GroupView::from(row))
}

/// A name as one segment of a URL's path.
fn segment(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(byte).collect()
}

fn no_group() -> Problem {
    Problem::not_found("the host has no source group of this name")
}

/// Source groups of a host, by their names
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}/source-groups",
    params(PageOfNames),
    responses((status = 200, body = List<GroupView>))
)]
async fn list(services: web::Data<Services>, id: web::Path<String>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page: Page<String> = Page::of(&params)?;
    let host = in_service(&services, &id).await?.id;
    let after = page.after.as_deref();
    let rows = read(&services, async |reader| source_groups::list(reader, host, after, page.rows()).await).await?;
    Ok(HttpResponse::Ok().json(page.list(rows, |row| row.name.clone(), GroupView::from)))
}

/// A source group
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}/source-groups/{name}",
    params(("name" = schemas::GroupName, Path)),
    responses((status = 200, body = GroupView, headers(("ETag" = String))))
)]
async fn get(services: web::Data<Services>, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (id, name) = path.into_inner();
    let host = in_service(&services, &id).await?.id;
    // No group has such a name, and the database can't be asked for it.
    check_group_name(&name).map_err(|_| no_group())?;
    let row = read(&services, async |reader| source_groups::find(reader, host, &name).await).await?;
    let row = row.ok_or_else(no_group)?;
    Ok(HttpResponse::Ok().insert_header(etag(&row)).json(GroupView::from(row)))
}

/// Removes a source group
#[utoipa::path(
    delete,
    path = "/v1/hosts/{id}/source-groups/{name}",
    params(("name" = schemas::GroupName, Path)),
    responses((status = 412), (status = 204), (status = 409, description = "A schedule has it."))
)]
async fn delete(
    services: web::Data<Services>,
    path: web::Path<(String, String)>,
    if_match: IfMatch,
) -> Result<HttpResponse, Problem> {
    let (id, name) = path.into_inner();
    let host = in_service(&services, &id).await?.id;
    check_group_name(&name).map_err(|_| no_group())?;
    let thing = Thing::SourceGroup(host, name.clone());
    match settled_settings(services, if_match, thing, Delete::new(host, name), |_| None).await? {
        Deleted::Gone => Ok(HttpResponse::NoContent().finish()),
        Deleted::NotFound => Err(no_group()),
        Deleted::Scheduled => Err(Problem::conflict("a schedule has this group: take it out of that first")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_segment() {
        assert_eq!(segment("a/b ä"), "a%2Fb%20%C3%A4");
    }
}
