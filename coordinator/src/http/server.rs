//! The HTTP server: its threads, limits and the way it stops.
//!
//! It is put together from the parts of which actix-web's `HttpServer` consists, because that has no place for what
//! carries upgraded connections (`Upgrade`).

use super::upgraded::Upgrade;
use crate::services::Services;
use actix_http::{HttpService, Request};
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::{HttpResponse, web};
use std::net::TcpListener;
use std::time::Duration;

/// Threads that serve sockets; the machines that this is made for have two cores.
const WORKERS: usize = 2;
/// Agents hold a connection each for as long as they live.
const CONNECTIONS_A_WORKER: usize = 32_768;
/// How long a client may take to send its request's head.
const REQUEST_HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to close its side of a connection that is over.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(1);

/// A server on `listener`, to be awaited. A stop waits `drain_seconds` for requests that are under way.
///
/// # Errors
/// The listener can't be used.
pub fn bind(services: Services, listener: TcpListener, drain_seconds: u64) -> std::io::Result<Server> {
    let services = web::Data::new(services);
    let address = listener.local_addr()?;
    let builder = Server::build()
        .workers(WORKERS)
        .max_concurrent_connections(CONNECTIONS_A_WORKER)
        .shutdown_timeout(drain_seconds)
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let builder = builder.listen("http", listener, move || {
        let stopping = stopping.clone();
        HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .client_request_timeout(REQUEST_HEAD_LIMIT)
            .client_disconnect_timeout(DISCONNECT_LIMIT)
            // A small message must not wait until the one before it is acknowledged, which receivers put off for 40 ms.
            .tcp_nodelay(true)
            .local_addr(address)
            .upgrade(Upgrade(application(services.clone())))
            .finish(application(services.clone()))
            .tcp()
    })?;
    Ok(builder.run())
}

fn application(
    services: web::Data<Services>,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = ServiceResponse<impl MessageBody>,
    Error = HttpResponse,
    InitError = (),
> {
    let app = super::app(services).into_factory().map_err(|error: actix_web::Error| error.error_response());
    map_config(app, |()| AppConfig::default())
}
