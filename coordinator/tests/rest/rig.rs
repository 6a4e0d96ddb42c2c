//! An application over a database of its own.

use actix::Actor;
use actix_web::dev::Service;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::{test, web};
use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_coordinator::config::{Deadlines, Leases, Maintenance, Rates, SecretSources};
use fleet_coordinator::db::{Database, pauses};
use fleet_coordinator::http;
use fleet_coordinator::metrics::Metrics;
use fleet_coordinator::persistence::{CoordinatorLock, Patience, Persistence, Save, Write};
use fleet_coordinator::services::{Found, Rules, Services};
use fleet_coordinator::vault::Vault;
use fleet_wire::Secret;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The admin token.
pub(crate) const ADMIN: &str = "fleet_admin_test";
/// Every secret that tests use holds this word. No answer and no row may.
pub(crate) const SECRET: &str = "hunter2";

/// Longer than any test takes.
const LIMITS: Deadlines = {
    let hour = Duration::from_secs(3600);
    Deadlines { queued: hour, accept: hour, agent_lost: hour, cancel: hour, backup: hour, maintenance: hour }
};

const MAINTENANCE: Maintenance = Maintenance { jitter: Duration::ZERO, runner_offline: Duration::from_secs(3600) };
const LEASES: Leases =
    Leases { drain_after: Duration::from_secs(60), backups_per_repository: None, backups_at_once: None };

const SECRETS: SecretSources = SecretSources { directory: None, prefix: String::new() };

const RATES: Rates = Rates { token: None, address: None };

const RULES: Rules =
    Rules { deadlines: LIMITS, maintenance: MAINTENANCE, leases: LEASES, secrets: SECRETS, mailer: None, rates: RATES };

/// Runs `test` with an application over a fresh database.
pub(crate) fn with_rig(test: impl AsyncFnOnce(Rig)) {
    let database = fleet_integration::Database::create().expect("a database");
    actix::System::new().block_on(async {
        test(Rig::start(&database.url()).await).await;
    });
}

/// The application and what is behind it.
pub(crate) struct Rig {
    pub(crate) services: Services,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The answer, which must have this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    /// The string in a field.
    #[track_caller]
    pub(crate) fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no string {field} in {}", self.body)).to_owned()
    }

    /// The value of a header; empty without one.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The pointers of a problem.
    pub(crate) fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().filter_map(|error| error["pointer"].as_str()).collect()
    }

    /// A field of each item of a list.
    pub(crate) fn each(&self, field: &str) -> Vec<&str> {
        let items = self.body["items"].as_array().expect("items");
        items.iter().map(|item| item[field].as_str().expect("a string")).collect()
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    text: String,
}

impl Rig {
    async fn start(url: &str) -> Self {
        let database = Database::new(&Secret::new(url)).expect("a pool");
        database.migrate().await.expect("migrated");
        let lock = CoordinatorLock::take(&database).await.expect("the lock");
        let (lost, _) = tokio::sync::mpsc::unbounded_channel();
        let persistence = Persistence::new(database.clone(), lock, lost).start();
        let vault = Vault::with_key([7; 32]);
        let (admin, metrics) = (Secret::new(ADMIN), Arc::new(Metrics::new(100)));
        let services = Services::start(Found::default(), database, vault, persistence, &admin, RULES, metrics);
        Self { services }
    }

    /// Sends a request with the admin token.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, Some(ADMIN), body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, Value::Null).await
    }

    /// Sends any request and checks what holds of every answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: impl Into<web::Bytes>,
    ) -> Answer {
        let app = test::init_service(http::app(web::Data::new(self.services.clone()))).await;
        let mut request = test::TestRequest::default().method(method.clone()).uri(path).set_payload(body);
        if let Some(token) = token {
            request = request.insert_header(("authorization", format!("Bearer {token}")));
        }
        let response = app.call(request.to_request()).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = test::read_body(response).await;
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let whole = format!("{headers:?} {text}");
        assert!(!whole.contains(SECRET), "{method} {path} gives a secret away: {whole}");

        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(json!(text)) };
        let id = headers.get("x-request-id").and_then(|id| id.to_str().ok()).expect("a request id");
        if status >= 400 {
            assert_eq!(
                headers.get("content-type").expect("a type"),
                "application/problem+json",
                "{method} {path}: {text}"
            );
            assert_eq!(body["request_id"], id);
            assert_eq!(body["status"], status);
            assert!(body["type"].as_str().is_some_and(|name| name.starts_with("/problems/")), "{text}");
            assert!(body["title"].is_string() && body["detail"].is_string(), "{text}");
        }
        Answer { status, headers, body }
    }

    /// A connection for looking at the database.
    pub(crate) async fn reader(&self) -> AsyncPgConnection {
        self.services.database.connect().await.expect("a connection")
    }

    /// Changes the database behind the coordinator's back.
    pub(crate) async fn sql(&self, text: &str) {
        diesel::sql_query(text).execute(&mut self.reader().await).await.expect("done");
    }

    /// The column `text` of what a query gives.
    pub(crate) async fn texts(&self, query: &str) -> Vec<String> {
        let rows: Vec<Row> = diesel::sql_query(query).load(&mut self.reader().await).await.expect("rows");
        rows.into_iter().map(|row| row.text).collect()
    }

    /// Learns what is paused from the database, as a start does.
    pub(crate) async fn load_pauses(&self) {
        for (target, pause) in pauses::all(&mut self.reader().await).await.expect("pauses") {
            self.services.pauses.set(target, Some(pause));
        }
    }

    /// Writes as the actors do.
    pub(crate) async fn write<W: Write>(&self, write: W) -> W::Output {
        let save = Save { write, patience: Patience::Endless };
        self.services.persistence.send(save).await.expect("the actor").expect("written")
    }

    /// Everything that is in the database, as one text.
    pub(crate) async fn whole_database(&self) -> String {
        let mut reader = self.reader().await;
        let tables: Vec<Row> =
            diesel::sql_query("SELECT tablename::text AS text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
                .load(&mut reader)
                .await
                .expect("tables");
        let mut whole = String::new();
        for Row { text: table } in tables {
            let query = format!("SELECT row_to_json({table})::text AS text FROM {table} ORDER BY 1");
            let rows: Vec<Row> = diesel::sql_query(query).load(&mut reader).await.expect("rows");
            rows.iter().for_each(|row| whole.push_str(&row.text));
        }
        assert!(!whole.is_empty(), "the dump is empty");
        whole
    }

    /// The one `text` that a query gives.
    pub(crate) async fn one(&self, query: &str) -> String {
        diesel::sql_query(query).get_result::<Row>(&mut self.reader().await).await.expect("a row").text
    }

    /// The name of the database.
    pub(crate) async fn database_name(&self) -> String {
        self.one("SELECT current_database()::text AS text").await
    }

    /// A repository; its id.
    pub(crate) async fn repository(&self, name: &str) -> String {
        let body = json!({"name": name, "url": format!("/srv/{name}"), "password": format!("{SECRET}-{name}")});
        self.post("/v1/repositories", body).await.is(201).text("id")
    }

    /// A host that was enrolled with a token that was made with `token`; its id and its token.
    pub(crate) async fn host(&self, hostname: &str, token: Value) -> (String, String) {
        let answer = self.enroll(hostname, token).await.is(201);
        (answer.text("host_id"), answer.text("agent_token"))
    }

    /// The answer to an enrolment with a fresh token that was made with `token`.
    pub(crate) async fn enroll(&self, hostname: &str, token: Value) -> Answer {
        let token = self.post("/v1/enrollment-tokens", token).await.is(201).text("token");
        self.enroll_with(&token, hostname).await
    }

    /// The answer to an enrolment.
    pub(crate) async fn enroll_with(&self, token: &str, hostname: &str) -> Answer {
        let body = json!({"token": token, "hostname": hostname, "os": "linux", "arch": "amd64"});
        self.send(Method::POST, "/v1/agent/enroll", None, body.to_string()).await
    }
}
