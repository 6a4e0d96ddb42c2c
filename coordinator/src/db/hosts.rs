//! Hosts: who they are, what their agents last said, and their settings.

use super::jobs::{is_open, matters};
use super::json::Json;
use super::lookup::Source;
use super::maintenance;
use super::schedules;
use super::schema::{enrollment_tokens, hosts, jobs, pauses};
use crate::persistence::Write;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// The number of the lock that moving a host to another repository takes: "fleetr" in ASCII.
const MOVING: i64 = 0x66_6c_65_65_74_72;

/// A host, whole but for its token's hash.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = hosts)]
#[allow(missing_docs, reason = "the columns; the migration says what needs saying")]
pub struct Host {
    pub id: Uuid,
    pub hostname: String,
    pub os: String,
    pub arch: String,
    pub labels: Json<BTreeMap<String, String>>,
    pub repository_id: Option<Uuid>,
    pub agent_version: Option<String>,
    pub restic_version: Option<String>,
    pub protocol_version: Option<i64>,
    pub capabilities: Json<Vec<String>>,
    pub journal: Option<String>,
    pub previous_journal: Option<String>,
    pub cloned_at: Option<Timestamp>,
    pub boot_time: Option<Timestamp>,
    pub online: bool,
    pub last_seen_at: Option<Timestamp>,
    pub hook_shell: Option<String>,
    pub pre_hook: Option<String>,
    pub post_hook: Option<String>,
    pub bandwidth_up_kbps: Option<i64>,
    pub bandwidth_down_kbps: Option<i64>,
    pub schedule_version: i64,
    pub applied_schedule_version: Option<i64>,
    pub initialized_repository_id: Option<Uuid>,
    pub snapshots_as_of: Option<Timestamp>,
    pub created_at: Timestamp,
    pub decommissioned_at: Option<Timestamp>,
}

/// One host, decommissioned or not.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Host>> {
    hosts::table.find(id).select(Host::as_select()).first(connection).await.optional()
}

/// The host whose agent has the token with this hash.
///
/// # Errors
/// The database's.
pub async fn by_token(connection: &mut AsyncPgConnection, token_hash: &[u8]) -> QueryResult<Option<Uuid>> {
    hosts::table
        .filter(hosts::token_hash.eq(token_hash).and(hosts::decommissioned_at.is_null()))
        .select(hosts::id)
        .first(connection)
        .await
        .optional()
}

/// Hosts in service by the hashes of their agents' tokens.
#[derive(Debug)]
pub struct ByToken;

impl Source for ByToken {
    type Key = Vec<u8>;
    type Value = Uuid;

    async fn find(mut connection: &AsyncPgConnection, hashes: &[Vec<u8>]) -> QueryResult<HashMap<Vec<u8>, Uuid>> {
        let of_tokens = hosts::token_hash.eq_any(hashes).and(hosts::decommissioned_at.is_null());
        let rows = hosts::table.filter(of_tokens).select((hosts::token_hash.assume_not_null(), hosts::id));
        Ok(rows.load(&mut connection).await?.into_iter().collect())
    }
}

/// The hosts that were online when the coordinator last wrote it down, with when they were last heard of.
///
/// # Errors
/// The database's.
pub async fn online(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Uuid>> {
    hosts::table.filter(hosts::online).select(hosts::id).load(connection).await
}

/// Notes the version of the schedules that an agent has applied.
///
/// # Errors
/// The database's.
pub async fn schedule_applied(connection: &mut AsyncPgConnection, id: Uuid, version: i64) -> QueryResult<()> {
    diesel::update(hosts::table.find(id)).set(hosts::applied_schedule_version.eq(version)).execute(connection).await?;
    Ok(())
}

/// These hosts, without the decommissioned ones.
///
/// # Errors
/// The database's.
pub async fn find_many(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<Vec<Host>> {
    hosts::table
        .filter(hosts::id.eq_any(ids).and(hosts::decommissioned_at.is_null()))
        .select(Host::as_select())
        .load(connection)
        .await
}

#[cfg(test)]
impl Host {
    /// A host for tests, of which nothing is known.
    pub(crate) fn sample(id: Uuid) -> Self {
        Self {
            id,
            hostname: "web1".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            labels: Json::default(),
            repository_id: None,
            agent_version: None,
            restic_version: None,
            protocol_version: None,
            capabilities: Json::default(),
            journal: None,
            previous_journal: None,
            cloned_at: None,
            boot_time: None,
            online: true,
            last_seen_at: None,
            hook_shell: None,
            pre_hook: None,
            post_hook: None,
            bandwidth_up_kbps: None,
            bandwidth_down_kbps: None,
            schedule_version: 1,
            applied_schedule_version: None,
            initialized_repository_id: None,
            snapshots_as_of: None,
            created_at: Timestamp::UNIX_EPOCH,
            decommissioned_at: None,
        }
    }
}

/// Hosts by what they are called and carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only those of this name.
    pub hostname: Option<String>,
    /// Only those with all of these labels.
    pub labels: Vec<(String, String)>,
}

impl Wanted {
    /// Whether all hosts are wanted.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

/// The ids of hosts, in service or not.
///
/// # Errors
/// The database's.
pub async fn ids(connection: &mut AsyncPgConnection, wanted: &Wanted) -> QueryResult<Vec<Uuid>> {
    let mut query = hosts::table.select(hosts::id).into_boxed();
    for label in wanted.labels.iter().cloned() {
        query = query.filter(hosts::labels.contains(Json(BTreeMap::from([label]))));
    }
    if let Some(hostname) = &wanted.hostname {
        query = query.filter(hosts::hostname.eq(hostname.clone()));
    }
    query.load(connection).await
}

/// Which hosts a list holds. Absent means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those that are online, or only those that are not.
    pub online: Option<bool>,
    /// Those out of service, instead of those in it.
    pub decommissioned: bool,
    /// Only those of a repository.
    pub repository_id: Option<Uuid>,
    /// Only those that are like that.
    pub wanted: Wanted,
    /// Only what comes after this (creation time, id) in the list.
    pub after: Option<(Timestamp, Uuid)>,
}

/// At most `limit` hosts, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(connection: &mut AsyncPgConnection, filter: &Filter, limit: i64) -> QueryResult<Vec<Host>> {
    let mut query = hosts::table.select(Host::as_select()).into_boxed();
    query = match filter.decommissioned {
        true => query.filter(hosts::decommissioned_at.is_not_null()),
        false => query.filter(hosts::decommissioned_at.is_null()),
    };
    if let Some(repository_id) = filter.repository_id {
        query = query.filter(hosts::repository_id.eq(repository_id));
    }
    if let Some(hostname) = &filter.wanted.hostname {
        query = query.filter(hosts::hostname.eq(hostname.clone()));
    }
    // Not as parameters, for an index holds just those that are offline. Statistics are older than what was online a moment
    // ago: they could make the planner sort all hosts for one page, so it isn't let know what this is about.
    match filter.online {
        Some(true) => query = query.filter(sql::<Bool>("coalesce(hosts.online, false)")),
        Some(false) => query = query.filter(diesel::dsl::not(hosts::online)),
        None => {}
    }
    for (name, value) in &filter.wanted.labels {
        let label = BTreeMap::from([(name.clone(), value.clone())]);
        query = query.filter(hosts::labels.contains(Json(label)));
    }
    if let Some((created_at, id)) = filter.after {
        // Of rows, so that the index is entered there.
        let place = sql::<Bool>("(hosts.created_at, hosts.id) > (").bind::<Timestamptz, _>(created_at);
        query = query.filter(place.sql(", ").bind::<SqlUuid, _>(id).sql(")"));
    }
    query.order((hosts::created_at, hosts::id)).limit(limit).load(connection).await
}

/// The repositories of these hosts, of those that have one.
///
/// # Errors
/// The database's.
pub async fn repositories_of(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<HashMap<Uuid, Uuid>> {
    let assigned = hosts::table.filter(hosts::id.eq_any(ids).and(hosts::repository_id.is_not_null()));
    let rows: Vec<(Uuid, Uuid)> =
        assigned.select((hosts::id, hosts::repository_id.assume_not_null())).load(connection).await?;
    Ok(rows.into_iter().collect())
}

/// How many hosts there are: (online, offline).
///
/// # Errors
/// The database's.
pub async fn count(connection: &mut AsyncPgConnection) -> QueryResult<(i64, i64)> {
    let in_service = hosts::table.filter(hosts::decommissioned_at.is_null());
    let all: i64 = in_service.count().get_result(connection).await?;
    let offline: i64 = in_service.filter(diesel::dsl::not(hosts::online)).count().get_result(connection).await?;
    Ok((all - offline, offline))
}

/// The hosts that use a repository, without the decommissioned ones.
///
/// # Errors
/// The database's.
pub async fn using(connection: &mut AsyncPgConnection, repository_id: Uuid) -> QueryResult<Vec<Uuid>> {
    hosts::table
        .filter(hosts::repository_id.eq(repository_id).and(hosts::decommissioned_at.is_null()))
        .select(hosts::id)
        .load(connection)
        .await
}

/// The hosts that were taken out of service while they had jobs that are not over or hold a lease.
///
/// # Errors
/// The database's.
pub async fn removed_with_open_jobs(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Uuid>> {
    hosts::table
        .inner_join(jobs::table)
        .filter(hosts::decommissioned_at.is_not_null())
        .filter(matters())
        .select(hosts::id)
        .distinct()
        .load(connection)
        .await
}

/// Whether a host has jobs that are not over.
///
/// # Errors
/// The database's.
pub async fn has_open_jobs(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<bool> {
    let open = jobs::table.filter(jobs::host_id.eq(id).and(is_open()));
    diesel::select(diesel::dsl::exists(open)).get_result(connection).await
}

/// Keeps hosts in their repositories until the transaction is over. Whoever moves one waits, and who moves one is waited
/// for.
///
/// # Errors
/// The database's.
pub async fn hold_in_repositories(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    let hold = diesel::sql_query("SELECT pg_advisory_xact_lock_shared($1)").bind::<BigInt, _>(MOVING);
    hold.execute(connection).await.map(|_| ())
}

/// What an operator changes of a host. `None` leaves a column alone, `Some(None)` empties it.
#[derive(Clone, Debug, Default, PartialEq, AsChangeset)]
#[diesel(table_name = hosts)]
#[allow(missing_docs, reason = "the columns")]
pub struct Changes {
    pub labels: Option<Json<BTreeMap<String, String>>>,
    pub repository_id: Option<Option<Uuid>>,
    pub hook_shell: Option<Option<String>>,
    pub pre_hook: Option<Option<String>>,
    pub post_hook: Option<Option<String>>,
    pub bandwidth_up_kbps: Option<Option<i64>>,
    pub bandwidth_down_kbps: Option<Option<i64>>,
}

impl Changes {
    /// Whether schedules are made of it: hooks of the host are those of its groups that have none.
    fn touch_schedules(&self, before: &Host) -> bool {
        let differs = |hook: &Option<Option<String>>, before| hook.as_ref().is_some_and(|hook| hook != before);
        differs(&self.pre_hook, &before.pre_hook) || differs(&self.post_hook, &before.post_hook)
    }
}

/// Changes a host.
#[derive(Clone, Debug)]
pub struct Change {
    /// The host.
    pub id: Uuid,
    /// What to change of it.
    pub changes: Changes,
}

/// What came of a [`Change`].
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// The host as it is then.
    Done(Box<Host>),
    /// There is no such host.
    NotFound,
    /// Its repository can't change: jobs that are not over have a lease on the one that it has.
    Busy,
    /// Its repository can't change: it is the runner of the one that it has.
    Runner,
}

impl Write for Change {
    type Output = Changed;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let Some(before) = find(connection, self.id).await?.filter(|host| host.decommissioned_at.is_none()) else {
            return Ok(Changed::NotFound);
        };
        if self.changes == Changes::default() {
            return Ok(Changed::Done(Box::new(before)));
        }
        let moves = self.changes.repository_id.is_some_and(|repository| repository != before.repository_id);
        if moves {
            // An operation that is being made beside this transaction may have jobs for the host.
            diesel::sql_query("SELECT pg_advisory_xact_lock($1)").bind::<BigInt, _>(MOVING).execute(connection).await?;
        }
        if moves && has_open_jobs(connection, self.id).await? {
            return Ok(Changed::Busy);
        }
        let stays = self.changes.repository_id.unwrap_or(before.repository_id);
        if moves && maintenance::is_runner(connection, self.id, stays).await? {
            return Ok(Changed::Runner);
        }
        // Another repository may be paused where this one is not.
        if moves || self.changes.touch_schedules(&before) {
            schedules::changed(connection, self.id).await?;
        }
        let changed = diesel::update(hosts::table.find(self.id).filter(hosts::decommissioned_at.is_null()))
            .set(self.changes.clone())
            .returning(Host::as_returning())
            .get_result(connection)
            .await
            .optional()?;
        Ok(changed.map_or(Changed::NotFound, |host| Changed::Done(Box::new(host))))
    }

    fn is_change(changed: &Changed) -> bool {
        matches!(changed, Changed::Done(_))
    }
}

/// Takes a host out of service: its token is no longer good and no list shows it; its history stays.
#[derive(Clone, Debug)]
pub struct Decommission {
    /// The host.
    pub id: Uuid,
    /// Now.
    pub at: Timestamp,
}

/// What came of a [`Decommission`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decommissioned {
    /// It is out of service.
    Done,
    /// There is no such host.
    NotFound,
    /// It is the runner of a repository.
    Runner,
}

impl Write for Decommission {
    type Output = Decommissioned;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        if maintenance::is_runner(connection, self.id, None).await? {
            return Ok(Decommissioned::Runner);
        }
        // The second condition makes a repeated write say what the first one said.
        let there = hosts::decommissioned_at.is_null().or(hosts::decommissioned_at.eq(self.at));
        let found = diesel::update(hosts::table.find(self.id).filter(there))
            .set((hosts::decommissioned_at.eq(self.at), hosts::token_hash.eq(None::<Vec<u8>>), hosts::online.eq(false)))
            .execute(connection)
            .await?;
        schedules::end_all(connection, self.id, self.at).await?;
        diesel::delete(pauses::table.find(self.id)).execute(connection).await?;
        diesel::delete(enrollment_tokens::table.filter(enrollment_tokens::host_id.eq(self.id)))
            .execute(connection)
            .await?;
        Ok(if found > 0 { Decommissioned::Done } else { Decommissioned::NotFound })
    }

    fn is_change(done: &Decommissioned) -> bool {
        *done == Decommissioned::Done
    }
}
