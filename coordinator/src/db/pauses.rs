//! What is paused: the fleet, a repository, a host.

use super::reach::Reach;
use super::schedules;
use super::schema::{hosts, pauses, repositories};
use crate::pauses::Pause;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

/// What can be paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Everything.
    Fleet,
    /// A repository.
    Repository(Uuid),
    /// A host.
    Host(Uuid),
}

impl Target {
    /// The word for it.
    pub const fn scope(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Repository(_) => "repository",
            Self::Host(_) => "host",
        }
    }

    /// The key of its row.
    pub const fn id(self) -> Uuid {
        match self {
            Self::Fleet => Uuid::nil(),
            Self::Repository(id) | Self::Host(id) => id,
        }
    }

    /// The host, if it is one.
    pub const fn host(self) -> Option<Uuid> {
        match self {
            Self::Host(id) => Some(id),
            Self::Fleet | Self::Repository(_) => None,
        }
    }

    /// The repository, if it is one.
    pub const fn repository(self) -> Option<Uuid> {
        match self {
            Self::Repository(id) => Some(id),
            Self::Fleet | Self::Host(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = pauses)]
struct Row {
    id: Uuid,
    host_id: Option<Uuid>,
    repository_id: Option<Uuid>,
    reason: String,
    paused_by: String,
    since: Timestamp,
}

impl From<Row> for (Target, Pause) {
    fn from(row: Row) -> Self {
        let target = match (row.host_id, row.repository_id) {
            (Some(id), _) => Target::Host(id),
            (None, Some(id)) => Target::Repository(id),
            (None, None) => Target::Fleet,
        };
        (target, Pause { reason: row.reason, by: row.paused_by, since: row.since })
    }
}

/// All that is paused.
///
/// # Errors
/// The database's.
pub async fn all(connection: &mut AsyncPgConnection) -> QueryResult<Vec<(Target, Pause)>> {
    let rows: Vec<Row> = pauses::table.select(Row::as_select()).load(connection).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// At most `limit` pauses, the longest first, from behind `after` (since when, the row's id); with `seen`, those of what is
/// seen, and the fleet's.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    seen: Option<&Reach>,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> QueryResult<Vec<(Target, Pause)>> {
    let mut query = pauses::table.select(Row::as_select()).into_boxed();
    if let Some(Reach { hosts, repositories }) = seen {
        let host = pauses::host_id.is_null().or(pauses::host_id.eq_any(hosts));
        let repository = pauses::repository_id.is_null().or(pauses::repository_id.eq_any(repositories));
        query = query.filter(host.assume_not_null().and(repository.assume_not_null()));
    }
    if let Some((since, id)) = after {
        let later = pauses::since.eq(since).and(pauses::id.gt(id));
        query = query.filter(pauses::since.gt(since).or(later));
    }
    let rows: Vec<Row> = query.order((pauses::since, pauses::id)).limit(limit).load(connection).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// How something is paused, if it is.
///
/// # Errors
/// The database's.
pub async fn of(connection: &mut AsyncPgConnection, target: Target) -> QueryResult<Option<Pause>> {
    Ok(find(connection, target).await?.map(|row| <(Target, Pause)>::from(row).1))
}

/// The row of a pause.
async fn find(connection: &mut AsyncPgConnection, target: Target) -> QueryResult<Option<Row>> {
    let row: Option<Row> =
        pauses::table.find(target.id()).select(Row::as_select()).first(connection).await.optional()?;
    // The fleet's key is no host's, but somebody may ask for a host of this id.
    Ok(row.filter(|row| row.host_id == target.host() && row.repository_id == target.repository()))
}

/// Whether there is such a thing, in service.
async fn is_there(connection: &mut AsyncPgConnection, target: Target) -> QueryResult<bool> {
    let found: Option<Uuid> = match target {
        Target::Fleet => return Ok(true),
        Target::Host(id) => {
            let in_service = hosts::table.find(id).filter(hosts::decommissioned_at.is_null());
            in_service.select(hosts::id).first(connection).await.optional()?
        }
        Target::Repository(id) => {
            repositories::table.find(id).select(repositories::id).first(connection).await.optional()?
        }
    };
    Ok(found.is_some())
}

/// The hosts whose schedules stand still while `target` is paused.
async fn concerned(connection: &mut AsyncPgConnection, target: Target) -> QueryResult<Vec<Uuid>> {
    let in_service = hosts::table.filter(hosts::decommissioned_at.is_null()).select(hosts::id).order(hosts::id);
    match target {
        Target::Fleet => in_service.load(connection).await,
        Target::Repository(id) => in_service.filter(hosts::repository_id.eq(id)).load(connection).await,
        Target::Host(id) => in_service.filter(hosts::id.eq(id)).load(connection).await,
    }
}

/// Begins a pause, or changes by whom and why; since when it lasts stays.
#[derive(Clone, Debug)]
pub struct Put {
    /// What.
    pub target: Target,
    /// Why, by whom, and now.
    pub pause: Pause,
}

impl Write for Put {
    /// The pause as it is then, and the hosts whose schedules stand still from now on; nothing if there is no such target.
    type Output = Option<(Pause, Vec<Uuid>)>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let Self { target, pause } = self;
        if !is_there(connection, *target).await? {
            return Ok(None);
        }
        let row = Row {
            id: target.id(),
            host_id: target.host(),
            repository_id: target.repository(),
            reason: pause.reason.clone(),
            paused_by: pause.by.clone(),
            since: pause.since,
        };
        let before = find(connection, *target).await?;
        let row: Row = diesel::insert_into(pauses::table)
            .values(&row)
            .on_conflict(pauses::id)
            .do_update()
            .set((pauses::reason.eq(&row.reason), pauses::paused_by.eq(&row.paused_by)))
            .returning(Row::as_returning())
            .get_result(connection)
            .await?;
        // A repeated write finds its own row, and says what the first one said.
        let began = row.since == pause.since;
        let stopped = if began { concerned(connection, *target).await? } else { Vec::new() };
        if before.is_none() {
            schedules::raise_versions(connection, &stopped).await?;
        }
        let (_, pause): (Target, Pause) = row.into();
        Ok(Some((pause, stopped)))
    }

    fn is_change(stored: &Self::Output) -> bool {
        stored.is_some()
    }
}

/// Ends a pause.
#[derive(Debug)]
pub struct Delete {
    target: Target,
    /// Set once the row was seen, so that a repeated write says what the first one said.
    seen: AtomicBool,
}

impl Delete {
    /// Ends the pause of `target`.
    pub fn new(target: Target) -> Self {
        Self { target, seen: AtomicBool::new(false) }
    }
}

impl Write for Delete {
    /// The hosts whose schedules go on; nothing if there was no pause.
    type Output = Option<Vec<Uuid>>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let gone = find(connection, self.target).await?.is_some();
        if !(self.seen.fetch_or(gone, Ordering::Relaxed) || gone) {
            return Ok(None);
        }
        let going_on = concerned(connection, self.target).await?;
        if gone {
            diesel::delete(pauses::table.find(self.target.id())).execute(connection).await?;
            schedules::raise_versions(connection, &going_on).await?;
        }
        Ok(Some(going_on))
    }

    fn is_change(ended: &Self::Output) -> bool {
        ended.is_some()
    }
}
