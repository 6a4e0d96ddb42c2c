//! The HTTP server: its threads, limits and the way it stops.

use crate::services::Services;
use actix_web::dev::Server;
use actix_web::{HttpServer, web};
use std::net::TcpListener;
use std::time::Duration;

/// Threads that serve sockets; the machines that this is made for have two cores.
const WORKERS: usize = 2;
/// Agents hold a connection each for as long as they live.
const CONNECTIONS_A_WORKER: usize = 32_768;
/// How long a client may take to send its request's head.
const REQUEST_HEAD_LIMIT: Duration = Duration::from_secs(10);

/// A server on `listener`, to be awaited. A stop waits `drain_seconds` for requests that are under way.
///
/// # Errors
/// The listener can't be used.
pub fn bind(services: Services, listener: TcpListener, drain_seconds: u64) -> std::io::Result<Server> {
    let services = web::Data::new(services);
    let server = HttpServer::new(move || super::app(services.clone()))
        .workers(WORKERS)
        .max_connections(CONNECTIONS_A_WORKER)
        // A small message must not wait until the one before it is acknowledged, which receivers put off for 40 ms.
        .tcp_nodelay(true)
        .client_request_timeout(REQUEST_HEAD_LIMIT)
        .shutdown_timeout(drain_seconds)
        .disable_signals()
        .listen(listener)?
        .run();
    Ok(server)
}
