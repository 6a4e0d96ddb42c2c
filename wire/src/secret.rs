//! Text that must never be printed.

use crate::lenient::MaybeEmpty;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// A password or token. It has no `Display`, and its `Debug` shows nothing of it; only the wire and the child
/// process that needs it get to see it, through [`expose`](Self::expose).
#[derive(Clone, PartialEq, Eq, Serialize)]
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

impl<'de> Deserialize<'de> for Secret {
    // Not derived: the derived error would quote a value of the wrong type, which may be the password as a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(Self).map_err(|_| serde::de::Error::custom("a secret must be a string"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_an_error_shows_it() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
        let error = serde_json::from_str::<Secret>("12345678").expect_err("a number is no secret");
        assert!(!error.to_string().contains("12345678"), "{error}");
    }
}
