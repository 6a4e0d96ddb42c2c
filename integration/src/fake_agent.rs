//! An agent that says whatever a test wants: one WebSocket, and JSON as text.

use crate::{Context, Failure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

/// How long a message may be in coming.
const LIMIT: Duration = Duration::from_secs(20);
/// What our pings hold.
const PING: &[u8] = b"are you there?";
/// A message of any size that a test sends goes out.
const NO_LIMIT: Option<usize> = None;

/// The connection.
#[derive(Debug)]
pub struct FakeAgent {
    runtime: Runtime,
    socket: WebSocketStream<TcpStream>,
}

/// What came over the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// An envelope {type, id?, payload}.
    Envelope(Value),
    /// The end: close code (none if the connection just ended) and reason.
    Closed(Option<u16>, String),
}

impl FakeAgent {
    /// Connects to the coordinator at `address` (host and port) with an agent's token.
    ///
    /// # Errors
    /// There is no connection, or it is refused (the failure holds the HTTP status).
    pub fn connect(address: &str, token: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut request = format!("ws://{address}/v1/agent/connect").into_client_request()?;
        request.headers_mut().insert("Authorization", format!("Bearer {token}").parse()?);
        let config = WebSocketConfig::default().max_message_size(NO_LIMIT).max_frame_size(NO_LIMIT);
        let socket = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await
        });
        let (socket, _) = socket.context("connecting as an agent")?;
        Ok(Self { runtime, socket })
    }

    /// Sends one raw message.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_raw(&mut self, message: Message) -> Result<(), Failure> {
        Ok(self.runtime.block_on(self.socket.send(message))?)
    }

    /// Writes bytes beneath the WebSocket, for frames that no library would make.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.runtime.block_on(self.socket.get_mut().write_all(bytes))?)
    }

    /// Sends one text message as it is.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_text(&mut self, text: impl Into<String>) -> Result<(), Failure> {
        self.send_raw(Message::text(text.into()))
    }

    /// Sends an envelope without id.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, kind: &str, payload: Value) -> Result<(), Failure> {
        self.send_text(json!({"type": kind, "payload": payload}).to_string())
    }

    /// Sends an envelope with an id.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_numbered(&mut self, id: u64, kind: &str, payload: Value) -> Result<(), Failure> {
        self.send_text(json!({"type": kind, "id": id.to_string(), "payload": payload}).to_string())
    }

    /// Sends the `hello` of an agent that speaks the contract's core only, with some fields replaced or added.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn hello(&mut self, hostname: &str, fields: &Value) -> Result<(), Failure> {
        let mut hello = json!({
            "protocol_version": fleet_wire::PROTOCOL_VERSION, "agent_version": "0.0.1", "restic_version": "0.18.0",
            "hostname": hostname, "os": "linux", "arch": "amd64",
        });
        for (name, value) in fields.as_object().into_iter().flatten() {
            hello[name] = value.clone();
        }
        self.send("hello", hello)
    }

    /// The next thing that comes; pings are answered on the way.
    ///
    /// # Errors
    /// Nothing comes in time.
    pub fn receive(&mut self) -> Result<Received, Failure> {
        self.receive_within(LIMIT)
    }

    /// As [`Self::receive`], with a time limit.
    ///
    /// # Errors
    /// Nothing comes in time, or what comes is no JSON.
    pub fn receive_within(&mut self, limit: Duration) -> Result<Received, Failure> {
        let began = Instant::now();
        loop {
            let left = limit.saturating_sub(began.elapsed());
            // The timer needs the runtime that it is made in.
            let next = self.runtime.block_on(async { tokio::time::timeout(left, self.socket.next()).await });
            match next.map_err(|_| Failure::new(format!("no message within {limit:?}")))? {
                Some(Ok(Message::Text(text))) => return Ok(Received::Envelope(serde_json::from_str(&text)?)),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Ok(Received::Closed(Some(frame.code.into()), frame.reason.to_string()));
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Ok(Received::Closed(None, String::new())),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Pings, and waits for the pong; envelopes before it are passed over.
    ///
    /// # Errors
    /// There is none in time.
    pub fn ping(&mut self) -> Result<(), Failure> {
        self.send_raw(Message::Ping(Bytes::from_static(PING)))?;
        let pong = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Pong(bytes))) if bytes == PING => return Ok(()),
                    Some(Ok(_)) => {}
                    end => return Err(Failure::new(format!("waiting for a pong: {end:?}"))),
                }
            }
        };
        let pong = self.runtime.block_on(async { tokio::time::timeout(LIMIT, pong).await });
        pong.map_err(|_| Failure::new(format!("no pong within {LIMIT:?}")))?
    }

    /// The payload of the next envelope of this type; others are passed over.
    ///
    /// # Errors
    /// None comes in time, or the connection ends.
    pub fn expect(&mut self, kind: &str) -> Result<Value, Failure> {
        let began = Instant::now();
        let mut seen = Vec::new();
        while began.elapsed() < LIMIT {
            match self.receive_within(LIMIT.saturating_sub(began.elapsed())).context(passed(kind, &seen))? {
                Received::Envelope(envelope) if envelope["type"] == kind => return Ok(envelope["payload"].clone()),
                Received::Envelope(envelope) => seen.push(envelope["type"].to_string()),
                Received::Closed(code, reason) => {
                    return Err(Failure::new(format!("{}: closed {code:?} {reason}", passed(kind, &seen))));
                }
            }
        }
        Err(Failure::new(passed(kind, &seen)))
    }

    /// The close code and reason; messages before it are passed over.
    ///
    /// # Errors
    /// The connection does not end in time.
    pub fn expect_close(&mut self) -> Result<(Option<u16>, String), Failure> {
        let began = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(began.elapsed());
            if let Received::Closed(code, reason) = self.receive_within(left).context("waiting for the close")? {
                return Ok((code, reason));
            }
        }
    }
}

fn passed(kind: &str, seen: &[String]) -> String {
    format!("waiting for {kind}, seen [{}]", seen.join(", "))
}
