//! The document at `/openapi.json` says what there is, all of it, and nothing else.

use crate::rig::{ADMIN, Answer, Rig, with_rig};
use actix_web::http::Method;
use fleet_coordinator::http::openapi::document;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The paths of the document, each with its operations by their methods.
fn paths(document: &Value) -> &Map<String, Value> {
    document["paths"].as_object().expect("paths")
}

/// An address of this path at which nothing is.
fn address(path: &str) -> String {
    let nobody = "0190a0c0-0000-7000-8000-000000000000";
    let segment = |segment: &str| if segment.starts_with('{') { nobody.to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

async fn ask(rig: &Rig, method: &str, path: &str, token: Option<&str>) -> Answer {
    let method: Method = method.to_uppercase().parse().expect("a method");
    let body = if method == Method::GET { "" } else { "{}" };
    rig.send(method, &address(path), token, body).await
}

#[test]
fn each_path_answers_as_it_says() {
    with_rig(async |rig| {
        let document = rig.get("/openapi.json").await.is(200).body;
        for (path, item) in paths(&document) {
            let documented: BTreeSet<&str> = item.as_object().expect("operations").keys().map(String::as_str).collect();
            for method in METHODS {
                let answer = ask(&rig, method, path, Some(ADMIN)).await;
                let told = answer.body["detail"].as_str().unwrap_or_default();
                assert_ne!(told, "there is nothing at this address", "{method} {path}");
                if documented.contains(method) {
                    check(&format!("{method} {path}"), &document, &item[method], &answer);
                } else {
                    let answer = answer.is(405);
                    let allowed: BTreeSet<String> = answer.header("allow").split(", ").map(str::to_lowercase).collect();
                    assert!(allowed.iter().eq(&documented), "{path}: {allowed:?}, documented {documented:?}");
                }
            }
        }
    });
}

/// An answer must be among those that its operation lists, and have the type and the headers that stand there.
fn check(what: &str, document: &Value, operation: &Value, answer: &Answer) {
    let listed = &operation["responses"][answer.status.to_string()];
    assert!(!listed.is_null(), "{what}: {} is not documented: {}", answer.status, answer.body);
    let listed = resolved(document, listed);
    if let Some(content) = listed["content"].as_object() {
        assert!(content.contains_key(answer.header("content-type")), "{what}: {}", answer.header("content-type"));
    }
    for (name, _) in listed["headers"].as_object().expect("headers") {
        assert!(!answer.header(name).is_empty(), "{what}: {} without {name}", answer.status);
    }
    if answer.status >= 400 {
        let schema = &resolved(document, &listed["content"]["application/problem+json"]["schema"])["allOf"][1];
        let types = schema["properties"]["type"]["enum"].as_array().expect("types");
        assert!(types.contains(&answer.body["type"]), "{what}: {}", answer.body);
    }
}

fn resolved<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(place) => document.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("no {place}")),
        None => part,
    }
}

#[test]
fn nobody_gets_in_where_the_document_asks_for_a_token() {
    with_rig(async |rig| {
        for (path, item) in paths(&document()) {
            for (method, operation) in item.as_object().expect("operations") {
                let answer = ask(&rig, method, path, None).await;
                let asks = operation["security"] != serde_json::json!([{}]);
                assert_eq!(answer.status == 401, asks, "{method} {path}: {}", answer.status);
            }
        }
    });
}

/// Every resource is made by `resource("…"`, so that the sources tell them all.
#[test]
fn each_route_is_in_the_document() {
    let mut routes = BTreeSet::new();
    collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http")), &mut routes);
    let document = document();
    let documented: BTreeSet<String> = paths(&document).keys().cloned().collect();
    let inside = |route: &String| if documented.contains(route) { route.clone() } else { format!("/v1{route}") };
    let routes: BTreeSet<String> = routes.iter().map(inside).collect();
    assert!(routes.len() > 30, "{routes:?}");
    assert_eq!(routes, documented);
}

fn collect(folder: &Path, routes: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, routes);
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("a source");
        let is_helper = path.ends_with("routes.rs");
        assert!(is_helper || !source.contains("web::resource("), "{} makes a resource itself", path.display());
        assert!(!source.contains(".route(\""), "{} makes a route of its own", path.display());
        for call in source.split("resource(").skip(1) {
            if let Some(path) = call.trim_start().strip_prefix('"').and_then(|path| path.split('"').next()) {
                routes.insert(path.to_owned());
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_name_is_one_operations() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for place in &found {
        assert!(document.pointer(place.trim_start_matches('#')).is_some(), "{place} leads nowhere");
    }
    let operations = paths(&document).values().filter_map(Value::as_object).flat_map(|item| item.values());
    let names: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().expect("a name")).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
}
