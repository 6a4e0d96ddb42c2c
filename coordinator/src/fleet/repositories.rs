//! What a plan does about repositories.
//!
//! A repository whose runner is not enrolled yet gets neither admin credential nor maintenance before: without a runner every
//! host would have the credential that may delete.

use super::ledger::KnownRepository;
use super::plan::{Action, FieldChange, Kind, Pending, Planner, Thing, Work, differences};
use super::settings::{Settings, of_maintenance, of_repository, of_secret};
use super::wanted::{WantedRepository, WantedSecret};
use crate::db::json::Json;
use crate::db::maintenance::{Put, Rules};
use crate::db::repositories::{Changes, Repository, SecretColumn, SecretSources};
use crate::maintenance::forget_limit;
use fleet_wire::Secret;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

const ADMIN: [SecretColumn; 2] = [SecretColumn::AdminPassword, SecretColumn::AdminCredential];

/// Where a secret stands in a repository of a document.
fn place(column: SecretColumn) -> &'static str {
    match column {
        SecretColumn::Password => "/password",
        SecretColumn::Credential => "/credential",
        SecretColumn::AdminPassword => "/admin/password",
        SecretColumn::AdminCredential => "/admin/credential",
    }
}

/// The runner of a repository, as far as it is known.
enum Runner {
    /// Any host will do.
    Any,
    Is(Uuid),
    /// The one that is named is not enrolled yet.
    Pending,
}

/// What becomes of the secrets of a repository.
struct Secrets {
    /// Where they are from then.
    sources: SecretSources,
    /// Those that it gets or loses.
    changed: Vec<(SecretColumn, Option<Secret>)>,
    /// What a document says of them.
    shown: BTreeMap<SecretColumn, Value>,
}

impl Secrets {
    fn shown(&self, column: SecretColumn) -> Value {
        self.shown.get(&column).cloned().unwrap_or_default()
    }
}

impl<'a> Planner<'a> {
    /// Repositories that the document names.
    pub(super) fn repositories(&mut self, new_id: &mut impl FnMut() -> Uuid) {
        for wanted in self.wanted.repositories.iter().flatten() {
            let waits = matches!(self.runner(wanted), Runner::Pending);
            if let (true, Some(maintenance)) = (waits, &wanted.maintenance) {
                let runner = Thing { hostname: maintenance.runner.clone(), ..maintenance_of(&wanted.name) };
                let why =
                    "the runner is not enrolled yet: admin credential and maintenance stay as they are until then";
                self.plan.pending.push(Pending { thing: runner, why: why.to_owned() });
            }
            match self.known.get(wanted.name.as_str()).copied() {
                None => self.create(wanted, waits, new_id()),
                Some(known) => self.change(wanted, waits, known),
            }
        }
    }

    fn runner(&self, wanted: &WantedRepository) -> Runner {
        let name = wanted.maintenance.as_ref().and_then(|maintenance| maintenance.runner.as_ref());
        let Some(name) = name else { return Runner::Any };
        let mut named = self.ledger.hosts.iter().enumerate().filter(|(_, host)| host.row.hostname == *name);
        let found = named.find(|(index, _)| self.repository_of(*index) == Some(&wanted.name));
        found.map_or(Runner::Pending, |(_, host)| Runner::Is(host.row.id))
    }

    fn create(&mut self, wanted: &'a WantedRepository, waits: bool, id: Uuid) {
        self.ids.insert(&wanted.name, id);
        let mut row = wanted.row(id, self.at);
        let mut secrets = Vec::new();
        for (column, secret) in &wanted.secrets {
            match secret {
                WantedSecret::Kept => self.nothing_to_keep(wanted, *column),
                WantedSecret::From(..) if waits && ADMIN.contains(column) => {}
                WantedSecret::From(source, secret) => {
                    row.secret_sources.0.insert(*column, source.clone());
                    secrets.push((*column, secret.clone()));
                }
            }
        }
        if waits {
            row = Repository { has_admin: false, admin_url: None, admin_username: None, ..row };
        }
        let source = |column| json!(row.secret_sources.0.get(&column));
        let changes = differences(&Settings::new(), &of_repository(&row, source));
        let thing = Thing::repository(Kind::Repository, &wanted.name);
        self.step(Action::Create, thing, changes, Work::CreateRepository(Box::new(row), secrets));
    }

    fn nothing_to_keep(&mut self, wanted: &WantedRepository, column: SecretColumn) {
        let pointer = format!("{}{}", wanted.pointer, place(column));
        self.wrong(pointer, "there is none yet that could be kept: give {env: NAME} or {file: PATH}");
    }

    fn change(&mut self, wanted: &WantedRepository, waits: bool, known: &KnownRepository) {
        let before = &known.row;
        let mut after = wanted.row(before.id, before.created_at);
        if waits {
            after.has_admin = before.has_admin;
            (after.admin_url, after.admin_username) = (before.admin_url.clone(), before.admin_username.clone());
        }
        let secrets = self.secrets(wanted, waits, known);
        let told = of_repository(before, |column| of_secret(known, column));
        let mut changes = differences(&told, &of_repository(&after, |column| secrets.shown(column)));
        for (column, _) in &secrets.changed {
            let field = place(*column).trim_start_matches('/').replace('/', ".");
            let top = field.split('.').next().unwrap_or_default();
            // Where the place is the same, what is there is another.
            if !changes.iter().any(|change| change.field == top) {
                let value = secrets.shown(*column);
                changes.push(FieldChange { field, from: value.clone(), to: value });
            }
        }
        if changes.is_empty() {
            return;
        }
        if before.url != after.url && known.busy {
            let pointer = format!("{}/url", wanted.pointer);
            return self.wrong(pointer, "jobs that are not over work on this repository: it can't move before");
        }
        let row = Changes {
            url: (before.url != after.url).then_some(after.url),
            username: (before.username != after.username).then_some(after.username),
            admin_url: (before.admin_url != after.admin_url).then_some(after.admin_url),
            admin_username: (before.admin_username != after.admin_username).then_some(after.admin_username),
            has_admin: Some(after.has_admin),
            append_only: Some(after.append_only),
            max_backups: (before.max_backups != after.max_backups).then_some(after.max_backups),
            secret_sources: Some(Json(secrets.sources)),
            updated_at: Some(self.at),
            ..Changes::default()
        };
        let work = Work::ChangeRepository(before.id, Box::new(row), secrets.changed);
        self.step(Action::Change, Thing::repository(Kind::Repository, &wanted.name), changes, work);
    }

    /// What becomes of the secrets of a repository that is there.
    fn secrets(&mut self, wanted: &WantedRepository, waits: bool, known: &KnownRepository) -> Secrets {
        let sources = known.row.secret_sources.0.clone();
        let mut found = Secrets { sources, changed: Vec::new(), shown: BTreeMap::new() };
        for column in SecretColumn::ALL {
            let stays = waits && ADMIN.contains(&column);
            match wanted.secrets.get(&column).filter(|_| !stays) {
                Some(WantedSecret::From(source, secret)) => {
                    found.shown.insert(column, json!(source));
                    let same = known.secrets.get(&column).is_some_and(|known| known.expose() == secret.expose());
                    if !same || found.sources.get(&column) != Some(source) {
                        found.sources.insert(column, source.clone());
                        found.changed.push((column, Some(secret.clone())));
                    }
                }
                Some(WantedSecret::Kept) if !known.has(column) => self.nothing_to_keep(wanted, column),
                None if !stays && known.has(column) => {
                    found.sources.remove(&column);
                    found.changed.push((column, None));
                }
                Some(WantedSecret::Kept) | None => {
                    found.shown.insert(column, of_secret(known, column));
                }
            }
        }
        found
    }

    /// When the repositories are maintained that the document says that of.
    pub(super) fn maintenance(&mut self) {
        let hostnames: HashMap<Uuid, &str> =
            self.ledger.hosts.iter().map(|host| (host.row.id, host.row.hostname.as_str())).collect();
        for wanted in self.wanted.repositories.iter().flatten() {
            let Some(maintenance) = &wanted.maintenance else { continue };
            let runner_host_id = match self.runner(wanted) {
                Runner::Pending => continue,
                Runner::Any => None,
                Runner::Is(id) => Some(id),
            };
            // One that is not there is wrong, which was noted.
            let Some(repository_id) = self.ids.get(wanted.name.as_str()).copied() else { continue };
            let known = self.known.get(wanted.name.as_str()).copied();
            let before = known.map_or_else(Settings::new, |known| {
                let runner = known.row.runner_host_id.and_then(|id| hostnames.get(&id)).copied();
                of_maintenance(&known.entries, runner, forget_limit(&known.row).unwrap_or_default())
            });
            let after = of_maintenance(&maintenance.entries, maintenance.runner.as_deref(), maintenance.limit);
            let changes = differences(&before, &after);
            if changes.is_empty() {
                continue;
            }
            let action = match (before.is_empty(), after.is_empty()) {
                (true, _) => Action::Create,
                (_, true) => Action::Delete,
                _ => Action::Change,
            };
            let mut entries = maintenance.entries.clone();
            entries.iter_mut().for_each(|entry| entry.repository_id = repository_id);
            let (forget_max_snapshots, forget_max_share) = (maintenance.limit.snapshots, maintenance.limit.share);
            let rules = Rules { runner_host_id, forget_max_snapshots, forget_max_share };
            let put = Put { repository_id, entries, rules, at: self.at };
            self.step(action, maintenance_of(&wanted.name), changes, Work::Maintain(Box::new(put)));
        }
    }

    /// Repositories that the document does not name, if it is about repositories.
    pub(super) fn other_repositories(&mut self) {
        let Some(repositories) = &self.wanted.repositories else { return };
        let named: HashSet<&str> = repositories.iter().map(|wanted| wanted.name.as_str()).collect();
        let awaited: HashSet<&str> = self.wanted.hosts.iter().filter_map(|entry| entry.repository.as_deref()).collect();
        let mut users: HashMap<&str, usize> = HashMap::new();
        for index in 0..self.ledger.hosts.len() {
            if let Some(name) = self.repository_of(index) {
                *users.entry(name).or_default() += 1;
            }
        }
        for known in self.ledger.repositories.iter().filter(|known| !named.contains(known.row.name.as_str())) {
            let needs = match users.get(known.row.name.as_str()) {
                Some(hosts) => Some(format!("{hosts} hosts use it")),
                None if awaited.contains(known.row.name.as_str()) => Some("hosts are to be in it".to_owned()),
                None if known.has_history => Some("jobs have worked on it, and their history needs it".to_owned()),
                None => None,
            };
            let thing = Thing::repository(Kind::Repository, &known.row.name);
            self.not_named(thing, needs, Work::DeleteRepository(known.row.id));
        }
    }
}

fn maintenance_of(repository: &str) -> Thing {
    Thing::repository(Kind::Maintenance, repository)
}
