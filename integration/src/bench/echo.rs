//! The bare server that figures are held against: the same framework, doing nothing. `/echo` is an actix-web-actors
//! session that sends back what it gets, `/plaintext` answers with one word. It is a process of its own, so that its
//! memory and processor time can be read from outside like the coordinator's.

use crate::process::{Process, command};
use crate::{Context, Failure, eventually, leak_free_dir, program};
use actix::{Actor, StreamHandler};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actix_web_actors::ws;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// As many threads and connections as the coordinator's server has.
const WORKERS: usize = 2;
const CONNECTIONS_A_WORKER: usize = 32_768;
/// Ports to listen on: below those that outgoing connections take.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const START_LIMIT: Duration = Duration::from_secs(20);

struct Echo;

impl Actor for Echo {
    type Context = ws::WebsocketContext<Self>;
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Echo {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, context: &mut Self::Context) {
        match message {
            Ok(ws::Message::Text(text)) => context.text(text),
            Ok(ws::Message::Ping(bytes)) => context.pong(&bytes),
            _ => {}
        }
    }
}

async fn echo(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    ws::start(Echo, &request, payload)
}

async fn plaintext() -> &'static str {
    "hello"
}

/// Serves until it is killed.
///
/// # Errors
/// The port is taken.
pub fn serve(port: u16) -> Result<(), Failure> {
    let app = || App::new().route("/echo", web::get().to(echo)).route("/plaintext", web::get().to(plaintext));
    actix_web::rt::System::new().block_on(async move {
        let server = HttpServer::new(app).workers(WORKERS).max_connections(CONNECTIONS_A_WORKER);
        server.bind(("127.0.0.1", port))?.run().await
    })?;
    Ok(())
}

/// A running bare server.
pub(super) struct EchoServer {
    process: Process,
    pub(super) address: SocketAddr,
    _dir: TempDir,
}

impl EchoServer {
    /// Starts one: our own program with the hidden subcommand that calls [`serve`].
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start() -> Result<Self, Failure> {
        let dir = leak_free_dir("fleet-echo.")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut serve = command(&program("bench")?, None);
        serve.args(["echo-server", &address.port().to_string()]);
        let mut process = Process::start("echo server", serve, dir.path().join("log"))?;
        eventually("the echo server", START_LIMIT, || {
            process.must_run()?;
            TcpStream::connect(address).context("connecting")
        })?;
        Ok(Self { process, address, _dir: dir })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}

/// A port that nobody listens on, and that nobody else in this process was given.
///
/// # Errors
/// There is none.
pub(super) fn free_port() -> Result<u16, Failure> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    let first = (std::process::id() % u32::from(count)) as u16;
    let mut ports = (0..count).map(|_| PORTS.start + first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count);
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.ok_or_else(|| Failure::new("no free port"))
}
