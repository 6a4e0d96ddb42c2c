//! Which host is connected through which session.
//!
//! A host has one session: a second connection replaces the first. Every connection has a number of its own, and they
//! rise: a late goodbye of the first does not evict the second, and a late hello of the first does not either. A
//! session that does not take a message in time is given up, so that one stuck peer holds up nobody.

use crate::session::{Close, EndIfSilent, Reload, Send, Session, TellRelease};
use actix::{Actor, Addr, AsyncContext, Context, Handler, MailboxError, Message, Recipient, ResponseFuture};
use fleet_wire::{ToAgent, close};
use std::collections::HashMap;
use std::time::Duration;
use thiserror::Error;
use uuid::Uuid;

/// How long a session may take to take a message over.
const DELIVERY_LIMIT: Duration = Duration::from_secs(5);

/// A number that no other connection to this coordinator has.
pub type ConnectionId = u64;

struct Entry {
    connection: ConnectionId,
    session: Addr<Session>,
}

/// See the module's text.
#[derive(Default)]
pub struct Registry {
    sessions: HashMap<Uuid, Entry>,
    gone: Vec<Recipient<HostGone>>,
}

impl Actor for Registry {
    type Context = Context<Self>;
}

/// A session has said hello and stands for its host from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Enter {
    /// The host.
    pub host_id: Uuid,
    /// The session's connection.
    pub connection: ConnectionId,
    /// The session.
    pub session: Addr<Session>,
}

impl Handler<Enter> for Registry {
    type Result = ();

    fn handle(&mut self, Enter { host_id, connection, session }: Enter, _: &mut Self::Context) {
        let newcomer = Entry { connection, session };
        let replaced = match self.sessions.get(&host_id) {
            Some(there) if there.connection > connection => Some(newcomer),
            _ => self.sessions.insert(host_id, newcomer),
        };
        if let Some(old) = replaced {
            log::info!(host:% = host_id; "a newer connection of this host takes over");
            old.session.do_send(Close::new(close::REPLACED, "replaced", "a newer connection of this host took over"));
        }
    }
}

/// A session has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Leave {
    /// Its host.
    pub host_id: Uuid,
    /// Its connection.
    pub connection: ConnectionId,
}

impl Handler<Leave> for Registry {
    type Result = ();

    fn handle(&mut self, Leave { host_id, connection }: Leave, _: &mut Self::Context) {
        if self.sessions.get(&host_id).is_some_and(|entry| entry.connection == connection) {
            self.sessions.remove(&host_id);
        }
    }
}

/// Why a message was not handed to a session.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Undelivered {
    /// The host has none. The message is not sent.
    #[error("the host is not connected")]
    NotConnected,
    /// It does not take messages. The message may still be sent.
    #[error("the host's connection is stuck")]
    Stuck,
}

/// Hands a message to a host's session, which writes it to the socket.
#[derive(Message)]
#[rtype(result = "Result<(), Undelivered>")]
pub struct Deliver {
    /// The host.
    pub host_id: Uuid,
    /// The message.
    pub message: ToAgent,
}

impl Handler<Deliver> for Registry {
    type Result = ResponseFuture<Result<(), Undelivered>>;

    fn handle(&mut self, Deliver { host_id, message }: Deliver, context: &mut Self::Context) -> Self::Result {
        let Some(entry) = self.sessions.get(&host_id) else {
            return Box::pin(async { Err(Undelivered::NotConnected) });
        };
        let connection = entry.connection;
        let delivery = entry.session.send(Send(message)).timeout(DELIVERY_LIMIT);
        let registry = context.address();
        // A task of its own, and not one of the registry's: an actor looks at all of its own whenever one moves.
        Box::pin(async move {
            match delivery.await {
                Ok(true) => Ok(()),
                Ok(false) | Err(MailboxError::Closed) => Err(Undelivered::NotConnected),
                Err(MailboxError::Timeout) => {
                    // Answered when it is given up, so that nobody meets it again who knows of this.
                    let _ = registry.send(GiveUp { host_id, connection }).await;
                    Err(Undelivered::Stuck)
                }
            }
        })
    }
}

/// A session does not move: its host is not connected until it comes back.
#[derive(Message)]
#[rtype(result = "()")]
struct GiveUp {
    host_id: Uuid,
    connection: ConnectionId,
}

impl Handler<GiveUp> for Registry {
    type Result = ();

    fn handle(&mut self, GiveUp { host_id, connection }: GiveUp, _: &mut Self::Context) {
        if self.sessions.get(&host_id).is_none_or(|entry| entry.connection != connection) {
            return;
        }
        if let Some(stuck) = self.sessions.remove(&host_id) {
            log::warn!(host:% = host_id; "the agent does not read what it is sent: its connection is given up");
            // It says goodbye to the dispatcher when it gets to it; until then nothing more is sent to it.
            stuck.session.do_send(Close::new(close::GOING_AWAY, "stuck", "this connection does not read"));
            for gone in &self.gone {
                gone.do_send(HostGone { host_id, connection });
            }
        }
    }
}

/// Tells the registry who wants to know of hosts that it gives up.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe(pub Recipient<HostGone>);

impl Handler<Subscribe> for Registry {
    type Result = ();

    fn handle(&mut self, Subscribe(recipient): Subscribe, _: &mut Self::Context) {
        self.gone.push(recipient);
    }
}

/// A host's connection has ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct HostGone {
    /// The host.
    pub host_id: Uuid,
    /// The connection, which may have been replaced by a newer one.
    pub connection: ConnectionId,
}

/// Settings of these hosts have changed: their sessions read them again and tell the agents.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SettingsChanged {
    /// The hosts.
    pub hosts: Vec<Uuid>,
}

impl Handler<SettingsChanged> for Registry {
    type Result = ();

    fn handle(&mut self, SettingsChanged { hosts }: SettingsChanged, _: &mut Self::Context) {
        for entry in hosts.iter().filter_map(|host| self.sessions.get(host)) {
            entry.session.do_send(Reload);
        }
    }
}

/// There is a new version of the agent: all sessions look whether theirs is older.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReleaseChanged;

impl Handler<ReleaseChanged> for Registry {
    type Result = ();

    fn handle(&mut self, _: ReleaseChanged, _: &mut Self::Context) {
        for entry in self.sessions.values() {
            entry.session.do_send(TellRelease);
        }
    }
}

/// Nothing was heard of these hosts for too long.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Silent {
    /// The hosts.
    pub hosts: Vec<Uuid>,
}

impl Handler<Silent> for Registry {
    type Result = ();

    fn handle(&mut self, Silent { hosts }: Silent, _: &mut Self::Context) {
        for entry in hosts.iter().filter_map(|host| self.sessions.get(host)) {
            entry.session.do_send(EndIfSilent);
        }
    }
}

/// This host's token is no longer good.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Evict {
    /// The host.
    pub host_id: Uuid,
}

impl Handler<Evict> for Registry {
    type Result = ();

    fn handle(&mut self, Evict { host_id }: Evict, _: &mut Self::Context) {
        if let Some(entry) = self.sessions.remove(&host_id) {
            entry.session.do_send(Close::new(close::NOT_ALLOWED, "not_allowed", "this host's token was revoked"));
        }
    }
}

/// The coordinator stops: every socket is closed with that reason.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CloseAll;

impl Handler<CloseAll> for Registry {
    type Result = ();

    fn handle(&mut self, _: CloseAll, _: &mut Self::Context) {
        for (_, entry) in self.sessions.drain() {
            entry.session.do_send(Close::new(close::GOING_AWAY, "stopping", "the coordinator stops"));
        }
    }
}
