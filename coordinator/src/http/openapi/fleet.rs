//! The shape of the document of the fleet, and of a plan. Most of it is that of the single routes.

use serde_json::{Map, Value, json};

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A thing that may be left out, or be null.
fn optional(name: &str) -> Value {
    json!({"oneOf": [reference(name), {"type": "null"}]})
}

/// Things by their names, which have the shape `name`.
fn named(name: &str, items: &str) -> Value {
    json!({"type": ["object", "null"], "propertyNames": reference(name), "additionalProperties": reference(items)})
}

fn object(about: &str, required: Value, properties: Value) -> Value {
    json!({
        "description": about, "type": "object", "required": required, "properties": properties,
        "additionalProperties": false,
    })
}

/// All shapes, of which some are made of those that are there.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    let group = without(schemas, "SourceGroupSettings", "name");
    let mut maintenance = without(schemas, "MaintenanceSettings", "runner_host_id");
    maintenance["properties"]["runner"] = optional("AnyText");
    let document = object(
        "The fleet. What it does not name stays as it is, unless `delete` is set.",
        json!([]),
        json!({
            "repositories": named("Name", "FleetRepository"),
            "templates": {"type": ["array", "null"], "items": reference("FleetTemplate")},
            "hosts": {"type": ["array", "null"], "items": reference("FleetHost")},
        }),
    );
    let shapes = [
        ("FleetDocument", document),
        ("FleetRepository", repository()),
        ("FleetAdmin", admin()),
        ("FleetSecret", secret()),
        ("FleetMaintenance", maintenance),
        ("FleetSelector", selector()),
        ("FleetTemplate", template()),
        ("FleetHost", host()),
        ("FleetSourceGroup", group),
        ("FleetPlan", plan()),
        ("FleetStep", step()),
        ("FleetPending", pending()),
    ];
    schemas.extend(shapes.map(|(name, shape)| (name.to_owned(), shape)));
}

/// The shape that is there, without one of its fields.
fn without(schemas: &Map<String, Value>, name: &str, field: &str) -> Value {
    let mut shape = schemas.get(name).cloned().unwrap_or_default();
    if let Some(properties) = shape["properties"].as_object_mut() {
        properties.remove(field);
    }
    shape
}

fn repository() -> Value {
    let properties = json!({
        "url": reference("RepositoryUrl"),
        "username": optional("Username"),
        "password": reference("FleetSecret"),
        "credential": optional("FleetSecret"),
        "admin": optional("FleetAdmin"),
        "append_only": {"type": "boolean"},
        "max_backups": {"type": ["integer", "null"], "minimum": 1, "maximum": 1_000_000},
        "maintenance": optional("FleetMaintenance"),
    });
    object("A repository.", json!(["url", "password"]), properties)
}

fn admin() -> Value {
    let properties = json!({
        "url": optional("RepositoryUrl"),
        "username": optional("Username"),
        "password": optional("FleetSecret"),
        "credential": optional("FleetSecret"),
    });
    object("What the repository's runner uses; what is left out is as for everybody.", json!([]), properties)
}

fn secret() -> Value {
    let from = |place: &str| object("", json!([place]), json!({place: reference("AnyText")}));
    json!({
        "description": "Where a secret is: a variable of the coordinator's environment, or a file in its folder of secrets; or \
                        `kept`, the one that is there.",
        "oneOf": [{"const": "kept"}, from("env"), from("file")],
    })
}

fn selector() -> Value {
    let labels =
        json!({"type": "object", "propertyNames": reference("AnyText"), "additionalProperties": reference("AnyText")});
    let mut some = labels.clone();
    some["minProperties"] = 1.into();
    let none = json!({"type": "object", "maxProperties": 0});
    let not = json!({"const": false});
    json!({
        "description": "Which hosts: those for which all that is given holds.",
        "anyOf": [
            object("All.", json!(["all"]), json!({"all": {"const": true}, "labels": none, "repository": {"type": "null"}})),
            object("Those with these labels.", json!(["labels"]), json!({"all": not, "labels": some, "repository": optional("AnyText")})),
            object("Those of this repository.", json!(["repository"]), json!({"all": not, "labels": labels, "repository": reference("AnyText")})),
        ],
    })
}

/// What templates and hosts have in common.
fn common() -> Value {
    json!({
        "hook_shell": optional("ShortText"),
        "pre_hook": optional("Hook"),
        "post_hook": optional("Hook"),
        "bandwidth_up_kbps": optional("Kbps"),
        "bandwidth_down_kbps": optional("Kbps"),
        "source_groups": named("GroupName", "FleetSourceGroup"),
        "schedules": named("Name", "ScheduleSettings"),
    })
}

fn template() -> Value {
    let mut properties = common();
    properties["name"] = optional("AnyText");
    properties["selector"] = reference("FleetSelector");
    object("What some hosts have in common.", json!(["selector"]), properties)
}

fn host() -> Value {
    let mut properties = common();
    properties["hostname"] = reference("Name");
    properties["repository"] = optional("Name");
    properties["labels"] = optional("Labels");
    object("A host, over what templates say of it.", json!(["hostname"]), properties)
}

/// What a step is about.
fn thing() -> Value {
    json!({
        "kind": {"enum": ["repository", "maintenance", "host", "source_group", "schedule"]},
        "repository": {"type": "string"},
        "hostname": {"type": "string"},
        "host_id": {"type": "string", "format": "uuid"},
        "name": {"type": "string"},
    })
}

fn step() -> Value {
    let change = json!({
        "type": "object",
        "required": ["field", "from", "to"],
        "properties": {"field": {"type": "string"}, "from": {}, "to": {}},
    });
    let mut properties = thing();
    properties["action"] = json!({"enum": ["create", "change", "delete"]});
    properties["changes"] = json!({"type": "array", "items": change});
    json!({"type": "object", "required": ["action", "kind"], "properties": properties})
}

fn pending() -> Value {
    let mut properties = thing();
    properties["why"] = json!({"type": "string"});
    json!({"type": "object", "required": ["kind", "why"], "properties": properties})
}

fn plan() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    let list = |items: &str, about: &str| json!({"type": "array", "items": reference(items), "description": about});
    json!({
        "type": "object",
        "required": ["dry_run", "counts", "steps", "pending", "left"],
        "properties": {
            "dry_run": {"type": "boolean", "description": "Whether this is only what would be done."},
            "counts": {
                "type": "object",
                "required": ["create", "change", "delete"],
                "properties": {"create": count, "change": count, "delete": count},
            },
            "steps": list("FleetStep", "What is done."),
            "pending": list("FleetPending", "What waits for somebody to enrol."),
            "left": list("FleetPending", "What the document does not name, and that stays."),
        },
    })
}
