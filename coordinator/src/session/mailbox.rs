//! What others tell a session: its courier, the registry, and through it everybody who has something for an agent.

use super::courier::HandedOn;
use super::refusal::Refusal;
use super::{Context, Session, Stage};
use crate::metrics::Dropped;
use actix::{Handler, Message};
use fleet_wire::{Ack, OFFLINE_AFTER, ToAgent, encode};

impl Handler<HandedOn> for Session {
    type Result = ();

    fn handle(&mut self, HandedOn(settled): HandedOn, context: &mut Context) {
        self.handing_on = false;
        let Some(settled) = settled else {
            return self.close(context, &Refusal::stopping());
        };
        if self.is_seen_off() {
            return self.hand_on(context);
        }
        for (id, refused) in settled.refused {
            self.services.metrics.messages.dropped(Dropped::Refused);
            self.note_clock(&refused);
            context.text(encode(id.as_ref(), &ToAgent::from(refused)));
        }
        if let Some(up_to) = settled.up_to.filter(|_| self.ack) {
            Self::send(context, Ack { up_to });
        }
        self.hand_on(context);
    }
}

/// Writes a message to the agent, as soon as it has its settings. False if it is not sent any more.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Send(pub ToAgent);

impl Handler<Send> for Session {
    type Result = bool;

    fn handle(&mut self, Send(message): Send, context: &mut Context) -> bool {
        match (&self.stage, self.reloading) {
            (Stage::TurnedAway | Stage::Leaving, _) => return false,
            (Stage::Live, None) => Self::send(context, message),
            // A cancel needs no settings: they may be long in coming while the database is away.
            (Stage::Live, _) if self.may_overtake(&message) => Self::send(context, message),
            _ => self.held.push(message),
        }
        true
    }
}

impl Session {
    /// Whether a message may go before those that are held: a cancel whose run is not among them.
    fn may_overtake(&self, message: &ToAgent) -> bool {
        let ToAgent::CommandCancel(cancel) = message else { return false };
        let is_run = |held: &ToAgent| matches!(held, ToAgent::CommandRun(run) if run.job_id == cancel.job_id);
        !self.held.iter().any(is_run)
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

/// There is a new version of the agent, of which this one is told if it is older.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TellRelease;

impl Handler<TellRelease> for Session {
    type Result = ();

    fn handle(&mut self, _: TellRelease, context: &mut Context) {
        // Who has yet to get its settings is told after them.
        if self.stage == Stage::Live {
            self.tell_release(context);
        }
    }
}

/// Nothing was heard of the host for too long, as the board has it: the session ends if it has not heard anything either.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EndIfSilent;

impl Handler<EndIfSilent> for Session {
    type Result = ();

    fn handle(&mut self, _: EndIfSilent, context: &mut Context) {
        if self.is_silent() {
            log::warn!(host:% = self.host_id; "the agent was silent for {} s", OFFLINE_AFTER.as_secs());
            self.close(context, &Refusal::silent());
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
        if !self.is_seen_off() {
            self.see_off(&refusal, Stage::Leaving, context);
        }
    }
}
