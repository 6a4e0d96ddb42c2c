//! What agents say in their hello, written down for many at once: after a restart all of them come at one time.

use super::hosts::{self, Host};
use super::json::Json;
use super::repositories::{self, Repository};
use super::schedules::{self, Schedule};
use super::schema::hosts as table;
use super::source_groups::{self, SourceGroup};
use super::statement::statement;
use super::storable;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Hello, JournalId, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// A hello to be written down.
#[derive(Debug)]
pub struct NewHello {
    /// Whose.
    pub host_id: Uuid,
    /// What it says.
    pub hello: Box<Hello>,
    /// When it came.
    pub at: Timestamp,
}

/// A host as its session needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    /// The host.
    pub host: Host,
    /// Its repository, if it has one.
    pub repository: Option<Arc<Repository>>,
    /// Its schedules, oldest first.
    pub schedules: Vec<Schedule>,
    /// Its source groups, if it has schedules.
    pub groups: Vec<SourceGroup>,
}

impl Greeting {
    /// The repository that the host has yet to initialise.
    pub fn init(&self) -> Option<Uuid> {
        self.host.repository_id.filter(|id| self.host.initialized_repository_id != Some(*id))
    }
}

/// The journals that a host's token was used with.
#[derive(Clone, Debug, PartialEq, Queryable)]
struct Journals {
    current: Option<String>,
    previous: Option<String>,
    /// Since when it is known that two agents share the token.
    cloned_at: Option<Timestamp>,
}

impl Journals {
    /// Those of hosts in service.
    async fn of(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<HashMap<Uuid, Self>> {
        let rows = table::table
            .filter(table::id.eq_any(ids).and(table::decommissioned_at.is_null()))
            .select((table::id, (table::journal, table::previous_journal, table::cloned_at)));
        Ok(rows.load(connection).await?.into_iter().collect())
    }

    /// A new journal is that of a new installation; the one before it that comes back is that of a twin.
    fn after_hello(self, journal: Option<&str>, now: Timestamp) -> Self {
        let journal = journal.map(word);
        if journal == self.current || journal.is_none() {
            return self;
        }
        let twin = journal == self.previous;
        let cloned_at = self.cloned_at.or_else(|| twin.then_some(now));
        Self { previous: self.current, current: journal, cloned_at }
    }
}

/// What an agent says of itself is kept up to this many characters each: it may say 16 MiB.
const LONGEST_WORD: usize = 256;
/// And this many capabilities.
const MOST_CAPABILITIES: usize = 64;

fn word(text: &str) -> String {
    storable(&text.chars().take(LONGEST_WORD).collect::<String>())
}

/// Writes down what agents said in their `hello` and that their hosts are online, in the order in which they came. The
/// names they were enrolled with stay. Gives what each session needs; none for a host that is gone or decommissioned.
///
/// # Errors
/// The database's.
pub async fn greet_many(
    connection: &mut AsyncPgConnection,
    hellos: &[&NewHello],
) -> QueryResult<HashMap<Uuid, Arc<Greeting>>> {
    let ids: Vec<Uuid> = hellos.iter().map(|new| new.host_id).collect();
    let mut journals = Journals::of(connection, &ids).await?;
    // A host that came twice is as it was the last time.
    let mut latest: HashMap<Uuid, &NewHello> = HashMap::new();
    for new in hellos {
        let journal = new.hello.journal.as_ref().map(JournalId::as_str);
        if let Some(journals) = journals.get_mut(&new.host_id) {
            *journals = journals.clone().after_hello(journal, new.at);
            latest.insert(new.host_id, new);
        }
    }
    update(connection, &latest, &journals).await?;
    read_many(connection, &ids).await
}

async fn update(
    connection: &mut AsyncPgConnection,
    latest: &HashMap<Uuid, &NewHello>,
    journals: &HashMap<Uuid, Journals>,
) -> QueryResult<()> {
    fn column<T>(latest: &HashMap<Uuid, &NewHello>, field: impl Fn(&Hello) -> T) -> Vec<T> {
        latest.values().map(|new| field(&new.hello)).collect()
    }
    let journal = |field: fn(&Journals) -> Option<String>| -> Vec<Option<String>> {
        latest.keys().map(|id| journals.get(id).and_then(field)).collect()
    };
    let cloned: Vec<Option<Timestamp>> =
        latest.keys().map(|id| journals.get(id).and_then(|journals| journals.cloned_at)).collect();
    let capabilities = |hello: &Hello| {
        Json(hello.capabilities.iter().take(MOST_CAPABILITIES).map(|name| word(name)).collect::<Vec<_>>())
    };
    statement(
        "UPDATE hosts SET os = news.os, arch = news.arch, agent_version = news.agent_version,
             restic_version = news.restic_version, protocol_version = news.protocol_version,
             capabilities = news.capabilities, journal = news.journal, previous_journal = news.previous_journal,
             cloned_at = news.cloned_at, boot_time = news.boot_time, online = true, last_seen_at = news.seen
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS news (id, os, arch, agent_version,
             restic_version, protocol_version, capabilities, journal, previous_journal, cloned_at, boot_time, seen)
         WHERE hosts.id = news.id AND hosts.decommissioned_at IS NULL",
    )
    .bind::<Array<SqlUuid>, _>(latest.keys().copied().collect::<Vec<_>>())
    .bind::<Array<Text>, _>(column(latest, |hello| word(&hello.os.to_string())))
    .bind::<Array<Text>, _>(column(latest, |hello| word(&hello.arch.to_string())))
    .bind::<Array<Text>, _>(column(latest, |hello| word(&hello.agent_version)))
    .bind::<Array<Text>, _>(column(latest, |hello| word(&hello.restic_version)))
    .bind::<Array<BigInt>, _>(column(latest, |hello| hello.protocol_version))
    .bind::<Array<Jsonb>, _>(column(latest, capabilities))
    .bind::<Array<Nullable<Text>>, _>(journal(|journals| journals.current.clone()))
    .bind::<Array<Nullable<Text>>, _>(journal(|journals| journals.previous.clone()))
    .bind::<Array<Nullable<Timestamptz>>, _>(cloned)
    .bind::<Array<Nullable<Timestamptz>>, _>(column(latest, |hello| hello.boot_time))
    .bind::<Array<Timestamptz>, _>(latest.values().map(|new| new.at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// What the sessions of these hosts need.
///
/// # Errors
/// The database's.
pub async fn read_many(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<HashMap<Uuid, Arc<Greeting>>> {
    let hosts = hosts::find_many(connection, ids).await?;
    // Many hosts share few repositories.
    let wanted: HashSet<Uuid> = hosts.iter().filter_map(|host| host.repository_id).collect();
    let wanted: Vec<Uuid> = wanted.into_iter().collect();
    let repositories = repositories::find_many(connection, &wanted).await?;
    let repositories: HashMap<Uuid, Arc<Repository>> =
        repositories.into_iter().map(|row| (row.id, Arc::new(row))).collect();
    let mut schedules = by_host(schedules::of_hosts(connection, ids).await?, |schedule| schedule.host_id);
    let scheduled: Vec<Uuid> = schedules.keys().copied().collect();
    let mut groups = by_host(source_groups::of_hosts(connection, &scheduled).await?, |group| group.host_id);
    let mut greeting = |host: Host| {
        let repository = host.repository_id.and_then(|id| repositories.get(&id).cloned());
        let schedules = schedules.remove(&host.id).unwrap_or_default();
        let groups = groups.remove(&host.id).unwrap_or_default();
        (host.id, Arc::new(Greeting { host, repository, schedules, groups }))
    };
    Ok(hosts.into_iter().map(&mut greeting).collect())
}

fn by_host<T>(rows: Vec<T>, host: impl Fn(&T) -> Uuid) -> HashMap<Uuid, Vec<T>> {
    let mut found: HashMap<Uuid, Vec<T>> = HashMap::new();
    for row in rows {
        found.entry(host(&row)).or_default().push(row);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn a_journal_that_comes_back_shows_a_clone_and_a_new_one_does_not() {
        let now = DateTime::from_timestamp(1_790_000_000, 0).expect("a time");
        let mut journals = Journals { current: None, previous: None, cloned_at: None };
        for (journal, cloned) in [("a", false), ("a", false), ("b", false), ("b", false), ("c", false), ("b", true)] {
            journals = journals.after_hello(Some(journal), now);
            assert_eq!(journals.cloned_at.is_some(), cloned, "{journal}: {journals:?}");
        }
        // Applied twice, as a write may be, a hello changes nothing more.
        assert_eq!(journals.clone().after_hello(Some("b"), now), journals);
    }
}
