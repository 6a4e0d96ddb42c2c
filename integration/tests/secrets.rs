//! No secret stands in clear where it does not belong: in the database, in a log, in an answer. Real agent, real
//! restic; everything that can be read is searched for everything that must not be.

mod support;

use fleet_integration::{Sandbox, command, postgres_programs, restics};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use support::over;

/// In how many ways a dump or a log could hold a text.
fn forms(secret: &str) -> [String; 3] {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let encoded = secret.replace('&', "%26").replace('/', "%2F");
    [secret.to_owned(), hex, encoded]
}

fn must_not_hold(where_it_is: &str, text: &str, secrets: &[(&str, String)]) {
    for (name, secret) in secrets {
        for form in forms(secret) {
            let at = text.find(&form).map(|at| text[..at].lines().last().unwrap_or_default().to_owned());
            assert!(at.is_none(), "{where_it_is} holds the {name}, after {at:?}");
        }
    }
}

/// Every file below a folder but those in `spared`, as text.
fn files(dir: &Path, spared: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if spared.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, spared));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    found
}

#[test]
fn secrets_are_nowhere_in_clear() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let restic = restics().unwrap().remove(0);
    let secret = |name: &'static str| (name, format!("{name}&{}", uuid::Uuid::new_v4().simple()));
    let [password, credential, admin_password, admin_credential] =
        ["password", "credential", "admin-password", "admin-credential"].map(secret);
    let url = sandbox.path("repository").display().to_string();
    let body = json!({"name": "main", "url": url, "password": password.1, "username": "web", "credential": credential.1,
                      "admin": {"username": "boss", "password": password.1, "credential": admin_credential.1}});
    let made = api.post("/v1/repositories", &body).unwrap();
    let repository = made["id"].as_str().unwrap().to_owned();
    let mut answers = vec![made.to_string()];

    // A real agent does real work; a second host only enrols.
    let (mut agent, host) = sandbox.agent("web-1", &repository, &restic).unwrap();
    let enrollment = api.enrollment_token(Some(&repository)).unwrap();
    let (_, other_token) = sandbox.enroll("web-2", Some(&repository)).unwrap();
    fs::create_dir(sandbox.path("source")).unwrap();
    fs::write(sandbox.path("source/file"), "content").unwrap();
    let source = json!({"name": "docs", "includes": [sandbox.path("source")], "retention": {"keep_last": 1}});
    api.create_source_group(&host, &source).unwrap();
    let mut jobs = Vec::new();
    for job in [json!({"kind": "backup", "source_group": "docs"}), json!({"kind": "forget"}), json!({"kind": "prune"})]
    {
        let id = api.run_job(&host, &job).unwrap();
        let done = over(&api, &id);
        assert_eq!(done["status"], "succeeded", "{done}");
        jobs.push(id);
    }
    // A wrong password makes restic complain.
    let path = format!("/v1/repositories/{repository}");
    let patch = json!({"password": admin_password.1});
    answers.push(api.call("PATCH", &path, Some(&patch), &[]).unwrap().text);
    let id = api.run_job(&host, &json!({"kind": "check"})).unwrap();
    let failed = over(&api, &id);
    assert_eq!(failed["status"], "failed", "{failed}");
    jobs.push(id);
    // What can't be carried out is not repeated in the answer either.
    let bad = json!({"name": "x", "url": 5, "password": password.1, "credential": {"a": credential.1}});
    answers.push(api.call("POST", "/v1/repositories", Some(&bad), &[]).unwrap().text);
    let bad = json!({"token": enrollment, "hostname": "", "os": "beos", "arch": "amd64"});
    answers.push(api.call("POST", "/v1/agent/enroll", Some(&bad), &[]).unwrap().text);

    let agent_token = identity_token(&sandbox.path("agent-web-1"));
    let key = fs::read_to_string(sandbox.path("coordinator/secret.key")).unwrap().trim().to_owned();
    let admin_token = sandbox.coordinator.admin_token().to_owned();
    let mut secrets = vec![password, credential, admin_password, admin_credential];
    secrets.extend([("agent token", agent_token), ("other agent token", other_token), ("enrolment token", enrollment)]);
    secrets.extend([("admin token", admin_token), ("key", key)]);

    // Every answer that shows anything.
    for path in
        ["/v1/repositories", "/v1/hosts", "/v1/jobs", &path, &format!("{path}/stats"), &format!("/v1/hosts/{host}")]
    {
        answers.push(api.get(path).unwrap().to_string());
    }
    for job in &jobs {
        answers.push(api.job(job).unwrap().to_string());
        answers.push(Value::from(api.logs(job).unwrap()).to_string());
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        answers.push(api.call("GET", path, None, &[]).unwrap().text);
    }
    must_not_hold("an answer", &answers.concat(), &secrets);

    let dump =
        command(&postgres_programs().unwrap().join("pg_dump"), None).arg(sandbox.database.url()).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(dump.contains(&repository), "the dump has data");
    must_not_hold("the database", &dump, &secrets);

    agent.process().stop().unwrap();
    must_not_hold("the agent's log", &agent.process().output(), &secrets);
    // The key and the coordinator's token are where they belong.
    for (path, text) in files(&sandbox.path("coordinator"), &["secret.key"]) {
        must_not_hold(&path, &text, &secrets);
    }
    assert!(!files(&sandbox.path("coordinator"), &[]).is_empty());
}

/// The token in an agent's identity file.
fn identity_token(data_dir: &Path) -> String {
    let found = files(data_dir, &[]).into_iter().find_map(|(_, text)| {
        let identity: Value = serde_json::from_str(&text).ok()?;
        ["agent_token", "token"].iter().find_map(|field| Some(identity[*field].as_str()?.to_owned()))
    });
    found.expect("an identity with a token in the agent's folder")
}

#[test]
fn tokens_and_secrets_are_stored_hashed_and_sealed() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let make = |name: &str| api.create_repository(name, "/srv/r", "the same password").unwrap();
    make("one");
    make("two");
    let rows = sandbox.database.query("SELECT password FROM repositories").unwrap();
    assert_eq!(rows.len(), 2);
    assert_ne!(rows[0], rows[1], "the same secret looks different in each row");
    sandbox.enroll("web-1", None).unwrap();
    let lengths = "SELECT length(token_hash) FROM hosts UNION ALL SELECT length(token_hash) FROM enrollment_tokens";
    for row in sandbox.database.query(lengths).unwrap() {
        assert_eq!(row[0].as_deref(), Some("32"), "a SHA-256 and nothing beside it");
    }
}
