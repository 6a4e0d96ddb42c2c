//! What goes wrong, as REST clients see it: `application/problem+json` (RFC 9457), never a secret, never HTML.

use super::request_id;
use crate::request;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What a client that is told to come back waits, in seconds.
const RETRY_SECONDS: u64 = 5;
/// The same for what takes a moment.
const RETRY_SOON_SECONDS: u64 = 1;

/// One thing that is wrong with what a client sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where: a JSON pointer (RFC 6901) into the body, or `?name` for a parameter of the query.
    pub pointer: String,
    /// What is wrong there, for people. It never repeats the value.
    pub detail: String,
}

impl FieldError {
    /// `detail` is wrong at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// The kinds of problem. Their names stand in `type` and are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Malformed,
    Unauthorized,
    TokenRefused,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    InProgress,
    TooSlow,
    HasChanged,
    TooLarge,
    Invalid,
    KeyReused,
    TooMany,
    Internal,
    Unavailable,
    OutcomeUnknown,
}

impl Kind {
    const ALL: [Self; 17] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::TokenRefused,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::InProgress,
        Self::TooSlow,
        Self::HasChanged,
        Self::TooLarge,
        Self::Invalid,
        Self::KeyReused,
        Self::TooMany,
        Self::Internal,
        Self::Unavailable,
        Self::OutcomeUnknown,
    ];

    /// (`type` without its prefix, `title`, status).
    fn facts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::Malformed => ("malformed", "The request can't be read", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("unauthorized", "A good token is needed", StatusCode::UNAUTHORIZED),
            Self::TokenRefused => ("token-refused", "The enrolment token is refused", StatusCode::FORBIDDEN),
            Self::Forbidden => ("forbidden", "This token does not allow that", StatusCode::FORBIDDEN),
            Self::NotFound => ("not-found", "There is no such thing", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method-not-allowed", "That can't be done here", StatusCode::METHOD_NOT_ALLOWED),
            Self::Conflict => ("conflict", "It would conflict with what is there", StatusCode::CONFLICT),
            Self::InProgress => ("in-progress", "The same request is under way", StatusCode::CONFLICT),
            Self::TooSlow => ("too-slow", "The request came too slowly", StatusCode::REQUEST_TIMEOUT),
            Self::HasChanged => ("has-changed", "It is not as you have seen it", StatusCode::PRECONDITION_FAILED),
            Self::TooLarge => ("too-large", "The request is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::Invalid => ("invalid", "The request can't be carried out", StatusCode::UNPROCESSABLE_ENTITY),
            Self::KeyReused => {
                ("idempotency-key-reused", "This key was used for another request", StatusCode::UNPROCESSABLE_ENTITY)
            }
            Self::TooMany => ("too-many-requests", "These are too many requests", StatusCode::TOO_MANY_REQUESTS),
            Self::Internal => {
                ("internal", "Something is wrong with the coordinator", StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Unavailable => ("unavailable", "Not possible at the moment", StatusCode::SERVICE_UNAVAILABLE),
            Self::OutcomeUnknown => {
                ("outcome-unknown", "It may or may not have been done", StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

/// All kinds of problem: (`type`, `title`, status).
pub(super) fn catalogue() -> impl Iterator<Item = (String, &'static str, u16)> {
    Kind::ALL.into_iter().map(|kind| {
        let (name, title, status) = kind.facts();
        (uri(name), title, status.as_u16())
    })
}

/// The `type` of a kind of problem.
fn uri(name: &str) -> String {
    format!("/problems/{name}")
}

/// An answer that says what went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    allow: Option<String>,
    /// When to come back, in seconds.
    retry_after: Option<u64>,
}

impl Problem {
    fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let retry_after = match kind {
            Kind::Unavailable | Kind::OutcomeUnknown => Some(RETRY_SECONDS),
            Kind::InProgress => Some(RETRY_SOON_SECONDS),
            _ => None,
        };
        Self { kind, detail: detail.into(), errors: Vec::new(), allow: None, retry_after }
    }

    /// 400: it could not be read at all.
    pub fn malformed(errors: Vec<FieldError>) -> Self {
        Self { detail: summary(&errors), errors, ..Self::new(Kind::Malformed, "") }
    }

    /// 401: no token, or none that is known.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized, detail)
    }

    /// 403: an enrolment token that enrols nobody.
    pub fn token_refused(detail: impl Into<String>) -> Self {
        Self::new(Kind::TokenRefused, detail)
    }

    /// 403: a token that is good, and not for this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, detail)
    }

    /// 404. `detail` says what is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// 405; `allow` lists the methods that would do.
    pub fn method_not_allowed(allow: impl Into<String>) -> Self {
        let allow = allow.into();
        Self { allow: Some(allow.clone()), ..Self::new(Kind::MethodNotAllowed, format!("use {allow}")) }
    }

    /// 409. `detail` says with what it conflicts.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, detail)
    }

    /// 409 about single fields: each makes sense, but not as the fleet is now. What makes no sense whatever the fleet is, is
    /// [`invalid`](Self::invalid).
    pub fn conflicts(errors: Vec<FieldError>) -> Self {
        Self { detail: summary(&errors), errors, ..Self::new(Kind::Conflict, "") }
    }

    /// 409 about one field.
    pub fn conflicting_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::conflicts(vec![FieldError::new(pointer, detail)])
    }

    /// 409: the same request, under the same key, is not answered yet.
    pub fn in_progress() -> Self {
        Self::new(Kind::InProgress, "the first request under this Idempotency-Key is not answered yet: try again")
    }

    /// 412: what is to be changed has none of the tags in `If-Match`.
    pub fn has_changed(detail: impl Into<String>) -> Self {
        Self::new(Kind::HasChanged, detail)
    }

    /// 422: another request had this key.
    pub fn key_reused() -> Self {
        Self::new(Kind::KeyReused, "another request to this URL had this Idempotency-Key: take a new one")
    }

    /// 408: the body was not there within `limit`.
    pub fn too_slow(limit: Duration) -> Self {
        Self::new(Kind::TooSlow, format!("the body was not there within {} s", limit.as_secs()))
    }

    /// 413: the body has more than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(Kind::TooLarge, format!("the body may have {limit} bytes"))
    }

    /// 422: it could be read, but these fields make no sense.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self { detail: summary(&errors), errors, ..Self::new(Kind::Invalid, "") }
    }

    /// 422 for one field.
    pub fn invalid_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(pointer, detail)])
    }

    /// 429: they come faster than they may, and after `wait` another may come.
    pub fn too_many(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let detail = format!("ask more slowly: the next may come in {seconds} s");
        Self { retry_after: Some(seconds.max(1)), ..Self::new(Kind::TooMany, detail) }
    }

    /// 500: a fault of the coordinator. The cause goes to the log, not to the client.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let request = request_id::current();
        log::error!(request:%; "a request failed: {cause}");
        Self::new(Kind::Internal, "the coordinator's log says more, under this request's id")
    }

    /// 503: certainly not done, because something is away at the moment.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, detail)
    }

    /// 503: the connection to the database was lost at the wrong moment.
    pub fn outcome_unknown() -> Self {
        Self::new(Kind::OutcomeUnknown, "whether this was done is not known: look before you try again")
    }

    /// What is wrong with single fields.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }
}

/// One sentence for people who don't read the list.
fn summary(errors: &[FieldError]) -> String {
    let one = |error: &FieldError| match error.pointer.as_str() {
        "" => error.detail.clone(),
        pointer => format!("{pointer}: {}", error.detail),
    };
    errors.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, title, _) = self.kind.facts();
        write!(f, "{title}: {}", self.detail)
    }
}

impl std::error::Error for Problem {}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.kind.facts().2
    }

    fn error_response(&self) -> HttpResponse {
        let (name, title, status) = self.kind.facts();
        let request_id = request_id::current();
        request::note(&self.detail);
        let body = Body {
            r#type: uri(name),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            request_id: &request_id,
            errors: &self.errors,
        };
        let mut response = HttpResponse::build(status);
        response.content_type("application/problem+json").insert_header((request_id::HEADER, request_id.as_str()));
        if self.kind == Kind::Unauthorized {
            response.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"restic-fleet\"")));
        }
        if let Some(seconds) = self.retry_after {
            response.insert_header((RETRY_AFTER, seconds));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((ALLOW, allow.as_str()));
        }
        // Strings and numbers always have a JSON form.
        response.body(serde_json::to_vec(&body).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::MessageBody;

    #[test]
    fn a_problem_names_its_fields() {
        let problem = Problem::invalid(vec![FieldError::new("/url", "is empty"), FieldError::new("/name", "is empty")]);
        let response = problem.error_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers().get("content-type").expect("a type"), "application/problem+json");
        let body = response.into_body().try_into_bytes().expect("a body in memory");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["type"], "/problems/invalid");
        assert_eq!(body["detail"], "/url: is empty; /name: is empty");
        assert_eq!(body["errors"][1]["pointer"], "/name");
    }

    #[test]
    fn who_is_told_to_come_back_is_told_when() {
        assert!(Problem::unavailable("the database is away").error_response().headers().contains_key(RETRY_AFTER));
        assert!(Problem::unauthorized("no token").error_response().headers().contains_key(WWW_AUTHENTICATE));
        let other = Problem::method_not_allowed("GET, PUT").error_response();
        assert_eq!(other.headers().get(ALLOW).expect("methods"), "GET, PUT");
    }
}
