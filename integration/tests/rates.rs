//! How many requests may come: of each token, and from each address without one.

mod support;

use fleet_integration::{Reply, Sandbox, eventually};
use serde_json::{Value, json};
use std::time::Duration;
use support::{ask, client};

/// Asks until it is told to ask more slowly.
fn until_refused(mut ask: impl FnMut() -> Reply) -> (usize, Reply) {
    for asked in 0..1000 {
        let reply = ask();
        if reply.status == 429 {
            return (asked, reply);
        }
    }
    panic!("nobody was told to ask more slowly");
}

#[test]
fn who_asks_too_fast_is_told_when_to_come_back_and_others_are_not() {
    let variables = [("FLEET_RATE_PER_TOKEN", "2"), ("FLEET_RATE_PER_ADDRESS", "2")];
    let sandbox = Sandbox::start_with(&variables).unwrap();
    let api = sandbox.api();
    let (first, _) = client(&api, &json!({"name": "first", "scope": "read"}));
    let (second, _) = client(&api, &json!({"name": "second", "scope": "read"}));
    let hosts = || ask(&first, "GET", "/v1/hosts", &Value::Null);
    let (answered, refused) = until_refused(hosts);
    assert!(answered >= 4, "a token at rest has saved up the requests of two seconds, and {answered} were answered");
    assert_eq!(refused.json["type"], "/problems/too-many-requests", "{}", refused.text);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(ask(&second, "GET", "/v1/hosts", &Value::Null).status, 200);
    assert_eq!(ask(&first, "GET", "/healthz", &Value::Null).status, 200, "needs no token, and has no limit");
    eventually("the first may ask again", Duration::from_secs(30), || {
        let reply = hosts();
        if reply.status == 200 { Ok(()) } else { Err(reply.text) }
    })
    .unwrap();

    // Whoever guesses tokens, and whoever enrols.
    let stranger = api.with_token("guessed");
    let (_, refused) = until_refused(|| ask(&stranger, "GET", "/v1/hosts", &Value::Null));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let enrolment = json!({"token": "guessed", "hostname": "x", "os": "linux", "arch": "amd64"});
    until_refused(|| ask(&stranger, "POST", "/v1/agent/enroll", &enrolment));
    assert_eq!(ask(&second, "GET", "/v1/hosts", &Value::Null).status, 200);
}
