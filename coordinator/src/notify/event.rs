//! What can be told.

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// The type of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[schema(as = NotificationType)]
#[allow(missing_docs, reason = "docs/operations.md says when each is told")]
pub enum Event {
    #[serde(rename = "job.failed")]
    JobFailed,
    #[serde(rename = "job.partial")]
    JobPartial,
    #[serde(rename = "backup.overdue")]
    BackupOverdue,
    #[serde(rename = "backup.recovered")]
    BackupRecovered,
    #[serde(rename = "maintenance.overdue")]
    MaintenanceOverdue,
    #[serde(rename = "maintenance.recovered")]
    MaintenanceRecovered,
    #[serde(rename = "agent.lost")]
    AgentLost,
    #[serde(rename = "agent.recovered")]
    AgentRecovered,
    #[serde(rename = "repository.unhealthy")]
    RepositoryUnhealthy,
    #[serde(rename = "repository.recovered")]
    RepositoryRecovered,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::JobFailed,
        Self::JobPartial,
        Self::BackupOverdue,
        Self::BackupRecovered,
        Self::MaintenanceOverdue,
        Self::MaintenanceRecovered,
        Self::AgentLost,
        Self::AgentRecovered,
        Self::RepositoryUnhealthy,
        Self::RepositoryRecovered,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobFailed => "job.failed",
            Self::JobPartial => "job.partial",
            Self::BackupOverdue => "backup.overdue",
            Self::BackupRecovered => "backup.recovered",
            Self::MaintenanceOverdue => "maintenance.overdue",
            Self::MaintenanceRecovered => "maintenance.recovered",
            Self::AgentLost => "agent.lost",
            Self::AgentRecovered => "agent.recovered",
            Self::RepositoryUnhealthy => "repository.unhealthy",
            Self::RepositoryRecovered => "repository.recovered",
        }
    }

    /// The one of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// What tells that this is over.
    pub const fn recovery(self) -> Option<Self> {
        match self {
            Self::BackupOverdue => Some(Self::BackupRecovered),
            Self::MaintenanceOverdue => Some(Self::MaintenanceRecovered),
            Self::AgentLost => Some(Self::AgentRecovered),
            Self::RepositoryUnhealthy => Some(Self::RepositoryRecovered),
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u32);

impl Events {
    /// All of them.
    pub fn all() -> Self {
        Event::ALL.into_iter().collect()
    }

    /// Those of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// As a number, a bit for each.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Of such a number.
    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether it is one of them.
    pub fn contains(self, event: Event) -> bool {
        self.0 & 1 << event as u32 != 0
    }
}

impl FromIterator<Event> for Events {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        Self(events.into_iter().fold(0, |bits, event| bits | 1 << event as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_word_wherever_it_is_written() {
        for event in Event::ALL {
            assert_eq!(serde_json::to_value(event).expect("JSON"), event.as_str());
            assert_eq!(Event::of(event.as_str()), Some(event));
        }
        assert_eq!(Event::of("test"), None);
    }

    #[test]
    fn a_set_holds_what_was_put_into_it() {
        let set: Events = [Event::JobFailed, Event::RepositoryRecovered].into_iter().collect();
        let held: Vec<Event> = Event::ALL.into_iter().filter(|event| set.contains(*event)).collect();
        assert_eq!(held, [Event::JobFailed, Event::RepositoryRecovered]);
        assert!(Event::ALL.into_iter().all(|event| Events::all().contains(event)));
    }
}
