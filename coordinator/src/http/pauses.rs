//! Pauses: of a host, of a repository, of the fleet. Nothing new is started there but an unlock; what is under way goes on.

use super::body::Body;
use super::check::{Check, LINE, path_id};
use super::clock::now;
use super::failures::{read, settings_changed, to_the_end, write_if};
use super::hosts::in_service;
use super::if_match::{IfMatch, etag};
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfTimes};
use super::params::Params;
use super::problem::Problem;
use super::reach::reach;
use super::repositories::existing;
use super::routes::resource;
use crate::db::pauses::{self, Delete, Put, Target};
use crate::db::tags::Thing;
use crate::dispatcher::PauseChanged;
use crate::pauses::Pause;
use crate::request;
use crate::services::Services;
use crate::ticker::note_due;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

const METHODS: &str = "PUT, GET, DELETE";

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    let of_host = [web::put().to(put_host), web::get().to(get_host), web::delete().to(delete_host)];
    let of_repository =
        [web::put().to(put_repository), web::get().to(get_repository), web::delete().to(delete_repository)];
    let of_fleet = [web::put().to(put_fleet), web::get().to(get_fleet), web::delete().to(delete_fleet)];
    config
        .service(resource("/hosts/{id}/pause", of_host, METHODS))
        .service(resource("/repositories/{id}/pause", of_repository, METHODS))
        .service(resource("/pause", of_fleet, METHODS))
        .service(resource("/pauses", [web::get().to(list)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(
    put_host,
    get_host,
    delete_host,
    put_repository,
    get_repository,
    delete_repository,
    put_fleet,
    get_fleet,
    delete_fleet,
    list
))]
pub(super) struct Api;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PauseReason)]
struct PauseBody {
    #[schema(value_type = schemas::Line)]
    reason: String,
}

/// A pause in the list of all.
#[derive(Serialize, ToSchema)]
#[schema(as = PauseOf)]
struct PauseView {
    #[schema(value_type = schemas::PauseScope)]
    scope: &'static str,
    host_id: Option<Uuid>,
    repository_id: Option<Uuid>,
    #[serde(flatten)]
    pause: Pause,
}

impl From<(Target, Pause)> for PauseView {
    fn from((target, pause): (Target, Pause)) -> Self {
        Self { scope: target.scope(), host_id: target.host(), repository_id: target.repository(), pause }
    }
}

fn nothing(target: Target) -> Problem {
    Problem::not_found(format!("there is no such {}", target.scope()))
}

fn not_paused(target: Target) -> Problem {
    Problem::not_found(format!("the {} is not paused", target.scope()))
}

/// Begins a pause, or changes its reason. Once this is answered nothing new is started.
async fn put(
    services: web::Data<Services>,
    target: Target,
    if_match: IfMatch,
    body: PauseBody,
) -> Result<HttpResponse, Problem> {
    let mut check = Check::default();
    check.line("/reason", &body.reason, LINE);
    check.done()?;
    let pause = Pause { reason: body.reason, by: request::caller_name(), since: now() };
    to_the_end(async move {
        let _changing = services.pauses.changing().await;
        let stored = write_if(&services, if_match, Thing::Pause(target), Put { target, pause }).await??;
        let (pause, stopped) = stored.ok_or_else(|| nothing(target))?;
        changed(&services, target, Some(pause.clone()), stopped).await?;
        Ok(HttpResponse::Ok().insert_header(etag(&pause)).json(pause))
    })
    .await
}

/// Ends a pause: what waits goes on.
async fn delete(services: web::Data<Services>, target: Target, if_match: IfMatch) -> Result<HttpResponse, Problem> {
    to_the_end(async move {
        let _changing = services.pauses.changing().await;
        if services.pauses.get(target).is_some() {
            // What came due until now was paused, also what the ticker has not come to.
            note_due(&services, now()).await;
        }
        let ended = write_if(&services, if_match, Thing::Pause(target), Delete::new(target)).await??;
        let going_on = ended.ok_or_else(|| not_paused(target))?;
        changed(&services, target, None, going_on).await?;
        Ok(HttpResponse::NoContent().finish())
    })
    .await
}

/// What is in the ledger is made to count: for leases, and for the agents of these hosts.
async fn changed(services: &Services, target: Target, pause: Option<Pause>, hosts: Vec<Uuid>) -> Result<(), Problem> {
    services.pauses.set(target, pause);
    services.dispatcher.send(PauseChanged(target)).await?;
    settings_changed(services, hosts).await;
    Ok(())
}

fn show(services: &Services, target: Target) -> Result<HttpResponse, Problem> {
    let pause = services.pauses.get(target).ok_or_else(|| not_paused(target))?;
    Ok(HttpResponse::Ok().insert_header(etag(&pause)).json(pause))
}

/// Pauses a host: nothing new is started but an unlock
#[utoipa::path(put, path = "/v1/hosts/{id}/pause", request_body = PauseBody, responses((status = 412), (status = 200, body = Pause, headers(("ETag" = String)))))]
async fn put_host(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
    Body(body): Body<PauseBody>,
) -> Result<HttpResponse, Problem> {
    put(services, Target::Host(path_id("host", &id)?), if_match, body).await
}

/// The pause of a host
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}/pause",
    responses((status = 200, body = Pause, headers(("ETag" = String))), (status = 404, description = "There is none."))
)]
async fn get_host(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    show(&services, Target::Host(in_service(&services, &id).await?.id))
}

/// Ends the pause of a host
#[utoipa::path(
    delete,
    path = "/v1/hosts/{id}/pause",
    responses((status = 412), (status = 204), (status = 404, description = "There is none."))
)]
async fn delete_host(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, Problem> {
    delete(services, Target::Host(path_id("host", &id)?), if_match).await
}

/// Pauses a repository: nothing new is started but an unlock
#[utoipa::path(put, path = "/v1/repositories/{id}/pause", request_body = PauseBody, responses((status = 412), (status = 200, body = Pause, headers(("ETag" = String)))))]
async fn put_repository(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
    Body(body): Body<PauseBody>,
) -> Result<HttpResponse, Problem> {
    put(services, Target::Repository(path_id("repository", &id)?), if_match, body).await
}

/// The pause of a repository
#[utoipa::path(
    get,
    path = "/v1/repositories/{id}/pause",
    responses((status = 200, body = Pause, headers(("ETag" = String))), (status = 404, description = "There is none."))
)]
async fn get_repository(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    show(&services, Target::Repository(existing(&services, &id).await?.id))
}

/// Ends the pause of a repository
#[utoipa::path(
    delete,
    path = "/v1/repositories/{id}/pause",
    responses((status = 412), (status = 204), (status = 404, description = "There is none."))
)]
async fn delete_repository(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, Problem> {
    delete(services, Target::Repository(path_id("repository", &id)?), if_match).await
}

/// Pauses the whole fleet: nothing new is started but an unlock
#[utoipa::path(put, path = "/v1/pause", request_body = PauseBody, responses((status = 412), (status = 200, body = Pause, headers(("ETag" = String)))))]
async fn put_fleet(
    services: web::Data<Services>,
    if_match: IfMatch,
    Body(body): Body<PauseBody>,
) -> Result<HttpResponse, Problem> {
    put(services, Target::Fleet, if_match, body).await
}

/// The pause of the whole fleet
#[utoipa::path(
    get,
    path = "/v1/pause",
    responses((status = 200, body = Pause, headers(("ETag" = String))), (status = 404, description = "There is none."))
)]
async fn get_fleet(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    show(&services, Target::Fleet)
}

/// Ends the pause of the whole fleet
#[utoipa::path(
    delete,
    path = "/v1/pause",
    responses((status = 412), (status = 204), (status = 404, description = "There is none."))
)]
async fn delete_fleet(services: web::Data<Services>, if_match: IfMatch) -> Result<HttpResponse, Problem> {
    delete(services, Target::Fleet, if_match).await
}

/// All pauses, the oldest first
#[utoipa::path(
    get,
    path = "/v1/pauses",
    params(PageOfTimes),
    responses((status = 200, body = List<PauseView>))
)]
async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page: Page<(Timestamp, Uuid)> = Page::of(&params)?;
    let seen = reach(&services).await?;
    let rows = async |reader: &mut _| pauses::list(reader, seen.as_ref(), page.after, page.rows()).await;
    let rows = read(&services, rows).await?;
    let key = |(target, pause): &(Target, Pause)| (pause.since, target.id());
    Ok(HttpResponse::Ok().json(page.list(rows, key, PauseView::from)))
}
