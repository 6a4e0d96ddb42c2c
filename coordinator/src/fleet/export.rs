//! What there is as a document. A plan for it is empty.

use super::ledger::{KnownHost, KnownRepository, Ledger};
use super::settings::{of_group, of_host, of_maintenance, of_repository, of_schedule, of_secret};
use crate::db::hosts::Host;
use crate::db::schedules::Schedule;
use crate::maintenance::forget_limit;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The document. Of several hosts with one name and no repository none is in it: a document can't tell them apart.
pub fn export(ledger: &Ledger) -> Value {
    let names = ledger.names();
    let hostnames: HashMap<Uuid, &str> =
        ledger.hosts.iter().map(|host| (host.row.id, host.row.hostname.as_str())).collect();
    let repositories: Map<String, Value> =
        ledger.repositories.iter().map(|known| (known.row.name.clone(), repository(known, &hostnames))).collect();
    let mut homeless = HashSet::new();
    let without = ledger.hosts.iter().filter(|host| host.row.repository_id.is_none());
    let doubled: HashSet<&str> =
        without.map(|host| host.row.hostname.as_str()).filter(|name| !homeless.insert(*name)).collect();
    let place = |host: &&KnownHost| {
        let repository = host.row.repository_id.and_then(|id| names.get(&id)).copied();
        (repository, host.row.hostname.clone())
    };
    let nameable =
        |host: &&KnownHost| host.row.repository_id.is_some() || !doubled.contains(host.row.hostname.as_str());
    let mut hosts: Vec<&KnownHost> = ledger.hosts.iter().filter(nameable).collect();
    hosts.sort_by_key(place);
    let hosts: Vec<Value> = hosts.iter().map(|known| host(known, place(known).0)).collect();
    json!({"repositories": repositories, "hosts": hosts})
}

fn repository(known: &KnownRepository, hostnames: &HashMap<Uuid, &str>) -> Value {
    let mut settings = of_repository(&known.row, |column| of_secret(known, column));
    let runner = known.row.runner_host_id.and_then(|id| hostnames.get(&id)).copied();
    let maintenance = of_maintenance(&known.entries, runner, forget_limit(&known.row).unwrap_or_default());
    if !maintenance.is_empty() {
        settings.insert("maintenance".to_owned(), Value::Object(maintenance));
    }
    Value::Object(settings)
}

fn host(known: &KnownHost, repository: Option<&str>) -> Value {
    let mut settings = of_host(&known.row, repository);
    settings.insert("hostname".to_owned(), json!(known.row.hostname));
    let groups: Map<String, Value> =
        known.groups.iter().map(|row| (row.name.clone(), Value::Object(of_group(row)))).collect();
    let schedules: Map<String, Value> =
        known.schedules.iter().map(|row| (name(row), Value::Object(of_schedule(row)))).collect();
    for (list, items) in [("source_groups", groups), ("schedules", schedules)] {
        if !items.is_empty() {
            settings.insert(list.to_owned(), Value::Object(items));
        }
    }
    Value::Object(settings)
}

/// What a document calls a schedule: its id if it has no name.
pub(super) fn name(row: &Schedule) -> String {
    row.name.clone().unwrap_or_else(|| row.id.to_string())
}

/// A name for the ledger as it is: another after every change that a document could make or tell.
pub fn tag(ledger: &Ledger) -> String {
    let mut hash = Sha256::new_with_prefix(export(ledger).to_string());
    for known in &ledger.repositories {
        let row = &known.row;
        hash.update(row.id);
        for sealed in
            [Some(&row.password), row.credential.as_ref(), row.admin_password.as_ref(), row.admin_credential.as_ref()]
        {
            hash.update(Sha256::digest(sealed.map(Vec::as_slice).unwrap_or_default()));
        }
    }
    // A document tells hosts apart by their names, and two without a repository may have the same.
    for known in &ledger.hosts {
        let Host { id, labels, hook_shell, pre_hook, post_hook, .. } = &known.row;
        let caps = (known.row.bandwidth_up_kbps, known.row.bandwidth_down_kbps);
        hash.update(format!("{:?}", (id, labels, hook_shell, pre_hook, post_hook, caps)));
        known.groups.iter().for_each(|group| hash.update(format!("{group:?}")));
        for schedule in &known.schedules {
            let Schedule { id, name, cron, timezone, enabled, source_groups, catch_up_seconds, .. } = schedule;
            let caps = (schedule.bandwidth_up_kbps, schedule.bandwidth_down_kbps);
            let all = (id, name, cron, timezone, enabled, source_groups, catch_up_seconds, caps);
            hash.update(format!("{all:?}"));
        }
    }
    short(&hash.finalize())
}

/// A hash as a text of 32 characters.
pub(super) fn short(hash: &[u8]) -> String {
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
