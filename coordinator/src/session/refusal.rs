//! Why a connection is closed by us: what goes into the `error` message and the close frame.

use fleet_wire::{MAX_MESSAGE_BYTES, OFFLINE_AFTER, close};

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The close code.
    pub(super) close: u16,
    /// A word for programs.
    pub(super) code: &'static str,
    /// A sentence for people.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(close: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { close, code, message: message.into() }
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(close::MALFORMED, "malformed", message)
    }

    pub(super) fn too_big() -> Self {
        let message = format!("a message may have {} MiB", MAX_MESSAGE_BYTES / 1024 / 1024);
        Self::new(close::TOO_BIG, "too_big", message)
    }

    pub(super) fn revoked() -> Self {
        Self::new(close::NOT_ALLOWED, "not_allowed", "this host was removed from the fleet: enrol it again")
    }

    pub(super) fn silent() -> Self {
        let message = format!("nothing was heard for {} s", OFFLINE_AFTER.as_secs());
        Self::new(close::GOING_AWAY, "silent", message)
    }

    pub(super) fn no_hello() -> Self {
        let message = format!("there was no hello for {} s", OFFLINE_AFTER.as_secs());
        Self::new(close::GOING_AWAY, "silent", message)
    }

    pub(super) fn stopping() -> Self {
        Self::new(close::GOING_AWAY, "stopping", "the coordinator stops")
    }

    /// Something is wrong on our side; a new connection may find it mended.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(close::INTERNAL, "internal", message)
    }
}
