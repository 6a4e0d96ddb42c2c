//! A receiver of webhooks: a small HTTP server that keeps what it gets, and misbehaves when told to.

use crate::tls::Stream;
use crate::{Context, Failure, Tls, eventually};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The longest body that is taken, in bytes.
const LONGEST_BODY: u64 = 1 << 20;
/// How long a receiver that hangs does so, unless the other side goes before: longer than any test.
const HANGS_FOR: Duration = Duration::from_secs(600);

/// How it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// With this status.
    Status(u16),
    /// With this status and this header.
    Header(u16, String),
    /// Not at all: the connection stays open.
    Hang,
    /// The connection ends instead.
    Close,
    /// With a head that never ends, or a body that never does.
    EndlessHead,
    /// See [`Manner::EndlessHead`].
    EndlessBody,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// The method and the path.
    pub target: String,
    /// The headers, by their names in small letters.
    pub headers: HashMap<String, String>,
    /// The body as it came.
    pub body: String,
    /// The body as JSON; null if it is none.
    pub json: Value,
}

impl Webhook {
    /// A header's text, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Debug)]
struct State {
    manner: Mutex<Manner>,
    received: Mutex<Vec<Webhook>>,
    tls: Option<Tls>,
}

/// The server. It lives as long as this process, and its port too.
#[derive(Clone, Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Listens on a port of its own and answers in this manner.
    ///
    /// # Errors
    /// It can't listen.
    pub fn start(manner: Manner) -> Result<Self, Failure> {
        Self::start_as(manner, None)
    }

    /// The same with TLS.
    ///
    /// # Errors
    /// It can't listen.
    pub fn start_tls(manner: Manner, tls: &Tls) -> Result<Self, Failure> {
        Self::start_as(manner, Some(tls.clone()))
    }

    fn start_as(manner: Manner, tls: Option<Tls>) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a receiver of webhooks")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { manner: Mutex::new(manner), received: Mutex::default(), tls });
        let receiver = Self { address, state: Arc::clone(&state) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A sender that goes away is no fault of ours.
                thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Ok(receiver)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        let scheme = if self.state.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/hook", self.address)
    }

    /// Answers otherwise from now on.
    pub fn behave(&self, manner: Manner) {
        *locked(&self.state.manner) = manner;
    }

    /// What has come so far, the oldest first.
    pub fn received(&self) -> Vec<Webhook> {
        locked(&self.state.received).clone()
    }

    /// What has come once that is as it should be.
    ///
    /// # Errors
    /// It is not when `limit` is over.
    pub fn until(
        &self,
        what: &str,
        limit: Duration,
        good: impl Fn(&[Webhook]) -> bool,
    ) -> Result<Vec<Webhook>, Failure> {
        eventually(what, limit, || {
            let received = self.received();
            let shown = || received.iter().map(|webhook| webhook.body.as_str()).collect::<Vec<_>>().join("\n");
            if good(&received) { Ok(received) } else { Err(Failure::new(shown())) }
        })
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> Result<(), Failure> {
        stream.set_read_timeout(Some(HANGS_FOR))?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => tls.over(stream)?,
            None => Box::new(stream),
        };
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let target = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length: u64 = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = String::new();
        reader.by_ref().take(length.min(LONGEST_BODY)).read_to_string(&mut body)?;
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        locked(&self.received).push(Webhook { target, headers, body, json });
        let manner = locked(&self.manner).clone();
        answer(reader.into_inner(), &manner)
    }
}

fn answer(mut stream: Box<dyn Stream>, manner: &Manner) -> Result<(), Failure> {
    match manner {
        Manner::Status(status) => {
            write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        }
        Manner::Header(status, header) => {
            write!(stream, "HTTP/1.1 {status} x\r\n{header}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        }
        Manner::Close => {}
        Manner::Hang => {
            // Nothing more comes; it ends when the other side does.
            let _ = stream.read(&mut [0]);
        }
        Manner::EndlessHead => {
            write!(stream, "HTTP/1.1 200 x\r\n")?;
            loop {
                write!(stream, "x-more: {}\r\n", "x".repeat(1_000))?;
            }
        }
        Manner::EndlessBody => {
            write!(stream, "HTTP/1.1 200 x\r\nconnection: close\r\n\r\n")?;
            loop {
                write!(stream, "{}", "x".repeat(10_000))?;
            }
        }
    }
    stream.flush()?;
    Ok(())
}
