//! What has to be known of a host to plan a job on it.

use super::hosts::Host;
use super::repositories::Repository;
use super::schema::{hosts, repositories, source_groups};
use super::source_groups::SourceGroup;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use futures_util::future::try_join3;
use uuid::Uuid;

/// See the module's text.
#[derive(Debug)]
pub struct Planning {
    /// The host, which is in service.
    pub host: Host,
    /// Its repository, if it has one.
    pub repository: Option<Repository>,
    /// Its source groups, by name.
    pub groups: Vec<SourceGroup>,
}

/// Reads it in one round trip; `None` if there is no such host in service.
///
/// # Errors
/// The database's.
pub async fn of_host(connection: &AsyncPgConnection, host_id: Uuid) -> QueryResult<Option<Planning>> {
    // Each query has a handle of its own on the one connection, which sends all of them before the first is answered.
    let (mut first, mut second, mut third) = (connection, connection, connection);
    let in_service = hosts::id.eq(host_id).and(hosts::decommissioned_at.is_null());
    let host = hosts::table.filter(in_service).select(Host::as_select()).first(&mut first);
    let repository = repositories::table.inner_join(hosts::table).filter(hosts::id.eq(host_id));
    let repository = repository.select(Repository::as_select()).first(&mut second);
    let groups = source_groups::table.filter(source_groups::host_id.eq(host_id)).order(source_groups::name);
    let groups = groups.select(SourceGroup::as_select()).load(&mut third);
    let (host, repository, groups) =
        try_join3(host.map(OptionalExtension::optional), repository.map(OptionalExtension::optional), groups).await?;
    Ok(host.map(|host| Planning { host, repository, groups }))
}
