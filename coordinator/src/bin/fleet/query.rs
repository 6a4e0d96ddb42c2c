//! Paths and queries, percent-encoded.

use std::fmt::Write;

/// A path with its query.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    text: String,
    asked: bool,
}

impl Query {
    /// The path; parts of it that come from outside go through [`segment`].
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self { text: path.into(), asked: false }
    }

    /// Adds a parameter.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.text.push(if self.asked { '&' } else { '?' });
        self.asked = true;
        self.text += name;
        self.text.push('=');
        self.text += &encoded(value);
        self
    }

    /// Adds a parameter that may be absent.
    #[must_use]
    pub(crate) fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// What the request line has.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

/// One segment of a path, whatever is in it.
pub(crate) fn segment(text: &str) -> String {
    encoded(text)
}

fn encoded(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => all.push(char::from(byte)),
            // Writing to a string can't fail.
            _ => drop(write!(all, "%{byte:02X}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_value_reads_as_syntax() {
        let query = Query::new("/v1/hosts").with("label", "a=b&c d/ä").with_some("status", None).with("limit", "5");
        assert_eq!(query.as_str(), "/v1/hosts?label=a%3Db%26c%20d%2F%C3%A4&limit=5");
        assert_eq!(segment("../x"), "..%2Fx");
    }
}
