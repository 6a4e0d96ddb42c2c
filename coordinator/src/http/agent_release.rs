//! `/v1/agent-release`: the newest agent. Agents that are older are told of it, now and when they connect.

use super::body::Body;
use super::check::{Check, HOOK, LINE, NAME};
use super::failures::{read, to_the_end, write_if};
use super::if_match::{IfMatch, etag};
use super::openapi::schemas;
use super::problem::Problem;
use super::routes::resource;
use crate::db::agent_release::{self, Put};
use crate::db::tags::Thing;
use crate::registry::ReleaseChanged;
use crate::release::Release;
use crate::services::Services;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

/// Adds the route.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/agent-release", [web::put().to(put), web::get().to(get)], "PUT, GET"));
}

/// What the document says of it.
#[derive(OpenApi)]
#[openapi(paths(put, get))]
pub(super) struct Api;

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AgentRelease)]
struct ReleaseBody {
    #[schema(value_type = schemas::Name)]
    latest_version: String,
    #[schema(value_type = schemas::Line)]
    package_url: String,
    #[schema(value_type = Option<schemas::Hook>)]
    changelog: Option<String>,
}

impl ReleaseBody {
    fn into_release(self) -> Result<Release, Problem> {
        let mut check = Check::default();
        check.line("/latest_version", &self.latest_version, NAME);
        check.line("/package_url", &self.package_url, LINE);
        check.short("/changelog", self.changelog.as_deref().unwrap_or_default(), HOOK);
        check.done()?;
        let Self { latest_version, package_url, changelog } = self;
        Ok(Release { latest_version, package_url, changelog: changelog.filter(|text| !text.is_empty()) })
    }
}

fn show(Release { latest_version, package_url, changelog }: Release) -> ReleaseBody {
    ReleaseBody { latest_version, package_url, changelog }
}

/// Says which agent is the newest: those that are older are told
#[utoipa::path(
    put,
    path = "/v1/agent-release",
    request_body = ReleaseBody,
    responses((status = 200, body = ReleaseBody, headers(("ETag" = String))), (status = 412))
)]
async fn put(
    services: web::Data<Services>,
    if_match: IfMatch,
    Body(body): Body<ReleaseBody>,
) -> Result<HttpResponse, Problem> {
    let release = body.into_release()?;
    to_the_end(async move {
        // One after the other, so that agents hear of releases in the order in which they are in the ledger.
        let _changing = services.pauses.changing().await;
        write_if(&services, if_match, Thing::AgentRelease, Put(release.clone())).await??;
        services.release.set(release.clone());
        services.registry.send(ReleaseChanged).await?;
        Ok(HttpResponse::Ok().insert_header(etag(&release)).json(show(release)))
    })
    .await
}

/// The newest agent
#[utoipa::path(
    get,
    path = "/v1/agent-release",
    responses(
        (status = 200, body = ReleaseBody, headers(("ETag" = String))),
        (status = 404, description = "Nobody has said which it is.")
    )
)]
async fn get(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let release = read(&services, async |reader| agent_release::find(reader).await).await?;
    let release = release.ok_or_else(|| Problem::not_found("nobody has said which agent is the newest"))?;
    Ok(HttpResponse::Ok().insert_header(etag(&release)).json(show(release)))
}
