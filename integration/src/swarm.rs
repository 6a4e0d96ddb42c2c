//! Very many light agents in one process, for tests and benchmarks of the coordinator: a task and a small buffer each.
//!
//! Every member does what an agent with a journal in memory would: it connects, says hello, sends a heartbeat, ends each
//! job at once with success, says again after a reconnect what was not acknowledged, and connects again whenever its
//! connection ends. There is no jitter: what a coordinator must bear at worst is that all come at once.

use crate::{Context, Failure};
use futures_util::{SinkExt, StreamExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// The pause before the next try to connect.
const RECONNECT: Duration = Duration::from_millis(100);
/// What a member's connection buffers for reading, in bytes; the library's default is 128 KiB.
const READ_BUFFER: usize = 4 * 1024;
const THREADS: usize = 2;

/// A host that is enrolled.
#[derive(Clone, Debug)]
pub struct Member {
    /// The host's name.
    pub hostname: String,
    /// Its agent's token.
    pub token: String,
}

/// What all members did so far.
#[derive(Debug, Default)]
struct Counts {
    greeted: AtomicUsize,
    greetings: AtomicUsize,
    jobs: AtomicUsize,
}

/// The agents; they end with the handle.
#[derive(Debug)]
pub struct Swarm {
    _runtime: Runtime,
    counts: Arc<Counts>,
}

impl Swarm {
    /// Starts an agent for each of `members`, which connect to the coordinator at `address` (host and port).
    ///
    /// # Errors
    /// This process may not open a file for each.
    pub fn start(address: &str, members: Vec<Member>) -> Result<Self, Failure> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of open files")?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).enable_all().build()?;
        let counts = Arc::new(Counts::default());
        for member in members {
            let agent = LightAgent {
                address: address.to_owned(),
                member,
                counts: Arc::clone(&counts),
                last_id: 0,
                unsettled: VecDeque::new(),
            };
            runtime.spawn(agent.run());
        }
        Ok(Self { _runtime: runtime, counts })
    }

    /// How many are connected and have their settings.
    pub fn greeted(&self) -> usize {
        self.counts.greeted.load(Ordering::SeqCst)
    }

    /// How often one got its settings.
    pub fn greetings(&self) -> usize {
        self.counts.greetings.load(Ordering::SeqCst)
    }

    /// How many jobs they were sent; one that is sent twice counts twice.
    pub fn jobs(&self) -> usize {
        self.counts.jobs.load(Ordering::SeqCst)
    }
}

struct LightAgent {
    address: String,
    member: Member,
    counts: Arc<Counts>,
    last_id: u64,
    /// What was sent, or is to be, and is not acknowledged: number and envelope.
    unsettled: VecDeque<(u64, String)>,
}

type Socket = WebSocketStream<TcpStream>;

impl LightAgent {
    async fn run(mut self) {
        loop {
            if let Ok(mut socket) = self.connect().await {
                let mut greeted = false;
                let _ = self.session(&mut socket, &mut greeted).await; // whatever ends it, the next follows
                if greeted {
                    self.counts.greeted.fetch_sub(1, Ordering::SeqCst);
                }
            }
            sleep(RECONNECT).await;
        }
    }

    async fn connect(&self) -> Result<Socket, Error> {
        let mut request = format!("ws://{}/v1/agent/connect", self.address).into_client_request()?;
        let bearer = format!("Bearer {}", self.member.token)
            .parse()
            .map_err(tokio_tungstenite::tungstenite::http::Error::from)?;
        request.headers_mut().insert("Authorization", bearer);
        let stream = TcpStream::connect(&self.address).await?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
        Ok(tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?.0)
    }

    async fn session(&mut self, socket: &mut Socket, greeted: &mut bool) -> Result<(), Error> {
        let hello = json!({
            "protocol_version": fleet_wire::PROTOCOL_VERSION, "agent_version": "0.0.1", "restic_version": "0.18.0",
            "hostname": self.member.hostname, "os": "linux", "arch": "amd64",
            "capabilities": ["ack"], "journal": self.member.hostname,
        });
        socket.send(text("hello", None, &hello)).await?;
        for (_, envelope) in &self.unsettled {
            socket.feed(Message::text(envelope.clone())).await?;
        }
        socket.flush().await?;
        let every = fleet_wire::HEARTBEAT_INTERVAL;
        let mut heartbeat = interval_at(Instant::now() + every, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                _ = heartbeat.tick() => {
                    socket.send(text("heartbeat", None, &json!({"sent_at": chrono::Utc::now()}))).await?;
                    continue;
                }
                message = socket.next() => message,
            };
            let Some(message) = message.transpose()? else { return Ok(()) };
            let Message::Text(envelope) = message else { continue };
            let Ok(envelope) = serde_json::from_str::<Value>(&envelope) else { continue };
            let payload = &envelope["payload"];
            match envelope["type"].as_str() {
                Some("schedule.set") if !*greeted => {
                    *greeted = true;
                    self.counts.greeted.fetch_add(1, Ordering::SeqCst);
                    self.counts.greetings.fetch_add(1, Ordering::SeqCst);
                }
                Some("ack") => {
                    let up_to = payload["up_to"].as_str().and_then(|id| id.parse().ok()).unwrap_or(0);
                    self.unsettled.retain(|(id, _)| *id > up_to);
                }
                Some("command.run") => self.end_job(payload, socket).await?,
                _ => {}
            }
        }
    }

    async fn end_job(&mut self, run: &Value, socket: &mut Socket) -> Result<(), Error> {
        self.counts.jobs.fetch_add(1, Ordering::SeqCst);
        let (job, now) = (&run["job_id"], chrono::Utc::now());
        self.report("command.result", &json!({"job_id": job, "accepted": true}), socket).await?;
        self.report("job.started", &json!({"job_id": job, "kind": run["kind"], "started_at": now}), socket).await?;
        let finished = json!({"job_id": job, "status": "succeeded", "exit_code": 0, "finished_at": now});
        self.report("job.finished", &finished, socket).await?;
        socket.flush().await
    }

    async fn report(&mut self, kind: &str, payload: &Value, socket: &mut Socket) -> Result<(), Error> {
        self.last_id += 1;
        let message = text(kind, Some(self.last_id), payload);
        self.unsettled.push_back((self.last_id, message.to_text()?.to_owned()));
        socket.feed(message).await
    }
}

fn text(kind: &str, id: Option<u64>, payload: &Value) -> Message {
    let mut envelope = json!({"type": kind, "payload": payload});
    if let Some(id) = id {
        envelope["id"] = json!(id.to_string());
    }
    Message::text(envelope.to_string())
}
