//! Asking the coordinator. What gets no answer is asked again, under the same `Idempotency-Key`, until it is answered or the
//! time for that is over; so a restart of the coordinator, or a connection that breaks, does nothing twice.

use crate::failure::Failure;
use crate::human::span;
use crate::patience::Patience;
use crate::problem::Problem;
use crate::query::Query;
use crate::screen::Screen;
use fleet_wire::Secret;
use rustls::crypto::ring;
use serde_json::Value;
use std::io::Read;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Proxy, http};
use uuid::Uuid;

/// How long an answer may take that is not waited for by `?wait=`.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A stream that says nothing for this long is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(75);
/// The longest answer: a page of 500 jobs, each with the longest error and stats that an agent may report.
const LONGEST_ANSWER: u64 = 256 << 20;

/// What a coordinator answers with beside JSON.
const OTHER_KINDS: [&str; 3] = ["application/x-ndjson", "application/yaml", "text/plain"];

/// One thing to ask.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    method: &'a str,
    path: Query,
    body: Option<String>,
    headers: Vec<(&'static str, String)>,
    /// How long the coordinator may keep it waiting.
    wait: Duration,
}

impl<'a> Ask<'a> {
    /// Reads.
    pub(crate) fn get(path: Query) -> Self {
        Self { method: "GET", path, body: None, headers: Vec::new(), wait: Duration::ZERO }
    }

    /// Reads, with a `?wait=` of whole seconds.
    pub(crate) fn wait(path: Query, wait: Duration) -> Self {
        let path = path.with("wait", &wait.as_secs().to_string());
        Self { wait, ..Self::get(path) }
    }

    /// Posts under a key; one is made up unless it is given.
    pub(crate) fn post(path: Query, body: &Value, key: Option<&str>) -> Self {
        let key = key.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        Self::change("POST", path, Some(body)).with_header("Idempotency-Key", key)
    }

    /// PUT, PATCH or DELETE, which are the same done once or twice.
    pub(crate) fn change(method: &'a str, path: Query, body: Option<&Value>) -> Self {
        let body = body.map(Value::to_string);
        let ask = Self { method, path, body, headers: Vec::new(), wait: Duration::ZERO };
        if ask.body.is_some() { ask.with_header("Content-Type", "application/json".to_owned()) } else { ask }
    }

    /// PUTs a document as it is.
    pub(crate) fn put_document(path: Query, document: String, kind: &str) -> Self {
        let ask = Self { method: "PUT", path, body: Some(document), headers: Vec::new(), wait: Duration::ZERO };
        ask.with_header("Content-Type", kind.to_owned())
    }

    /// Adds a header.
    #[must_use]
    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// An answer of success.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The body as it came.
    pub(crate) text: String,
    /// The same as JSON; null if it is none.
    pub(crate) json: Value,
    /// Its `ETag`, without quotes.
    pub(crate) tag: Option<String>,
}

/// What an HTTP answer comes to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    /// Ask again: why, and when.
    Again(String, Option<Duration>),
    Refused(Box<Problem>),
    /// Something else than a coordinator has answered.
    Stranger(String),
}

/// A client of one coordinator with one token.
pub(crate) struct Client {
    base: String,
    token: Option<Secret>,
    http: ureq::Agent,
    retry_for: Duration,
    screen: Rc<Screen>,
}

impl Client {
    /// A client of the coordinator at `url`.
    ///
    /// # Errors
    /// `url` is none; or it is not encrypted, leads to another machine, and that is not allowed.
    pub(crate) fn new(
        url: &str,
        token: Option<Secret>,
        retry_for: Duration,
        allow_plain: bool,
        screen: Rc<Screen>,
    ) -> Result<Self, Failure> {
        let address = Address::read(url)?;
        if !(address.tls || address.local || allow_plain) {
            return Err(Failure::Usage(format!(
                "{url} is not encrypted: anyone on the way could read the token; use https, or allow it with \
                 --allow-plain-http"
            )));
        }
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .user_agent(concat!("fleet/", env!("CARGO_PKG_VERSION")));
        if address.local {
            config = config.proxy(None::<Proxy>);
        }
        if address.tls {
            config = config.tls_config(tls()?);
        }
        let base = url.trim().trim_end_matches('/').to_owned();
        Ok(Self { base, token, http: config.build().into(), retry_for, screen })
    }

    /// The same client that bears with a coordinator which is away for as long as `limit`.
    pub(crate) fn patient(&self, limit: Duration) -> Self {
        let (base, token) = (self.base.clone(), self.token.clone());
        let retry_for = self.retry_for.max(limit);
        Self { base, token, http: self.http.clone(), retry_for, screen: self.screen.clone() }
    }

    /// Reads what is at `path`.
    ///
    /// # Errors
    /// It is refused, or there is no answer in time.
    pub(crate) fn get(&self, path: impl Into<String>) -> Result<Value, Failure> {
        self.ask(&Ask::get(Query::new(path))).map(|answer| answer.json)
    }

    /// The same, where nothing may be there.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn find(&self, path: impl Into<String>) -> Result<Option<Value>, Failure> {
        match self.get(path) {
            Ok(found) => Ok(Some(found)),
            Err(Failure::Refused(problem)) if problem.status() == 404 => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Asks, and asks again where there is no answer.
    ///
    /// # Errors
    /// It is refused, or there is no answer in time.
    pub(crate) fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let mut patience = Patience::new(self.retry_for);
        let mut tries = 0;
        loop {
            tries += 1;
            let (why, wanted) = match self.once(ask) {
                Ok(reply) => match judge(&reply, ask.method, tries > 1) {
                    Verdict::Done => return self.read(reply, tries),
                    Verdict::Refused(problem) => return Err(Failure::Refused(problem)),
                    Verdict::Stranger(why) => return Err(self.no_answer(&why)),
                    Verdict::Again(why, wanted) => (why, wanted),
                },
                Err(error) if is_lasting(&error) => return Err(self.no_answer(&said(&error))),
                Err(error) => (said(&error), None),
            };
            let Some(pause) = patience.next(wanted, Uuid::new_v4().as_bytes()[0]) else {
                return Err(self.no_answer(&why));
            };
            if tries == 1 {
                let limit = span(i64::try_from(self.retry_for.as_secs()).unwrap_or(i64::MAX));
                self.screen.note(&format!("{why}: asking {} again for up to {limit}", self.base));
            }
            thread::sleep(pause);
        }
    }

    fn no_answer(&self, why: &str) -> Failure {
        Failure::NoAnswer(format!("no answer from {}: {why}", self.base))
    }

    fn read(&self, reply: Reply, tries: u32) -> Result<Answer, Failure> {
        if tries > 1 {
            self.screen.note("it answers again");
        }
        let Reply { text, kind, tag, .. } = reply;
        match serde_json::from_str(&text) {
            Ok(json) => Ok(Answer { text, json, tag }),
            // An answer without a body, lines of a log, a document in YAML, metrics.
            Err(_) if text.is_empty() || OTHER_KINDS.iter().any(|other| kind.starts_with(other)) => {
                Ok(Answer { text, json: Value::Null, tag })
            }
            Err(_) => Err(self.no_answer("what answers there is no coordinator")),
        }
    }

    fn request(&self, ask: &Ask<'_>) -> http::request::Builder {
        let mut request =
            http::Request::builder().method(ask.method).uri(format!("{}{}", self.base, ask.path.as_str()));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.expose()));
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        request
    }

    fn once(&self, ask: &Ask<'_>) -> Result<Reply, ureq::Error> {
        let request = self.request(ask);
        let limit = Some(ANSWER_LIMIT + ask.wait);
        let mut response = match &ask.body {
            Some(body) => {
                let request = request.body(body.as_str())?;
                self.http.run(self.http.configure_request(request).timeout_global(limit).build())?
            }
            None => self.http.run(self.http.configure_request(request.body(())?).timeout_global(limit).build())?,
        };
        let header = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (location, retry_after) = (header("location"), header("retry-after"));
        let kind = header("content-type").unwrap_or_default();
        let tag = header("etag").map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
        let text = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string()?;
        let retry_after = retry_after.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Ok(Reply { status: response.status().as_u16(), location, retry_after, kind, tag, text })
    }

    /// A stream of lines, asked for once, for `limit` at most; the content type says of which kind. It ends with an error where
    /// it breaks off.
    ///
    /// # Errors
    /// It is refused, or there is no answer.
    pub(crate) fn stream(
        &self,
        path: Query,
        headers: &[(&str, &str)],
        limit: Option<Duration>,
    ) -> Result<(String, impl Read + 'static), Failure> {
        let ask = Ask::get(path);
        let mut request = self.request(&ask);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).map_err(|error| Failure::Usage(error.to_string()))?;
        let request =
            self.http.configure_request(request).timeout_per_read(Some(SILENCE_LIMIT)).timeout_global(limit).build();
        let mut response = self.http.run(request).map_err(|error| self.no_answer(&said(&error)))?;
        let status = response.status().as_u16();
        if status != 200 {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            let reply = Reply { status, text, ..Reply::default() };
            return Err(match judge(&reply, "GET", false) {
                Verdict::Refused(problem) => Failure::Refused(problem),
                Verdict::Again(why, _) | Verdict::Stranger(why) => self.no_answer(&why),
                Verdict::Done => self.no_answer("it has answered with something else"),
            });
        }
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        Ok((kind.to_owned(), response.into_body().into_reader()))
    }
}

/// An HTTP answer, whatever its status.
#[derive(Debug, Default)]
struct Reply {
    status: u16,
    location: Option<String>,
    retry_after: Option<Duration>,
    /// Its content type.
    kind: String,
    tag: Option<String>,
    text: String,
}

/// What an answer means; `again`: an earlier try got none.
fn judge(reply: &Reply, method: &str, again: bool) -> Verdict {
    let problem = Problem::read(reply.status, &reply.text);
    let kind = problem.as_ref().map(Problem::kind).unwrap_or_default();
    match reply.status {
        200..300 => Verdict::Done,
        // The try whose answer was lost has deleted it.
        404 if method == "DELETE" && again && problem.is_some() => Verdict::Done,
        409 if kind == "in-progress" => Verdict::Again("the same request is under way".to_owned(), reply.retry_after),
        429 | 502..=504 => {
            let why = problem.map_or_else(|| format!("HTTP status {}", reply.status), |problem| problem.to_string());
            Verdict::Again(why, reply.retry_after)
        }
        300..400 => {
            let to = reply.location.as_deref().unwrap_or("another address");
            Verdict::Stranger(format!("it leads on to {to}; the token goes to --url only"))
        }
        // A fault of the coordinator is no refusal.
        500.. => Verdict::Stranger(problem.map_or_else(|| format!("HTTP status {}", reply.status), |p| p.to_string())),
        status => match problem {
            Some(problem) => Verdict::Refused(Box::new(problem)),
            None => Verdict::Stranger(format!("HTTP status {status}; what answers there is no coordinator")),
        },
    }
}

/// What went wrong, for people.
fn said(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string().split(" (os error").next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

/// Whether it would fail the same way again.
fn is_lasting(error: &ureq::Error) -> bool {
    use ureq::Error as E;
    matches!(
        error,
        E::BadUri(_) | E::Http(_) | E::InvalidProxyUrl | E::Tls(_) | E::Pem(_) | E::Rustls(_) | E::BodyExceedsLimit(_)
    )
}

fn tls() -> Result<TlsConfig, Failure> {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        let text = "this system has no root certificates, so no server can be trusted; install its ca-certificates \
                    package or name a file in SSL_CERT_FILE";
        return Err(Failure::Usage(text.to_owned()));
    }
    let roots: Vec<_> = found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
    Ok(tls.build())
}

/// What an address of a coordinator says.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    /// It is this machine's own.
    local: bool,
}

impl Address {
    fn read(url: &str) -> Result<Self, Failure> {
        let malformed = || {
            Failure::Usage(format!(
                "{url:?} is no address of a coordinator; give one such as https://fleet.example.org"
            ))
        };
        let uri: http::Uri = url.trim().parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(malformed()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(malformed)?;
        if uri.query().is_some() {
            return Err(malformed());
        }
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        let local = bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        Ok(Self { tls, local })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, kind: &str) -> Reply {
        let text = format!(r#"{{"type": "/problems/{kind}", "title": "T", "detail": "d"}}"#);
        Reply { status, text, retry_after: Some(Duration::from_secs(1)), ..Reply::default() }
    }

    #[test]
    fn what_passes_by_itself_is_asked_again() {
        for (status, kind) in [(503, "unavailable"), (503, "outcome-unknown"), (409, "in-progress"), (429, "too-many")]
        {
            let verdict = judge(&reply(status, kind), "POST", false);
            assert!(matches!(verdict, Verdict::Again(_, Some(_))), "{kind}: {verdict:?}");
        }
        let proxy = Reply { status: 502, text: "<html>".to_owned(), ..Reply::default() };
        assert_eq!(judge(&proxy, "GET", false), Verdict::Again("HTTP status 502".to_owned(), None));
    }

    #[test]
    fn what_is_refused_or_broken_is_not() {
        for (status, kind) in
            [(400, "malformed"), (401, "unauthorized"), (409, "conflict"), (422, "idempotency-key-reused")]
        {
            assert!(matches!(judge(&reply(status, kind), "POST", true), Verdict::Refused(_)), "{kind}");
        }
        assert!(matches!(judge(&reply(500, "internal"), "GET", false), Verdict::Stranger(_)));
        let moved = Reply { status: 301, location: Some("https://x/".to_owned()), ..Reply::default() };
        assert!(matches!(judge(&moved, "GET", false), Verdict::Stranger(why) if why.contains("https://x/")));
        let page = Reply { status: 404, text: "<html>".to_owned(), ..Reply::default() };
        assert!(matches!(judge(&page, "DELETE", true), Verdict::Stranger(_)));
    }

    #[test]
    fn what_went_wrong_is_said_without_numbers() {
        let reset = ureq::Error::Io(std::io::Error::from_raw_os_error(104));
        assert_eq!((said(&reset).as_str(), is_lasting(&reset)), ("Connection reset by peer", false));
        assert!(is_lasting(&ureq::Error::Tls("no")));
    }

    #[test]
    fn a_delete_whose_answer_was_lost_has_deleted() {
        assert_eq!(judge(&reply(404, "not-found"), "DELETE", true), Verdict::Done);
        assert!(matches!(judge(&reply(404, "not-found"), "DELETE", false), Verdict::Refused(_)));
        assert!(matches!(judge(&reply(404, "not-found"), "GET", true), Verdict::Refused(_)));
    }

    #[test]
    fn addresses_are_told_apart() {
        let read = |url| Address::read(url).map(|address| (address.tls, address.local)).ok();
        assert_eq!(read("https://fleet.example.org:8443/prefix/"), Some((true, false)));
        assert_eq!(read("http://127.0.0.1:8080"), Some((false, true)));
        assert_eq!(read("http://[::1]:80"), Some((false, true)));
        assert_eq!(read("http://localhost.example.org"), Some((false, false)));
        for bad in ["", "fleet.example.org", "ftp://x", "https://a@b", "https://a/?x=1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_does_not_travel_in_clear() {
        let client = |url, allow| Client::new(url, None, Duration::ZERO, allow, Rc::default());
        assert!(matches!(client("http://fleet.example.org", false), Err(Failure::Usage(_))));
        assert!(client("http://fleet.example.org", true).is_ok() && client("http://localhost:1", false).is_ok());
    }
}
