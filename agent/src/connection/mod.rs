//! The way to the coordinator: connect, run the connection, wait, connect again, for ever.
//!
//! `link` runs one connection, `session` says what a message leads to, `backoff` how long to wait, `outlet` holds
//! what goes out past the journal, `reach` tells others whether the coordinator is there.

mod backoff;
mod link;
mod outlet;
mod reach;
mod session;
mod unacknowledged;

pub use backoff::{Backoff, Ending};
pub use outlet::{Inlet, Outlet, channel};
pub use reach::Reach;
pub use session::Order;

use crate::address::Server;
use crate::journal::Journal;
use crate::{host, restic, tls};
use fleet_wire::{CAPABILITY_ACK, CAPABILITY_FORGET_GUARD, Hello, MAX_MESSAGE_BYTES, PROTOCOL_VERSION, Secret};
use link::{End, Link, Socket};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, USER_AGENT};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{Connector, connect_async_tls_with_config};

/// Time for address, TCP, TLS and handshake together.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// Socket buffers: an agent says and hears little, and hundreds of MiB of log go out in such pieces just as well.
const READ_BUFFER: usize = 4 * 1024;
const WRITE_BUFFER: usize = 16 * 1024;

/// The connection loop.
pub struct Connection {
    /// Where to.
    pub server: Server,
    /// What this agent authenticates with.
    pub token: Secret,
    /// The name for `hello`.
    pub hostname: String,
    /// The restic whose version `hello` tells.
    pub restic: PathBuf,
    /// Where envelopes come from.
    pub journal: Journal,
    /// Where other messages come from.
    pub inlet: Inlet,
    /// Where orders go.
    pub orders: mpsc::Sender<Order>,
    /// Where it is told whether the coordinator can be reached.
    pub reach: watch::Sender<Reach>,
    /// Turns true when the agent stops: then what is in the outbox is sent, and the loop ends.
    pub drain: watch::Receiver<bool>,
}

impl Connection {
    /// Runs until [`Self::drain`].
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !*self.drain.borrow() {
            let began = Instant::now();
            let Some(ending) = self.connect_once().await else { return };
            let wait = backoff.wait(ending, began.elapsed(), rand::random());
            log::info!(seconds = wait.as_secs_f64(); "next connection in {:.1} s", wait.as_secs_f64());
            tokio::select! {
                () = sleep(wait) => {}
                _ = self.drain.wait_for(|drain| *drain) => return,
            }
        }
    }

    /// One connection; `None` once the agent has stopped and all is sent.
    async fn connect_once(&mut self) -> Option<Ending> {
        let mut drain = self.drain.clone();
        // Before there is a connection: a slow answer must not keep the coordinator waiting for `hello`.
        let restic_version = restic::find(&self.restic).await.version_text();
        let connected = tokio::select! {
            connected = timeout(CONNECT_TIME, self.connect()) => connected,
            _ = drain.wait_for(|drain| *drain) => return None,
        };
        let socket = match connected {
            Ok(Ok(socket)) => socket,
            Ok(Err((ending, reason))) => {
                log::warn!("can't connect to {}: {reason}", self.server.base());
                return Some(ending);
            }
            Err(_) => {
                log::warn!("can't connect to {}: no answer in time", self.server.base());
                return Some(Ending::Lost);
            }
        };
        let hello = self.hello(restic_version).await;
        log::info!("connected to {}", self.server.base());
        self.inlet.clear();
        let link =
            Link { journal: &self.journal, inlet: &mut self.inlet, orders: &self.orders, reach: &self.reach, drain };
        let end = link.run(socket, hello).await;
        self.reach.send_if_modified(|reach| {
            // One that was of no use does not begin the time anew.
            let was_there = *reach == Reach::Connected;
            if was_there {
                *reach = Reach::lost();
            }
            was_there
        });
        ending(end)
    }

    async fn connect(&self) -> Result<Socket, (Ending, String)> {
        let lost = |error: String| (Ending::Lost, error);
        let mut request = self.server.connect_url().into_client_request().map_err(|error| lost(error.to_string()))?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.expose()));
        let mut bearer = bearer.map_err(|_| (Ending::Refused, "the token in identity.json is damaged".to_owned()))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let agent = HeaderValue::from_static(concat!("fleet-agent/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let connector = match self.server.is_tls() {
            true => Connector::Rustls(tls::client_config().map_err(lost)?),
            false => Connector::Plain,
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        match connect_async_tls_with_config(request, Some(config), true, Some(connector)).await {
            Ok((socket, _)) => Ok(socket),
            Err(error) => Err(refusal(&error)),
        }
    }

    async fn hello(&self, restic_version: String) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            restic_version,
            hostname: self.hostname.clone(),
            os: host::os(),
            arch: host::arch(),
            boot_time: host::boot_time(),
            capabilities: vec![CAPABILITY_ACK.to_owned(), CAPABILITY_FORGET_GUARD.to_owned()],
            journal: Some(self.journal.id().clone()),
            jobs: self.journal.open_jobs().await,
        }
    }
}

/// What a failed handshake means, and says to people.
fn refusal(error: &tungstenite::Error) -> (Ending, String) {
    let Error::Http(response) = error else { return (Ending::Lost, error.to_string()) };
    let status = response.status();
    let ending = Ending::of_status(status.as_u16());
    let advice = match (ending, status.as_u16()) {
        (Ending::Refused, _) => {
            "; the coordinator does not know this agent's token: enrol this host again with `fleet-agent enroll --force`"
        }
        (_, 404) => "; see that the address leads to a coordinator",
        _ => "",
    };
    (ending, format!("it answers {status}{advice}"))
}

/// Says how a connection ended; `None` if that is what the agent wanted.
fn ending(end: End) -> Option<Ending> {
    match end {
        End::Drained => None,
        End::Silent => {
            log::warn!("the coordinator is silent; connecting again");
            Some(Ending::Lost)
        }
        End::Broken(reason) => {
            log::warn!("the connection broke: {reason}");
            Some(Ending::Lost)
        }
        End::Unusable { code, error, .. } => {
            log::error!(code; "the coordinator sent what this agent can't read: {}", error.message);
            Some(Ending::Lost)
        }
        End::Closed { code, reason } => {
            let ending = Ending::of_close(code);
            let code = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
            match ending {
                Ending::Lost => log::warn!("the coordinator closed the connection ({code}) {reason}"),
                Ending::Replaced => log::error!(
                    "another agent has connected as this host ({code}) {reason}; if this machine is a copy of another, \
                     enrol it as a host of its own with `fleet-agent enroll --force`. This agent waits five minutes"
                ),
                Ending::Refused => log::error!(
                    "the coordinator refuses this agent ({code}) {reason}; enrol this host again, or install the agent \
                     that fits the coordinator. This agent goes on trying, slowly"
                ),
            }
            Some(ending)
        }
    }
}
