//! `/v1/audit`, and what has every change recorded that is asked for over REST.

use super::failures::read;
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfIds};
use super::params::{Params, bad_param};
use super::problem::Problem;
use super::routes::resource;
use crate::db::audit::{self, Filter, Numbered, Outcome, Record};
use crate::request::{self, Subject, bounded};
use crate::services::Services;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse, web};
use fleet_wire::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, OpenApi, ToSchema};
use uuid::Uuid;

/// Where all of it is.
const BASE: &str = "/v1/";
/// Agents that are refused come again and again, and their sessions are no business of operators.
const AGENTS: &str = "agent/connect";

/// Adds the route.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/audit", [web::get().to(list)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(list))]
pub(super) struct Api;

/// What is recorded of a request, if it asks for a change.
pub(super) fn change(request: &HttpRequest) -> Option<Subject> {
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(request.method());
    if changes { subject(request) } else { None }
}

/// What a request is about, if it is about anything under `/v1/`.
fn subject(request: &HttpRequest) -> Option<Subject> {
    // As the router reads it.
    let path = request.match_info().as_str();
    let target = path.strip_prefix(BASE).filter(|target| *target != AGENTS)?;
    Some(Subject {
        remote_address: request.peer_addr().map(|peer| peer.ip().to_string()),
        method: request.method().to_string(),
        route: request.resource_map().match_pattern(path).unwrap_or_else(|| "none".to_owned()),
        target: bounded(target).to_owned(),
    })
}

/// Middleware that records what was not recorded with the change itself: what was refused, failed, or changed nothing.
///
/// # Errors
/// Those of the handlers.
pub(super) async fn record<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let services = request.app_data::<web::Data<Services>>().cloned();
    let response = next.call(request).await?;
    let (Some(services), Some(current)) = (services, request::current()) else { return Ok(response) };
    let status = response.status();
    let of_read = || {
        let denied = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        if denied { subject(response.request()) } else { None }
    };
    if !current.is_recorded()
        && let Some(subject) = current.subject.clone().or_else(of_read)
    {
        let outcome = Outcome::of_status(status.as_u16());
        services.unrecorded.add(Record::of(&current, &subject, outcome, Some(status.as_u16())));
    }
    Ok(response)
}

#[derive(Serialize, ToSchema)]
#[schema(as = AuditRecord)]
struct RecordView {
    id: Uuid,
    /// Its place in the order of commits.
    seq: i64,
    at: Timestamp,
    request_id: String,
    token: TokenView,
    remote_address: Option<String>,
    method: String,
    route: String,
    target: String,
    outcome: String,
    /// Of what was not done.
    status: Option<i64>,
    detail: Option<String>,
    /// How many requests this stands for.
    times: i64,
}

/// Whose it was; both are `null` of nobody who is known.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditedToken)]
struct TokenView {
    id: Option<Uuid>,
    name: Option<String>,
}

impl From<Numbered> for RecordView {
    fn from(Numbered { record: row, seq }: Numbered) -> Self {
        Self {
            id: row.id,
            seq,
            at: row.at,
            request_id: row.request_id,
            token: TokenView { id: row.token_id, name: row.token_name },
            remote_address: row.remote_address,
            method: row.method,
            route: row.route,
            target: row.target,
            outcome: row.outcome,
            status: row.status,
            detail: row.detail,
            times: row.times,
        }
    }
}

/// Which records a list has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only for the document")]
struct AuditFilter {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// The name or the id of a token.
    #[param(value_type = Option<schemas::AnyText>)]
    token: Option<String>,
    /// An id or a name in the path that it was about.
    #[param(value_type = Option<schemas::AnyText>)]
    target: Option<String>,
    #[param(value_type = Option<schemas::AuditOutcome>)]
    outcome: Option<String>,
    /// Only what was committed behind the row with this `seq`, in the order of commits: who copies the log reads on like this.
    #[param(minimum = 0)]
    after_seq: Option<i64>,
}

/// Who has changed what, the newest first; with `after_seq` in the order of commits
#[utoipa::path(
    get,
    path = "/v1/audit",
    params(PageOfIds, AuditFilter),
    responses((status = 200, body = List<RecordView>))
)]
async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&["since", "until", "token", "target", "outcome", "after_seq", LIMIT, CURSOR])?;
    let page: Page<Uuid> = Page::of(&params)?;
    let outcome = params.one("outcome")?.map(|text| text.parse().map_err(|error: String| bad_param("outcome", error)));
    let filter = Filter {
        since: params.time("since")?,
        until: params.time("until")?,
        token: params.one("token")?.map(str::to_owned),
        target: params.one("target")?.map(str::to_owned),
        outcome: outcome.transpose()?,
    };
    // Who looks sees what was until now.
    services.unrecorded.write(&services.persistence).await?;
    let after_seq = params.number("after_seq", 0..=i64::MAX)?;
    let rows = read(&services, async |reader| match after_seq {
        Some(seq) => audit::list_on(reader, &filter, seq, page.after, page.rows()).await,
        None => audit::list(reader, &filter, page.after, page.rows()).await,
    });
    Ok(HttpResponse::Ok().json(page.list(rows.await?, |row| row.record.id, RecordView::from)))
}
