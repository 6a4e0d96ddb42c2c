//! A coordinator of the tests' own on a real socket, and the real agent as a process.

#![allow(dead_code, unreachable_pub, reason = "each test file includes this and uses a part of it")]

mod agent;

pub use agent::{Agent, DEADLINE, TOKEN};

use fleet_wire::{Ack, CommandRun, ConfigUpdate, EnvelopeId, JobId, Kind, Secret, ToAgent, encode};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::future::Future;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Waits for `what`, then fails with what `seen` says.
pub async fn within<T>(what: &str, future: impl Future<Output = T>, seen: impl Fn() -> String) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} in time; {}", seen()),
    }
}

/// Where agents connect to.
pub struct Coordinator {
    listener: TcpListener,
    pub url: String,
}

impl Coordinator {
    pub async fn bind() -> Self {
        Self::at("127.0.0.1:0").await
    }

    /// One that is back after it was away (dropped).
    pub async fn back(url: &str) -> Self {
        Self::at(url.strip_prefix("http://").unwrap()).await
    }

    async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// The next connection, past its `hello`.
    pub async fn hello(&self, agent: &Agent) -> (Peer, Value) {
        let mut peer = self.accept(agent).await;
        let hello = peer.next().await;
        assert_eq!(hello["type"], "hello", "{hello}");
        assert!(hello.get("id").is_none(), "{hello}");
        (peer, hello["payload"].clone())
    }

    /// The next connection.
    pub async fn accept(&self, agent: &Agent) -> Peer {
        let stream = within("connection", self.listener.accept(), || agent.log()).await.unwrap().0;
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri().path(), "/v1/agent/connect");
            assert_eq!(request.headers()["authorization"], format!("Bearer {TOKEN}"));
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap();
        Peer { socket, seen: Vec::new(), log: agent.log_path() }
    }

    /// Answers the next request with `head` and `body`, and gives the request.
    pub async fn answer(&self, head: &str, body: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = within("request", self.listener.accept(), || "nobody came".into()).await.unwrap().0;
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !complete(&request) {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&buffer[..read]);
        }
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(request).unwrap()
    }
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    body.len() >= length.unwrap_or(0)
}

/// The coordinator's side of one connection.
pub struct Peer {
    socket: WebSocketStream<TcpStream>,
    /// Every envelope so far.
    pub seen: Vec<Value>,
    log: PathBuf,
}

impl Peer {
    pub async fn send(&mut self, message: impl Into<ToAgent>) {
        self.send_text(&encode(None, &message.into())).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next envelope.
    pub async fn next(&mut self) -> Value {
        match self.next_or_close().await {
            Ok(envelope) => envelope,
            Err(code) => panic!("closed with {code:?}; {}", self.story()),
        }
    }

    async fn next_or_close(&mut self) -> Result<Value, Option<u16>> {
        loop {
            let message = match timeout(DEADLINE, self.socket.next()).await {
                Ok(message) => message,
                Err(_) => panic!("no message in time; {}", self.story()),
            };
            match message {
                Some(Ok(Message::Text(text))) => {
                    let envelope: Value = serde_json::from_str(&text).unwrap();
                    self.seen.push(envelope.clone());
                    return Ok(envelope);
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Err(None),
            }
        }
    }

    /// The next envelope of a type and, where it has one, about a job.
    pub async fn expect(&mut self, type_name: &str, job: Option<&str>) -> Value {
        // Heartbeats come for ever.
        let until = Instant::now() + 2 * DEADLINE;
        loop {
            assert!(Instant::now() < until, "no {type_name} of {job:?} in time; {}", self.story());
            let envelope = self.next().await;
            let about = envelope["payload"]["job_id"].as_str();
            if envelope["type"] == type_name && (job.is_none() || about == job) {
                return envelope;
            }
        }
    }

    /// Reads to the close and gives its code; `None` if the connection just broke.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Err(code) = self.next_or_close().await {
                return code;
            }
        }
    }

    /// Acknowledges everything up to this envelope.
    pub async fn ack(&mut self, envelope: &Value) {
        let up_to: EnvelopeId = envelope["id"].as_str().unwrap().into();
        self.send(Ack { up_to }).await;
    }

    pub async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "test".into() };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// How many envelopes of a type came so far.
    pub fn count(&self, type_name: &str) -> usize {
        self.seen.iter().filter(|envelope| envelope["type"] == type_name).count()
    }

    /// The `seq`s of a job's log lines so far.
    pub fn seqs(&self, job: &str) -> Vec<i64> {
        self.lines(job).iter().map(|line| line["seq"].as_i64().unwrap()).collect()
    }

    /// The log lines of a job so far.
    pub fn lines(&self, job: &str) -> Vec<Value> {
        let of_job = |envelope: &&Value| envelope["type"] == "log.stream" && envelope["payload"]["job_id"] == job;
        self.seen.iter().filter(of_job).map(|envelope| envelope["payload"].clone()).collect()
    }

    fn story(&self) -> String {
        let last: Vec<_> = self.seen.iter().rev().take(20).rev().map(Value::to_string).collect();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("last seen:\n{}\nagent's log:\n{log}", last.join("\n"))
    }
}

/// A job of `kind`.
pub fn job(id: &str, kind: Kind) -> CommandRun {
    CommandRun::new(JobId::from(id), kind)
}

/// A backup of `path`.
pub fn backup(id: &str, path: &Path) -> CommandRun {
    let includes = vec![path.to_str().unwrap().to_owned()];
    CommandRun { includes, tag: Some("group".into()), ..job(id, Kind::Backup) }
}

/// The settings of a repository in a folder of its own.
pub fn repository(path: &Path) -> ConfigUpdate {
    ConfigUpdate {
        repo_url: Some(path.to_str().unwrap().to_owned()),
        repo_password: Some(Secret::new("sesame")),
        ..ConfigUpdate::default()
    }
}
