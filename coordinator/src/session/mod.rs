//! One agent's connection: frames in and out, nothing else.
//!
//! Before `hello` the session is a [`handshake`], after it a [`Protocol`]; both are pure. What the agent reports is
//! gathered while one round is being handed on to its job actors and the persistence actor ([`round`]); when that round
//! is in the ledger it is acknowledged, and the next goes. An agent that reports faster than that is not read until
//! there is room ([`Gate`]); mailbox, timers and output go on meanwhile.

mod fragments;
mod frame_limit;
mod gate;
mod handshake;
mod ledger;
mod protocol;
mod refusal;
mod round;
mod settings;

use crate::dispatcher::{HostGone, HostReady};
use crate::job::Job;
use crate::persistence::{Patience, Save};
use crate::registry::{ConnectionId, Enter, Leave};
use crate::services::Services;
use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Handler, Message, StreamHandler, WrapFuture};
use actix_http::ws::Codec;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use fleet_wire::{Ack, CAPABILITY_ACK, ErrorMessage, Hello, JobId, MAX_MESSAGE_BYTES, OFFLINE_AFTER, ToAgent, encode};
use fragments::{FragmentError, Fragments};
use gate::Gate;
use ledger::{Greet, Greeting};
use protocol::Protocol;
use refusal::Refusal;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often a session looks whether its agent is still there.
const WATCH_INTERVAL: Duration = Duration::from_secs(15);

/// How long an agent that was refused in the middle of a message may take to end it. Until then it is read from, for a
/// connection that is cut while it sends would take the reason with it.
const GOODBYE_LIMIT: Duration = Duration::from_secs(10);

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Where a session stands.
#[derive(PartialEq)]
enum Stage {
    /// Nothing was said yet.
    BeforeHello,
    /// Hello is being written down; what comes meanwhile waits.
    Greeting,
    /// The agent has its settings.
    Live,
    /// It was told why it must go. What it still says is not heard, and nothing more is said to it.
    TurnedAway,
}

/// See the module's text.
pub struct Session {
    host_id: Uuid,
    connection: ConnectionId,
    services: Services,
    stage: Stage,
    protocol: Protocol,
    fragments: Fragments,
    gate: Gate,
    /// The agent understands `ack`.
    ack: bool,
    /// The actors of the host's jobs, as far as they were needed here.
    jobs: HashMap<JobId, Addr<Job>>,
    handing_on: bool,
    last_heard: Instant,
}

/// The context of a session: a mailbox and a socket.
type Context = ws::WebsocketContext<Session>;

impl Session {
    /// Answers an upgrade request of `host_id`'s agent and starts its session.
    ///
    /// # Errors
    /// The request is no WebSocket upgrade.
    pub fn upgrade(
        services: Services,
        host_id: Uuid,
        request: &HttpRequest,
        payload: web::Payload,
    ) -> Result<HttpResponse, actix_web::Error> {
        let gate = Gate::default();
        let session = Self {
            host_id,
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            services,
            stage: Stage::BeforeHello,
            protocol: Protocol::default(),
            fragments: Fragments::default(),
            gate: gate.clone(),
            ack: false,
            jobs: HashMap::new(),
            handing_on: false,
            last_heard: Instant::now(),
        };
        // The gate judges by the declared length, before anything of a frame is buffered; the codec agrees.
        let codec = Codec::new().max_size(MAX_MESSAGE_BYTES);
        ws::WsResponseBuilder::new(session, request, gate.guard(payload)).codec(codec).start()
    }

    fn send(context: &mut Context, message: impl Into<ToAgent>) {
        context.text(encode(None, &message.into()));
    }

    fn close(context: &mut Context, refusal: &Refusal) {
        Self::say_goodbye(context, refusal);
        context.stop();
    }

    fn say_goodbye(context: &mut Context, refusal: &Refusal) {
        Self::send(context, ErrorMessage::new(refusal.code, refusal.message.clone()));
        // A close frame has room for 123 bytes of reason.
        let mut reason = refusal.message.clone();
        reason.truncate(reason.floor_char_boundary(120));
        context.close(Some(ws::CloseReason { code: refusal.close.into(), description: Some(reason) }));
    }

    /// Says why and closes, but reads on until the agent has heard it.
    fn turn_away(&mut self, refusal: &Refusal, context: &mut Context) {
        log::warn!(host:% = self.host_id; "the agent's connection is closed: {}", refusal.message);
        Self::say_goodbye(context, refusal);
        self.stage = Stage::TurnedAway;
        self.leave();
        self.gate.open();
        context.run_later(GOODBYE_LIMIT, |_, context| context.stop());
    }

    fn is_turned_away(&self) -> bool {
        self.stage == Stage::TurnedAway
    }

    fn leave(&self) {
        let (host_id, connection) = (self.host_id, self.connection);
        self.services.registry.do_send(Leave { host_id, connection });
        self.services.dispatcher.do_send(HostGone { host_id, connection });
    }

    fn receive(&mut self, text: &str, context: &mut Context) {
        let outcome = match self.stage {
            Stage::BeforeHello => handshake::read_hello(text).map(|hello| self.greet(hello, context)),
            Stage::Greeting | Stage::Live => self.protocol.receive(text),
            Stage::TurnedAway => return,
        };
        match outcome {
            Ok(()) => self.hand_on(context),
            Err(refusal) => {
                log::warn!(host:% = self.host_id; "the agent's connection is closed: {}", refusal.message);
                Self::close(context, &refusal);
            }
        }
    }

    fn greet(&mut self, hello: Hello, context: &mut Context) {
        self.stage = Stage::Greeting;
        self.ack = hello.can(CAPABILITY_ACK);
        let listed = hello.jobs.clone();
        let write = Greet { host_id: self.host_id, hello };
        let write = self.services.persistence.send(Save { write, patience: Patience::Endless });
        context.spawn(write.into_actor(self).map(move |outcome, actor, context| match outcome {
            _ if actor.is_turned_away() => {}
            Ok(Ok(Some(greeting))) => actor.enter(greeting, listed, context),
            Ok(Ok(None)) => Self::close(context, &Refusal::revoked()),
            Ok(Err(error)) => Self::close(context, &Refusal::internal(error.to_string())),
            Err(_) => Self::close(context, &Refusal::stopping()),
        }));
    }

    /// Takes the host's place in the registry, tells the agent its settings, and only then lets jobs come.
    fn enter(&mut self, greeting: Greeting, listed: Vec<JobId>, context: &mut Context) {
        let (host_id, connection) = (self.host_id, self.connection);
        let enter = self.services.registry.send(Enter { host_id, connection, session: context.address() });
        context.spawn(enter.into_actor(self).map(move |_, actor, context| {
            if actor.is_turned_away() {
                return actor.leave();
            }
            if !actor.send_settings(&greeting, context) {
                return;
            }
            log::info!(host:% = host_id, hostname = greeting.host.hostname; "agent connected");
            actor.services.board.see(host_id);
            actor.services.dispatcher.do_send(HostReady {
                host_id,
                connection,
                ack: actor.ack,
                same_journal: greeting.same_journal,
                jobs: listed,
                init: greeting.init(),
            });
            actor.stage = Stage::Live;
            actor.hand_on(context);
        }));
    }

    /// False if the settings can't be read, and the connection is closed therefore.
    fn send_settings(&self, greeting: &Greeting, context: &mut Context) -> bool {
        match settings::burst(&greeting.host, greeting.repository.as_ref(), &self.services.vault, self.ack) {
            Ok(messages) => {
                messages.into_iter().for_each(|message| Self::send(context, message));
                true
            }
            Err(error) => {
                log::error!(host:% = self.host_id; "the repository's secrets can't be opened: {error}");
                Self::close(
                    context,
                    &Refusal::internal("the repository's secrets can't be opened; see the coordinator's log"),
                );
                false
            }
        }
    }

    /// Hands on what was gathered, unless a round is under way, and stops or resumes reading.
    fn hand_on(&mut self, context: &mut Context) {
        if self.protocol.is_full() {
            self.gate.shut();
        } else {
            self.gate.open();
        }
        if self.handing_on || !matches!(self.stage, Stage::Live) {
            return;
        }
        let Some(next) = self.protocol.next_round() else { return };
        self.handing_on = true;
        let hand_on = round::hand_on(next, self.host_id, self.services.clone(), std::mem::take(&mut self.jobs));
        context.spawn(hand_on.into_actor(self).map(|outcome, actor, context| {
            actor.handing_on = false;
            if actor.is_turned_away() {
                return;
            }
            let Some(settled) = outcome else {
                return Self::close(context, &Refusal::stopping());
            };
            actor.jobs = settled.jobs;
            for (id, refused) in settled.refused {
                context.text(encode(id.as_ref(), &ToAgent::from(refused)));
            }
            if let Some(up_to) = settled.up_to.filter(|_| actor.ack) {
                Self::send(context, Ack { up_to });
            }
            actor.hand_on(context);
        }));
    }

    /// Silence counts only while we listen.
    fn watch(&mut self, context: &mut Context) {
        if self.gate.is_shut() {
            self.hear();
        } else if self.last_heard.elapsed() > OFFLINE_AFTER {
            log::warn!(host:% = self.host_id; "the agent was silent for {} s", OFFLINE_AFTER.as_secs());
            Self::close(context, &Refusal::silent());
        }
    }

    fn hear(&mut self) {
        self.last_heard = Instant::now();
        if matches!(self.stage, Stage::Live) {
            self.services.board.see(self.host_id);
        }
    }

    fn fragment_failed(error: FragmentError, context: &mut Context) {
        let refusal = match error {
            FragmentError::TooBig => Refusal::too_big(),
            error => Refusal::malformed(error.to_string()),
        };
        Self::close(context, &refusal);
    }
}

impl Actor for Session {
    type Context = Context;

    fn started(&mut self, context: &mut Context) {
        context.run_interval(WATCH_INTERVAL, |actor, context| actor.watch(context));
    }

    fn stopped(&mut self, _: &mut Context) {
        self.leave();
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Session {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, context: &mut Context) {
        if self.is_turned_away() {
            return;
        }
        if self.gate.is_exceeded() && matches!(message, Ok(ws::Message::Pong(_))) {
            return self.turn_away(&Refusal::too_big(), context);
        }
        self.hear();
        match message {
            Ok(ws::Message::Text(text)) => self.receive(&text, context),
            Ok(ws::Message::Continuation(item)) => match self.fragments.add(item) {
                Ok(Some(text)) => self.receive(&text, context),
                Ok(None) => {}
                Err(error) => Self::fragment_failed(error, context),
            },
            Ok(ws::Message::Binary(_)) => Self::fragment_failed(FragmentError::Binary, context),
            Ok(ws::Message::Ping(bytes)) => context.pong(&bytes),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(reason)) => {
                context.close(reason);
                context.stop();
            }
            Err(ws::ProtocolError::Overflow) => Self::close(context, &Refusal::too_big()),
            Err(error) => Self::close(context, &Refusal::malformed(error.to_string())),
        }
    }
}

/// Writes a message to the agent.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Send(pub ToAgent);

impl Handler<Send> for Session {
    type Result = ();

    fn handle(&mut self, Send(message): Send, context: &mut Context) {
        if !self.is_turned_away() {
            Self::send(context, message);
        }
    }
}

/// The host's settings have changed: read them again and tell the agent.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reload;

impl Handler<Reload> for Session {
    type Result = ();

    fn handle(&mut self, _: Reload, context: &mut Context) {
        let (database, host_id) = (self.services.database.clone(), self.host_id);
        let read = async move { ledger::read(&database, host_id).await };
        context.spawn(read.into_actor(self).map(|outcome, actor, context| match outcome {
            _ if actor.is_turned_away() => {}
            Ok(Some(greeting)) => {
                if actor.send_settings(&greeting, context)
                    && let Some(repository_id) = greeting.init()
                {
                    let host_id = actor.host_id;
                    actor.services.dispatcher.do_send(crate::dispatcher::EnsureInit { host_id, repository_id });
                }
            }
            Ok(None) => Self::close(context, &Refusal::revoked()),
            // A new connection reads them anew.
            Err(error) => Self::close(context, &Refusal::internal(error.to_string())),
        }));
    }
}

/// Ends the connection.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Close(Refusal);

impl Close {
    /// With this close code, word for programs and sentence for people.
    pub fn new(close: u16, code: &'static str, message: &str) -> Self {
        Self(Refusal::new(close, code, message))
    }
}

impl Handler<Close> for Session {
    type Result = ();

    fn handle(&mut self, Close(refusal): Close, context: &mut Context) {
        Self::close(context, &refusal);
    }
}
