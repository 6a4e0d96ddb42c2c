//! The plan that leads from what there is to what a document asks for: a pure function of the two. Carried out it leaves
//! nothing to plan.

use super::export::short;
use super::ledger::{KnownRepository, Ledger};
use super::matching::{Matching, matching};
use super::settings::Settings;
use super::wanted::Wanted;
use crate::db::hosts::Changes as HostChanges;
use crate::db::maintenance::Put as PutMaintenance;
use crate::db::repositories::{Changes as RepositoryChanges, Repository, SecretColumn};
use crate::db::schedules::Schedule;
use crate::db::source_groups::SourceGroup;
use fleet_wire::{Secret, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// What is done to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words say it")]
pub enum Action {
    Create,
    Change,
    Delete,
}

/// Kinds of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words say it")]
pub enum Kind {
    Repository,
    Maintenance,
    Host,
    SourceGroup,
    Schedule,
}

/// A thing, as people name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Thing {
    /// Its kind.
    pub kind: Kind,
    /// The name of the repository that it is, belongs to, or is kept in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The name of the host that it is or belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The id of that host, if it is enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_id: Option<Uuid>,
    /// Its own name, of what belongs to a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Thing {
    /// A repository, or its maintenance.
    pub(super) fn repository(kind: Kind, name: &str) -> Self {
        Self { kind, repository: Some(name.to_owned()), hostname: None, host_id: None, name: None }
    }
}

/// A setting that changes. Secrets are told by where they come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// What it was; null if it was not set.
    pub from: Value,
    /// What it will be; null if it will not be set.
    pub to: Value,
}

/// The settings that differ.
pub(super) fn differences(before: &Settings, after: &Settings) -> Vec<FieldChange> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |settings: &Settings, name: &String| settings.get(name).cloned().unwrap_or_default();
    let change = |name: &String| FieldChange { field: name.clone(), from: of(before, name), to: of(after, name) };
    names.into_iter().map(change).filter(|change| change.from != change.to).collect()
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// To what.
    #[serde(flatten)]
    pub thing: Thing,
    /// The settings that this changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// What is to be written.
    #[serde(skip)]
    pub work: Work,
}

impl Step {
    /// The path of what it changes, behind `/v1/`.
    pub fn path(&self) -> String {
        let of_host = |id: &Uuid, list: &str, name: &dyn std::fmt::Display| format!("hosts/{id}/{list}/{name}");
        match &self.work {
            Work::CreateRepository(row, _) => format!("repositories/{}", row.id),
            Work::ChangeRepository(id, ..) | Work::DeleteRepository(id) => format!("repositories/{id}"),
            Work::Maintain(put) => format!("repositories/{}/maintenance", put.repository_id),
            Work::ChangeHost(id, _) => format!("hosts/{id}"),
            Work::PutGroup(row) => of_host(&row.host_id, "source-groups", &row.name),
            Work::DeleteGroup(id, name) => of_host(id, "source-groups", name),
            Work::PutSchedule(row, _) => of_host(&row.host_id, "schedules", &row.id),
            Work::NameSchedule(id, _) => of_host(&self.thing.host_id.unwrap_or_default(), "schedules", id),
            Work::DeleteSchedule(host, id) => of_host(host, "schedules", id),
        }
    }
}

/// What is to be written.
#[derive(Clone, Debug)]
pub enum Work {
    /// A new repository, its row without secrets, and those.
    CreateRepository(Box<Repository>, Vec<(SecretColumn, Secret)>),
    /// Changes of a repository, and the secrets that it gets or loses.
    ChangeRepository(Uuid, Box<RepositoryChanges>, Vec<(SecretColumn, Option<Secret>)>),
    /// A repository goes.
    DeleteRepository(Uuid),
    /// The maintenance of a repository, whole.
    Maintain(Box<PutMaintenance>),
    /// Changes of a host.
    ChangeHost(Uuid, Box<HostChanges>),
    /// A source group, new or in the place of another.
    PutGroup(Box<SourceGroup>),
    /// The source group of a host goes.
    DeleteGroup(Uuid, String),
    /// A schedule, and the one whose place it takes.
    PutSchedule(Box<Schedule>, Option<Box<Schedule>>),
    /// A schedule gets the name that the document has for it.
    NameSchedule(Uuid, String),
    /// A schedule of a host goes.
    DeleteSchedule(Uuid, Uuid),
}

/// Something that the document asks for and that can't be yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pending {
    /// What.
    #[serde(flatten)]
    pub thing: Thing,
    /// Why.
    pub why: String,
}

/// See the module's text.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// What is done, in an order that makes sense to read.
    pub steps: Vec<Step>,
    /// What waits: plan the same document again once it is there.
    pub pending: Vec<Pending>,
    /// What the document does not name, and that stays, with why.
    pub left: Vec<Pending>,
    /// The hosts whose schedules change, or what these are made of.
    #[serde(skip)]
    pub rescheduled: BTreeSet<Uuid>,
    /// The hosts whose other settings change.
    #[serde(skip)]
    pub reset: BTreeSet<Uuid>,
}

impl Plan {
    /// How many steps do this.
    pub fn count(&self, action: Action) -> usize {
        self.steps.iter().filter(|step| step.action == action).count()
    }

    /// A name for this plan of what there is, which has the name `ledger`: the same plan of the same has the same.
    pub fn tag(&self, ledger: &str) -> String {
        let told = json!({"ledger": ledger, "plan": self});
        short(&Sha256::digest(told.to_string()))
    }
}

/// What is wrong with a document, by what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where in the document: a JSON pointer.
    pub pointer: String,
    /// What.
    pub detail: String,
}

/// What leads from `ledger` to `wanted` at this time. What it does not name goes if the plan may `delete`. New repositories get
/// ids from `new_id`.
///
/// # Errors
/// All that is wrong with the document, by what there is.
pub fn plan(
    wanted: &Wanted,
    ledger: &Ledger,
    delete: bool,
    at: Timestamp,
    mut new_id: impl FnMut() -> Uuid,
) -> Result<Plan, Vec<Fault>> {
    let mut planner = Planner::new(wanted, ledger, delete, at);
    planner.repositories(&mut new_id);
    planner.hosts(&mut new_id);
    planner.maintenance();
    planner.other_repositories();
    if planner.faults.is_empty() { Ok(planner.plan) } else { Err(planner.faults.into_values().collect()) }
}

/// A plan that is being made.
pub(super) struct Planner<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) ledger: &'a Ledger,
    pub(super) delete: bool,
    pub(super) at: Timestamp,
    pub(super) matching: Matching,
    /// The repositories that there are, by name.
    pub(super) known: HashMap<&'a str, &'a KnownRepository>,
    /// The names of repositories that there are, by id.
    pub(super) names: HashMap<Uuid, &'a str>,
    /// The ids of repositories that there are or will be, by name.
    pub(super) ids: HashMap<&'a str, Uuid>,
    pub(super) plan: Plan,
    /// By pointer: what is wrong with a template is so for many hosts, and said once.
    faults: BTreeMap<String, Fault>,
}

impl<'a> Planner<'a> {
    fn new(wanted: &'a Wanted, ledger: &'a Ledger, delete: bool, at: Timestamp) -> Self {
        let known: HashMap<&str, &KnownRepository> =
            ledger.repositories.iter().map(|known| (known.row.name.as_str(), known)).collect();
        let ids = known.iter().map(|(name, known)| (*name, known.row.id)).collect();
        let matching = matching(&wanted.hosts, ledger);
        let (names, plan, faults) = (ledger.names(), Plan::default(), BTreeMap::new());
        Self { wanted, ledger, delete, at, matching, known, names, ids, plan, faults }
    }

    pub(super) fn wrong(&mut self, pointer: String, detail: impl Into<String>) {
        self.faults.entry(pointer.clone()).or_insert_with(|| Fault { pointer, detail: detail.into() });
    }

    pub(super) fn step(&mut self, action: Action, thing: Thing, changes: Vec<FieldChange>, work: Work) {
        self.plan.steps.push(Step { action, thing, changes, work });
    }

    /// Notes that something is not named and stays; or has it go, by `work`, if this plan may delete and nothing `needs` it.
    pub(super) fn not_named(&mut self, thing: Thing, needs: Option<String>, work: Work) {
        match needs {
            Some(why) => self.plan.left.push(Pending { thing, why }),
            None if self.delete => self.step(Action::Delete, thing, Vec::new(), work),
            None => {
                let why = "the document does not name it: delete=true deletes it".to_owned();
                self.plan.left.push(Pending { thing, why });
            }
        }
    }

    /// The repository of a host, once this plan is carried out.
    pub(super) fn repository_of(&self, host: usize) -> Option<&'a str> {
        let entry = self.matching.entry_of.get(&host).map(|entry| &self.wanted.hosts[*entry]);
        let known = self.ledger.hosts[host].row.repository_id.and_then(|id| self.names.get(&id)).copied();
        known.or(entry.and_then(|entry| entry.repository.as_deref()))
    }
}
