//! What carrying out a plan comes to, without a database.

use super::*;

/// What the ledger is once a plan is carried out.
pub(super) fn carried_out(mut ledger: Ledger, plan: &Plan) -> Ledger {
    for step in &plan.steps {
        write(&mut ledger, &step.work);
    }
    ledger.repositories.sort_by(|one, other| one.row.name.cmp(&other.row.name));
    ledger
}

fn write(ledger: &mut Ledger, work: &Work) {
    let host_of =
        |ledger: &mut Ledger, id: Uuid| ledger.hosts.iter().position(|host| host.row.id == id).expect("a host");
    let repository_of = |ledger: &Ledger, id: Uuid| {
        ledger.repositories.iter().position(|known| known.row.id == id).expect("a repository")
    };
    match work {
        Work::CreateRepository(row, secrets) => {
            let known = KnownRepository { row: (**row).clone(), ..known_repository(0, "") };
            let mut known = KnownRepository { secrets: BTreeMap::new(), ..known };
            secrets.iter().for_each(|(column, secret)| set_secret(&mut known, *column, Some(secret)));
            ledger.repositories.push(known);
        }
        Work::ChangeRepository(id, changes, secrets) => {
            let index = repository_of(ledger, *id);
            let known = &mut ledger.repositories[index];
            let (row, changes) = (&mut known.row, (**changes).clone());
            row.url = changes.url.unwrap_or_else(|| row.url.clone());
            row.username = changes.username.unwrap_or_else(|| row.username.clone());
            row.admin_url = changes.admin_url.unwrap_or_else(|| row.admin_url.clone());
            row.admin_username = changes.admin_username.unwrap_or_else(|| row.admin_username.clone());
            row.has_admin = changes.has_admin.unwrap_or(row.has_admin);
            row.append_only = changes.append_only.unwrap_or(row.append_only);
            row.max_backups = changes.max_backups.unwrap_or(row.max_backups);
            row.secret_sources = changes.secret_sources.expect("always told");
            secrets.iter().for_each(|(column, secret)| set_secret(known, *column, secret.as_ref()));
        }
        Work::DeleteRepository(id) => ledger.repositories.retain(|known| known.row.id != *id),
        Work::Maintain(put) => {
            let index = repository_of(ledger, put.repository_id);
            let known = &mut ledger.repositories[index];
            known.entries = put.entries.clone();
            known.row.runner_host_id = put.rules.runner_host_id;
            known.row.forget_max_snapshots = put.rules.forget_max_snapshots;
            known.row.forget_max_share = put.rules.forget_max_share;
        }
        Work::ChangeHost(id, changes) => {
            let index = host_of(ledger, *id);
            let (row, changes) = (&mut ledger.hosts[index].row, (**changes).clone());
            row.labels = changes.labels.unwrap_or_else(|| row.labels.clone());
            row.repository_id = changes.repository_id.unwrap_or(row.repository_id);
            row.hook_shell = changes.hook_shell.unwrap_or_else(|| row.hook_shell.clone());
            row.pre_hook = changes.pre_hook.unwrap_or_else(|| row.pre_hook.clone());
            row.post_hook = changes.post_hook.unwrap_or_else(|| row.post_hook.clone());
            row.bandwidth_up_kbps = changes.bandwidth_up_kbps.unwrap_or(row.bandwidth_up_kbps);
            row.bandwidth_down_kbps = changes.bandwidth_down_kbps.unwrap_or(row.bandwidth_down_kbps);
        }
        Work::PutGroup(group) => {
            let index = host_of(ledger, group.host_id);
            let groups = &mut ledger.hosts[index].groups;
            groups.retain(|row| row.name != group.name);
            groups.push((**group).clone());
        }
        Work::DeleteGroup(id, name) => {
            let index = host_of(ledger, *id);
            let host = &mut ledger.hosts[index];
            assert!(!host.schedules.iter().any(|row| row.source_groups.0.contains(name)), "{name} is scheduled");
            host.groups.retain(|row| row.name != *name);
        }
        Work::PutSchedule(schedule, _) => {
            let index = host_of(ledger, schedule.host_id);
            let host = &mut ledger.hosts[index];
            for group in &schedule.source_groups.0 {
                assert!(host.groups.iter().any(|row| row.name == *group), "no {group}");
            }
            host.schedules.retain(|row| row.id != schedule.id);
            host.schedules.push((**schedule).clone());
        }
        Work::NameSchedule(id, name) => {
            let all = ledger.hosts.iter_mut().flat_map(|host| &mut host.schedules);
            all.filter(|row| row.id == *id).for_each(|row| row.name = Some(name.clone()));
        }
        Work::DeleteSchedule(host, id) => {
            let index = host_of(ledger, *host);
            ledger.hosts[index].schedules.retain(|row| row.id != *id);
        }
    }
}

pub(super) fn set_secret(known: &mut KnownRepository, column: SecretColumn, secret: Option<&Secret>) {
    let sealed = secret.map(|_| SEALED.to_vec());
    match column {
        SecretColumn::Password => known.row.password = sealed.expect("every repository has one"),
        SecretColumn::Credential => known.row.credential = sealed,
        SecretColumn::AdminPassword => known.row.admin_password = sealed,
        SecretColumn::AdminCredential => known.row.admin_credential = sealed,
    }
    match secret {
        Some(secret) => known.secrets.insert(column, secret.clone()),
        None => known.secrets.remove(&column),
    };
}
