//! JSON that passes through unread.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One JSON value, kept byte for byte as its writer wrote it (restic's summary, for example).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// Takes over `text` if it is one JSON value.
    ///
    /// # Errors
    /// What the JSON parser found wrong with it.
    pub fn new(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// The value written as JSON.
    ///
    /// # Errors
    /// The value has no JSON form (a map with keys that are not strings).
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
