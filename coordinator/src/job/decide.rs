//! What the coordinator decides about a job without hearing from its agent: because a person says so, or because a deadline
//! is over. The job looks at that itself, for nobody knows its state better.

use super::deadlines::{Situation, overdue};
use super::transitions::Event;
use super::{Job, JobState};
use actix::{Context, Handler, Message};
use fleet_wire::Kind;

/// The coordinator decides about a job without hearing from its agent.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Decide {
    /// It has taken too long: the agent is told to stop.
    Cancel,
    /// No report will come, and nobody is at work on it.
    GiveUp {
        /// Why, for people.
        reason: String,
    },
    /// It has waited too long; nothing if it has gone out meanwhile.
    Expire {
        /// Why, for people.
        reason: String,
    },
    /// Its operation takes it back, or another host does it; nothing if it has gone out meanwhile.
    Withdraw {
        /// Why, for people.
        reason: String,
    },
    /// A report is no longer waited for; the agent may still be at work.
    Lose {
        /// Why, for people.
        reason: String,
    },
}

impl Handler<Decide> for Job {
    type Result = ();

    fn handle(&mut self, decision: Decide, context: &mut Context<Self>) {
        let event = match decision {
            Decide::Cancel => Event::CancelRequested,
            Decide::Expire { .. } | Decide::Withdraw { .. } if self.record.state.dispatched_at.is_some() => return,
            Decide::GiveUp { reason } | Decide::Expire { reason } => Event::GivenUp { reason },
            Decide::Withdraw { reason } => Event::Withdrawn { reason },
            // No agent has it, so none is at work on it.
            Decide::Lose { reason } if !self.delivery.may_have_arrived() => Event::GivenUp { reason },
            Decide::Lose { reason } => Event::Lost { reason },
        };
        let may_run = self.delivery.may_have_arrived() && !self.record.state.status.is_terminal();
        if may_run && !matches!(event, Event::Withdrawn { .. }) {
            self.send_cancel(context);
        }
        self.note(&event, context);
    }
}

impl Job {
    /// Is it overdue?
    pub(super) fn look(&mut self, context: &mut Context<Self>) {
        let overdue = self.situation().and_then(|situation| overdue(&situation, &self.services.limits));
        // The agent is told once; after that it is the limit for the answer that counts.
        let Some(decision) = overdue.filter(|decision| *decision != Decide::Cancel || self.cancelled_since.is_none())
        else {
            return;
        };
        log::warn!(job:% = self.id(), host:% = self.record.new.host_id; "a job is overdue: {decision:?}");
        self.handle(decision, context);
    }

    /// How long everything has lasted, for a job that is out and not over.
    fn situation(&self) -> Option<Situation> {
        let JobState { status, .. } = &*self.record.state;
        (!status.is_terminal() && self.record.state.dispatched_at.is_some()).then(|| Situation {
            // A kind that a newer version made has the limits of maintenance.
            kind: self.record.new.kind.parse().unwrap_or(Kind::Prune),
            silent: self.services.board.silence(self.record.new.host_id),
            ready: self.services.board.ready_for(self.record.new.host_id),
            out: self.delivery.is_noted().then(|| self.out_since.elapsed()),
            cancelled: self.cancelled_since.map(|since| since.elapsed()),
            accepted: self.at_work.map(|at_work| at_work.lasted()),
        })
    }
}
