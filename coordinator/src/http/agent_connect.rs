//! `GET /v1/agent/connect`: the agent's token decides which host this is, then its session takes over.

use super::auth::{bearer, count_stranger};
use super::problem::{FieldError, Problem};
use super::routes::resource;
use crate::services::Services;
use crate::session::Session;
use crate::vault::hash_token;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::OpenApi;

/// Adds the route.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/v1/agent/connect", [web::get().to(connect)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(connect))]
pub(super) struct Api;

/// The agents' WebSocket
#[utoipa::path(
    get,
    path = "/v1/agent/connect",
    security(("agent_token" = [])),
    responses(
        (status = 101, description = "The socket is open."),
        (status = 400, description = "This asks for no WebSocket."),
        (status = 401),
        (status = 429)
    )
)]
async fn connect(
    services: web::Data<Services>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let host_id = authenticate(&services, &request).await?;
    let upgraded = Session::upgrade(services.into_inner(), host_id, &request, payload);
    upgraded.map_err(|error| Problem::malformed(vec![FieldError::new("", error.to_string())]).into())
}

async fn authenticate(services: &Services, request: &HttpRequest) -> Result<uuid::Uuid, Problem> {
    let Some(token) = bearer(request.headers()) else {
        count_stranger(services, request)?;
        return Err(Problem::unauthorized("send the agent's token: Authorization: Bearer TOKEN"));
    };
    // Nothing is remembered, so a token that was revoked opens nothing.
    if let Some(host) = services.tokens.get(hash_token(token)).await? {
        return Ok(host);
    }
    count_stranger(services, request)?;
    Err(Problem::unauthorized("no host has this token: enrol the agent again"))
}
