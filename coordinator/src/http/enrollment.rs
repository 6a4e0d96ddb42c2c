//! `/v1/enrollment-tokens` and `/v1/agent/enroll`: how a host comes to its identity.

use super::auth::count_stranger;
use super::body::Body;
use super::check::{Check, NAME};
use super::clock::now;
use super::failures::{evict, to_the_end, try_write, write_for_sure};
use super::idempotency;
use super::openapi::schemas;
use super::problem::Problem;
use super::routes::resource;
use crate::db::enrollment::{CreateToken, Enroll, Enrolled, EnrollmentToken, Refusal};
use crate::db::json::Json;
use crate::request;
use crate::services::Services;
use crate::vault::hash_token;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use chrono::TimeDelta;
use fleet_wire::{Arch, Os, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// How long a token is good unless its maker says, in seconds.
const USUAL_TTL: i64 = 60 * 60;
const SHORTEST_TTL: i64 = 1;
const LONGEST_TTL: i64 = 30 * 24 * 60 * 60;

/// What the document says of both.
#[derive(OpenApi)]
#[openapi(paths(create_token, enroll))]
pub(super) struct Api;

/// Adds the operator's route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/enrollment-tokens", [web::post().to(create_token)], "POST"));
}

/// Adds the agent's route, which the enrolment token itself opens.
pub fn configure_agent(config: &mut web::ServiceConfig) {
    let route = resource("/v1/agent/enroll", [web::post().to(enroll)], "POST");
    config.service(route.wrap(from_fn(idempotency::of_body)));
}

/// What the host gets that is enrolled with it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEnrollmentToken)]
struct NewToken {
    /// For how long it is good; an hour unless it is said.
    #[schema(minimum = 1, maximum = 2592000)]
    ttl_seconds: Option<i64>,
    #[schema(value_type = Option<schemas::Labels>)]
    labels: Option<BTreeMap<String, String>>,
    #[schema(value_type = Option<Uuid>)]
    repository_id: Option<String>,
    /// A host that is enrolled anew: it keeps its id and its history.
    #[schema(value_type = Option<Uuid>)]
    host_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EnrollmentToken)]
struct TokenView {
    /// Shown this once.
    #[schema(value_type = String)]
    token: Secret,
    expires_at: Timestamp,
}

/// Makes a token that enrols one host, once
#[utoipa::path(
    post,
    path = "/v1/enrollment-tokens",
    request_body = NewToken,
    responses(
        (status = 201, body = TokenView, headers(("Cache-Control" = String))),
        (status = 409, description = "There is no such repository or host.")
    )
)]
async fn create_token(services: web::Data<Services>, Body(new): Body<NewToken>) -> Result<HttpResponse, Problem> {
    let ttl = new.ttl_seconds.unwrap_or(USUAL_TTL);
    let labels = new.labels.unwrap_or_default();
    let mut check = Check::default();
    check.number("/ttl_seconds", ttl, SHORTEST_TTL..=LONGEST_TTL);
    check.labels("/labels", &labels);
    let repository_id = new.repository_id.and_then(|id| check.id("/repository_id", "repository", &id));
    let host_id = new.host_id.and_then(|id| check.id("/host_id", "host", &id));
    check.done()?;

    let token = request::new_token(&services.vault, "fleet_enroll").map_err(Problem::internal)?;
    let now = now();
    let expires_at = now + TimeDelta::seconds(ttl);
    let row = EnrollmentToken {
        token_hash: hash_token(token.expose()),
        labels: Json(labels),
        repository_id,
        host_id,
        created_at: now,
        expires_at,
        used_at: None,
    };
    let no = |pointer, what| Problem::conflicting_field(pointer, format!("there is no {what} with this id"));
    match try_write(&services, CreateToken(row)).await? {
        Ok(true) => Ok(secret_answer().json(TokenView { token, expires_at })),
        Ok(false) => Err(no("/host_id", "host")),
        Err(error) => Err(match error.constraint() {
            Some("enrollment_tokens_repository_id_fkey") => no("/repository_id", "repository"),
            Some("enrollment_tokens_host_id_fkey") => no("/host_id", "host"),
            _ => error.into(),
        }),
    }
}

/// 201 with something that nobody on the way may keep.
pub(super) fn secret_answer() -> HttpResponseBuilder {
    let mut answer = HttpResponse::Created();
    answer.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    answer
}

/// Agents may be newer than we are: a field that is not known is ignored.
#[derive(Deserialize, ToSchema)]
struct Enrollment {
    #[schema(value_type = schemas::GivenToken)]
    token: Secret,
    #[schema(value_type = schemas::Name)]
    hostname: String,
    #[schema(value_type = schemas::HostOs)]
    os: String,
    #[schema(value_type = schemas::HostArch)]
    arch: String,
}

#[derive(Serialize, ToSchema)]
struct Identity {
    host_id: Uuid,
    /// Shown this once.
    #[schema(value_type = String)]
    agent_token: Secret,
}

impl Enrollment {
    fn check(&self) -> Result<(), Problem> {
        let mut check = Check::default();
        check.line("/hostname", &self.hostname, NAME);
        if let Err(complaint) = Os::from_str(&self.os) {
            check.wrong("/os", complaint);
        }
        if let Err(complaint) = Arch::from_str(&self.arch) {
            check.wrong("/arch", complaint);
        }
        check.done()
    }
}

/// Enrols a host: the token in the body is what opens this
#[utoipa::path(
    post,
    path = "/v1/agent/enroll",
    security(()),
    request_body = Enrollment,
    responses(
        (status = 201, body = Identity, headers(("Cache-Control" = String))),
        (status = 403, description = "The token is not known, was used, or has expired."),
        (status = 409, description = "Another host of this name uses the repository.")
    )
)]
async fn enroll(
    services: web::Data<Services>,
    http: HttpRequest,
    Body(given): Body<Enrollment>,
) -> Result<HttpResponse, Problem> {
    given.check()?;
    let agent_token = request::new_token(&services.vault, "fleet_agent").map_err(Problem::internal)?;
    let write = Enroll {
        token_hash: hash_token(given.token.expose()),
        host_id: request::new_id(),
        hostname: given.hostname,
        os: given.os,
        arch: given.arch,
        agent_token_hash: hash_token(agent_token.expose()),
        at: now(),
    };
    let outcome = to_the_end(enrolled(services.clone(), write)).await;
    if outcome.is_err() {
        // Who has a good token is no stranger: a whole fleet may be enrolled at once.
        count_stranger(&services, &http)?;
    }
    let enrolled = outcome?;
    log::info!(host:% = enrolled.host_id, again = enrolled.again; "a host was enrolled");
    Ok(secret_answer().json(Identity { host_id: enrolled.host_id, agent_token }))
}

async fn enrolled(services: web::Data<Services>, write: Enroll) -> Result<Enrolled, Problem> {
    let enrolled = match write_for_sure(&services, write).await? {
        Ok(outcome) => outcome.map_err(refusal)?,
        Err(error) if error.constraint() == Some("hosts_hostname_in_repository") => {
            return Err(Problem::conflict(
                "a host of this name uses the repository already: take another name, or a token made with that host's \
                 host_id to enrol it again",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    if enrolled.again {
        evict(&services, enrolled.host_id).await;
    }
    Ok(enrolled)
}

fn refusal(refusal: Refusal) -> Problem {
    Problem::token_refused(match refusal {
        Refusal::Unknown => "this enrolment token is not known; ask for a new one",
        Refusal::Used => "this enrolment token has enrolled a host already; ask for a new one",
        Refusal::Expired => "this enrolment token has expired; ask for a new one",
        Refusal::Runner => "the host is the runner of its repository: name another one in its maintenance first",
        Refusal::Busy => "the host has jobs that are not over, so it can't get another repository yet; try again later",
    })
}
