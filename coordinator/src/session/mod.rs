//! One agent's connection: frames in and out, nothing else.
//!
//! Before `hello` the session is a `handshake`, after it a `protocol`; both are pure. What the agent reports is
//! gathered while one round is being handed on to its job actors and the persistence actor (`courier`); when that round
//! is in the ledger it is acknowledged, and the next goes. An agent that reports faster than that is not read until
//! there is room (the gate); mailbox, timers and output go on meanwhile.
//!
//! A session takes its host's place in the registry before it reads the host's settings, so that no change of them
//! falls between; commands that come before the agent has its settings are held until it has them.

mod courier;
mod fragments;
mod frame_limit;
mod gate;
mod handshake;
mod ledger;
mod protocol;
mod refusal;
mod round;
mod settings;

use crate::dispatcher::{EnsureInit, HostReady};
use crate::persistence::{Patience, Save};
use crate::registry::{ConnectionId, Enter, HostGone, Leave};
use crate::services::Services;
use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, StreamHandler, WrapFuture};
use actix_http::ws::Codec;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use courier::{Courier, HandedOn};
use fleet_wire::{
    Ack, CAPABILITY_ACK, ErrorMessage, Hello, JobId, JournalId, MAX_MESSAGE_BYTES, OFFLINE_AFTER, ToAgent, encode,
};
use fragments::{FragmentError, Fragments};
use gate::Gate;
use ledger::{Greet, Greeting};
use protocol::Protocol;
use refusal::Refusal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often a session looks whether its agent is still there.
const WATCH_INTERVAL: Duration = Duration::from_secs(15);
/// The pause between tries to read the settings.
const READ_PAUSE: Duration = Duration::from_secs(1);

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// How long an agent that was refused in the middle of a message may take to end it. Until then it is read from, for a
/// connection that is cut while it sends would take the reason with it.
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
    /// Started for the first round.
    courier: Option<Courier>,
    handing_on: bool,
    /// Settings are being read; if they changed again since, `Some(true)`.
    reloading: Option<bool>,
    /// Commands that wait until the agent has its settings.
    held: Vec<ToAgent>,
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
            courier: None,
            handing_on: false,
            reloading: None,
            held: Vec::new(),
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
        self.hand_on_the_rest(context);
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
        self.services.board.see(self.host_id);
        let (listed, journal) = (hello.jobs.clone(), hello.journal.clone());
        let (host_id, connection, session) = (self.host_id, self.connection, context.address());
        let services = self.services.clone();
        let greet = async move {
            services.registry.send(Enter { host_id, connection, session }).await.ok()?;
            let save = Save { write: Greet { host_id, hello }, patience: Patience::Endless };
            services.persistence.send(save).await.ok()
        };
        context.spawn(greet.into_actor(self).map(move |outcome, actor, context| match outcome {
            _ if actor.is_turned_away() => actor.leave(),
            Some(Ok(Some(greeting))) => actor.go_live(&greeting, listed, journal, context),
            Some(Ok(None)) => Self::close(context, &Refusal::revoked()),
            Some(Err(error)) => Self::close(context, &Refusal::internal(error.to_string())),
            None => Self::close(context, &Refusal::stopping()),
        }));
    }

    /// Tells the agent its settings, and only then lets jobs come.
    fn go_live(&mut self, greeting: &Greeting, jobs: Vec<JobId>, journal: Option<JournalId>, context: &mut Context) {
        if !self.send_settings(greeting, context) {
            return;
        }
        let (host_id, connection) = (self.host_id, self.connection);
        log::info!(host:% = host_id, hostname = greeting.host.hostname; "agent connected");
        self.stage = Stage::Live;
        let init = greeting.init();
        self.services.dispatcher.do_send(HostReady { host_id, connection, ack: self.ack, journal, jobs, init });
        self.settings_sent(context);
        self.hand_on(context);
    }

    /// Lets go what waited for the settings, unless they have changed once more.
    fn settings_sent(&mut self, context: &mut Context) {
        if self.reloading.take() == Some(true) {
            return self.reload(context);
        }
        for message in std::mem::take(&mut self.held) {
            Self::send(context, message);
        }
    }

    /// Reads the settings again and sends them.
    fn reload(&mut self, context: &mut Context) {
        self.reloading = Some(false);
        let (database, host_id) = (self.services.database.clone(), self.host_id);
        let read = async move {
            loop {
                match ledger::read(&database, host_id).await {
                    Ok(greeting) => return greeting,
                    Err(error) => log::warn!(host:% = host_id; "the host's settings can't be read yet: {error}"),
                }
                actix::clock::sleep(READ_PAUSE).await;
            }
        };
        context.spawn(read.into_actor(self).map(|greeting, actor, context| {
            if actor.is_turned_away() {
                return;
            }
            let Some(greeting) = greeting else {
                return Self::close(context, &Refusal::revoked());
            };
            if actor.send_settings(&greeting, context) {
                if let Some(repository_id) = greeting.init() {
                    actor.services.dispatcher.do_send(EnsureInit { host_id: actor.host_id, repository_id });
                }
                actor.settings_sent(context);
            }
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
        self.courier(context).take(next);
    }

    fn courier(&mut self, context: &Context) -> &Courier {
        let (host_id, services) = (self.host_id, &self.services);
        self.courier.get_or_insert_with(|| Courier::start(host_id, services.clone(), context.address()))
    }

    /// The session ends, but not what its agent has said.
    fn hand_on_the_rest(&mut self, context: &Context) {
        while let Some(next) = self.protocol.next_round() {
            self.courier(context).take(next);
        }
    }

    /// Silence counts only while we listen.
    fn watch(&mut self, context: &mut Context) {
        if self.gate.is_shut() {
            self.hear();
            // What the agent sends is not read, its pings neither: it must hear from us all the same.
            context.ping(b"");
        } else if self.last_heard.elapsed() > OFFLINE_AFTER {
            log::warn!(host:% = self.host_id; "the agent was silent for {} s", OFFLINE_AFTER.as_secs());
            Self::close(context, &Refusal::silent());
        }
    }

    fn hear(&mut self) {
        self.last_heard = Instant::now();
        if !matches!(self.stage, Stage::BeforeHello) {
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

    fn stopped(&mut self, context: &mut Context) {
        self.leave();
        self.hand_on_the_rest(context);
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

impl Handler<HandedOn> for Session {
    type Result = ();

    fn handle(&mut self, HandedOn(settled): HandedOn, context: &mut Context) {
        self.handing_on = false;
        if self.is_turned_away() {
            return;
        }
        let Some(settled) = settled else {
            return Self::close(context, &Refusal::stopping());
        };
        for (id, refused) in settled.refused {
            context.text(encode(id.as_ref(), &ToAgent::from(refused)));
        }
        if let Some(up_to) = settled.up_to.filter(|_| self.ack) {
            Self::send(context, Ack { up_to });
        }
        self.hand_on(context);
    }
}

/// Writes a message to the agent, as soon as it has its settings.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Send(pub ToAgent);

impl Handler<Send> for Session {
    type Result = ();

    fn handle(&mut self, Send(message): Send, context: &mut Context) {
        match (&self.stage, self.reloading) {
            (Stage::TurnedAway, _) => {}
            (Stage::Live, None) => Self::send(context, message),
            _ => self.held.push(message),
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
        match (&self.stage, self.reloading) {
            (Stage::Live, None) => self.reload(context),
            // What is being read may be older than the change.
            _ => self.reloading = Some(true),
        }
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
