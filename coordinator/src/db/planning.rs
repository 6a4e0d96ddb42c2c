//! What has to be known of a host to plan a job on it.

use super::hosts::Host;
use super::json::Json;
use super::lookup::Source;
use super::repositories::Repository;
use super::schema::{hosts, repositories, source_groups};
use super::source_groups::SourceGroup;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::try_join3;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// See the module's text.
#[derive(Debug)]
pub struct Planning {
    /// The host, which is in service.
    pub host: Host,
    /// Its repository, if it has one.
    pub repository: Option<Arc<Repository>>,
    /// Its source groups, by name.
    pub groups: Vec<SourceGroup>,
}

/// The hosts of repositories, by the repositories' ids; for what concerns a whole repository.
#[derive(Debug)]
pub struct OfRepositories;

impl OfRepositories {
    /// What jobs of these repositories are planned with, for each of their hosts in service.
    ///
    /// # Errors
    /// The database's.
    pub async fn find(
        connection: &mut AsyncPgConnection,
        ids: &[Uuid],
    ) -> QueryResult<HashMap<Uuid, Vec<Arc<Planning>>>> {
        let of_repositories = hosts::repository_id.eq_any(ids).and(hosts::decommissioned_at.is_null());
        let of_repositories: Vec<Uuid> =
            hosts::table.filter(of_repositories).select(hosts::id).load(connection).await?;
        let mut found: HashMap<Uuid, Vec<Arc<Planning>>> = HashMap::new();
        for planning in OfHost::find(connection, &of_repositories).await?.into_values() {
            if let Some(repository) = planning.host.repository_id {
                found.entry(repository).or_default().push(planning);
            }
        }
        // In the same order whenever they are asked for.
        found.values_mut().for_each(|hosts| hosts.sort_by_key(|planning| planning.host.id));
        Ok(found)
    }
}

impl Planning {
    /// The host's repository, if it has one.
    pub fn repository_id(&self) -> Option<Uuid> {
        self.host.repository_id
    }
}

/// Which hosts an operation means: those for which all that is given holds.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these.
    pub ids: Option<Vec<Uuid>>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only those that are online, or only those that are not.
    pub online: Option<bool>,
    /// Only those that use it.
    pub repository_id: Option<Uuid>,
}

/// The hosts in service that a selection means, with what jobs are planned with: four queries, however many they are.
///
/// # Errors
/// The database's.
pub async fn of_selection(connection: &mut AsyncPgConnection, which: &Selection) -> QueryResult<Vec<Arc<Planning>>> {
    let mut query = hosts::table.filter(hosts::decommissioned_at.is_null()).select(hosts::id).into_boxed();
    if let Some(ids) = &which.ids {
        query = query.filter(hosts::id.eq_any(ids));
    }
    if !which.labels.is_empty() {
        query = query.filter(hosts::labels.contains(Json(which.labels.clone())));
    }
    if let Some(online) = which.online {
        query = query.filter(hosts::online.eq(online));
    }
    if let Some(repository_id) = which.repository_id {
        query = query.filter(hosts::repository_id.eq(repository_id));
    }
    let ids: Vec<Uuid> = query.load(connection).await?;
    Ok(OfHost::find(connection, &ids).await?.into_values().collect())
}

/// Hosts that are in service, by their ids.
#[derive(Debug)]
pub struct OfHost;

impl Source for OfHost {
    type Key = Uuid;
    type Value = Arc<Planning>;

    async fn find(connection: &AsyncPgConnection, keys: &[Uuid]) -> QueryResult<HashMap<Uuid, Arc<Planning>>> {
        // Each query has a handle of its own on the one connection, which sends all of them before the first is answered.
        let (mut first, mut second, mut third) = (connection, connection, connection);
        let in_service = hosts::id.eq_any(keys).and(hosts::decommissioned_at.is_null());
        let their = hosts::table.filter(hosts::id.eq_any(keys)).select(hosts::repository_id.assume_not_null());
        let (hosts, repositories, groups) = try_join3(
            hosts::table.filter(in_service).select(Host::as_select()).load(&mut first),
            repositories::table
                .filter(repositories::id.eq_any(their))
                .select(Repository::as_select())
                .load(&mut second),
            source_groups::table
                .filter(source_groups::host_id.eq_any(keys))
                .order((source_groups::host_id, source_groups::name))
                .select(SourceGroup::as_select())
                .load::<SourceGroup>(&mut third),
        )
        .await?;
        let repositories: HashMap<Uuid, Arc<Repository>> =
            repositories.into_iter().map(|row: Repository| (row.id, Arc::new(row))).collect();
        let mut groups_of: HashMap<Uuid, Vec<SourceGroup>> = HashMap::new();
        for group in groups {
            groups_of.entry(group.host_id).or_default().push(group);
        }
        let planning = |host: Host| {
            let repository = host.repository_id.and_then(|id| repositories.get(&id)).map(Arc::clone);
            let groups = groups_of.remove(&host.id).unwrap_or_default();
            (host.id, Arc::new(Planning { host, repository, groups }))
        };
        Ok(hosts.into_iter().map(planning).collect())
    }
}
