//! Identifiers. On the wire all of them are opaque strings.

use crate::lenient::MaybeEmpty;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl MaybeEmpty for $name {
            fn is_empty_value(&self) -> bool {
                self.0.is_empty()
            }
        }
    };
}

string_id!(
    /// A job, in every message about it.
    JobId
);
string_id!(
    /// One cron entry of a host.
    ScheduleId
);
string_id!(
    /// An agent's journal; a new one means that the agent was reinstalled or cloned.
    JournalId
);
string_id!(
    /// The optional id of an envelope.
    EnvelopeId
);

impl EnvelopeId {
    /// The id as the number that agents with the `ack` capability count by, if it is one.
    pub fn number(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl From<u64> for EnvelopeId {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}
