//! One agent's connection: frames in and out, nothing else.
//!
//! Before `hello` the session is a `handshake`, after it a `protocol`; both are pure. What the agent reports is
//! gathered while one round is being handed on to its job actors and the persistence actor (`courier`); when that round
//! is in the ledger it is acknowledged, and the next goes. An agent that reports faster than that is not read until
//! there is room (the gate); mailbox, timers and output go on meanwhile.
//!
//! A session takes its host's place in the registry before it reads the host's settings, so that no change of them
//! falls between; commands that come before the agent has its settings are held until it has them.

mod arrivals;
mod courier;
mod firing;
mod fragments;
mod frame_limit;
mod frames;
mod gate;
mod greeting;
mod handshake;
mod ledger;
mod mailbox;
mod packing;
mod protocol;
mod refusal;
mod round;
mod schedule_set;
mod settings;

pub use mailbox::{Close, EndIfSilent, Reload, Send, TellRelease};

use crate::metrics::Dropped;
use crate::registry::{ConnectionId, HostGone, Leave};
use crate::services::Services;
use actix::{Actor, ActorContext, AsyncContext, SpawnHandle, StreamHandler};
use actix_http::ws::Codec;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use courier::Courier;
use fleet_wire::{ErrorMessage, MAX_MESSAGE_BYTES, OFFLINE_AFTER, ToAgent, close, encode};
use fragments::{FragmentError, Fragments};
use frames::Frames;
use futures_util::stream;
use gate::Gate;
use protocol::Protocol;
use refusal::Refusal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often an agent that is not read from hears from us.
const PING_INTERVAL: Duration = Duration::from_secs(15);

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// How long an agent that was told to go may take to answer. Until then it is read from, for a connection that is cut
/// while it sends would take the reason with it.
const GOODBYE_LIMIT: Duration = Duration::from_secs(10);

/// Where a session stands.
#[derive(PartialEq)]
enum Stage {
    /// Nothing was said yet.
    BeforeHello,
    /// Hello is being written down; what the agent says meanwhile waits.
    Greeting,
    /// The agent has its settings, but for changes that are just being read.
    Live,
    /// It was told to go. What it has sent before it knew that is still heard, but nothing more is said to it.
    Leaving,
    /// It was told to go in the middle of a message that is too large: nothing is heard and nothing is said.
    TurnedAway,
}

/// See the module's text.
pub struct Session {
    host_id: Uuid,
    connection: ConnectionId,
    services: Arc<Services>,
    stage: Stage,
    protocol: Protocol,
    fragments: Fragments,
    gate: Gate,
    /// What it reads, until it has started.
    frames: Option<Frames<web::Payload>>,
    /// The agent understands `ack`.
    ack: bool,
    /// The agent's version, as it says.
    agent_version: Box<str>,
    /// Started for the first round.
    courier: Option<Courier>,
    handing_on: bool,
    /// Settings are being read; if they changed again since, `Some(true)`.
    reloading: Option<bool>,
    /// Commands that wait until the agent has its settings.
    held: Vec<ToAgent>,
    last_heard: Instant,
    /// It has been said in the log that the agent's clock is ahead.
    clock_noted: bool,
    /// The timer of what the session waits for: hello, or that it may read on.
    timer: Option<SpawnHandle>,
    /// Why we have closed it.
    closed_for: Option<&'static str>,
}

/// The context of a session: a mailbox and a socket.
type Context = ws::WebsocketContext<Session>;

impl Session {
    /// Answers an upgrade request of `host_id`'s agent and starts its session.
    ///
    /// # Errors
    /// The request is no WebSocket upgrade.
    pub fn upgrade(
        services: Arc<Services>,
        host_id: Uuid,
        request: &HttpRequest,
        payload: web::Payload,
    ) -> Result<HttpResponse, actix_web::Error> {
        let gate = Gate::default();
        // The gate judges by the declared length, before anything of a frame is buffered; the codec agrees.
        let codec = Codec::new().max_size(MAX_MESSAGE_BYTES);
        let protocol = Protocol::new(Arc::clone(&services.metrics.messages));
        let session = Self {
            host_id,
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            services,
            stage: Stage::BeforeHello,
            protocol,
            fragments: Fragments::default(),
            frames: Some(Frames::new(payload, gate.clone(), codec)),
            gate,
            ack: false,
            agent_version: Box::default(),
            courier: None,
            handing_on: false,
            reloading: None,
            held: Vec::new(),
            last_heard: Instant::now(),
            clock_noted: false,
            timer: None,
            closed_for: None,
        };
        // The context's own stream of frames never ends and never has any: it would keep its buffer.
        let context = Context::with_codec(session, stream::pending(), Codec::new());
        Ok(ws::handshake(request)?.streaming(context))
    }

    fn send(context: &mut Context, message: impl Into<ToAgent>) {
        context.text(encode(None, &message.into()));
    }

    /// Says why and closes at once.
    fn close(&mut self, context: &mut Context, refusal: &Refusal) {
        self.say_goodbye(context, refusal);
        context.stop();
    }

    fn say_goodbye(&mut self, context: &mut Context, refusal: &Refusal) {
        self.closed_for.get_or_insert(refusal.code);
        match refusal.close {
            close::MALFORMED => self.services.metrics.messages.dropped(Dropped::Malformed),
            close::TOO_BIG => self.services.metrics.messages.dropped(Dropped::TooBig),
            _ => {}
        }
        Self::send(context, ErrorMessage::new(refusal.code, refusal.message.clone()));
        // A close frame has room for 123 bytes of reason.
        let mut reason = refusal.message.clone();
        reason.truncate(reason.floor_char_boundary(120));
        context.close(Some(ws::CloseReason { code: refusal.close.into(), description: Some(reason) }));
    }

    /// Says why and closes, but reads on until the agent has heard it.
    fn see_off(&mut self, refusal: &Refusal, stage: Stage, context: &mut Context) {
        log::warn!(host:% = self.host_id; "the agent's connection is closed: {}", refusal.message);
        self.say_goodbye(context, refusal);
        self.stage = stage;
        self.leave();
        self.hand_on_the_rest(context);
        self.read_on(context);
        context.run_later(GOODBYE_LIMIT, |_, context| context.stop());
    }

    /// Whether nothing more is to be said.
    fn is_seen_off(&self) -> bool {
        matches!(self.stage, Stage::Leaving | Stage::TurnedAway)
    }

    fn leave(&self) {
        let (host_id, connection) = (self.host_id, self.connection);
        self.services.registry.do_send(Leave { host_id, connection });
        self.services.dispatcher.do_send(HostGone { host_id, connection });
    }

    fn receive(&mut self, text: &str, context: &mut Context) {
        let outcome = match self.stage {
            Stage::BeforeHello => handshake::read_hello(text).map(|hello| {
                self.services.metrics.messages.hello(text.len());
                self.greet(hello, context);
            }),
            Stage::Greeting | Stage::Live | Stage::Leaving => self.protocol.receive(text),
            Stage::TurnedAway => return,
        };
        match outcome {
            Ok(()) => self.hand_on(context),
            Err(refusal) => {
                log::warn!(host:% = self.host_id; "the agent's connection is closed: {}", refusal.message);
                self.close(context, &refusal);
            }
        }
    }

    /// Hands on what was gathered, unless a round is under way, and stops or resumes reading.
    fn hand_on(&mut self, context: &mut Context) {
        if self.protocol.is_full() {
            self.stop_reading(context);
        } else {
            self.read_on(context);
        }
        if self.handing_on || !matches!(self.stage, Stage::Live | Stage::Leaving) {
            return;
        }
        let Some(next) = self.protocol.next_round() else { return };
        self.handing_on = true;
        self.courier(context).take(next);
    }

    fn courier(&mut self, context: &Context) -> &Courier {
        let (host_id, services) = (self.host_id, &self.services);
        self.courier.get_or_insert_with(|| Courier::start(host_id, Arc::clone(services), context.address()))
    }

    /// The session ends, but not what its agent has said.
    fn hand_on_the_rest(&mut self, context: &Context) {
        while let Some(next) = self.protocol.next_round() {
            self.courier(context).take(next);
        }
    }

    fn stop_reading(&mut self, context: &mut Context) {
        if self.gate.is_shut() {
            return;
        }
        self.gate.shut();
        // What the agent sends is not read, its pings neither: it must hear from us all the same, and is not silent.
        let ping = context.run_interval(PING_INTERVAL, |actor, context| {
            actor.hear();
            context.ping(b"");
        });
        self.set_timer(Some(ping), context);
    }

    fn read_on(&mut self, context: &mut Context) {
        if self.gate.is_shut() {
            self.set_timer(None, context);
            self.gate.open();
        }
    }

    fn set_timer(&mut self, timer: Option<SpawnHandle>, context: &mut Context) {
        if let Some(before) = std::mem::replace(&mut self.timer, timer) {
            context.cancel_future(before);
        }
    }

    /// Silence counts only while we listen.
    fn is_silent(&self) -> bool {
        !self.is_seen_off() && !self.gate.is_shut() && self.last_heard.elapsed() > OFFLINE_AFTER
    }

    fn hear(&mut self) {
        self.last_heard = Instant::now();
        if !matches!(self.stage, Stage::BeforeHello) {
            self.services.board.see(self.host_id);
        }
    }

    /// Says it once: an agent may fire each minute.
    fn note_clock(&mut self, refused: &ErrorMessage) {
        if refused.early_firing.is_some() && !std::mem::replace(&mut self.clock_noted, true) {
            log::warn!(host:% = self.host_id; "its firings are not run until its clock is right: {}", refused.message);
        }
    }

    fn fragment_failed(&mut self, error: FragmentError, context: &mut Context) {
        let refusal = match error {
            FragmentError::TooBig => Refusal::too_big(),
            error => Refusal::malformed(error.to_string()),
        };
        self.close(context, &refusal);
    }
}

impl Actor for Session {
    type Context = Context;

    fn started(&mut self, context: &mut Context) {
        // Who has to wait for room is overtaken by others: a cancel by its run, say. The registry's limit bounds it instead.
        context.set_mailbox_capacity(0);
        if let Some(frames) = self.frames.take() {
            context.add_stream(frames);
        }
        self.services.metrics.sessions.opened();
        let hello_limit = context.run_later(OFFLINE_AFTER, |actor, context| {
            actor.close(context, &Refusal::no_hello());
        });
        self.set_timer(Some(hello_limit), context);
    }

    fn stopped(&mut self, context: &mut Context) {
        self.services.metrics.sessions.closed(self.closed_for);
        self.leave();
        self.hand_on_the_rest(context);
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Session {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, context: &mut Context) {
        if self.stage == Stage::TurnedAway {
            return;
        }
        self.hear();
        match message {
            Ok(ws::Message::Text(text)) => self.receive(&text, context),
            Ok(ws::Message::Continuation(item)) => match self.fragments.add(item) {
                Ok(Some(text)) => self.receive(&text, context),
                Ok(None) => {}
                Err(error) => self.fragment_failed(error, context),
            },
            Ok(ws::Message::Binary(_)) => self.fragment_failed(FragmentError::Binary, context),
            Ok(ws::Message::Ping(_)) if self.is_seen_off() => {}
            Ok(ws::Message::Ping(bytes)) => context.pong(&bytes),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(reason)) => {
                if !self.is_seen_off() {
                    context.close(reason);
                }
                context.stop();
            }
            Err(ws::ProtocolError::Overflow) => self.see_off(&Refusal::too_big(), Stage::TurnedAway, context),
            Err(error) => self.close(context, &Refusal::malformed(error.to_string())),
        }
    }
}
