//! A REST client of the coordinator.

use crate::{Context, Failure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use ureq::http;

/// How long one request may take; longer than the longest `?wait=`.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);

/// A client with one token.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    token: String,
    http: ureq::Agent,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The body as JSON; null if it is none.
    pub json: Value,
}

impl Reply {
    /// The answer's JSON if the status is one of success.
    ///
    /// # Errors
    /// It is not; the failure tells the problem.
    pub fn ok(self) -> Result<Value, Failure> {
        if (200..300).contains(&self.status) { Ok(self.json) } else { Err(Failure::new(self.problem())) }
    }

    /// The problem in one line: status, detail, and what is wrong with which field.
    pub fn problem(&self) -> String {
        let detail = self.json["detail"].as_str().or(self.json["title"].as_str()).unwrap_or(&self.text);
        let fields = self.json["errors"].as_array().into_iter().flatten();
        let fields: Vec<_> = fields.map(|error| format!("{} {}", error["pointer"], error["detail"])).collect();
        format!("{} {detail} {}", self.status, fields.join("; ")).trim_end().to_owned()
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Api {
    /// A client of the coordinator at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str, token: &str) -> Self {
        Self::with_limit(base, token, REQUEST_LIMIT)
    }

    /// The same, with another time after which a request is given up.
    pub fn with_limit(base: &str, token: &str, limit: Duration) -> Self {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(limit)).build();
        Self { base: base.trim_end_matches('/').to_owned(), token: token.to_owned(), http: config.new_agent() }
    }

    /// The same coordinator with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// One request, with further headers. The answer may be of any status.
    ///
    /// # Errors
    /// There is no answer.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Reply, Failure> {
        self.send(method, path, body.map(|body| ("application/json", body.to_string())), headers)
    }

    /// One request with a body of any type: (content type, text).
    ///
    /// # Errors
    /// There is no answer.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, String)>,
        headers: &[(&str, &str)],
    ) -> Result<Reply, Failure> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header("Authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let what = || format!("{method} {path}");
        let mut response = match body {
            Some((content_type, text)) => {
                let request = request.header("Content-Type", content_type).body(text)?;
                self.http.run(request).context(what())?
            }
            None => self.http.run(request.body(())?).context(what())?,
        };
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().context(what())?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Reply { status: response.status().as_u16(), headers: response.headers().clone(), text, json })
    }

    /// Reads what is at `path`.
    ///
    /// # Errors
    /// There is no answer, or it is not one of success. So for the others below.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call("GET", path, None, &[])?.ok().context(format!("GET {path}"))
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call("POST", path, Some(body), &[])?.ok().context(format!("POST {path}"))
    }

    /// Every item of a list, page after page.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let page = if cursor.is_empty() { path.to_owned() } else { format!("{path}{join}cursor={cursor}") };
            let reply = self.get(&page)?;
            all.extend(reply["items"].as_array().cloned().unwrap_or_default());
            match reply["next_cursor"].as_str() {
                Some(next) if next != cursor => next.clone_into(&mut cursor),
                _ => return Ok(all),
            }
        }
    }

    /// A repository; gives its id.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn create_repository(&self, name: &str, url: &str, password: &str) -> Result<String, Failure> {
        let body = json!({"name": name, "url": url, "password": password});
        text_of(&self.post("/v1/repositories", &body)?, "id")
    }

    /// A token with which one host may enrol, into that repository.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn enrollment_token(&self, repository_id: Option<&str>) -> Result<String, Failure> {
        let body = match repository_id {
            Some(id) => json!({"repository_id": id}),
            None => json!({}),
        };
        text_of(&self.post("/v1/enrollment-tokens", &body)?, "token")
    }

    /// A source group of a host.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn create_source_group(&self, host_id: &str, group: &Value) -> Result<(), Failure> {
        self.post(&format!("/v1/hosts/{host_id}/source-groups"), group).map(drop)
    }

    /// Asks for a job, such as `{"kind": "backup", "source_group": "docs"}`; gives its id.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn run_job(&self, host_id: &str, job: &Value) -> Result<String, Failure> {
        text_of(&self.post(&format!("/v1/hosts/{host_id}/jobs"), job)?, "id")
    }

    /// A job as it is.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn job(&self, id: &str) -> Result<Value, Failure> {
        self.get(&format!("/v1/jobs/{id}"))
    }

    /// A job once it is over.
    ///
    /// # Errors
    /// It is not over when `limit` is, and as [`Self::get`].
    pub fn finished_job(&self, id: &str, limit: Duration) -> Result<Value, Failure> {
        let began = Instant::now();
        loop {
            let wait = limit.saturating_sub(began.elapsed()).as_secs().clamp(1, 60);
            let job = self.get(&format!("/v1/jobs/{id}?wait={wait}"))?;
            if is_over(&job) {
                return Ok(job);
            }
            if began.elapsed() > limit {
                return Err(Failure::new(format!("job {id} is not over after {limit:?}; it is {job}")));
            }
        }
    }

    /// The lines of a job's log, each {seq, ts, stream, payload}.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn logs(&self, job_id: &str) -> Result<Vec<Value>, Failure> {
        let mut lines: Vec<Value> = Vec::new();
        loop {
            let after = lines.last().map(|line| format!("?after_seq={}", line["seq"])).unwrap_or_default();
            let reply = self.call("GET", &format!("/v1/jobs/{job_id}/logs{after}"), None, &[])?;
            if reply.status != 200 {
                return Err(Failure::new(reply.problem()));
            }
            let page = reply.text.split_terminator('\n').map(serde_json::from_str);
            let page = page.collect::<Result<Vec<Value>, _>>().context("a line of the log")?;
            if page.is_empty() {
                return Ok(lines);
            }
            lines.extend(page);
        }
    }
}

/// Whether a job is in a terminal status.
pub fn is_over(job: &Value) -> bool {
    matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled"))
}

/// The text of a field that must be there.
pub(crate) fn text_of(value: &Value, field: &str) -> Result<String, Failure> {
    value[field].as_str().map(str::to_owned).ok_or_else(|| Failure::new(format!("no {field} in {value}")))
}
