//! Reads all that documents are about.

use crate::db::hosts::Host;
use crate::db::jobs::is_open;
use crate::db::maintenance::Entry;
use crate::db::repositories::{Repository, SecretColumn};
use crate::db::schedules::Schedule;
use crate::db::schema::{hosts, jobs, maintenance, repositories, schedules, source_groups};
use crate::db::source_groups::SourceGroup;
use crate::fleet::ledger::{KnownHost, KnownRepository, Ledger};
use crate::fleet::wanted::Wanted;
use crate::vault::Vault;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Secret;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// Reads all that a document can be about; whether repositories have a history only of those that `wanted` lets go.
///
/// # Errors
/// The database's.
pub async fn load(connection: &mut AsyncPgConnection, vault: &Vault, wanted: Option<&Wanted>) -> QueryResult<Ledger> {
    let in_service = hosts::decommissioned_at.is_null();
    let rows: Vec<Host> = hosts::table
        .filter(in_service)
        .order((hosts::created_at, hosts::id))
        .select(Host::as_select())
        .load(connection)
        .await?;
    let group_rows: Vec<SourceGroup> = source_groups::table
        .inner_join(hosts::table)
        .filter(in_service)
        .order((source_groups::host_id, source_groups::name))
        .select(SourceGroup::as_select())
        .load(connection)
        .await?;
    let schedule_rows: Vec<Schedule> = schedules::table
        .inner_join(hosts::table)
        .filter(in_service.and(schedules::deleted_at.is_null()))
        .order((schedules::host_id, schedules::created_at, schedules::id))
        .select(Schedule::as_select())
        .load(connection)
        .await?;
    let (mut groups, mut schedules) = (by(group_rows, |row| row.host_id), by(schedule_rows, |row| row.host_id));
    let host = |row: Host| KnownHost {
        groups: groups.remove(&row.id).unwrap_or_default(),
        schedules: schedules.remove(&row.id).unwrap_or_default(),
        row,
    };
    let hosts = rows.into_iter().map(host).collect();
    let mut ledger = Ledger { repositories: known_repositories(connection, vault).await?, hosts };
    if let Some(wanted) = wanted {
        let candidates = ledger.deletable(wanted);
        let used = with_history(connection, &candidates).await?;
        ledger.repositories.iter_mut().for_each(|known| known.has_history = used.contains(&known.row.id));
    }
    Ok(ledger)
}

fn by<T>(rows: Vec<T>, key: impl Fn(&T) -> Uuid) -> HashMap<Uuid, Vec<T>> {
    let mut found: HashMap<Uuid, Vec<T>> = HashMap::new();
    for row in rows {
        found.entry(key(&row)).or_default().push(row);
    }
    found
}

async fn known_repositories(connection: &mut AsyncPgConnection, vault: &Vault) -> QueryResult<Vec<KnownRepository>> {
    let rows: Vec<Repository> =
        repositories::table.order(repositories::name).select(Repository::as_select()).load(connection).await?;
    let entries: Vec<Entry> = maintenance::table
        .order((maintenance::repository_id, maintenance::kind))
        .select(Entry::as_select())
        .load(connection)
        .await?;
    let open = jobs::table.filter(is_open()).select(jobs::repository_id).distinct();
    let busy: HashSet<Uuid> = open.load(connection).await?.into_iter().collect();
    let mut entries = by(entries, |entry| entry.repository_id);
    let known = |row: Repository| KnownRepository {
        secrets: opened(&row, vault),
        entries: entries.remove(&row.id).unwrap_or_default(),
        busy: busy.contains(&row.id),
        has_history: false,
        row,
    };
    Ok(rows.into_iter().map(known).collect())
}

/// The secrets of a repository; without one that does not open, which is replaced by whatever is asked for.
fn opened(row: &Repository, vault: &Vault) -> BTreeMap<SecretColumn, Secret> {
    let open = |column: SecretColumn| Some((column, row.secret(vault, column).ok().flatten()?));
    SecretColumn::ALL.into_iter().filter_map(open).collect()
}

/// Those of these repositories that jobs have worked on.
async fn with_history(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<HashSet<Uuid>> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let used = jobs::table.filter(jobs::repository_id.eq_any(ids)).select(jobs::repository_id).distinct();
    Ok(used.load(connection).await?.into_iter().collect())
}
