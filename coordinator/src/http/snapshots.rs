//! `/v1/hosts/{id}/snapshots`: what the host's agent last reported.

use super::failures::read;
use super::hosts::{self, in_service};
use super::page::{CURSOR, LIMIT, List, Page, PageOfSnapshots};
use super::params::Params;
use super::problem::Problem;
use super::routes::resource;
use crate::db::hosts::Host;
use crate::db::snapshots::{self, Position, SnapshotRow};
use crate::services::Services;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

/// Adds the route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/hosts/{id}/snapshots", [web::get().to(list)], "GET"));
    config.service(resource("/snapshots", [web::get().to(of_history)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(list, of_history))]
pub(super) struct Api;

#[derive(Serialize, ToSchema)]
#[schema(as = Snapshot)]
struct SnapshotView {
    id: String,
    short_id: String,
    time: Option<Timestamp>,
    hostname: String,
    paths: Vec<String>,
    tags: Vec<String>,
    size_bytes: i64,
    file_count: i64,
}

impl From<SnapshotRow> for SnapshotView {
    fn from(row: SnapshotRow) -> Self {
        Self {
            id: row.id,
            short_id: row.short_id,
            time: row.time,
            hostname: row.hostname,
            paths: row.paths.0,
            tags: row.tags.0,
            size_bytes: row.size_bytes,
            file_count: row.file_count,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Snapshots {
    #[serde(flatten)]
    list: List<SnapshotView>,
    /// When the whole list was made; `null` if none was reported yet.
    refreshed_at: Option<Timestamp>,
}

/// Snapshots that a host's agent has reported, the newest first
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}/snapshots",
    params(PageOfSnapshots),
    responses((status = 200, body = Snapshots))
)]
async fn list(services: web::Data<Services>, id: web::Path<String>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let host = in_service(&services, &id).await?;
    page_of(&services, &host, &params).await
}

/// Snapshots of a host that may be out of service: somebody may have to restore from them
#[utoipa::path(
    get,
    path = "/v1/snapshots",
    params(PageOfSnapshots, ("host_id" = Uuid, Query)),
    responses((status = 200, body = Snapshots), (status = 404, description = "There has been no such host."))
)]
async fn of_history(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&["host_id", LIMIT, CURSOR])?;
    let host = hosts::of_history(&services, &params).await?;
    page_of(&services, &host, &params).await
}

async fn page_of(services: &Services, host: &Host, params: &Params) -> Result<HttpResponse, Problem> {
    let page: Page<Position> = Page::of(params)?;
    let rows = async |reader: &mut _| snapshots::list(reader, host.id, page.after.as_ref(), page.rows()).await;
    let rows = read(services, rows).await?;
    let list = page.list(rows, |row| (row.time, row.id.clone()), SnapshotView::from);
    Ok(HttpResponse::Ok().json(Snapshots { list, refreshed_at: host.snapshots_as_of }))
}
