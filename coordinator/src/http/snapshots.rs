//! `/v1/hosts/{id}/snapshots`: what the host's agent last reported.

use super::check::{no, path_id};
use super::failures::read;
use super::page::{CURSOR, LIMIT, List, Page, PageOfSnapshots};
use super::params::Params;
use super::problem::Problem;
use super::routes::resource;
use crate::db::hosts;
use crate::db::snapshots::{self, Position, SnapshotRow};
use crate::services::Services;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

/// Adds the route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/hosts/{id}/snapshots", [web::get().to(list)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(list))]
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
    let page: Page<Position> = Page::of(&params)?;
    // A host that is out of service keeps its snapshots: somebody may have to restore from them.
    let id = path_id("host", &id)?;
    let found = read(&services, async |reader| {
        let Some(host) = hosts::find(reader, id).await? else { return Ok(None) };
        Ok(Some((host, snapshots::list(reader, id, page.after.as_ref(), page.rows()).await?)))
    });
    let (host, rows) = found.await?.ok_or_else(|| no("host"))?;
    let list = page.list(rows, |row| (row.time, row.id.clone()), SnapshotView::from);
    Ok(HttpResponse::Ok().json(Snapshots { list, refreshed_at: host.snapshots_as_of }))
}
