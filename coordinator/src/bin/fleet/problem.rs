//! What the coordinator refuses, as a sentence: it answers with `application/problem+json` (RFC 9457).

use serde::Deserialize;
use std::fmt;

/// A refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    request_id: String,
    errors: Vec<FieldError>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct FieldError {
    pointer: String,
    detail: String,
}

impl Problem {
    /// Reads an answer of `status`; `None` if nothing in it is a problem's.
    pub(crate) fn read(status: u16, body: &str) -> Option<Self> {
        let found: Self = serde_json::from_str(body).ok()?;
        if found.title.is_empty() && found.detail.is_empty() {
            return None;
        }
        Some(Self { status, ..found })
    }

    /// One that is ours, not the coordinator's.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { detail: text.into(), ..Self::default() }
    }

    /// The last part of its `type`: a stable word for programs.
    pub(crate) fn kind(&self) -> &str {
        self.r#type.rsplit('/').next().unwrap_or_default()
    }

    /// The HTTP status; 0 for one that is ours.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let located: Vec<&FieldError> = self.errors.iter().filter(|error| !error.detail.is_empty()).collect();
        match (self.title.is_empty(), located.is_empty()) {
            (true, _) => f.write_str(&self.detail)?,
            (false, true) if self.detail.is_empty() => f.write_str(&self.title)?,
            (false, true) => write!(f, "{}: {}", self.title, self.detail)?,
            // The detail says the same as the list.
            (false, false) => write!(f, "{}:", self.title)?,
        }
        for FieldError { pointer, detail } in located {
            match pointer.as_str() {
                "" => write!(f, "\n  {detail}")?,
                pointer => write!(f, "\n  {pointer}: {detail}")?,
            }
        }
        match self.status {
            401 => f.write_str("\n  a token is taken from FLEET_TOKEN, or from the file that --token-file names"),
            // The coordinator's log says more under this id.
            500.. if !self.request_id.is_empty() => write!(f, " (request {})", self.request_id),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> String {
        Problem::read(status, body).expect("a problem").to_string()
    }

    #[test]
    fn what_is_wrong_where_stands_on_lines_of_its_own() {
        let body = r#"{"type": "/problems/invalid", "title": "It can't be carried out", "status": 422,
            "detail": "/name: is empty; no host", "errors": [{"pointer": "/name", "detail": "is empty"}, {"detail": "no host"}]}"#;
        assert_eq!(read(422, body), "It can't be carried out:\n  /name: is empty\n  no host");
        assert_eq!(Problem::read(422, body).expect("a problem").kind(), "invalid");
    }

    #[test]
    fn without_a_list_the_detail_says_it() {
        let body = r#"{"title": "There is no such thing", "detail": "there is no host with this id"}"#;
        assert_eq!(read(404, body), "There is no such thing: there is no host with this id");
        assert_eq!(read(404, r#"{"title": "Gone"}"#), "Gone");
        let fault = r#"{"title": "Something is wrong", "detail": "see the log", "request_id": "r1"}"#;
        assert_eq!(read(500, fault), "Something is wrong: see the log (request r1)");
    }

    #[test]
    fn who_has_no_token_is_told_where_it_is_looked_for() {
        assert!(read(401, r#"{"title": "A good token is needed", "detail": "x"}"#).contains("FLEET_TOKEN"));
    }

    #[test]
    fn what_is_no_problem_is_none() {
        for other in ["", "<html>", "{}", "[]", "null", r#"{"title": 3}"#] {
            assert_eq!(Problem::read(502, other), None, "{other}");
        }
    }
}
