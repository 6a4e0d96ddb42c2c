//! The maintenance ticker: takes no input, but looks at intervals what is due and does it. What is due is computed
//! from the ledger and the board, so a restart neither forgets nor repeats anything.

mod deadlines;
mod presence;

use crate::board::Board;
use crate::config::Deadlines;
use crate::db::{Database, deadlines as open_jobs};
use crate::dispatcher::{Dispatcher, Overrule};
use crate::persistence::{Persistence, SavePresence};
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, WrapFuture};
use chrono::Utc;
use fleet_wire::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How often signs of life are written down, and silence is noticed.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(10);

/// How often deadlines are looked at.
const DEADLINES_INTERVAL: Duration = Duration::from_secs(2);

/// What the ticker needs of the coordinator.
pub struct TickerServices {
    /// For reading what is due.
    pub database: Database,
    /// The one writer.
    pub persistence: Addr<Persistence>,
    /// Who ends jobs.
    pub dispatcher: Addr<Dispatcher>,
    /// Signs of life.
    pub board: Arc<Board>,
    /// How long jobs may wait and run.
    pub deadlines: Deadlines,
}

/// See the module's text.
pub struct Ticker {
    services: TickerServices,
    /// When it began: before that, hosts could not be heard of.
    began_at: Timestamp,
    /// What was last written of each host that counts as online.
    written: HashMap<Uuid, Timestamp>,
    /// A write is under way: the next one waits for it, however long the database is away.
    writing: bool,
    /// Deadlines are being looked at.
    looking: bool,
}

impl Ticker {
    /// A ticker that takes the hosts in `online` as heard of just now: after a start they get the time that any
    /// silent host gets.
    pub fn new(services: TickerServices, online: &[Uuid]) -> Self {
        online.iter().for_each(|host| services.board.see(*host));
        Self { services, began_at: Utc::now(), written: HashMap::new(), writing: false, looking: false }
    }

    /// Ends what has waited or run too long. While the database is away, nothing is overdue: nobody could report.
    fn enforce_deadlines(&mut self, context: &mut Context<Self>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let database = self.services.database.clone();
        let read = async move { database.read(async |reader| open_jobs::open(reader).await).await };
        context.spawn(read.into_actor(self).map(|outcome, actor, _| {
            actor.looking = false;
            match outcome {
                Ok(jobs) => actor.overrule(&jobs),
                Err(error) => log::debug!("deadlines can't be looked at: {error}"),
            }
        }));
    }

    fn overrule(&self, jobs: &[open_jobs::OpenJob]) {
        let now = Utc::now();
        for job in jobs {
            // After a start every host gets its time to come back.
            let seen = self.services.board.last_seen(job.host_id).unwrap_or(self.began_at);
            if let Some(decision) = deadlines::overdue(job, Some(seen), &self.services.deadlines, now) {
                log::warn!(job:% = job.id, host:% = job.host_id; "a job is overdue: {decision:?}");
                self.services.dispatcher.do_send(Overrule { job_id: job.id, decision });
            }
        }
    }

    fn note_presence(&mut self, context: &mut Context<Self>) {
        let due = presence::due(&self.services.board.all_seen(), &self.written, Utc::now());
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
}

impl Actor for Ticker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(PRESENCE_INTERVAL, |actor, context| actor.note_presence(context));
        context.run_interval(DEADLINES_INTERVAL, |actor, context| actor.enforce_deadlines(context));
    }
}
