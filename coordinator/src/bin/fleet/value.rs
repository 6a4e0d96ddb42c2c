//! Reading the API's JSON. Nothing here minds fields that are missing: the coordinator may be older or newer than we are.

use crate::human::moment_of;
use fleet_wire::Timestamp;
use serde_json::Value;

/// The text of a field; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The number of a field; 0 if there is none.
pub(crate) fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

/// The time of a field.
pub(crate) fn time(value: &Value, field: &str) -> Option<Timestamp> {
    value[field].as_str()?.parse().ok()
}

/// The time of a field, to the second; empty if there is none.
pub(crate) fn moment(value: &Value, field: &str) -> String {
    time(value, field).map(moment_of).unwrap_or_default()
}

/// A list of texts, joined by commas.
pub(crate) fn words(value: &Value) -> String {
    let words = value.as_array().into_iter().flatten().map(word);
    words.collect::<Vec<_>>().join(", ")
}

/// An object as `name=value` pairs.
pub(crate) fn pairs(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten().map(|(name, value)| format!("{name}={}", word(value)));
    pairs.collect::<Vec<_>>().join(",")
}

/// A value without quotes around text.
pub(crate) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_empty() {
        let value = json!({"a": "x", "n": 3, "l": ["p", 1], "o": {"site": "ulm", "rack": 4}});
        assert_eq!((text(&value, "a"), text(&value, "z"), number(&value, "n"), number(&value, "a")), ("x", "", 3, 0));
        assert_eq!((words(&value["l"]), pairs(&value["o"])), ("p, 1".to_owned(), "rack=4,site=ulm".to_owned()));
        assert_eq!((words(&value["z"]), pairs(&value["z"]), time(&value, "a")), (String::new(), String::new(), None));
    }
}
