//! The REST API, one file a resource. Handlers read through a pool, write through the persistence actor, and answer
//! what goes wrong with a [`problem::Problem`].

pub mod agent_connect;
mod agent_release;
mod audit;
pub mod auth;
pub mod body;
mod channels;
pub mod check;
pub mod clock;
mod deliveries;
pub mod enrollment;
pub mod failures;
pub mod fleet;
pub mod health;
pub mod hosts;
pub mod idempotency;
pub mod if_match;
pub mod jobs;
pub mod logs;
pub mod maintenance;
mod metrics;
pub mod openapi;
mod operation_request;
mod operation_views;
pub mod operations;
pub mod page;
pub mod params;
pub mod patch;
pub mod pauses;
pub mod problem;
mod reach;
pub mod repositories;
pub(crate) mod repository_health;
pub mod repository_url;
pub mod request_id;
pub mod routes;
pub mod runs;
pub mod schedules;
pub mod server;
pub mod snapshots;
pub mod source_groups;
pub mod stats;
mod tokens;
mod upgraded;
pub mod waiting_room;
mod webhook_url;

use crate::services::Services;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use problem::Problem;

/// The whole application.
pub fn app(
    services: web::Data<Services>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(services)
        .configure(configure)
        .wrap(from_fn(audit::record))
        .wrap(from_fn(request_id::assign))
        .wrap(from_fn(metrics::measure))
}

/// Adds every route. What agents use comes first: it has its own tokens.
pub fn configure(config: &mut web::ServiceConfig) {
    health::configure(config);
    metrics::configure(config);
    openapi::configure(config);
    enrollment::configure_agent(config);
    agent_connect::configure(config);
    let with_token = web::scope("/v1").wrap(from_fn(idempotency::of_token)).wrap(from_fn(auth::require_token));
    config.service(with_token.configure(configure_with_token));
    config.default_service(web::to(no_route));
}

/// Adds the routes under `/v1` that need a token; what each allows is in [`crate::access`].
fn configure_with_token(config: &mut web::ServiceConfig) {
    enrollment::configure(config);
    hosts::configure(config);
    jobs::configure(config);
    operations::configure(config);
    repositories::configure(config);
    source_groups::configure(config);
    schedules::configure(config);
    maintenance::configure(config);
    fleet::configure(config);
    runs::configure(config);
    pauses::configure(config);
    snapshots::configure(config);
    stats::configure(config);
    tokens::configure(config);
    audit::configure(config);
    channels::configure(config);
    deliveries::configure(config);
    agent_release::configure(config);
    config.default_service(web::to(no_route));
}

async fn no_route() -> Result<&'static str, Problem> {
    Err(Problem::not_found("there is nothing at this address"))
}
