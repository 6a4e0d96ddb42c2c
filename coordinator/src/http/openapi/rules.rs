//! What the fields of a request must come to together, which no field can say alone.

use fleet_wire::{Kind, RetentionPolicy};
use serde_json::{Map, Value, json};

/// Adds the rules to the schemas of requests.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    let rules = [
        ("Retention", "anyOf", keeps_something()),
        ("NewJob", "anyOf", jobs()),
        ("NewOperation", "anyOf", operations()),
        ("Selector", "anyOf", selectors()),
        ("NewSourceGroup", "allOf", json!([reference("SourceGroupSettings"), named()])),
        ("NewToken", "anyOf", scopes()),
        ("NewChannel", "anyOf", channels()),
    ];
    for (name, keyword, rule) in rules {
        if let Some(Value::Object(schema)) = schemas.get_mut(name) {
            schema.insert(keyword.to_owned(), rule);
        }
    }
    if let Some(schema) = schemas.get_mut("ScheduleSettings") {
        schema["properties"]["source_groups"]["uniqueItems"] = true.into();
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn named() -> Value {
    json!({"type": "object", "required": ["name"], "properties": {"name": reference("GroupName")}})
}

/// One rule is above zero.
fn keeps_something() -> Value {
    let keeps = |(rule, _): (&str, Option<i64>)| json!({"required": [rule], "properties": {rule: {"type": "integer", "minimum": 1}}});
    RetentionPolicy::default().rules().map(keeps).to_vec().into()
}

/// What each kind takes: only a check has arguments, only a backup or a forget a group.
fn by_kind(kind: Kind) -> Value {
    let mut properties = json!({"kind": {"const": kind.as_str()}});
    if kind != Kind::Check {
        properties["args"] = json!({"type": "array", "maxItems": 0});
    }
    let mut required = vec!["kind"];
    match kind {
        Kind::Backup => {
            properties["source_group"] = reference("GroupName");
            required.push("source_group");
        }
        Kind::Forget => {}
        _ => properties["source_group"] = json!({"type": "null"}),
    }
    json!({"required": required, "properties": properties})
}

/// Only a forget can be tried dry, or confirmed; that which is confirmed has the groups of the one that was refused.
fn jobs() -> Value {
    let of = |kind: &Kind| {
        let mut job = by_kind(*kind);
        job["properties"]["confirm"] = json!({"type": "null"});
        if *kind != Kind::Forget {
            job["properties"]["dry_run"] = json!({"const": false});
        }
        job
    };
    let mut confirmed = by_kind(Kind::Forget);
    confirmed["properties"]["confirm"] = json!({"type": "string"});
    confirmed["properties"]["dry_run"] = json!({"const": false});
    confirmed["properties"]["source_group"] = json!({"type": "null"});
    confirmed["required"] = json!(["kind", "confirm"]);
    Kind::ALL.iter().map(of).chain([confirmed]).collect::<Vec<_>>().into()
}

/// As jobs; a backup and a forget are each host's own.
fn operations() -> Value {
    let of = |kind: &Kind| {
        let mut operation = by_kind(*kind);
        if matches!(kind, Kind::Backup | Kind::Forget) {
            operation["properties"]["per"] = json!({"enum": ["host", null]});
        }
        operation
    };
    Kind::ALL.iter().map(of).collect::<Vec<_>>().into()
}

/// All hosts, or those that something tells.
fn selectors() -> Value {
    let nothing = json!({"type": "null"});
    let all = json!({
        "required": ["all"],
        "properties": {
            "all": {"const": true},
            "labels": {"maxProperties": 0},
            "status": nothing,
            "repository_id": nothing,
            "ids": nothing,
        },
    });
    let told =
        |name: &str, what: Value| json!({"required": [name], "properties": {"all": {"const": false}, name: what}});
    json!([
        all,
        told("labels", json!({"minProperties": 1})),
        told("status", json!({"type": "string"})),
        told("repository_id", json!({"type": "string"})),
        told("ids", json!({"type": "array"})),
    ])
}

/// A webhook has a URL, e-mail has recipients.
fn channels() -> Value {
    let nothing = json!({"type": "null"});
    let webhook = json!({"kind": {"const": "webhook"}, "url": {"type": "string"}, "recipients": nothing});
    let mail = json!({"kind": {"const": "email"}, "recipients": {"type": "array"}, "url": nothing, "secret": nothing});
    json!([{"required": ["url"], "properties": webhook}, {"required": ["recipients"], "properties": mail}])
}

/// An admin can't be limited, who could make a token without limits.
fn scopes() -> Value {
    json!([
        {"properties": {"scope": {"enum": ["read", "operate"]}}},
        {"properties": {"scope": {"const": "admin"}, "host_labels": {"type": "null"}}},
    ])
}
