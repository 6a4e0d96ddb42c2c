//! The words that have a fixed spelling on the wire and in the database.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! literals {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The literal.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => {
                        let known = [$($text),+].join(", ");
                        Err(format!("{text:?} is none of {known}"))
                    }
                }
            }
        }
    };
}

literals!(
    /// The operating system of a host.
    #[allow(missing_docs, reason = "the names say it")]
    Os { Linux = "linux", Windows = "windows" }
);
literals!(
    /// The processor architecture of a host.
    #[allow(missing_docs, reason = "the names say it")]
    Arch { Amd64 = "amd64", Arm64 = "arm64" }
);
literals!(
    /// What a job does: one restic command, with what belongs around it.
    Kind {
        /// Makes a snapshot of a source group.
        Backup = "backup",
        /// Makes the repository, unless it is there.
        Init = "init",
        /// Removes the snapshots that no retention policy keeps.
        Forget = "forget",
        /// Removes the data that no snapshot needs.
        Prune = "prune",
        /// Verifies the repository.
        Check = "check",
        /// Removes stale locks.
        Unlock = "unlock",
    }
);
literals!(
    /// Where a job stands. Nothing leaves a terminal status.
    Status {
        /// Made, perhaps sent, not started.
        Queued = "queued",
        /// Execution has begun.
        Running = "running",
        /// Terminal: done.
        Succeeded = "succeeded",
        /// Terminal: not done, or refused; the reason stands in `error`.
        Failed = "failed",
        /// Terminal: ended because somebody asked for it.
        Cancelled = "cancelled",
    }
);
literals!(
    /// What a log line is.
    LogStream {
        /// A line of standard output, verbatim.
        Stdout = "stdout",
        /// A line of standard error, verbatim.
        Stderr = "stderr",
        /// One parsed `--json` object of restic.
        Event = "event",
    }
);
literals!(
    /// Which of a host's credentials.
    Slot {
        /// The everyday credential.
        Repo = "repo",
        /// The one that may delete.
        Admin = "admin",
    }
);

impl Status {
    /// True for `succeeded`, `failed` and `cancelled`.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A literal from a peer that may be newer than we are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MaybeKnown<T> {
    /// One of ours.
    Known(T),
    /// Any other word, kept for messages and records.
    Unknown(String),
}

impl<T: Copy> MaybeKnown<T> {
    /// The value, if it is one of ours.
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Unknown(_) => None,
        }
    }
}

impl<T> From<T> for MaybeKnown<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T> Default for MaybeKnown<T> {
    fn default() -> Self {
        Self::Unknown(String::new())
    }
}

impl<T: fmt::Display> fmt::Display for MaybeKnown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Unknown(text) => f.pad(text),
        }
    }
}
