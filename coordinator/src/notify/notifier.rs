//! Carries deliveries out: looks in the ledger what is due, sends it, notes what came of it.
//!
//! The ledger alone says what is to be sent; what is under way is known here only, so after a crash it is sent once more. What
//! came of it is noted for many at once, one write after the other, and a delivery is under way until that is done. It looks
//! when the bell rings, when attempts are noted, and at intervals.

use super::backoff;
use super::mail::Mailer;
use super::outbox::Outbox;
use super::queue::{AT_ONCE, OF_ONE, Shipment, choose};
use super::webhook::{self, Sent};
use crate::clock;
use crate::config::Notifications;
use crate::db::Database;
use crate::db::deliveries::{self, Attempt, Due, Forget, Record, Status, Tried};
use crate::persistence::{Patience, Persistence, Save};
use crate::services::Services;
use crate::vault::Vault;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, WrapFuture};
use chrono::{SubsecRound, TimeDelta};
use fleet_wire::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often it looks what is due, beside when the bell rings.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A channel of e-mail has one at most this often; it tells up to so many things.
const MAIL_EVERY: Duration = Duration::from_secs(60);
const OF_MAIL: i64 = 1_000;
const NO_SERVER: &str = "there is no mail server: start the coordinator with FLEET_SMTP_URL";
/// How often old deliveries are looked for, how many go at once, and how long that may wait.
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_AT_ONCE: i64 = 500;
/// The pause before the next of them: the database belongs to others for most of the time.
const FORGET_PAUSE: Duration = Duration::from_millis(500);
const FORGET_PATIENCE: Patience = Patience::Within(Duration::from_secs(30));

/// See the module's text.
pub struct Notifier {
    database: Database,
    persistence: Addr<Persistence>,
    vault: Arc<Vault>,
    mailer: Option<Arc<Mailer>>,
    outbox: Arc<Outbox>,
    settings: Notifications,
    /// Deliveries that were sent, or are about to be, and are not noted yet.
    under_way: HashSet<Uuid>,
    /// Shipments of each channel that are being sent.
    shipments: HashMap<Uuid, usize>,
    /// Channels whose last attempt has failed.
    failing: HashSet<Uuid>,
    /// When channels of e-mail had their last one.
    mailed: HashMap<Uuid, Instant>,
    /// It is being looked what is due.
    looking: bool,
    /// Something has come meanwhile.
    again: bool,
    /// What is to be noted, and that it is being noted.
    tried: Vec<Tried>,
    noting: bool,
    forgetting: bool,
}

impl Notifier {
    /// One that carries out what the ledger has.
    pub fn new(services: &Services, settings: Notifications) -> Self {
        Self {
            database: services.database.clone(),
            persistence: services.persistence.clone(),
            vault: Arc::clone(&services.vault),
            mailer: services.mailer.clone(),
            outbox: Arc::clone(&services.outbox),
            settings,
            under_way: HashSet::new(),
            shipments: HashMap::new(),
            failing: HashSet::new(),
            mailed: HashMap::new(),
            looking: false,
            again: false,
            tried: Vec::new(),
            noting: false,
            forgetting: false,
        }
    }

    /// Looks what is due, unless nobody is told anything or all places are taken.
    fn look(&mut self, context: &mut Context<Self>) {
        if self.looking {
            self.again = true;
            return;
        }
        if !self.outbox.is_wanted() || self.shipments.values().sum::<usize>() >= AT_ONCE {
            return;
        }
        self.looking = true;
        let (database, under_way) = (self.database.clone(), self.under_way.iter().copied().collect::<Vec<_>>());
        let of_one = i64::try_from(OF_ONE).unwrap_or(i64::MAX);
        let read = async move {
            database.read(async |reader| deliveries::due(reader, clock::now(), &under_way, of_one, OF_MAIL).await).await
        };
        context.spawn(read.into_actor(self).map(|due, actor, context| {
            actor.looking = false;
            match due {
                Ok(due) => actor.send(due, context),
                Err(error) => log::warn!("what is to be told could not be read, it is tried again: {error}"),
            }
            if std::mem::take(&mut actor.again) {
                actor.look(context);
            }
        }));
    }

    fn send(&mut self, due: Vec<Due>, context: &mut Context<Self>) {
        self.mailed.retain(|_, at| at.elapsed() < MAIL_EVERY);
        let resting: HashSet<Uuid> = self.mailed.keys().copied().collect();
        for shipment in choose(due, &self.shipments, &self.failing, &resting, clock::now()) {
            let Some(channel) = shipment.first().map(|delivery| delivery.channel_id) else { continue };
            self.under_way.extend(shipment.iter().map(|delivery| delivery.id));
            *self.shipments.entry(channel).or_default() += 1;
            if shipment.iter().any(Due::is_mail) {
                self.mailed.insert(channel, Instant::now());
            }
            let (vault, mailer) = (Arc::clone(&self.vault), self.mailer.clone());
            let (at, began) = (clock::now().trunc_subsecs(6), Instant::now());
            let sending = tokio::task::spawn_blocking(move || {
                let sent = match shipment.as_slice() {
                    [delivery] if !delivery.is_mail() => webhook::send(&vault, delivery),
                    all => mailer.map_or_else(|| Sent::failed(NO_SERVER), |mailer| mailer.send(all)),
                };
                (shipment, sent)
            });
            context.spawn(sending.into_actor(self).map(move |sent, actor, context| {
                actor.free(channel);
                // A sender that has panicked leaves its deliveries under way: the next start sends them.
                let Ok((shipment, sent)) = sent else { return log::error!("a notice could not be sent") };
                actor.has_sent(&shipment, &sent, at, began.elapsed());
                actor.note(context);
                actor.look(context);
            }));
        }
    }

    fn free(&mut self, channel: Uuid) {
        if let Some(own) = self.shipments.get_mut(&channel) {
            *own -= 1;
            if *own == 0 {
                self.shipments.remove(&channel);
            }
        }
    }

    /// Gathers what came of a shipment.
    fn has_sent(&mut self, shipment: &Shipment, sent: &Sent, at: Timestamp, took: Duration) {
        let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let attempt = Attempt { at, took_ms, status_code: sent.status_code, error: sent.error.clone() };
        for delivery in shipment {
            match &sent.error {
                None => self.failing.remove(&delivery.channel_id),
                Some(_) => self.failing.insert(delivery.channel_id),
            };
            self.tried.push(judge(delivery, sent, attempt.clone(), self.settings.give_up, clock::now()));
        }
    }

    /// Notes what was gathered, unless that is under way.
    fn note(&mut self, context: &mut Context<Self>) {
        if self.noting || self.tried.is_empty() {
            return;
        }
        self.noting = true;
        let tried = std::mem::take(&mut self.tried);
        let ids: Vec<Uuid> = tried.iter().map(|tried| tried.id).collect();
        let write = self.persistence.send(Save { write: Record(tried), patience: Patience::Endless });
        context.spawn(write.into_actor(self).map(move |outcome, actor, context| {
            actor.noting = false;
            if !matches!(outcome, Ok(Ok(()))) {
                log::error!("what came of notices could not be noted, they are sent again: {outcome:?}");
            }
            for id in ids {
                actor.under_way.remove(&id);
            }
            actor.note(context);
            actor.look(context);
        }));
    }

    /// Deletes what is over and old, some of it.
    fn forget(&mut self, context: &mut Context<Self>) {
        if self.forgetting {
            return;
        }
        let keep = TimeDelta::from_std(self.settings.keep).unwrap_or(TimeDelta::MAX);
        let Some(settled_before) = clock::certain().and_then(|now| now.checked_sub_signed(keep)) else { return };
        self.forgetting = true;
        let forget = Forget { settled_before, most: FORGET_AT_ONCE };
        let write = self.persistence.send(Save { write: forget, patience: FORGET_PATIENCE });
        context.spawn(write.into_actor(self).map(|outcome, actor, context| {
            actor.forgetting = false;
            match outcome {
                Ok(Ok(true)) => drop(context.run_later(FORGET_PAUSE, |actor, context| actor.forget(context))),
                Ok(Ok(false)) => {}
                outcome => log::warn!("old deliveries could not be deleted, it is tried again: {outcome:?}"),
            }
        }));
    }

    /// Looks whenever the bell rings.
    fn listen(&mut self, context: &mut Context<Self>) {
        let outbox = Arc::clone(&self.outbox);
        let rung = async move { outbox.rung().await };
        context.spawn(rung.into_actor(self).map(|(), actor, context| {
            actor.look(context);
            actor.listen(context);
        }));
    }
}

/// What an attempt means for its delivery. Pure.
fn judge(delivery: &Due, sent: &Sent, attempt: Attempt, give_up: Duration, now: Timestamp) -> Tried {
    let again = || backoff::next(delivery.id, delivery.tried_from, now, give_up, sent.retry_after);
    let (status, next_attempt_at) = match &sent.error {
        None => (Status::Delivered, None),
        Some(_) if sent.is_final => (Status::Failed, None),
        Some(_) => again().map_or((Status::Failed, None), |at| (Status::Pending, Some(at))),
    };
    Tried { id: delivery.id, tries: delivery.tries, attempt, status, next_attempt_at }
}

impl Actor for Notifier {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(LOOK_EVERY, |actor, context| actor.look(context));
        context.run_interval(FORGET_EVERY, |actor, context| actor.forget(context));
        self.listen(context);
        self.look(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(sent: &Sent, hours: i64) -> (Status, bool) {
        let delivery = Due::sample(Uuid::from_u128(1), Uuid::from_u128(2), "webhook");
        let now = delivery.tried_from + TimeDelta::hours(hours);
        let attempt = Attempt { at: now, took_ms: 1, status_code: None, error: sent.error.clone() };
        let tried = judge(&delivery, sent, attempt, Duration::from_secs(72 * 3600), now);
        (tried.status, tried.next_attempt_at.is_some_and(|at| at > now))
    }

    #[test]
    fn a_delivery_is_tried_until_it_has_arrived_or_its_time_is_over() {
        assert_eq!(tried(&Sent::default(), 100), (Status::Delivered, false));
        let failed = Sent::failed("no answer");
        assert_eq!(tried(&failed, 0), (Status::Pending, true));
        assert_eq!(tried(&failed, 60), (Status::Pending, true));
        assert_eq!(tried(&failed, 72), (Status::Failed, false));
        assert_eq!(tried(&Sent { is_final: true, ..failed }, 0), (Status::Failed, false));
    }
}
