//! What holds of many routes: added to each by what the route is.

use crate::access::{Scope, allows, class};
use crate::http::problem;
use actix_web::http::Method;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a reader should know first.
pub(super) const ABOUT: &str = "\
Backups of a fleet with restic. JSON, UTF-8; times are RFC 3339 in UTC; ids are opaque strings.\n\n\
Each answer has the request's id in `X-Request-Id`. What goes wrong is told as a problem (RFC 9457) with a stable `type`; \
a method that a resource does not have is answered with 405, `/problems/method-not-allowed` and `Allow`.\n\n\
A POST may carry an `Idempotency-Key`: the same request again under that key is not done again, and answered as it was.\n\n\
What can be changed has an `ETag` of its settings. A change with `If-Match` is made only if it still has that tag, and else \
answered with 412, `/problems/has-changed`.\n\n\
Lists come in pages: `next_cursor` is the `cursor` of the next one, and `null` on the last.";

const PROBLEM: &str = "application/problem+json";

/// Where each kind of reusable part is.
fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// The component of the problems with a status.
fn name_of(status: u16) -> String {
    format!("Problem{status}")
}

/// All problems, by their statuses: (`type`, `title`).
fn problems() -> BTreeMap<u16, Vec<(String, &'static str)>> {
    let mut by_status: BTreeMap<u16, Vec<(String, &'static str)>> = BTreeMap::new();
    for (uri, title, status) in problem::catalogue() {
        by_status.entry(status).or_default().push((uri, title));
    }
    by_status
}

/// The schema of a problem, and of those with each status.
pub(super) fn problem_schemas() -> Map<String, Value> {
    let error = json!({
        "type": "object",
        "required": ["pointer", "detail"],
        "properties": {
            "pointer": {
                "type": "string",
                "description": "A JSON pointer into the body, `?name` for a parameter, or the name of a header.",
            },
            "detail": {"type": "string", "description": "What is wrong there, for people."},
        },
    });
    let (uris, titles): (Vec<_>, Vec<_>) = problem::catalogue().map(|(uri, title, _)| (uri, title)).unzip();
    let all = json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "request_id"],
        "properties": {
            "type": {"type": "string", "enum": uris},
            "title": {"type": "string", "enum": titles},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong this time, for people."},
            "request_id": {"type": "string", "description": "As in `X-Request-Id` and in the coordinator's log."},
            "errors": {"type": "array", "items": error},
        },
    });
    let of_status = |(status, kinds): (u16, Vec<(String, &str)>)| {
        let uris: Vec<String> = kinds.into_iter().map(|(uri, _)| uri).collect();
        let narrower = json!({"properties": {"type": {"enum": uris}, "status": {"const": status}}});
        (name_of(status), json!({"allOf": [reference("schemas", "Problem"), narrower]}))
    };
    problems().into_iter().map(of_status).chain([("Problem".to_owned(), all)]).collect()
}

/// The answer with each status that tells of a problem.
pub(super) fn problem_responses() -> Map<String, Value> {
    let of_status = |(status, kinds): (u16, Vec<(String, &str)>)| {
        let titles: Vec<&str> = kinds.into_iter().map(|(_, title)| title).collect();
        (name_of(status), response(status, &titles.join(", or: ")))
    };
    problems().into_iter().map(of_status).collect()
}

fn response(status: u16, description: &str) -> Value {
    let mut headers = json!({"X-Request-Id": reference("headers", "RequestId")});
    match status {
        401 => headers["WWW-Authenticate"] = reference("headers", "Authenticate"),
        429 | 503 => headers["Retry-After"] = reference("headers", "RetryAfter"),
        _ => {}
    }
    let schema = reference("schemas", &name_of(status));
    json!({"description": description, "headers": headers, "content": {PROBLEM: {"schema": schema}}})
}

/// The headers of answers.
pub(super) fn headers() -> Value {
    let header = |about: &str, schema: Value| json!({"description": about, "required": true, "schema": schema});
    json!({
        "RequestId": header("The request's id.", json!({"type": "string"})),
        "Authenticate": header("How to come back: with a bearer token.", json!({"type": "string"})),
        "RetryAfter": header("When to come back, in seconds.", json!({"type": "integer", "minimum": 1})),
    })
}

/// Headers that requests may carry. Operations say so in words: what they mean depends on what was asked before, so a value
/// that is made up can't be told good or bad by its form.
pub(super) fn optional_headers() -> Value {
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A name for this request: see above. On every POST.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        },
        "IfMatch": {
            "name": "If-Match",
            "in": "header",
            "description": "`*`, or tags of states that may be changed: see above. On every change that can be answered with 412.",
            "schema": {"type": "string", "pattern": "^(\\*|(W/)?\"[^\"]*\"(, *(W/)?\"[^\"]*\")*)$"},
        },
    })
}

/// Who may ask.
pub(super) fn security_schemes() -> Value {
    let bearer = |about: &str| json!({"type": "http", "scheme": "bearer", "description": about});
    json!({
        "token": bearer("A token of this API: FLEET_ADMIN_TOKEN, or one that POST /v1/tokens has made."),
        "agent_token": bearer("The token that an agent got when it was enrolled."),
    })
}

/// Adds to an operation what its like have in common. What it says by itself stays.
pub(super) fn complete(path: &str, method: &str, operation: &mut Value, schemas: &Map<String, Value>) {
    let is_public = operation["security"].is_array();
    if !is_public {
        operation["security"] = json!([{"token": []}]);
    }
    require_body(operation, schemas);
    add_path_parameters(path, operation);
    let problems = problems_of(path, method, operation, is_public);
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for status in problems {
        let response = reference("responses", &name_of(status));
        responses.entry(status.to_string()).or_insert(response);
    }
    for (status, response) in responses {
        describe(status.parse().unwrap_or(0), response);
    }
}

/// Whole numbers are of 64 bits, which JSON Schema has no word for.
pub(super) fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("format").is_some_and(|format| format == "int64") {
                fields.entry("minimum").or_insert_with(|| i64::MIN.into());
                fields.entry("maximum").or_insert_with(|| i64::MAX.into());
            }
            fields.values_mut().for_each(bound_integers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

/// A body can be left out where an empty object would do.
fn require_body(operation: &mut Value, schemas: &Map<String, Value>) {
    let Some(body) = operation.get_mut("requestBody") else { return };
    let name = body["content"]["application/json"]["schema"]["$ref"].as_str().unwrap_or_default();
    let schema = name.rsplit('/').next().and_then(|name| schemas.get(name));
    let needs = |schema: &Value| schema["required"].as_array().is_some_and(|required| !required.is_empty());
    let any = |schema: &Value| schema["oneOf"].as_array().is_some_and(|cases| cases.iter().all(needs));
    body["required"] = schema.is_none_or(|schema| needs(schema) || any(schema)).into();
}

/// What stands in braces is an id, unless the operation says something else.
fn add_path_parameters(path: &str, operation: &mut Value) {
    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    for name in names {
        if !parameters.iter().any(|given| given["name"] == name && given["in"] == "path") {
            let id = json!({"type": "string", "format": "uuid"});
            parameters.push(json!({"name": name, "in": "path", "required": true, "schema": id}));
        }
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
}

/// The statuses of the problems that such an operation can have.
fn problems_of(path: &str, method: &str, operation: &Value, is_public: bool) -> BTreeSet<u16> {
    let Some(route) = path.strip_prefix("/v1/") else { return BTreeSet::new() };
    let mut problems = BTreeSet::from([429, 500, 503]);
    if !is_public {
        problems.insert(401);
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap_or_default();
        if !Scope::ALL.into_iter().all(|scope| allows(scope, &method, class(route))) {
            problems.insert(403);
        }
    }
    if path.contains('{') {
        problems.insert(404);
    }
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if parameters.iter().any(|parameter| parameter["in"] == "query") {
        problems.insert(400);
    }
    if operation.get("requestBody").is_some() {
        problems.extend([400, 413, 422]);
    }
    if method != "get" {
        // What is changed is looked at once its body is there.
        problems.extend([408, 413]);
    }
    if method == "post" {
        // An Idempotency-Key is wrong, its request is under way, or another had it.
        problems.extend([400, 409, 413, 422]);
    }
    problems
}

/// Gives an answer what all have, and a description.
fn describe(status: u16, given: &mut Value) {
    if given.get("$ref").is_some() {
        return;
    }
    let about = given["description"].as_str().filter(|about| !about.is_empty()).map(str::to_owned);
    if status >= 400 {
        *given = response(status, about.as_deref().unwrap_or("A problem."));
        return;
    }
    let usual = match status {
        201 => "It is made.",
        202 => "It is under way.",
        204 => "It is done.",
        _ => "As it is.",
    };
    given["description"] = about.as_deref().unwrap_or(usual).into();
    given["headers"]["X-Request-Id"] = reference("headers", "RequestId");
}
