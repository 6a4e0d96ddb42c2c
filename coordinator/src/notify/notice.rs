//! What is to be told.

use super::event::Event;
use crate::db::runs::{Ending, Outcome};
use chrono::SubsecRound;
use fleet_wire::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// Something that has happened, as it is written for those who want to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Its id, the same however often it is written.
    pub id: Uuid,
    /// What it is.
    pub event: Event,
    /// When it happened.
    pub at: Timestamp,
    /// The host that it is about.
    pub host_id: Option<Uuid>,
    /// The repository that it is about.
    pub repository_id: Option<Uuid>,
    /// The job that it is about.
    pub job_id: Option<Uuid>,
    /// What else is to be known: an object.
    pub data: Value,
}

/// The id of what has happened: the same whoever writes it, and no other's.
pub(crate) fn id_of(event: Event, what: &[&[u8]]) -> Uuid {
    let mut digest = Sha256::new_with_prefix(event.as_str());
    for part in what {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

impl Notice {
    /// The end of a job, if that is to be told. What else is to be known of it is in its row.
    pub fn of_ending(ending: &Ending) -> Option<Self> {
        let event = match ending.outcome {
            Outcome::Failed => Event::JobFailed,
            Outcome::Partial => Event::JobPartial,
            _ => return None,
        };
        Some(Self {
            id: id_of(event, &[ending.job_id.as_bytes()]),
            event,
            at: ending.at.trunc_subsecs(6),
            host_id: Some(ending.host_id),
            repository_id: Some(ending.repository_id),
            job_id: Some(ending.job_id),
            data: Value::Object(serde_json::Map::new()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_happened_has_one_id() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let of = |event, id: Uuid| id_of(event, &[id.as_bytes()]);
        assert_eq!(of(Event::JobFailed, one), of(Event::JobFailed, one));
        assert_ne!(of(Event::JobFailed, one), of(Event::JobPartial, one));
        assert_ne!(of(Event::JobFailed, one), of(Event::JobFailed, other));
        assert_ne!(id_of(Event::AgentLost, &[b"a", b"bc"]), id_of(Event::AgentLost, &[b"ab", b"c"]));
    }
}
