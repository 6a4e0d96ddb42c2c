//! `/metrics`, for Prometheus; and what counts the requests themselves. No token is needed: without one nothing has a name.

use super::auth::bearer;
use super::routes::resource;
use crate::clock;
use crate::db::counts::{self, Counts};
use crate::dispatcher::{Census, TakeCensus};
use crate::metrics::{CONTENT_TYPE, Memory, text, text_without_database};
use crate::services::Services;
use crate::vault::hash_token;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::TimeDelta;
use std::sync::Arc;
use std::time::{Duration, Instant};
use utoipa::OpenApi;

/// How long the ledger may take to be counted.
const COUNT_LIMIT: Duration = Duration::from_secs(5);
/// How long the dispatcher may take to count its jobs.
const CENSUS_LIMIT: Duration = Duration::from_secs(1);
/// The parameter of requests that ask to wait.
const WAIT: &str = "wait=";

/// Adds the route.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/metrics", [web::get().to(scrape)], "GET"));
}

/// What the document says of it.
#[derive(OpenApi)]
#[openapi(paths(scrape))]
pub(super) struct Api;

/// Adds what can be told before there is a database.
pub(super) fn configure_without_database(config: &mut web::ServiceConfig) {
    let answer = async || HttpResponse::Ok().content_type(CONTENT_TYPE).body(text_without_database());
    config.service(resource("/metrics", [web::get().to(answer)], "GET"));
}

/// Counts, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    security(()),
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"))
)]
async fn scrape(services: web::Data<Services>, request: HttpRequest) -> HttpResponse {
    let (counts, census) = futures_util::future::join(count(&services), census(&services)).await;
    let memory = Memory { census, pool: services.database.pool_status() };
    let text = text(&services.metrics, counts.as_deref(), &memory, may_see_names(&services, &request));
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(text)
}

async fn count(services: &web::Data<Services>) -> Option<Arc<Counts>> {
    // A task of its own: a query that is given up half-way would spoil the connection for those who read next.
    let counting = actix_web::rt::spawn(count_ledger(services.clone()));
    let why = match tokio::time::timeout(COUNT_LIMIT, counting).await {
        Ok(Ok(Ok(counts))) => return Some(counts),
        Ok(Ok(Err(why))) => why,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer from the database for {} s", COUNT_LIMIT.as_secs()),
    };
    log::warn!("can't count for /metrics: {why}");
    None
}

async fn count_ledger(services: web::Data<Services>) -> Result<Arc<Counts>, String> {
    let (metrics, runner_offline) = (&services.metrics, services.maintenance.runner_offline);
    let runner_offline = TimeDelta::from_std(runner_offline).unwrap_or(TimeDelta::MAX);
    let read = async || {
        let now = clock::now();
        services.database.read(async |reader| counts::read(reader, now, runner_offline, metrics.groups).await).await
    };
    metrics.ledger.get(read).await
}

async fn census(services: &Services) -> Option<Arc<Census>> {
    let taking = services.metrics.census.get(async || services.dispatcher.send(TakeCensus).await);
    tokio::time::timeout(CENSUS_LIMIT, taking).await.ok()?.ok()
}

/// Whether somebody may see all hosts. Whoever shows a token that is not good any more gets what is told without one: a
/// forgotten expiry is not to take all alerts with it.
fn may_see_names(services: &Services, request: &HttpRequest) -> bool {
    let token = bearer(request.headers()).and_then(|token| services.api_tokens.find(&hash_token(token)));
    token.is_some_and(|token| token.labels.is_none())
}

/// Middleware that counts requests and how they end.
///
/// # Errors
/// Those of the handlers.
pub(super) async fn measure<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let began = Instant::now();
    let services = request.app_data::<web::Data<Services>>().cloned();
    let method = request.method().clone();
    let route = request.resource_map().match_pattern(request.match_info().as_str());
    let waits = request.query_string().split('&').any(|parameter| parameter.starts_with(WAIT));
    let answer = next.call(request).await;
    if let Some(services) = services {
        let status = match &answer {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        let took = (!waits).then(|| began.elapsed());
        services.metrics.requests.answered(method.as_str(), route, status.as_u16(), took);
    }
    answer
}
