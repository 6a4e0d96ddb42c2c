//! Reads a document: every part by itself, so that all that is wrong is said at once. The parts are those of the single routes,
//! checked where these are.

use super::super::body::{self, escaped, told};
use super::super::check::{Check, NAME};
use super::super::hosts::HostPatch;
use super::super::maintenance::MaintenanceBody;
use super::super::patch::Patch;
use super::super::problem::{FieldError, Problem};
use super::super::repositories::{AdminPatch, RepositoryPatch};
use super::super::schedules::ScheduleBody;
use super::super::source_groups::GroupBody;
use crate::access::Labels;
use crate::config::SecretSources;
use crate::db::hosts::Changes;
use crate::db::repositories::SecretColumn;
use crate::fleet::sources::Source;
use crate::fleet::wanted::{
    Layer, Selector, Template, Wanted, WantedAdmin, WantedHost, WantedMaintenance, WantedRepository, WantedSecret,
};
use fleet_wire::{ForgetLimit, Secret};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

type Object = Map<String, Value>;

/// What is wrong with a secret that is no reference. It must not be repeated.
const REFERENCE: &str = "must be {env: NAME}, {file: PATH} or the word kept: a document holds no secrets";

/// What a document asks for.
///
/// # Errors
/// 422 with all that is wrong in it.
pub(super) fn read(value: Value, sources: &SecretSources) -> Result<Wanted, Problem> {
    let mut check = Check::default();
    let mut wanted = Wanted::default();
    let sources = &Places { sources, wrong: RefCell::default() };
    match value {
        Value::Object(mut document) => {
            wanted.repositories = take(&mut document, "repositories").map(|value| {
                check.within("/repositories", |check| {
                    let items = object(check, value).into_iter();
                    items
                        .filter_map(|(name, item)| named(check, &name, |check| repository(check, &name, item, sources)))
                        .collect()
                })
            });
            wanted.templates = list(&mut check, &mut document, "templates", template);
            wanted.hosts = list(&mut check, &mut document, "hosts", host);
            for name in document.keys() {
                check.wrong(
                    &format!("/{}", escaped(name)),
                    "is not known here, known are `repositories`, `templates`, `hosts`",
                );
            }
        }
        _ => check.wrong("", "must be an object"),
    }
    let mut seen = HashMap::new();
    for (index, host) in wanted.hosts.iter().enumerate() {
        if let Some(first) = seen.insert((&host.hostname, &host.repository), index) {
            let detail = format!("is named twice: first in /hosts/{first}");
            sources.wrong.borrow_mut().push(FieldError::new(format!("/hosts/{index}"), detail));
        }
    }
    check.done()?;
    let wrong = sources.wrong.take();
    if wrong.is_empty() { Ok(wanted) } else { Err(Problem::conflicts(wrong)) }
}

/// Where secrets are.
struct Places<'a> {
    sources: &'a SecretSources,
    /// Those that are not there: the document makes sense, and does not go with what there is.
    wrong: RefCell<Vec<FieldError>>,
}

/// A field that is there and not null.
fn take(object: &mut Object, name: &str) -> Option<Value> {
    object.remove(name).filter(|value| !value.is_null())
}

fn object(check: &mut Check, value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => {
            check.wrong("", "must be an object");
            Object::new()
        }
    }
}

/// Looks at the part of that name.
fn named<T>(check: &mut Check, name: &str, read: impl FnOnce(&mut Check) -> T) -> T {
    check.within(&format!("/{}", escaped(name)), read)
}

fn list<T>(
    check: &mut Check,
    document: &mut Object,
    name: &str,
    read: impl Fn(&mut Check, String, Value) -> Option<T>,
) -> Vec<T> {
    check.within(&format!("/{name}"), |check| match take(document, name) {
        None => Vec::new(),
        Some(Value::Array(items)) => {
            let read = |(index, item)| {
                let pointer = format!("/{name}/{index}");
                check.within(&format!("/{index}"), |check| read(check, pointer, item))
            };
            items.into_iter().enumerate().filter_map(read).collect()
        }
        Some(_) => {
            check.wrong("", "must be a list");
            Vec::new()
        }
    })
}

/// A part as its type. What is wrong is noted and looked past, so that the next thing that is wrong is noted too.
fn part<T: DeserializeOwned>(check: &mut Check, mut value: Value) -> Option<T> {
    let mut seen = HashSet::new();
    loop {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(part) if seen.is_empty() => return Some(part),
            Ok(_) => return None,
            Err(error) => told(&error),
        };
        if !seen.insert(error.pointer.clone()) {
            return None;
        }
        let gone = remove(&mut value, &error.pointer);
        check.wrong(&error.pointer, error.detail);
        if !gone {
            return None;
        }
    }
}

/// Takes out what stands at a pointer.
fn remove(value: &mut Value, pointer: &str) -> bool {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return false };
    match value.pointer_mut(parent) {
        Some(Value::Object(object)) => object.remove(&last.replace("~1", "/").replace("~0", "~")).is_some(),
        Some(Value::Array(items)) => match last.parse::<usize>() {
            // Its place stays, for others are pointed at by theirs. All lists here are of texts.
            Ok(index) if index < items.len() => {
                items[index] = Value::String(String::new());
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepositoryBody {
    url: String,
    username: Option<String>,
    password: Value,
    credential: Option<Value>,
    admin: Option<body::Object<AdminBody>>,
    #[serde(default)]
    append_only: bool,
    max_backups: Option<i64>,
    #[serde(rename = "maintenance")]
    _maintenance: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminBody {
    url: Option<String>,
    username: Option<String>,
    password: Option<Value>,
    credential: Option<Value>,
}

fn repository(check: &mut Check, name: &str, item: Value, sources: &Places<'_>) -> Option<WantedRepository> {
    check.line("", name, NAME);
    let mut fields = object(check, item);
    let maintenance =
        take(&mut fields, "maintenance").map(|value| named(check, "maintenance", |check| maintenance(check, value)));
    let body: RepositoryBody = part(check, Value::Object(fields))?;
    let mut secrets = BTreeMap::new();
    let mut secret = |check: &mut Check, pointer: &str, column: SecretColumn, value: Option<Value>| {
        let found = secret(check, pointer, value?, sources)?;
        let text = match &found {
            WantedSecret::Kept => None,
            WantedSecret::From(_, secret) => Some(secret.clone()),
        };
        secrets.insert(column, found);
        text
    };
    let password = secret(check, "/password", SecretColumn::Password, Some(body.password));
    let credential = secret(check, "/credential", SecretColumn::Credential, body.credential);
    let admin = body.admin.map(|body::Object(admin)| {
        let password = secret(check, "/admin/password", SecretColumn::AdminPassword, admin.password);
        let credential = secret(check, "/admin/credential", SecretColumn::AdminCredential, admin.credential);
        (filled(admin.url), filled(admin.username), password, credential)
    });
    let given = |value: &Option<String>| value.clone().map_or(Patch::Absent, Patch::Value);
    let hidden = |value: Option<Secret>| value.map_or(Patch::Absent, Patch::Value);
    let username = filled(body.username);
    let patch = RepositoryPatch {
        url: Patch::Value(body.url.clone()),
        username: given(&username),
        password: hidden(password),
        credential: hidden(credential),
        admin: admin.as_ref().map_or(Patch::Absent, |(url, username, password, credential)| {
            Patch::Value(body::Object(AdminPatch {
                url: given(url),
                username: given(username),
                password: hidden(password.clone()),
                credential: hidden(credential.clone()),
            }))
        }),
        max_backups: body.max_backups.map_or(Patch::Absent, Patch::Value),
        name: Patch::Absent,
        append_only: Patch::Absent,
    };
    patch.check(check);
    Some(WantedRepository {
        pointer: format!("/repositories/{}", escaped(name)),
        name: name.to_owned(),
        url: body.url,
        username,
        admin: admin.map(|(url, username, ..)| WantedAdmin { url, username }),
        append_only: body.append_only,
        max_backups: body.max_backups,
        secrets,
        maintenance: maintenance.flatten(),
    })
}

/// An empty text is the same as none.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn secret(check: &mut Check, pointer: &str, value: Value, places: &Places<'_>) -> Option<WantedSecret> {
    if value == "kept" {
        return Some(WantedSecret::Kept);
    }
    let Ok(source) = serde_json::from_value::<Source>(value) else {
        check.wrong(pointer, REFERENCE);
        return None;
    };
    match places.sources.read(&source) {
        Ok(secret) => Some(WantedSecret::From(source, secret)),
        Err(why) => {
            places.wrong.borrow_mut().push(FieldError::new(check.place(pointer), why));
            None
        }
    }
}

fn maintenance(check: &mut Check, value: Value) -> Option<WantedMaintenance> {
    let mut fields = object(check, value);
    let runner = match take(&mut fields, "runner") {
        None => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => {
            check.wrong("/runner", "must be the name of a host that uses this repository");
            None
        }
    };
    if fields.remove("runner_host_id").is_some() {
        check.wrong("/runner_host_id", "is not known here: name the host in `runner`");
    }
    let put = part::<MaintenanceBody>(check, Value::Object(fields))?.checked(check, Uuid::nil());
    let limit = ForgetLimit { snapshots: put.rules.forget_max_snapshots, share: put.rules.forget_max_share };
    let mut entries = put.entries;
    // As the ledger lists them.
    entries.sort_by(|one, other| one.kind.cmp(&other.kind));
    Some(WantedMaintenance { runner, entries, limit })
}

/// The settings of a host that templates and entries have in common.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Common {
    hook_shell: Patch<String>,
    pre_hook: Patch<String>,
    post_hook: Patch<String>,
    bandwidth_up_kbps: Patch<i64>,
    bandwidth_down_kbps: Patch<i64>,
    labels: Patch<Labels>,
}

/// Reads what is said about a host, but for the fields that only one of its two forms has.
fn layer(check: &mut Check, pointer: String, mut fields: Object) -> Option<Layer> {
    let groups = items(check, &mut fields, "source_groups", |check, name, item| {
        Some(part::<GroupBody>(check, item)?.checked(check, Uuid::nil(), name))
    });
    let schedules = items(check, &mut fields, "schedules", |check, name, item| {
        check.line("", &name, NAME);
        Some(part::<ScheduleBody>(check, item)?.checked(check, Uuid::nil(), Uuid::nil()))
    });
    let common: Common = part(check, Value::Object(fields))?;
    let patch = HostPatch {
        labels: common.labels,
        repository_id: Patch::Absent,
        hook_shell: common.hook_shell,
        pre_hook: common.pre_hook,
        post_hook: common.post_hook,
        bandwidth_up_kbps: common.bandwidth_up_kbps,
        bandwidth_down_kbps: common.bandwidth_down_kbps,
    };
    let settings: Changes = patch.checked(check);
    Some(Layer { pointer, settings, groups, schedules })
}

/// The named things of a list, which is absent if nothing is said about it.
fn items<T>(
    check: &mut Check,
    fields: &mut Object,
    list: &str,
    read: impl Fn(&mut Check, String, Value) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    // A list that is there and empty has nothing in it: `source_groups:` without more.
    let value = match fields.remove(list)? {
        Value::Null => Value::Object(Object::new()),
        value => value,
    };
    Some(named(check, list, |check| {
        let items = object(check, value).into_iter();
        items
            .filter_map(|(name, item)| {
                named(check, &name, |check| {
                    let mut item = object(check, item);
                    if item.remove("name").is_some() {
                        check.wrong("/name", "is what this stands under");
                    }
                    Some((name.clone(), read(check, name.clone(), Value::Object(item))?))
                })
            })
            .collect()
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorBody {
    #[serde(default)]
    all: bool,
    #[serde(default)]
    labels: Labels,
    repository: Option<String>,
}

fn template(check: &mut Check, pointer: String, item: Value) -> Option<Template> {
    let mut fields = object(check, item);
    // For people only.
    if let Some(name) = take(&mut fields, "name")
        && !name.is_string()
    {
        check.wrong("/name", "must be a string");
    }
    let selector = fields.remove("selector").unwrap_or_default();
    let selector = named(check, "selector", |check| {
        let body::Object(selector): body::Object<SelectorBody> = part(check, selector)?;
        let said = !selector.labels.is_empty() || selector.repository.is_some();
        if said == selector.all {
            check.wrong("", "must say which hosts: by labels or repository, or all of them by all: true");
        }
        Some(Selector { labels: selector.labels, repository: selector.repository })
    });
    if fields.remove("labels").is_some() {
        check.wrong("/labels", "belong to hosts: a template selects by them");
    }
    Some(Template { layer: layer(check, pointer, fields)?, selector: selector? })
}

fn host(check: &mut Check, pointer: String, item: Value) -> Option<WantedHost> {
    let mut fields = object(check, item);
    let mut text = |check: &mut Check, name: &str| match take(&mut fields, name)? {
        Value::String(text) => {
            check.line(&format!("/{name}"), &text, NAME);
            Some(text)
        }
        _ => {
            check.wrong(&format!("/{name}"), "must be a string");
            Some(String::new())
        }
    };
    let hostname = text(check, "hostname");
    let repository = text(check, "repository");
    if hostname.is_none() {
        check.wrong("/hostname", "is missing");
    }
    Some(WantedHost { repository, layer: layer(check, pointer, fields)?, hostname: hostname? })
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
