//! Text that must never be printed.

use crate::lenient::MaybeEmpty;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A password or token. It has no `Display`, and its `Debug` shows nothing of it; only the wire and the child
/// process that needs it get to see it, through [`expose`](Self::expose).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Guards `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for the one place that uses it, never for a message or a log line.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl MaybeEmpty for Secret {
    fn is_empty_value(&self) -> bool {
        self.0.is_empty()
    }
}
