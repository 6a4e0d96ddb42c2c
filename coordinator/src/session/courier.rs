//! Carries a session's rounds to those whom they concern, one after the other. It outlives its session: what an agent
//! has said counts, however its connection ends, and an agent without a journal says it only once.

use super::Session;
use super::protocol::Round;
use super::round::{self, Settled};
use crate::services::Services;
use actix::{Addr, Message};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

/// The session's end of it. The courier ends after the last round once this is dropped.
///
/// The channel has no bound of its own: a session hands over one round at a time, and at its end what its inbox holds,
/// which is bounded.
pub(super) struct Courier(UnboundedSender<Box<Round>>);

impl Courier {
    /// Starts a courier that tells `session` what became of each round.
    pub(super) fn start(host_id: Uuid, services: Arc<Services>, session: Addr<Session>) -> Self {
        let (rounds, waiting) = unbounded_channel();
        actix::spawn(carry(waiting, host_id, services, session));
        Self(rounds)
    }

    /// Hands a round over.
    pub(super) fn take(&self, round: Round) {
        // A courier that has ended has told the session that the coordinator stops.
        let _ = self.0.send(Box::new(round));
    }
}

async fn carry(
    mut waiting: UnboundedReceiver<Box<Round>>,
    host_id: Uuid,
    services: Arc<Services>,
    session: Addr<Session>,
) {
    let mut jobs = HashMap::new();
    while let Some(next) = waiting.recv().await {
        // Both boxes are there only while a round is under way: most couriers rest.
        match Box::pin(round::hand_on(*next, host_id, Arc::clone(&services), std::mem::take(&mut jobs))).await {
            Some(mut settled) => {
                jobs = std::mem::take(&mut settled.jobs);
                session.do_send(HandedOn(Some(settled))); // never more than one on its way
            }
            None => return session.do_send(HandedOn(None)),
        }
    }
}

/// What became of a round; `None` if the coordinator stops.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct HandedOn(pub(super) Option<Settled>);
