//! Which host is connected through which session.
//!
//! A host has one session: a second connection replaces the first, and a late goodbye of the first does not evict the
//! second, for every connection has a number of its own. A session that does not take a message in time is treated as
//! not there, so that one stuck peer holds up nobody.

use crate::session::{Close, Reload, Send, Session};
use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
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
        if let Some(old) = self.sessions.insert(host_id, Entry { connection, session }) {
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

/// The host has no session that takes messages.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the host is not connected")]
pub struct NotConnected;

/// Hands a message to a host's session, which writes it to the socket.
#[derive(Message)]
#[rtype(result = "Result<(), NotConnected>")]
pub struct Deliver {
    /// The host.
    pub host_id: Uuid,
    /// The message.
    pub message: ToAgent,
}

impl Handler<Deliver> for Registry {
    type Result = ResponseFuture<Result<(), NotConnected>>;

    fn handle(&mut self, Deliver { host_id, message }: Deliver, _: &mut Self::Context) -> Self::Result {
        let delivery = self.sessions.get(&host_id).map(|entry| entry.session.send(Send(message)));
        Box::pin(async move {
            let delivery = delivery.ok_or(NotConnected)?.timeout(DELIVERY_LIMIT);
            delivery.await.map_err(|_| NotConnected)
        })
    }
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
