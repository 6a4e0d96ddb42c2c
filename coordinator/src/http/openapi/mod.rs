//! `/openapi.json`: the REST API as an OpenAPI 3.1 document, generated from the code.
//!
//! Each handler is annotated with what it takes and gives, each resource's module has an `Api` that lists its handlers, and
//! `parts` lists the modules. What holds of all routes of a kind (tokens, problems, ids in paths, the request's id) is
//! written down once, in `common`.

mod common;
mod cron;
mod fleet;
mod rules;
pub(super) mod schemas;

use super::routes::resource;
use super::{
    agent_connect, agent_release, audit, channels, deliveries, enrollment, fleet as fleet_document, health, hosts,
    jobs, logs, maintenance, metrics, operations, pauses, repositories, runs, schedules, snapshots, source_groups,
    stats, tokens,
};
use actix_web::web::{self, Bytes};
use actix_web::{HttpResponse, http::header::ContentType};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use utoipa::OpenApi;

/// Adds the route.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/openapi.json", [web::get().to(serve)], "GET"));
}

#[derive(OpenApi)]
#[openapi(paths(serve))]
struct Api;

/// The resources, in the order in which a reader meets them, and what they are about.
fn parts() -> Vec<(&'static str, &'static str, utoipa::openapi::OpenApi)> {
    vec![
        ("hosts", "Hosts: one agent each.", hosts::Api::openapi()),
        ("enrollment", "How a host comes to its identity.", enrollment::Api::openapi()),
        ("repositories", "Repositories, and how they are.", repositories::Api::openapi()),
        ("source_groups", "What of a host is backed up.", source_groups::Api::openapi()),
        ("schedules", "When it is backed up.", schedules::Api::openapi()),
        ("maintenance", "When repositories are forgotten in, pruned and checked.", maintenance::Api::openapi()),
        ("fleet", "All of these settings as one document.", fleet_document::Api::openapi()),
        ("jobs", "What is done now.", jobs::Api::openapi()),
        ("logs", "What it has said.", logs::Api::openapi()),
        ("operations", "One wish for many hosts.", operations::Api::openapi()),
        ("runs", "What was due, and what is overdue.", runs::Api::openapi()),
        ("pauses", "Where nothing new is started.", pauses::Api::openapi()),
        ("snapshots", "What is in the repositories.", snapshots::Api::openapi()),
        ("stats", "How large repositories are, and how sound.", stats::Api::openapi()),
        ("tokens", "Who may use this API.", tokens::Api::openapi()),
        ("audit", "Who has changed what.", audit::Api::openapi()),
        ("channels", "Who is told what is wrong.", channels::Api::openapi()),
        ("deliveries", "What was sent to them, and what came of it.", deliveries::Api::openapi()),
        ("agent_release", "The newest agent.", agent_release::Api::openapi()),
        ("agents", "The agents' socket.", agent_connect::Api::openapi()),
        ("health", "For machines that watch the coordinator.", health::Api::openapi()),
        ("metrics", "What is counted.", metrics::Api::openapi()),
        ("openapi", "This document.", Api::openapi()),
    ]
}

/// The whole document.
pub fn document() -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let mut tags = Vec::new();
    for (tag, about, part) in parts() {
        tags.push(json!({"name": tag, "description": about}));
        // What serialises to an object is one: nothing is lost by these defaults.
        let mut part = serde_json::to_value(part).unwrap_or_default();
        schemas.append(&mut object(part["components"]["schemas"].take()));
        for (path, item) in object(part["paths"].take()) {
            let item = object(item).into_iter().map(|(method, operation)| (method, of_resource(tag, operation)));
            if let Value::Object(there) = paths.entry(path).or_insert_with(|| json!({})) {
                there.extend(item);
            }
        }
    }
    schemas.extend(schemas::all().into_iter().map(|(name, shape)| (name, json!(shape))));
    rules::add(&mut schemas);
    fleet::add(&mut schemas);
    schemas.extend(common::problem_schemas());
    schemas.values_mut().for_each(common::bound_integers);
    for (path, item) in &mut paths {
        common::bound_integers(item);
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            common::complete(path, method, operation, &schemas);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "restic-fleet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": common::ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": common::problem_responses(),
            "parameters": common::optional_headers(),
            "headers": common::headers(),
            "securitySchemes": common::security_schemes(),
        },
    })
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(object) = value { object } else { Map::new() }
}

/// An operation with a name that no other resource's has.
fn of_resource(tag: &str, mut operation: Value) -> Value {
    let name = operation["operationId"].as_str().unwrap_or_default();
    operation["operationId"] = format!("{tag}_{name}").into();
    operation["tags"] = json!([tag]);
    operation
}

/// This document
#[utoipa::path(get, path = "/openapi.json", security(()), responses((status = 200, body = Value)))]
async fn serve() -> HttpResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());
    HttpResponse::Ok().content_type(ContentType::json()).body(DOCUMENT.clone())
}
