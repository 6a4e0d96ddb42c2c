//! What `/metrics` tells of the ledger: counts, and when backups of source groups have last succeeded.

use super::statement::statement;
use super::{hosts, overdue, runs};
use chrono::TimeDelta;
use diesel::QueryResult;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// What is wrong with repositories: the types of the problems in their `health`.
pub const PROBLEMS: [&str; 4] = ["runner_offline", "maintenance_overdue", "check_failed", "stale_lock"];

/// How many there are of something, by a word.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
pub struct Count {
    /// The word; absent for all of them.
    #[diesel(sql_type = Nullable<Text>)]
    pub word: Option<String>,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
}

/// When backups of a source group have succeeded.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
pub struct Group {
    /// Its host.
    #[diesel(sql_type = SqlUuid)]
    pub host_id: Uuid,
    /// What that is called.
    #[diesel(sql_type = Text)]
    pub hostname: String,
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// When one did.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_success_at: Option<Timestamp>,
    /// From when on it is overdue.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub overdue_at: Option<Timestamp>,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Hosts in service: online, offline.
    pub hosts: (i64, i64),
    /// Jobs that are not over, by status.
    pub open_jobs: Vec<Count>,
    /// Lost jobs that keep their lease.
    pub lost_jobs: i64,
    /// Runs that were due in the last 24 hours, by outcome.
    pub runs: Vec<(String, i64)>,
    /// Overdue backups, and maintenance.
    pub overdue: (i64, i64),
    /// All repositories.
    pub repositories: i64,
    /// Those with problems, by problem and in all.
    pub troubled: Vec<Count>,
    /// Source groups, as many as were asked for.
    pub groups: Vec<Group>,
}

/// Counts everything. A repository's runner may be offline for `runner_offline`; of source groups at most `groups` are read.
///
/// # Errors
/// The database's.
pub async fn read(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
    runner_offline: TimeDelta,
    groups: usize,
) -> QueryResult<Counts> {
    Ok(Counts {
        hosts: hosts::count(connection).await?,
        open_jobs: open_jobs(connection).await?,
        lost_jobs: number(
            connection,
            "SELECT count(*) AS count, NULL AS word FROM jobs WHERE lost_at IS NOT NULL AND released_at IS NULL",
        )
        .await?,
        runs: runs::count_since(connection, now - TimeDelta::days(1)).await?,
        overdue: overdue::count(connection, now).await?,
        repositories: number(connection, "SELECT count(*) AS count, NULL AS word FROM repositories").await?,
        troubled: troubled(connection, now, now - runner_offline).await?,
        groups: group_list(connection, i64::try_from(groups).unwrap_or(i64::MAX)).await?,
    })
}

async fn number(connection: &mut AsyncPgConnection, sql: &'static str) -> QueryResult<i64> {
    Ok(statement(sql).get_result::<Count>(connection).await?.count)
}

/// An index holds just these.
async fn open_jobs(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Count>> {
    statement("SELECT status AS word, count(*) AS count FROM jobs WHERE outcome = 'open' GROUP BY status")
        .load(connection)
        .await
}

/// The same problems as in the `health` of repositories. That ids are greater than none has all repositories read from an
/// index: where there is no other way than a sequential scan, its price has the server compile the statement, for a second.
async fn troubled(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
    runner_seen: Timestamp,
) -> QueryResult<Vec<Count>> {
    let query = statement(
        "WITH problems AS (
             SELECT repository_id, 'maintenance_overdue' AS word FROM maintenance WHERE overdue_at <= $1
             UNION
             SELECT repositories.id, 'runner_offline' FROM hosts JOIN repositories ON runner_host_id = hosts.id
                 WHERE NOT online AND decommissioned_at IS NULL AND coalesce(last_seen_at, hosts.created_at) < $2
                     AND repositories.id > '00000000-0000-0000-0000-000000000000'
             UNION
             SELECT repository_id, 'stale_lock' FROM stale_locks
             UNION
             SELECT repository_id, 'check_failed' FROM (
                 SELECT DISTINCT ON (repository_id) repository_id, value FROM repository_stats
                 WHERE field = 'last_check_status' ORDER BY repository_id, as_of DESC, host_id) AS newest
             WHERE value <> '\"ok\"'
         )
         SELECT word, count(DISTINCT repository_id) AS count FROM problems GROUP BY GROUPING SETS ((word), ())",
    );
    query.bind::<Timestamptz, _>(now).bind::<Timestamptz, _>(runner_seen).load(connection).await
}

/// Those that are overdue, the longest first; then those that will be, the next first; then those of which nothing is due.
async fn group_list(connection: &mut AsyncPgConnection, most: i64) -> QueryResult<Vec<Group>> {
    let due = statement(
        "SELECT host_id, hostname, name, last_success_at, overdue_at
         FROM (SELECT * FROM source_groups WHERE overdue_at IS NOT NULL ORDER BY overdue_at, host_id, name LIMIT $1) AS due
         JOIN hosts ON hosts.id = host_id",
    );
    let mut found: Vec<Group> = due.bind::<BigInt, _>(most).load(connection).await?;
    let left = most - i64::try_from(found.len()).unwrap_or(most);
    if left > 0 {
        // Few rows are passed over on the way, for those were found above.
        let others = statement(
            "SELECT host_id, hostname, name, last_success_at, overdue_at FROM source_groups
             JOIN hosts ON hosts.id = host_id AND decommissioned_at IS NULL
             WHERE overdue_at IS NULL ORDER BY host_id, name LIMIT $1",
        );
        found.extend(others.bind::<BigInt, _>(left).load::<Group>(connection).await?);
    }
    Ok(found)
}
