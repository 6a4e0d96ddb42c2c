//! The fleet as documents see it: read at once, and changed at once.
//!
//! A plan is made and carried out within one turn of the writer. Nobody else writes settings meanwhile, so what is planned is
//! what there is, and no lock is needed.

mod carry_out;
mod load;

pub use load::load;

use super::audit::{self, Outcome, Record};
use crate::fleet::export::tag;
use crate::fleet::plan::{Action, Fault, Plan, Step, plan};
use crate::fleet::wanted::Wanted;
use crate::persistence::Write;
use crate::request::{Request, Subject};
use crate::vault::Vault;
use carry_out::carry_out;
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use fleet_wire::Timestamp;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// What came of an [`Apply`].
#[derive(Debug)]
pub enum Applied {
    /// It is so now.
    Done(Box<Done>),
    /// There is something else than what the client has seen.
    Changed,
    /// It can't be: nothing is changed.
    Wrong(Vec<Fault>),
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was planned.
    pub plan: Plan,
    /// The name of what there is then.
    pub tag: String,
    /// The hosts whose agents are to be told.
    pub told: BTreeSet<Uuid>,
}

/// Makes the fleet as a document says, whole or not at all.
#[derive(Debug)]
pub struct Apply {
    /// What it says.
    pub wanted: Arc<Wanted>,
    /// Whether what it does not name may go.
    pub delete: bool,
    /// Only if what there is, or what is planned of it, has one of these names.
    pub only_if: Option<Vec<String>>,
    /// Seals secrets.
    pub vault: Arc<Vault>,
    /// The request, for the records of single things.
    pub request: Option<Arc<Request>>,
    /// Now.
    pub at: Timestamp,
    /// What this write has done before, if its commit was not answered.
    done: Mutex<Option<Done>>,
}

impl Apply {
    /// Does `wanted` at this time, for a request.
    pub fn new(wanted: Arc<Wanted>, vault: Arc<Vault>, at: Timestamp, request: Option<Arc<Request>>) -> Self {
        Self { wanted, delete: false, only_if: None, vault, request, at, done: Mutex::default() }
    }

    fn done(&self) -> MutexGuard<'_, Option<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Apply {
    type Output = Applied;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Applied> {
        let ledger = load(connection, &self.vault, Some(&self.wanted)).await?;
        let before = tag(&ledger);
        let plan = plan(&self.wanted, &ledger, self.delete, self.at, Uuid::now_v7);
        // A repeated write finds nothing left to do: it says what the first one said.
        let nothing_left = plan.as_ref().is_ok_and(|plan| plan.steps.is_empty());
        if nothing_left && let Some(done) = self.done().clone() {
            return Ok(Applied::Done(Box::new(done)));
        }
        let plan = match plan {
            Ok(plan) => plan,
            Err(faults) => return Ok(Applied::Wrong(faults)),
        };
        if self.only_if.as_ref().is_some_and(|tags| !tags.contains(&before) && !tags.contains(&plan.tag(&before))) {
            return Ok(Applied::Changed);
        }
        if nothing_left {
            return Ok(Applied::Done(Box::new(Done { plan, tag: before, told: BTreeSet::new() })));
        }
        let mut told = carry_out(connection, &plan, &self.vault, self.at).await?;
        told.extend(plan.rescheduled.iter().chain(&plan.reset));
        if let Some(request) = &self.request {
            record(connection, request, &plan).await?;
        }
        let done = Done { plan, tag: tag(&load(connection, &self.vault, None).await?), told };
        *self.done() = Some(done.clone());
        Ok(Applied::Done(Box::new(done)))
    }

    fn is_change(applied: &Applied) -> bool {
        matches!(applied, Applied::Done(done) if !done.plan.steps.is_empty())
    }
}

/// Records each thing that was changed, beside the request itself.
async fn record(connection: &mut AsyncPgConnection, request: &Request, plan: &Plan) -> QueryResult<()> {
    let Some(subject) = &request.subject else { return Ok(()) };
    let record = |step: &Step| {
        let subject = Subject { target: step.path(), ..subject.clone() };
        let fields = step.changes.iter().map(|change| change.field.as_str()).collect::<Vec<_>>().join(", ");
        let action = match step.action {
            Action::Create => "created",
            Action::Change => "changed",
            Action::Delete => "deleted",
        };
        let detail = match (step.action, fields.as_str()) {
            (Action::Change, fields) if !fields.is_empty() => format!("{action}: {fields}"),
            _ => action.to_owned(),
        };
        let record = Record::of(request, &subject, Outcome::Done, None);
        (Record { id: Uuid::now_v7(), detail: Some(detail), ..record }, None)
    };
    let records: Vec<(Record, Option<Uuid>)> = plan.steps.iter().map(record).collect();
    audit::insert_many(connection, &records).await
}
