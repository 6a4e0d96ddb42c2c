//! Time stamps: RFC 3339 with up to nanoseconds and any offset when read, UTC when written.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serializer};

/// An instant on the wire.
pub type Timestamp = DateTime<Utc>;

/// What peers written in Go write for a time that was never set.
const ZERO: &str = "0001-01-01T00:00:00Z";

/// For `Option<Timestamp>`: absent, `null`, `""` and the zero time are all `None`.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, Serializer, Timestamp, parse, write};
    use serde::de::Error as _;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        match Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)? {
            None => Ok(None),
            Some(text) => parse(&text).map_err(D::Error::custom),
        }
    }

    pub(crate) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write(*time))
    }
}

/// For a `Timestamp` without which the message makes no sense.
pub(crate) mod required {
    use super::{Deserialize, Deserializer, Serializer, Timestamp, parse, write};
    use serde::de::Error as _;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        parse(&text).map_err(D::Error::custom)?.ok_or_else(|| D::Error::custom("a time that was never set"))
    }

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write(Some(*time)))
    }
}

fn parse(text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = DateTime::parse_from_rfc3339(text).map_err(|error| format!("{text:?} is no RFC 3339 time: {error}"))?;
    let time = time.to_utc();
    // `write` is compared so that the zero time is recognised with any fraction's spelling.
    Ok(Some(time).filter(|_| write(Some(time)) != ZERO))
}

fn write(time: Option<Timestamp>) -> String {
    time.map_or_else(|| ZERO.to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}
