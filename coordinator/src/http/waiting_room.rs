//! What answers while the coordinator waits for its database: it is alive, and everything else is to come back later.

use super::problem::Problem;
use super::{health, metrics, request_id};
use actix_web::dev::ServerHandle;
use actix_web::http::KeepAlive;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use std::io;
use std::net::TcpListener;

/// How long requests that are under way may take when the room closes, in seconds; they take milliseconds.
const CLOSE_SECONDS: u64 = 1;

/// A small server in the place of the real one.
pub struct WaitingRoom(ServerHandle);

impl WaitingRoom {
    /// Answers on `listener`.
    ///
    /// # Errors
    /// The listener can't be used.
    pub fn open(listener: TcpListener) -> io::Result<Self> {
        let app = || App::new().configure(configure).wrap(from_fn(request_id::assign));
        let server = HttpServer::new(app)
            .workers(1)
            // Nobody stays on a connection that will never see the real server.
            .keep_alive(KeepAlive::Disabled)
            .shutdown_timeout(CLOSE_SECONDS)
            .disable_signals()
            .listen(listener)?
            .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Ok(Self(handle))
    }

    /// Takes no more connections, answers those it has, and ends.
    pub async fn close(self) {
        self.0.pause().await;
        self.0.stop(true).await;
    }
}

fn configure(config: &mut web::ServiceConfig) {
    health::configure_without_database(config);
    metrics::configure_without_database(config);
    config.default_service(web::to(not_yet));
}

async fn not_yet() -> Result<&'static str, Problem> {
    Err(Problem::unavailable("the coordinator waits for its database"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::RETRY_AFTER;
    use actix_web::test;

    #[actix_web::test]
    async fn it_is_alive_and_everything_else_is_to_come_back() {
        let app = test::init_service(App::new().configure(configure)).await;
        for (path, status) in [
            ("/healthz", 200),
            ("/metrics", 200),
            ("/readyz", 503),
            ("/v1/hosts", 503),
            ("/v1/agent/connect", 503),
            ("/nothing", 503),
        ] {
            let answer = test::call_service(&app, test::TestRequest::get().uri(path).to_request()).await;
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers().contains_key(RETRY_AFTER), status == 503, "{path}");
        }
    }
}
