//! Locks that jobs have met in their repositories and that nobody seems to hold any more. They stay until a job shows that
//! they are gone.

use super::json::Json;
use super::runs::{Ending, Outcome, column};
use super::schema::stale_locks;
use super::statement::statement;
use super::storable;
use crate::maintenance::KINDS;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Kind, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Characters of a text that an agent may say about a lock; a host name has up to 253.
const LONGEST: usize = 255;

/// How the lock's holder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// As far as the agent can tell that met it.
    Held,
    /// Its process is not running any more, on the host of the job that met it.
    Dead,
    /// It was not renewed for half an hour.
    Abandoned,
}

/// A lock, as the agent of a job that met it reports it in `stats.lock`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the names are those of the agent's report")]
pub struct Lock {
    #[serde(default)]
    pub exclusive: bool,
    pub pid: Option<i64>,
    pub hostname: Option<String>,
    pub username: Option<String>,
    pub since: Option<Timestamp>,
    pub id: Option<String>,
    pub standing: Standing,
}

impl Lock {
    /// The lock that kept a job from its work, by the `stats` of the job.
    pub fn in_stats(stats: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct LockedOut {
            lock: Lock,
        }
        let LockedOut { lock } = serde_json::from_str(stats).ok()?;
        let short = |text: Option<String>| text.map(|text| storable(&text).chars().take(LONGEST).collect());
        let Lock { hostname, username, id, .. } = lock;
        Some(Lock { hostname: short(hostname), username: short(username), id: short(id), ..lock })
    }

    /// What tells it from other locks of its repository.
    pub(crate) fn key(&self) -> String {
        let Lock { id, hostname, pid, .. } = self;
        let holder = || format!("{} {}", hostname.as_deref().unwrap_or_default(), pid.unwrap_or_default());
        id.clone().unwrap_or_else(holder)
    }
}

/// A stale lock as it stands in its row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = stale_locks)]
#[allow(missing_docs, reason = "the columns; the migration says what they mean")]
pub struct StaleLock {
    pub repository_id: Uuid,
    pub host_id: Uuid,
    pub job_id: Uuid,
    pub lock: Json<Lock>,
    pub met_at: Timestamp,
}

/// The stale locks of these repositories, those met first before the others.
///
/// # Errors
/// The database's.
pub async fn of_repositories(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<Vec<StaleLock>> {
    stale_locks::table
        .filter(stale_locks::repository_id.eq_any(ids))
        .order((stale_locks::met_at, stale_locks::lock_id))
        .select(StaleLock::as_select())
        .load(connection)
        .await
}

/// Notes the locks that jobs have met, and that locks are gone.
///
/// # Errors
/// The database's.
pub(super) async fn note(connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
    let met: Vec<&Ending> = endings.iter().copied().filter(|ending| ending.lock.is_some()).collect();
    let shows = |ending: &&Ending| {
        ending.outcome == Outcome::Succeeded && (ending.kind == Kind::Unlock.as_str() || had_it_alone(ending))
    };
    let gone: Vec<&Ending> = endings.iter().copied().filter(shows).collect();
    forget(connection, &gone).await?;
    put(connection, &met).await
}

/// Maintenance that has had a repository for itself: there was no lock in it.
fn had_it_alone(ending: &Ending) -> bool {
    ending.whole && KINDS.iter().any(|kind| kind.as_str() == ending.kind)
}

async fn put(mut connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
    let locks: Vec<&Lock> = endings.iter().filter_map(|ending| ending.lock.as_deref()).collect();
    if locks.is_empty() {
        return Ok(());
    }
    // Whether a process runs on another host can't be seen. But no job of the fleet is out there that holds the lock, or this
    // one had not been let go; so it is offered, and restic looks on that host before it removes it.
    let query = statement(
        "INSERT INTO stale_locks (repository_id, lock_id, host_id, job_id, lock, met_at)
         SELECT DISTINCT ON (met.repository_id, met.lock_id) met.repository_id, met.lock_id,
             CASE WHEN met.held THEN holders.id ELSE met.host_id END, met.job_id, met.lock, met.at
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
             AS met (repository_id, lock_id, host_id, job_id, lock, hostname, held, at)
         LEFT JOIN hosts holders ON holders.repository_id = met.repository_id AND holders.hostname = met.hostname
             AND holders.id <> met.host_id AND holders.decommissioned_at IS NULL
         WHERE holders.id IS NOT NULL OR NOT met.held
         ORDER BY met.repository_id, met.lock_id, met.at DESC
         ON CONFLICT (repository_id, lock_id) DO UPDATE SET host_id = excluded.host_id, job_id = excluded.job_id,
             lock = excluded.lock, met_at = excluded.met_at",
    );
    query
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.repository_id))
        .bind::<Array<Text>, _>(locks.iter().map(|lock| lock.key()).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.host_id))
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.job_id))
        .bind::<Array<Jsonb>, _>(locks.iter().map(|&lock| Json(lock.clone())).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(locks.iter().map(|lock| lock.hostname.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Bool>, _>(locks.iter().map(|lock| lock.standing == Standing::Held).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(column(endings, |ending| ending.at))
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// An unlock removes what is dead on its host, and what was abandoned anywhere.
async fn forget(mut connection: &AsyncPgConnection, endings: &[&Ending]) -> QueryResult<()> {
    if endings.is_empty() {
        return Ok(());
    }
    let query = statement(
        "DELETE FROM stale_locks USING unnest($1, $2, $3, $4) AS gone (repository_id, host_id, all_of_them, at)
         WHERE stale_locks.repository_id = gone.repository_id AND stale_locks.met_at <= gone.at
             AND (gone.all_of_them OR stale_locks.host_id = gone.host_id
                 OR stale_locks.lock->>'standing' = 'abandoned')",
    );
    query
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.repository_id))
        .bind::<Array<SqlUuid>, _>(column(endings, |ending| ending.host_id))
        .bind::<Array<Bool>, _>(column(endings, had_it_alone))
        .bind::<Array<Timestamptz>, _>(column(endings, |ending| ending.at))
        .execute(&mut connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_from_what_an_agent_says_and_nothing_else_is_one() {
        let stats = r#"{"lock": {"exclusive": true, "pid": 7, "hostname": "db\u0000-1", "standing": "dead"}, "waited_seconds": 3}"#;
        let lock = Lock::in_stats(stats).expect("a lock");
        assert_eq!((lock.pid, lock.standing, lock.exclusive, lock.since), (Some(7), Standing::Dead, true, None));
        assert_eq!((lock.hostname.as_deref(), lock.key().as_str()), (Some("db\u{fffd}-1"), "db\u{fffd}-1 7"));
        let long = format!(r#"{{"lock": {{"id": "{}", "standing": "held"}}}}"#, "x".repeat(9_999));
        assert_eq!(Lock::in_stats(&long).and_then(|lock| lock.id).map(|id| id.len()), Some(LONGEST));
        for other in ["", "{}", r#"{"lock": 1}"#, r#"{"lock": {"standing": "odd"}}"#, r#"{"files_new": 3}"#] {
            assert_eq!(Lock::in_stats(other), None, "{other}");
        }
    }
}
