//! `/v1/tokens`: who else may use the API. A token is shown once, when it is made.

use super::body::Body;
use super::check::{Check, NAME, no, path_id};
use super::clock::now;
use super::enrollment::secret_answer;
use super::failures::{read, to_the_end, write_for_sure, write_if};
use super::if_match::{IfMatch, etag};
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfTimes};
use super::params::Params;
use super::problem::Problem;
use super::routes::resource;
use crate::access::{Labels, Scope};
use crate::db::json::Json;
use crate::db::tags::Thing;
use crate::db::tokens::{self, ApiToken, Create, Revoke};
use crate::request;
use crate::services::Services;
use crate::vault::hash_token;
use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use chrono::TimeDelta;
use fleet_wire::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// What tells people and secret scanners that it is a token of ours.
const PREFIX: &str = "rft";
/// How long a token can be good, in seconds; without `ttl_seconds` it is good until it is revoked.
const LONGEST_TTL: i64 = 10 * 366 * 24 * 60 * 60;
/// Who asks for what no token has asked for: a token of such a name would be taken for them.
pub(super) const RESERVED: [&str; 6] =
    [crate::tokens::ADMIN, "agent", "coordinator", "maintenance", "operator", "schedule"];

/// Adds the routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/tokens", [web::post().to(create), web::get().to(list)], "POST, GET"));
    config.service(resource("/tokens/{id}", [web::get().to(get), web::delete().to(revoke)], "GET, DELETE"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(create, list, get, revoke))]
pub(super) struct Api;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    #[schema(value_type = schemas::TokenName)]
    name: String,
    scope: Scope,
    /// Only hosts that carry these labels. An admin can't be limited.
    #[schema(value_type = Option<schemas::HostLimit>)]
    host_labels: Option<Labels>,
    /// For how long it is good; until it is revoked unless it is said.
    #[schema(minimum = 1, maximum = 316224000)]
    ttl_seconds: Option<i64>,
}

impl NewToken {
    fn check(&self) -> Result<(), Problem> {
        let mut check = Check::default();
        check.line("/name", &self.name, NAME);
        if RESERVED.contains(&self.name.as_str()) {
            check.wrong("/name", "is reserved: it would be taken for somebody else");
        }
        check.number("/ttl_seconds", self.ttl_seconds.unwrap_or(1), 1..=LONGEST_TTL);
        if let Some(labels) = &self.host_labels {
            check.labels("/host_labels", labels);
            if labels.is_empty() {
                check.wrong("/host_labels", "needs a label: leave it out for all hosts");
            }
            if self.scope == Scope::Admin {
                check.wrong("/host_labels", "can't limit an admin, who could make a token without limits");
            }
        }
        check.done()
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Token)]
struct TokenView {
    id: Uuid,
    name: String,
    #[schema(value_type = Scope)]
    scope: String,
    #[schema(value_type = Option<schemas::Labels>)]
    host_labels: Option<Labels>,
    created_at: Timestamp,
    created_by: String,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl TokenView {
    fn new(services: &Services, row: ApiToken) -> Self {
        Self {
            id: row.id,
            name: row.name,
            scope: row.scope,
            host_labels: row.host_labels.map(|Json(labels)| labels),
            created_at: row.created_at,
            created_by: row.created_by,
            expires_at: row.expires_at,
            // The row is written now and then.
            last_used_at: row.last_used_at.max(services.api_tokens.last_used(row.id)),
            revoked_at: row.revoked_at,
        }
    }
}

/// A token, and for this once the token itself.
#[derive(Serialize, ToSchema)]
#[schema(as = NewlyMadeToken)]
struct MadeView {
    /// Shown this once.
    #[schema(value_type = String)]
    token: Secret,
    #[serde(flatten)]
    view: TokenView,
}

/// Makes a token
#[utoipa::path(
    post,
    path = "/v1/tokens",
    request_body = NewToken,
    responses(
        (status = 201, body = MadeView, headers(("ETag" = String), ("Location" = String), ("Cache-Control" = String))),
        (status = 409, description = "There is a token of this name.")
    )
)]
async fn create(services: web::Data<Services>, Body(new): Body<NewToken>) -> Result<HttpResponse, Problem> {
    new.check()?;
    let token = request::new_token(&services.vault, PREFIX).map_err(Problem::internal)?;
    let created_at = now();
    let row = ApiToken {
        id: request::new_id(),
        name: new.name,
        token_hash: hash_token(token.expose()),
        scope: new.scope.as_str().to_owned(),
        host_labels: new.host_labels.map(Json),
        created_at,
        created_by: request::caller_name(),
        expires_at: new.ttl_seconds.map(|seconds| created_at + TimeDelta::seconds(seconds)),
        last_used_at: None,
        revoked_at: None,
    };
    to_the_end(async move {
        let _changing = services.api_tokens.changing().await;
        let row = write_for_sure(&services, Create(row)).await?.map_err(|error| match error.constraint() {
            Some("api_tokens_name") => Problem::conflict("there is a token of this name: revoke it first"),
            _ => error.into(),
        })?;
        if row.revoked_at.is_none() {
            services.api_tokens.add(row.clone());
        }
        let location = (LOCATION, format!("/v1/tokens/{}", row.id));
        let tag = etag(&row);
        let view = TokenView::new(&services, row);
        Ok(secret_answer().insert_header(location).insert_header(tag).json(MadeView { token, view }))
    })
    .await
}

/// Tokens that are good, the oldest first
#[utoipa::path(
    get,
    path = "/v1/tokens",
    params(PageOfTimes),
    responses((status = 200, body = List<TokenView>))
)]
async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page: Page<(Timestamp, Uuid)> = Page::of(&params)?;
    let rows = read(&services, async |reader| tokens::list(reader, page.after, page.rows()).await).await?;
    let view = |row| TokenView::new(&services, row);
    Ok(HttpResponse::Ok().json(page.list(rows, |row| (row.created_at, row.id), view)))
}

/// A token
#[utoipa::path(get, path = "/v1/tokens/{id}", responses((status = 200, body = TokenView, headers(("ETag" = String)))))]
async fn get(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = path_id("token", &id)?;
    let row = read(&services, async |reader| tokens::find(reader, id).await).await?;
    let row = row.filter(|row| row.revoked_at.is_none()).ok_or_else(|| no("token"))?;
    Ok(HttpResponse::Ok().insert_header(etag(&row)).json(TokenView::new(&services, row)))
}

/// Once this is answered the token opens nothing, and what it had open has ended.
#[utoipa::path(delete, path = "/v1/tokens/{id}", responses((status = 412), (status = 204)))]
async fn revoke(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, Problem> {
    let id = path_id("token", &id)?;
    to_the_end(async move {
        let _changing = services.api_tokens.changing().await;
        if !write_if(&services, if_match, Thing::Token(id), Revoke { id, at: now() }).await?? {
            return Err(no("token"));
        }
        services.api_tokens.revoke(id);
        Ok(HttpResponse::NoContent().finish())
    })
    .await
}
