//! The maintenance ticker: takes no input, but looks at intervals what is due and does it, or asks whoever knows to look.
//! What is due is computed from the ledger and the board, so a restart neither forgets nor repeats anything.

mod clock;
mod compaction;
mod conditions;
mod history;
mod look;
mod maintenance;
mod pace;
mod presence;
pub mod requests;
mod runs;
mod stranded;

pub use clock::set_right;
pub use look::{look, note_due};

use crate::config::History;
use crate::dispatcher::LookAtDeadlines;
use crate::persistence::SavePresence;
use crate::registry::Silent;
use crate::services::Services;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use compaction::Compaction;
use fleet_wire::Timestamp;
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// How often signs of life are written down, and silence is noticed.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(10);

/// How often old history is looked for. A look that finds none takes a few microseconds.
const HISTORY_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked for logs of jobs that are over and not compacted yet. A look that finds none takes as little.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked which jobs have waited too long.
const DEADLINES_INTERVAL: Duration = Duration::from_secs(2);

/// How often it is written down who used which token and what was refused; a crash loses as much of that.
const REQUESTS_INTERVAL: Duration = Duration::from_secs(30);

/// How often it is looked what is overdue, lost or not healthy, to be told.
const CONDITIONS_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked what is due, was missed, or is to be tried again.
const RUNS_INTERVAL: Duration = Duration::from_secs(2);

/// See the module's text.
pub struct Ticker {
    services: Services,
    /// How long history is kept.
    history: History,
    /// What was last written of each host that counts as online.
    written: HashMap<Uuid, Timestamp>,
    /// A write is under way: the next one waits for it, however long the database is away.
    writing: bool,
    /// Old history is being deleted.
    forgetting: bool,
    /// It is being looked at the ledger of runs.
    looking: bool,
    /// Logs are being compacted.
    compacting: bool,
    /// What requests leave behind is being written.
    noting: bool,
    /// It is being looked at what is wrong.
    judging: bool,
    /// An agent that was not heard of for this long is lost.
    lost_after: Duration,
    /// When it was last looked at the ledger of runs with a clock that went forward; none at the start.
    looked_at: Option<Timestamp>,
}

impl Ticker {
    /// A ticker that takes the hosts in `online` as heard of just now: after a start they get the time that any
    /// silent host gets.
    pub fn new(services: Services, history: History, lost_after: Duration, online: &[Uuid]) -> Self {
        online.iter().for_each(|host| services.board.see(*host));
        let written = HashMap::new();
        Self {
            services,
            history,
            written,
            writing: false,
            forgetting: false,
            looking: false,
            compacting: false,
            noting: false,
            judging: false,
            lost_after,
            looked_at: None,
        }
    }

    fn note_presence(&mut self, context: &mut Context<Self>) {
        let due = presence::due(&self.services.board.all_seen(), &self.written);
        let silent: Vec<Uuid> = due.iter().filter(|host| !host.online).map(|host| host.host_id).collect();
        if !silent.is_empty() {
            self.services.registry.do_send(Silent { hosts: silent });
        }
        if due.is_empty() || self.writing {
            return;
        }
        self.writing = true;
        let write = self.services.persistence.send(SavePresence(due.clone()));
        context.spawn(write.into_actor(self).map(move |outcome, actor, _| {
            actor.writing = false;
            if !matches!(outcome, Ok(Ok(()))) {
                return; // it is still due in the next round
            }
            for host in due {
                if host.online {
                    actor.written.insert(host.host_id, host.last_seen_at);
                } else {
                    log::warn!(host:% = host.host_id; "host is offline");
                    actor.written.remove(&host.host_id);
                    actor.services.board.forget_host_unless_seen_since(host.host_id, host.last_seen_at);
                }
            }
        }));
    }

    fn forget_history(&mut self, context: &mut Context<Self>) {
        let Some(now) = crate::clock::certain().filter(|_| !self.forgetting) else { return };
        self.forgetting = true;
        let pass = history::pass(self.services.persistence.clone(), self.history.clone(), now);
        context.spawn(pass.into_actor(self).map(|(), actor, _| actor.forgetting = false));
    }

    fn compact_logs(&mut self, context: &mut Context<Self>) {
        if self.compacting {
            return;
        }
        self.compacting = true;
        let Services { database, persistence, .. } = self.services.clone();
        let (history, now) = (self.history.clone(), crate::clock::now());
        let pass = Compaction { database, persistence, history, now }.pass();
        context.spawn(pass.into_actor(self).map(|(), actor, _| actor.compacting = false));
    }

    fn note_requests(&mut self, context: &mut Context<Self>) {
        if self.noting {
            return;
        }
        self.noting = true;
        let pass = requests::pass(self.services.clone());
        context.spawn(pass.into_actor(self).map(|(), actor, _| actor.noting = false));
    }

    fn look_at_conditions(&mut self, context: &mut Context<Self>) {
        if self.judging {
            return;
        }
        self.judging = true;
        let (services, lost_after) = (self.services.clone(), self.lost_after);
        let pass = async move { conditions::look(&services, lost_after, crate::clock::now()).await };
        context.spawn(pass.into_actor(self).map(|(), actor, _| actor.judging = false));
    }

    fn look_at_runs(&mut self, context: &mut Context<Self>) {
        if self.looking {
            return;
        }
        self.looking = true;
        let (services, now) = (self.services.clone(), crate::clock::now());
        let went_back = self.looked_at.is_none_or(|before| now < before);
        // What is put right is gone: not by a clock that may be wrong itself.
        let certain = crate::clock::certain().is_some();
        let pass = async move {
            let right = !went_back || (certain && set_right(&services, now).await);
            look(services, now).await;
            right
        };
        context.spawn(pass.into_actor(self).map(move |right, actor, _| {
            actor.looking = false;
            actor.looked_at = right.then_some(now);
        }));
    }
}

impl Actor for Ticker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(PRESENCE_INTERVAL, |actor, context| actor.note_presence(context));
        context.run_interval(CONDITIONS_INTERVAL, |actor, context| actor.look_at_conditions(context));
        context.run_interval(RUNS_INTERVAL, |actor, context| actor.look_at_runs(context));
        if self.history.is_limited() {
            context.run_interval(HISTORY_INTERVAL, |actor, context| actor.forget_history(context));
        }
        context.run_interval(REQUESTS_INTERVAL, |actor, context| actor.note_requests(context));
        context.run_interval(COMPACTION_INTERVAL, |actor, context| actor.compact_logs(context));
        context.run_interval(DEADLINES_INTERVAL, |actor, _| {
            actor.services.dispatcher.do_send(LookAtDeadlines);
        });
    }
}
