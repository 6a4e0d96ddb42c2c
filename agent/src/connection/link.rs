//! One connection, from `hello` to its end: two loops over the halves of one socket.
//!
//! The reading loop hands on what the coordinator wants. The sending loop writes `hello`, heartbeats, progress and
//! the outbox, in this order of urgency. They don't wait for each other: a coordinator that holds back reading slows
//! the sending loop through TCP, while its cancels still arrive.

use super::outlet::Inlet;
use super::reach::Reach;
use super::session::{Order, Reaction, receive};
use super::unacknowledged::Unacknowledged;
use crate::cron::MOST_EARLY;
use crate::journal::Journal;
use chrono::Utc;
use fleet_wire::{
    EarlyFiring, EnvelopeId, ErrorMessage, HEARTBEAT_INTERVAL, Heartbeat, Hello, ToCoordinator, close, encode,
};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The socket under a connection.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A coordinator that sends nothing for this long, not even the answer to a ping, is gone.
const SILENCE: Duration = Duration::from_secs(75);
/// Outbox text in memory, at most, but for one envelope.
const SLICE_BYTES: usize = 256 * 1024;
/// Progress is sent at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How soon the outbox is read again after the disk refused.
const READ_RETRY: Duration = Duration::from_secs(1);
/// Time for the last words before a close.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The coordinator closed it.
    Closed {
        /// With this code.
        code: Option<u16>,
        /// For this reason.
        reason: String,
    },
    /// It broke.
    Broken(String),
    /// The coordinator fell silent.
    Silent,
    /// This agent closes it: what it received can't be used.
    Unusable {
        /// The close code.
        code: u16,
        /// The envelope that was meant, if known.
        id: Option<EnvelopeId>,
        /// What was wrong.
        error: ErrorMessage,
    },
    /// Everything is sent and the agent stops.
    Drained,
}

/// What a connection works with.
pub(super) struct Link<'a> {
    pub(super) journal: &'a Journal,
    pub(super) inlet: &'a mut Inlet,
    pub(super) orders: &'a mpsc::Sender<Order>,
    pub(super) reach: &'a watch::Sender<Reach>,
    /// True once the agent stops: send what is there, then close.
    pub(super) drain: watch::Receiver<bool>,
}

impl Link<'_> {
    /// Runs the connection until it ends.
    pub(super) async fn run(self, socket: Socket, hello: Hello) -> End {
        let (mut sink, mut stream) = socket.split();
        // The id of the last envelope that went out on this connection.
        let sent = Cell::new(0);
        let Self { journal, inlet, orders, reach, drain } = self;
        let mut sender = Sender {
            sink: &mut sink,
            journal,
            inlet,
            drain,
            sent: &sent,
            slice: VecDeque::new(),
            heartbeat_at: Instant::now(),
            progress_at: Instant::now(),
            read_at: Instant::now(),
        };
        let end = tokio::select! {
            end = read(&mut stream, orders, (journal, reach), &sent) => end,
            end = sender.run(hello) => end,
        };
        let _ = timeout(CLOSE_TIME, say_goodbye(&mut sink, &end)).await;
        if let (End::Unusable { .. }, Ok(socket)) = (&end, sink.reunite(stream)) {
            let _ = timeout(CLOSE_TIME, linger(socket)).await;
        }
        end
    }
}

/// Reads and drops what is still coming: to close a socket with unread data in it resets the connection, and the
/// coordinator would never see why.
async fn linger(socket: Socket) -> std::io::Result<()> {
    let mut raw = socket.into_inner();
    raw.shutdown().await?;
    let mut buffer = [0; 4096];
    while raw.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn read(
    stream: &mut SplitStream<Socket>,
    orders: &mpsc::Sender<Order>,
    (journal, reach): (&Journal, &watch::Sender<Reach>),
    sent: &Cell<u64>,
) -> End {
    let mut silent_peer = Unacknowledged::default();
    let mut early = EarlyFirings { journal, orders, waiting: VecDeque::new() };
    loop {
        // Nothing is read that can't be handed on.
        let Ok(permit) = orders.reserve().await else { return End::Broken("the agent is stopping".to_owned()) };
        let message = match timeout_at(Instant::now() + SILENCE, stream.next()).await {
            Err(_) => return End::Silent,
            Ok(None) => return End::Closed { code: None, reason: String::new() },
            Ok(Some(Err(error))) => return broken(&error),
            Ok(Some(Ok(message))) => message,
        };
        match message {
            Message::Text(text) => match receive(&text, sent.get()) {
                Reaction::Order(Order::FireAgain(firing)) => {
                    is_there(reach);
                    drop(permit);
                    early.take(firing).await;
                }
                Reaction::Order(order) => {
                    is_there(reach);
                    permit.send(order);
                }
                Reaction::Settled(up_to) => {
                    is_there(reach);
                    drop(permit);
                    silent_peer.acknowledged();
                    // The envelope of such a firing is among those that are settled: with that it would be forgotten.
                    if early.store().await {
                        journal.ack(up_to).await;
                    }
                }
                Reaction::Nothing => {}
                Reaction::Malformed { id, error } => return End::Unusable { code: close::MALFORMED, id, error },
            },
            Message::Binary(_) => {
                let error = ErrorMessage::new("malformed", "a binary message; envelopes are text");
                return End::Unusable { code: close::MALFORMED, id: None, error };
            }
            Message::Close(frame) => {
                let code = frame.as_ref().map(|frame| u16::from(frame.code));
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                return End::Closed { code, reason };
            }
            Message::Pong(_) => {
                drop(permit);
                early.store().await;
                if let Some(up_to) = silent_peer.alive(Instant::now(), sent.get()) {
                    journal.assume_settled(up_to).await;
                }
            }
            Message::Ping(_) | Message::Frame(_) => {}
        }
    }
}

/// Firings that came before their time, until the disk has taken that. Only then the worker hears of them.
struct EarlyFirings<'a> {
    journal: &'a Journal,
    orders: &'a mpsc::Sender<Order>,
    waiting: VecDeque<EarlyFiring>,
}

impl EarlyFirings<'_> {
    async fn take(&mut self, firing: EarlyFiring) {
        if self.waiting.len() < MOST_EARLY {
            self.waiting.push_back(firing);
        }
        self.store().await;
    }

    /// True if none is left. What the disk does not take is tried again with what comes next.
    async fn store(&mut self) -> bool {
        while let Some(firing) = self.waiting.front() {
            if let Err(reason) = self.journal.take_back(firing.clone()).await {
                log::error!("can't store that a schedule has fired before its time: {reason}");
                return false;
            }
            if let Some(firing) = self.waiting.pop_front() {
                let _ = self.orders.send(Order::FireAgain(firing)).await; // the agent is stopping, and has it on its disk
            }
        }
        true
    }
}

/// The coordinator is there: what it said was no refusal.
fn is_there(reach: &watch::Sender<Reach>) {
    reach.send_if_modified(|reach| std::mem::replace(reach, Reach::Connected) != Reach::Connected);
}

fn broken(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::Unusable {
            code: close::TOO_BIG,
            id: None,
            error: ErrorMessage::new("too_big", format!("a message over the limit: {error}")),
        },
        Error::Utf8(_) => End::Unusable {
            code: close::MALFORMED,
            id: None,
            error: ErrorMessage::new("malformed", "a message that is not UTF-8"),
        },
        _ => End::Broken(error.to_string()),
    }
}

async fn say_goodbye(sink: &mut SplitSink<Socket, Message>, end: &End) -> Result<(), Error> {
    let (code, reason) = match end {
        End::Unusable { code, id, error } => {
            let text = encode(id.as_ref(), &ToCoordinator::Error(error.clone()));
            sink.send(Message::text(text)).await?;
            (*code, error.code.clone())
        }
        End::Drained => (close::GOING_AWAY, "the agent stops".to_owned()),
        // What was received last, a close or nothing, needs at most the answer that the socket holds ready.
        End::Closed { .. } => return sink.flush().await,
        End::Broken(_) | End::Silent => return Ok(()),
    };
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
    sink.send(Message::Close(Some(frame))).await
}

/// The sending loop.
struct Sender<'a> {
    sink: &'a mut SplitSink<Socket, Message>,
    journal: &'a Journal,
    inlet: &'a mut Inlet,
    drain: watch::Receiver<bool>,
    sent: &'a Cell<u64>,
    /// What was read from the outbox and is not sent yet.
    slice: VecDeque<(u64, String)>,
    heartbeat_at: Instant,
    progress_at: Instant,
    read_at: Instant,
}

impl Sender<'_> {
    async fn run(&mut self, hello: Hello) -> End {
        let result = async {
            self.send(encode(None, &ToCoordinator::Hello(hello))).await?;
            self.pump().await
        };
        match result.await {
            Ok(()) => End::Drained,
            Err(error) => End::Broken(error.to_string()),
        }
    }

    /// Sends whatever is most urgent, again and again; returns when the agent stops and all is sent.
    async fn pump(&mut self) -> Result<(), Error> {
        let mut head = self.journal.head();
        loop {
            let now = Instant::now();
            if now >= self.heartbeat_at {
                self.heartbeat(now).await?;
            } else if let Ok(text) = self.inlet.direct.try_recv() {
                self.send(text).await?;
            } else if now >= self.progress_at && self.progress(now).await? {
                // Sent.
            } else if let Some((id, text)) = self.slice.pop_front() {
                self.envelope(id, text).await?;
            } else if self.sent.get() < *head.borrow_and_update() && now >= self.read_at {
                let newest = *head.borrow();
                self.read_outbox(newest).await;
            } else if *self.drain.borrow_and_update() && self.sent.get() >= *head.borrow() {
                return Ok(());
            } else {
                let read_at = if self.read_at > now { self.read_at } else { self.heartbeat_at };
                tokio::select! {
                    () = sleep_until(self.heartbeat_at.min(read_at)) => {}
                    Some(text) = self.inlet.direct.recv() => self.send(text).await?,
                    () = async { sleep_until(self.progress_at).await; self.inlet.progress.changed().await } => {}
                    _ = head.changed() => {}
                    _ = self.drain.changed() => {}
                }
            }
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Error> {
        self.sink.send(Message::text(text)).await
    }

    async fn heartbeat(&mut self, now: Instant) -> Result<(), Error> {
        self.heartbeat_at = now + HEARTBEAT_INTERVAL;
        let heartbeat = Heartbeat { sent_at: Some(Utc::now()) };
        self.send(encode(None, &ToCoordinator::Heartbeat(heartbeat))).await?;
        // Its answer shows that the coordinator is there even when it has nothing to say.
        self.sink.send(Message::Ping(Vec::new().into())).await
    }

    /// Sends the news of each job; false if there are none.
    async fn progress(&mut self, now: Instant) -> Result<bool, Error> {
        let latest = self.inlet.progress.take();
        let any = !latest.is_empty();
        for progress in latest.into_values() {
            self.send(encode(None, &ToCoordinator::JobProgress(progress))).await?;
        }
        if any {
            self.progress_at = now + PROGRESS_INTERVAL;
        }
        Ok(any)
    }

    async fn envelope(&mut self, id: u64, text: String) -> Result<(), Error> {
        // Before the write: an ack may overtake its end.
        self.sent.set(id);
        self.sink.feed(Message::text(text)).await?;
        if self.slice.is_empty() { self.sink.flush().await } else { Ok(()) }
    }

    async fn read_outbox(&mut self, newest: u64) {
        match self.journal.outbox(self.sent.get(), SLICE_BYTES).await {
            // What was there is gone: acknowledged before, or dropped for want of room.
            Ok(slice) if slice.is_empty() => self.sent.set(newest),
            Ok(slice) => self.slice = slice.into(),
            Err(error) => {
                log::error!("{error}");
                self.read_at = Instant::now() + READ_RETRY;
            }
        }
    }
}
