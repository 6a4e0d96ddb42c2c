//! `/healthz` and `/readyz`: for machines that watch the coordinator. No token is needed.

use super::problem::Problem;
use super::routes::resource;
use crate::services::Services;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use std::time::Duration;
use utoipa::{OpenApi, ToSchema};

/// How long the database may take to answer before it counts as away.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/healthz", [web::get().to(alive)], "GET"));
    config.service(resource("/readyz", [web::get().to(ready)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(alive, ready))]
pub(super) struct Api;

/// Adds what can be told before there is a database.
pub(super) fn configure_without_database(config: &mut web::ServiceConfig) {
    config.service(resource("/healthz", [web::get().to(alive)], "GET"));
}

#[derive(Serialize, ToSchema)]
#[schema(as = State)]
struct Health {
    status: &'static str,
}

/// Whether the coordinator runs
#[utoipa::path(get, path = "/healthz", security(()), responses((status = 200, body = Health)))]
async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

/// Whether it can serve
#[utoipa::path(
    get,
    path = "/readyz",
    security(()),
    responses((status = 200, body = Health), (status = 503, description = "The database does not answer."))
)]
async fn ready(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    match tokio::time::timeout(PING_LIMIT, services.database.ping()).await {
        Ok(Ok(())) => Ok(HttpResponse::Ok().json(Health { status: "ready" })),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::unavailable("the database does not answer")),
    }
}
