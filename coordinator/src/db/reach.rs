//! What a token that is limited to hosts with certain labels reaches.

use super::json::Json;
use super::schema::hosts;
use super::statement::statement;
use crate::access::Labels;
use crate::operation::select::Per;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Kind;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The hosts within a limit, those out of service too, and the repositories that those in service use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "said above")]
pub struct Reach {
    pub hosts: Vec<Uuid>,
    pub repositories: Vec<Uuid>,
}

/// What is within a limit.
///
/// # Errors
/// The database's.
pub async fn within(connection: &mut AsyncPgConnection, limit: &Labels) -> QueryResult<Reach> {
    let rows: Vec<(Uuid, Option<Uuid>, bool)> = hosts::table
        .filter(hosts::labels.contains(Json(limit.clone())))
        .select((hosts::id, hosts::repository_id, hosts::decommissioned_at.is_null()))
        .load(connection)
        .await?;
    let repositories: BTreeSet<Uuid> = rows.iter().filter(|row| row.2).filter_map(|row| row.1).collect();
    Ok(Reach { hosts: rows.iter().map(|row| row.0).collect(), repositories: repositories.into_iter().collect() })
}

/// A thing that belongs to hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named by their ids")]
pub enum Thing {
    Host(Uuid),
    Job(Uuid),
    Repository(Uuid),
    Operation(Uuid),
}

/// How much of a thing is within a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// None of its hosts, or there is no such thing.
    None,
    /// Some of its hosts.
    Some,
    /// All of its hosts.
    All,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Nullable<Bool>)]
    some: Option<bool>,
    #[diesel(sql_type = Nullable<Bool>)]
    all: Option<bool>,
}

/// How much of the hosts that pass a condition is within a limit.
macro_rules! over {
    ($hosts:literal) => {
        concat!(
            "WITH wanted AS (SELECT $1::jsonb AS labels, $2::uuid AS id)
             SELECT bool_or(hosts.labels @> wanted.labels) AS some, bool_and(hosts.labels @> wanted.labels) AS all
             FROM wanted, hosts WHERE ",
            $hosts
        )
    };
}

/// How much of `thing` is within `limit`.
///
/// # Errors
/// The database's.
pub async fn share(connection: &mut AsyncPgConnection, thing: Thing, limit: &Labels) -> QueryResult<Share> {
    let (query, id) = match thing {
        Thing::Host(id) => (over!("hosts.id = wanted.id"), id),
        Thing::Job(id) => (over!("hosts.id = (SELECT jobs.host_id FROM jobs WHERE jobs.id = wanted.id)"), id),
        Thing::Repository(id) => (over!("hosts.repository_id = wanted.id AND hosts.decommissioned_at IS NULL"), id),
        Thing::Operation(id) => (
            over!(
                "hosts.id IN (SELECT jobs.host_id FROM jobs WHERE jobs.operation_id = wanted.id
                     UNION SELECT meant.host_id FROM operation_skipped AS meant WHERE meant.operation_id = wanted.id)"
            ),
            id,
        ),
    };
    let query = statement(query).bind::<Jsonb, _>(Json(limit.clone())).bind::<SqlUuid, _>(id);
    let row: Row = query.get_result(connection).await?;
    Ok(match (row.some, row.all) {
        (_, Some(true)) => Share::All,
        (Some(true), _) => Share::Some,
        _ => Share::None,
    })
}

/// Whether all hosts in service are within `limit` that use a repository for which a job is done as a whole, or one of an
/// operation's jobs.
///
/// # Errors
/// The database's.
pub async fn covers_repositories(
    connection: &mut AsyncPgConnection,
    thing: Thing,
    limit: &Labels,
) -> QueryResult<bool> {
    let (query, id) = match thing {
        Thing::Host(_) | Thing::Repository(_) => return Ok(true),
        Thing::Job(id) => (
            over!(
                "hosts.decommissioned_at IS NULL AND hosts.repository_id = (
                     SELECT jobs.repository_id FROM jobs WHERE jobs.id = wanted.id AND jobs.kind = ANY ($3))"
            ),
            id,
        ),
        Thing::Operation(id) => (
            over!(
                "hosts.decommissioned_at IS NULL AND hosts.repository_id IN (
                     SELECT jobs.repository_id FROM jobs WHERE jobs.operation_id = wanted.id AND jobs.kind = ANY ($3))"
            ),
            id,
        ),
    };
    let whole = Kind::ALL.iter().filter(|kind| Per::of(**kind) == Per::Repository).map(|kind| kind.as_str());
    let query = statement(query).bind::<Jsonb, _>(Json(limit.clone())).bind::<SqlUuid, _>(id);
    let query = query.bind::<Array<Text>, _>(whole.collect::<Vec<_>>());
    let row: Row = query.get_result(connection).await?;
    Ok(row.all.unwrap_or(true))
}
