//! What a plan does about hosts, their source groups and their schedules.

use super::export::name as name_of;
use super::ledger::KnownHost;
use super::plan::{Action, FieldChange, Kind, Pending, Planner, Thing, Work, differences};
use super::settings::{Settings, of_group, of_host, of_schedule};
use super::wanted::{Layer, WantedHost};
use crate::access::Labels;
use crate::db::hosts::{Changes, Host};
use crate::db::json::Json;
use crate::db::schedules::{MOST_OF_A_HOST, Schedule};
use crate::db::source_groups::SourceGroup;
use crate::paths::is_absolute;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// A thing of the document, and where it stands there.
type At<'a, T> = (&'a str, &'a T);

/// All that a document says about one host: what its templates say, and over that its own entry.
#[derive(Default)]
struct Said<'a> {
    settings: Changes,
    groups: Option<BTreeMap<&'a str, At<'a, SourceGroup>>>,
    schedules: Option<BTreeMap<&'a str, At<'a, Schedule>>>,
}

impl<'a> Said<'a> {
    /// Lays a layer over what was said before.
    fn add(&mut self, layer: &'a Layer) {
        let (over, under) = (&layer.settings, std::mem::take(&mut self.settings));
        self.settings = Changes {
            labels: over.labels.clone().or(under.labels),
            repository_id: None,
            hook_shell: over.hook_shell.clone().or(under.hook_shell),
            pre_hook: over.pre_hook.clone().or(under.pre_hook),
            post_hook: over.post_hook.clone().or(under.post_hook),
            bandwidth_up_kbps: over.bandwidth_up_kbps.or(under.bandwidth_up_kbps),
            bandwidth_down_kbps: over.bandwidth_down_kbps.or(under.bandwidth_down_kbps),
        };
        fn lay<'a, T>(
            list: &mut Option<BTreeMap<&'a str, At<'a, T>>>,
            over: &'a Option<BTreeMap<String, T>>,
            pointer: &'a str,
        ) {
            if let Some(over) = over {
                let items = over.iter().map(|(name, item)| (name.as_str(), (pointer, item)));
                list.get_or_insert_default().extend(items);
            }
        }
        lay(&mut self.groups, &layer.groups, &layer.pointer);
        lay(&mut self.schedules, &layer.schedules, &layer.pointer);
    }
}

/// Where a group or a schedule stands in the document.
fn pointer(layer: &str, list: &str, name: &str) -> String {
    format!("{layer}/{list}/{}", name.replace('~', "~0").replace('/', "~1"))
}

impl<'a> Planner<'a> {
    /// Hosts that the document names, or that its templates mean.
    pub(super) fn hosts(&mut self, new_id: &mut impl FnMut() -> Uuid) {
        let (wanted, ledger) = (self.wanted, self.ledger);
        for entry in &wanted.hosts {
            if let Some(repository) = entry.repository.as_ref().filter(|name| !self.ids.contains_key(name.as_str())) {
                let detail = format!("there is no repository {repository:?}");
                self.wrong(format!("{}/repository", entry.layer.pointer), detail);
            }
        }
        for (number, why) in self.matching.pending.clone() {
            let entry = &wanted.hosts[number];
            let said = self.said(entry.labels().unwrap_or(&Labels::new()), entry.repository.as_deref(), Some(entry));
            if let Some(groups) = &said.groups {
                self.check_groups(&said, &groups.keys().copied().collect(), &entry.hostname);
            }
            let (repository, hostname) = (entry.repository.clone(), Some(entry.hostname.clone()));
            let thing = Thing { kind: Kind::Host, repository, hostname, host_id: None, name: None };
            self.plan.pending.push(Pending { thing, why: why.to_owned() });
        }
        for (index, known) in ledger.hosts.iter().enumerate() {
            let entry = self.matching.entry_of.get(&index).map(|entry| &wanted.hosts[*entry]);
            let repository = self.repository_of(index);
            let labels = entry.and_then(WantedHost::labels).unwrap_or(&known.row.labels.0);
            let said = self.said(labels, repository, entry);
            self.host(known, repository, &said);
            let groups = self.groups(known, repository, &said);
            self.check_groups(&said, &groups, &known.row.hostname);
            let stay = self.schedules(known, repository, &said, new_id);
            self.other_groups(known, repository, &said, &stay);
        }
    }

    fn said(&self, labels: &Labels, repository: Option<&str>, entry: Option<&'a WantedHost>) -> Said<'a> {
        let templates = self.wanted.templates.iter().filter(|template| template.selector.means(labels, repository));
        let layers = templates.map(|template| &template.layer).chain(entry.map(|entry| &entry.layer));
        layers.fold(Said::default(), |mut said, layer| {
            said.add(layer);
            said
        })
    }

    /// The host's own settings.
    fn host(&mut self, known: &KnownHost, repository: Option<&str>, said: &Said<'_>) {
        let (before, said) = (&known.row, &said.settings);
        let after = Host {
            labels: said.labels.clone().unwrap_or_else(|| before.labels.clone()),
            hook_shell: said.hook_shell.clone().unwrap_or_else(|| before.hook_shell.clone()),
            pre_hook: said.pre_hook.clone().unwrap_or_else(|| before.pre_hook.clone()),
            post_hook: said.post_hook.clone().unwrap_or_else(|| before.post_hook.clone()),
            bandwidth_up_kbps: said.bandwidth_up_kbps.unwrap_or(before.bandwidth_up_kbps),
            bandwidth_down_kbps: said.bandwidth_down_kbps.unwrap_or(before.bandwidth_down_kbps),
            // One that has none yet gets it.
            repository_id: repository.and_then(|name| self.ids.get(name)).copied(),
            ..before.clone()
        };
        if after == *before {
            return;
        }
        let name = before.repository_id.and_then(|id| self.names.get(&id)).copied();
        let changes = differences(&of_host(before, name), &of_host(&after, repository));
        let moves = after.repository_id != before.repository_id;
        if moves || (&after.pre_hook, &after.post_hook) != (&before.pre_hook, &before.post_hook) {
            self.plan.rescheduled.insert(before.id);
        }
        if (Host { labels: before.labels.clone(), ..after.clone() }) != *before {
            self.plan.reset.insert(before.id);
        }
        let row = Changes {
            labels: (after.labels != before.labels).then_some(after.labels),
            repository_id: moves.then_some(after.repository_id),
            hook_shell: (after.hook_shell != before.hook_shell).then_some(after.hook_shell),
            pre_hook: (after.pre_hook != before.pre_hook).then_some(after.pre_hook),
            post_hook: (after.post_hook != before.post_hook).then_some(after.post_hook),
            bandwidth_up_kbps: (after.bandwidth_up_kbps != before.bandwidth_up_kbps).then_some(after.bandwidth_up_kbps),
            bandwidth_down_kbps: (after.bandwidth_down_kbps != before.bandwidth_down_kbps)
                .then_some(after.bandwidth_down_kbps),
        };
        let thing = of(Kind::Host, known, repository, None);
        self.step(Action::Change, thing, changes, Work::ChangeHost(before.id, Box::new(row)));
    }

    /// The groups that are named; gives the names of those that schedules may have.
    fn groups(&mut self, known: &'a KnownHost, repository: Option<&str>, said: &Said<'a>) -> HashSet<&'a str> {
        let there: HashMap<&str, &SourceGroup> = known.groups.iter().map(|row| (row.name.as_str(), row)).collect();
        let Some(groups) = &said.groups else { return there.into_keys().collect() };
        for (name, (layer, wanted)) in groups {
            let before = there.get(name).copied();
            let host_id = known.row.id;
            let created_at = before.map_or(wanted.created_at, |before| before.created_at);
            let row = SourceGroup { host_id, created_at, ..(*wanted).clone() };
            if before.is_some_and(|before| row == SourceGroup { updated_at: row.updated_at, ..before.clone() }) {
                continue;
            }
            let os = known.row.os.as_str();
            for (index, path) in row.includes.0.iter().enumerate().filter(|(_, path)| !is_absolute(os, path)) {
                let pointer = format!("{}/includes/{index}", pointer(layer, "source_groups", name));
                let host = &known.row.hostname;
                self.wrong(pointer, format!("{path:?} must be an absolute path, as {os} writes them: {host} has that"));
            }
            let changes = differences(&before.map_or_else(Settings::new, of_group), &of_group(&row));
            let action = if before.is_some() { Action::Change } else { Action::Create };
            if before.is_some() && known.schedules.iter().any(|schedule| has(schedule, name)) {
                self.plan.rescheduled.insert(host_id);
            }
            let thing = of(Kind::SourceGroup, known, repository, Some(name));
            self.step(action, thing, changes, Work::PutGroup(Box::new(row)));
        }
        groups.keys().copied().collect()
    }

    /// Notes schedules that name groups which their host has not.
    fn check_groups(&mut self, said: &Said<'_>, groups: &HashSet<&str>, hostname: &str) {
        for (name, (layer, schedule)) in said.schedules.iter().flatten() {
            let names = schedule.source_groups.0.iter().enumerate();
            for (index, group) in names.filter(|(_, group)| !groups.contains(group.as_str())) {
                let pointer = format!("{}/source_groups/{index}", pointer(layer, "schedules", name));
                self.wrong(pointer, format!("the host {hostname} has no source group {group:?}"));
            }
        }
    }

    /// The schedules; gives those of the host that stay although they are not named.
    fn schedules(
        &mut self,
        known: &'a KnownHost,
        repository: Option<&str>,
        said: &Said<'_>,
        new_id: &mut impl FnMut() -> Uuid,
    ) -> Vec<&'a Schedule> {
        let Some(schedules) = &said.schedules else { return known.schedules.iter().collect() };
        let found = find_schedules(&known.schedules, schedules);
        for (name, (_, wanted)) in schedules {
            let thing = of(Kind::Schedule, known, repository, Some(name));
            let before = found.get(name).copied();
            let same = before.is_some_and(|before| same(before, wanted));
            match before {
                Some(before) if same && (before.name.is_some() || name_of(before) == **name) => {}
                Some(before) if same => {
                    let to = json!(name);
                    let changes = vec![FieldChange { field: "name".to_owned(), from: Value::Null, to }];
                    self.step(Action::Change, thing, changes, Work::NameSchedule(before.id, (*name).to_owned()));
                }
                _ => {
                    let row = Schedule {
                        id: before.map_or_else(&mut *new_id, |before| before.id),
                        host_id: known.row.id,
                        created_at: before.map_or(wanted.created_at, |before| before.created_at),
                        name: if before.is_some_and(|before| before.name.is_none()) {
                            None
                        } else {
                            Some((*name).to_owned())
                        },
                        ..(*wanted).clone()
                    };
                    let changes = differences(&before.map_or_else(Settings::new, of_schedule), &of_schedule(&row));
                    let action = if before.is_some() { Action::Change } else { Action::Create };
                    let work = Work::PutSchedule(Box::new(row), before.cloned().map(Box::new));
                    self.plan.rescheduled.insert(known.row.id);
                    self.step(action, thing, changes, work);
                }
            }
        }
        let named: HashSet<Uuid> = found.values().map(|row| row.id).collect();
        let others: Vec<&Schedule> = known.schedules.iter().filter(|row| !named.contains(&row.id)).collect();
        for row in &others {
            let thing = of(Kind::Schedule, known, repository, Some(&name_of(row)));
            if self.delete {
                self.plan.rescheduled.insert(known.row.id);
            }
            self.not_named(thing, None, Work::DeleteSchedule(known.row.id, row.id));
        }
        let stay = if self.delete { Vec::new() } else { others };
        if i64::try_from(schedules.len() + stay.len()).is_ok_and(|count| count > MOST_OF_A_HOST)
            && let Some((name, (layer, _))) = schedules.iter().next_back()
        {
            let detail = format!("the host {} would have more than {MOST_OF_A_HOST} schedules", known.row.hostname);
            self.wrong(pointer(layer, "schedules", name), detail);
        }
        stay
    }

    /// The groups that are not named, unless schedules that stay have them.
    fn other_groups(&mut self, known: &KnownHost, repository: Option<&str>, said: &Said<'_>, stay: &[&Schedule]) {
        let Some(groups) = &said.groups else { return };
        for row in known.groups.iter().filter(|row| !groups.contains_key(row.name.as_str())) {
            let needs = self.delete && stay.iter().any(|schedule| has(schedule, &row.name));
            let needs = needs.then(|| "a schedule has it that the document does not name".to_owned());
            let thing = of(Kind::SourceGroup, known, repository, Some(&row.name));
            self.not_named(thing, needs, Work::DeleteGroup(known.row.id, row.name.clone()));
        }
    }
}

fn of(kind: Kind, known: &KnownHost, repository: Option<&str>, name: Option<&str>) -> Thing {
    Thing {
        kind,
        repository: repository.map(str::to_owned),
        hostname: Some(known.row.hostname.clone()),
        host_id: Some(known.row.id),
        name: name.map(str::to_owned),
    }
}

fn has(schedule: &Schedule, group: &str) -> bool {
    schedule.source_groups.0.iter().any(|name| name == group)
}

/// Whether two schedules do the same, whatever they are called.
fn same(one: &Schedule, other: &Schedule) -> bool {
    let Json(groups) = &one.source_groups;
    (&one.cron, &one.timezone, one.enabled, groups, one.catch_up_seconds)
        == (&other.cron, &other.timezone, other.enabled, &other.source_groups.0, other.catch_up_seconds)
        && (one.bandwidth_up_kbps, one.bandwidth_down_kbps) == (other.bandwidth_up_kbps, other.bandwidth_down_kbps)
}

/// The schedule that each name of the document means: the one that has it, or has it as its id; or one that has no name and
/// does the same.
fn find_schedules<'a, 'b>(
    there: &'a [Schedule],
    wanted: &BTreeMap<&'b str, At<'_, Schedule>>,
) -> HashMap<&'b str, &'a Schedule> {
    let by_name: HashMap<String, &Schedule> = there.iter().map(|row| (name_of(row), row)).collect();
    let mut found: HashMap<&str, &Schedule> =
        wanted.keys().filter_map(|name| Some((*name, *by_name.get(*name)?))).collect();
    let mut taken: HashSet<Uuid> = found.values().map(|row| row.id).collect();
    for (name, (_, schedule)) in wanted {
        if found.contains_key(name) {
            continue;
        }
        let free = |row: &&Schedule| row.name.is_none() && !taken.contains(&row.id) && same(row, schedule);
        if let Some(row) = there.iter().find(free) {
            taken.insert(row.id);
            found.insert(name, row);
        }
    }
    found
}
