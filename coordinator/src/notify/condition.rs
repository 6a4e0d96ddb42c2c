//! What is wrong in the fleet for a while, as opposed to what has happened: it is told when it begins, when it becomes worse
//! and when it is over. Pure: what was found is compared with what was known.

use super::event::Event;
use super::notice::{Notice, id_of};
use fleet_wire::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Which condition: what is wrong with whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What tells of it.
    pub event: Event,
    /// A host or a repository.
    pub subject: Uuid,
    /// A source group, or a kind of maintenance; else empty.
    pub name: String,
}

impl Key {
    fn host_id(&self) -> Option<Uuid> {
        matches!(self.event, Event::AgentLost | Event::BackupOverdue).then_some(self.subject)
    }

    fn repository_id(&self) -> Option<Uuid> {
        self.host_id().is_none().then_some(self.subject)
    }
}

/// One that holds now.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Which.
    pub key: Key,
    /// Since when.
    pub since: Timestamp,
    /// What exactly is wrong, a word for each; may be empty.
    pub marks: Vec<String>,
    /// What receivers are to know of it.
    pub data: Map<String, Value>,
}

/// One that held at the last look.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Which.
    pub key: Key,
    /// Since when.
    pub since: Timestamp,
    /// What exactly was wrong.
    pub marks: Vec<String>,
    /// If it is over: its subject is still there and watched, so that it has recovered.
    pub is_watched: bool,
}

/// What is different from the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// New, or wrong in another way.
    pub held: Vec<Known>,
    /// Over.
    pub over: Vec<Key>,
    /// What is to be told of that.
    pub notices: Vec<Notice>,
}

impl Changes {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.over.is_empty()
    }
}

/// Compares what was `found` with what was `known`. `now` is the time of the look, which makes the notices' ids its own.
pub fn compare(found: Vec<Found>, known: Vec<Known>, now: Timestamp) -> Changes {
    let mut known: BTreeMap<Key, Known> = known.into_iter().map(|known| (known.key.clone(), known)).collect();
    let mut changes = Changes::default();
    for Found { key, since, mut marks, mut data } in found {
        marks.sort_unstable();
        let before = known.remove(&key);
        let since = before.as_ref().map_or(since, |before| before.since);
        let is_worse = before.as_ref().is_none_or(|before| marks.iter().any(|mark| !before.marks.contains(mark)));
        if is_worse {
            data.insert("since".to_owned(), serde_json::json!(since));
            changes.notices.push(notice(key.event, &key, data, now));
        }
        if is_worse || before.is_some_and(|before| before.marks.len() != marks.len()) {
            changes.held.push(Known { key, since, marks, is_watched: true });
        }
    }
    for (key, over) in known {
        if let Some(event) = key.event.recovery().filter(|_| over.is_watched) {
            let facts = [("since", serde_json::json!(over.since)), ("until", serde_json::json!(now))];
            let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            changes.notices.push(notice(event, &key, facts, now));
        }
        changes.over.push(key);
    }
    changes
}

fn notice(event: Event, key: &Key, mut data: Map<String, Value>, now: Timestamp) -> Notice {
    let name = match key.event {
        Event::BackupOverdue => Some("source_group"),
        Event::MaintenanceOverdue => Some("kind"),
        _ => None,
    };
    data.extend(name.map(|name| (name.to_owned(), Value::from(key.name.as_str()))));
    Notice {
        id: id_of(event, &[key.subject.as_bytes(), key.name.as_bytes(), &now.timestamp_micros().to_be_bytes()]),
        event,
        at: now,
        host_id: key.host_id(),
        repository_id: key.repository_id(),
        job_id: None,
        data: Value::Object(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(1_790_000_000 + seconds, 0).expect("a time")
    }

    fn key(event: Event) -> Key {
        Key { event, subject: Uuid::from_u128(1), name: String::new() }
    }

    fn found(event: Event, marks: &[&str]) -> Found {
        let marks = marks.iter().map(|mark| (*mark).to_owned()).collect();
        Found { key: key(event), since: at(0), marks, data: Map::new() }
    }

    fn events(changes: &Changes) -> Vec<Event> {
        changes.notices.iter().map(|notice| notice.event).collect()
    }

    #[test]
    fn it_is_told_when_it_begins_and_when_it_is_over_and_not_between() {
        let lost = || vec![found(Event::AgentLost, &[])];
        let first = compare(lost(), Vec::new(), at(9));
        assert_eq!(events(&first), [Event::AgentLost]);
        let (told, _) = (&first.notices[0], assert_eq!(first.held.len(), 1));
        assert_eq!((told.host_id, told.repository_id), (Some(Uuid::from_u128(1)), None));
        assert_eq!(told.data["since"], serde_json::json!(at(0)));
        assert!(compare(lost(), first.held.clone(), at(19)).is_empty());
        let over = compare(Vec::new(), first.held.clone(), at(29));
        assert_eq!((events(&over), over.over), (vec![Event::AgentRecovered], vec![key(Event::AgentLost)]));
        let gone = Known { is_watched: false, ..first.held[0].clone() };
        let gone = compare(Vec::new(), vec![gone], at(29));
        assert_eq!((events(&gone), gone.over.len()), (vec![], 1), "a host that is gone has not recovered");
    }

    #[test]
    fn what_becomes_worse_is_told_and_what_becomes_better_is_only_noted() {
        let of = |marks: &[&str]| vec![found(Event::RepositoryUnhealthy, marks)];
        let first = compare(of(&["a"]), Vec::new(), at(1));
        let worse = compare(of(&["b", "a"]), first.held, at(2));
        assert_eq!(events(&worse), [Event::RepositoryUnhealthy]);
        assert_eq!(worse.held[0].marks, ["a", "b"]);
        let better = compare(of(&["b"]), worse.held, at(3));
        assert_eq!((events(&better), better.held[0].marks.clone()), (vec![], vec!["b".to_owned()]));
        let other = compare(of(&["c"]), better.held, at(4));
        assert_eq!(events(&other), [Event::RepositoryUnhealthy]);
        let ids: std::collections::HashSet<_> =
            [&worse.notices[0], &other.notices[0]].map(|notice| notice.id).into_iter().collect();
        assert_eq!(ids.len(), 2, "each is told");
    }

    #[test]
    fn a_look_that_is_repeated_tells_the_same() {
        let look = || compare(vec![found(Event::BackupOverdue, &[])], Vec::new(), at(5) + TimeDelta::microseconds(3));
        assert_eq!(look(), look());
    }
}
