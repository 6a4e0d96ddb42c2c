//! What rows say, in the words of a document. Comparing and showing both go by these, so what is exported is what is compared.

use super::ledger::KnownRepository;
use crate::db::hosts::Host;
use crate::db::json::Json;
use crate::db::maintenance::Entry;
use crate::db::repositories::{Repository, SecretColumn};
use crate::db::schedules::Schedule;
use crate::db::source_groups::SourceGroup;
use fleet_wire::ForgetLimit;
use serde_json::{Map, Value, json};

/// The settings of one thing, by name. What is not set is not there.
pub(super) type Settings = Map<String, Value>;

/// The word for a secret that stays as it is.
pub(super) const KEPT: &str = "kept";

fn settings<const N: usize>(fields: [(&str, Value); N]) -> Settings {
    let there = |value: &Value| !value.is_null() && *value != json!([]) && *value != json!({});
    fields.into_iter().filter(|(_, value)| there(value)).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Of a source group.
pub(super) fn of_group(row: &SourceGroup) -> Settings {
    settings([
        ("includes", json!(row.includes.0)),
        ("excludes", json!(row.excludes.0)),
        ("retention", json!(row.retention.as_ref().map(|Json(policy)| policy))),
        ("retry_max", json!(row.retry_max)),
        ("retry_backoff_seconds", json!(row.retry_backoff_seconds)),
        ("rpo_seconds", json!(row.rpo_seconds)),
        ("pre_hook", json!(row.pre_hook)),
        ("post_hook", json!(row.post_hook)),
    ])
}

/// Of a schedule.
pub(super) fn of_schedule(row: &Schedule) -> Settings {
    settings([
        ("cron", json!(row.cron)),
        ("timezone", json!(row.timezone)),
        ("enabled", json!(row.enabled)),
        ("source_groups", json!(row.source_groups.0)),
        ("catch_up_seconds", json!(row.catch_up_seconds)),
        ("bandwidth_up_kbps", json!(row.bandwidth_up_kbps)),
        ("bandwidth_down_kbps", json!(row.bandwidth_down_kbps)),
    ])
}

/// Of a host, whose repository has this name.
pub(super) fn of_host(row: &Host, repository: Option<&str>) -> Settings {
    settings([
        ("repository", json!(repository)),
        ("labels", json!(row.labels.0)),
        ("hook_shell", json!(row.hook_shell)),
        ("pre_hook", json!(row.pre_hook)),
        ("post_hook", json!(row.post_hook)),
        ("bandwidth_up_kbps", json!(row.bandwidth_up_kbps)),
        ("bandwidth_down_kbps", json!(row.bandwidth_down_kbps)),
    ])
}

/// Of a repository with these secrets.
pub(super) fn of_repository(row: &Repository, secret: impl Fn(SecretColumn) -> Value) -> Settings {
    let admin = row.has_admin.then(|| {
        settings([
            ("url", json!(row.admin_url)),
            ("username", json!(row.admin_username)),
            ("password", secret(SecretColumn::AdminPassword)),
            ("credential", secret(SecretColumn::AdminCredential)),
        ])
    });
    let mut all = settings([
        ("url", json!(row.url)),
        ("username", json!(row.username)),
        ("password", secret(SecretColumn::Password)),
        ("credential", secret(SecretColumn::Credential)),
        ("append_only", json!(row.append_only)),
        ("max_backups", json!(row.max_backups)),
    ]);
    // Also where nothing is in it: it is not the everyday one then.
    all.extend(admin.map(|admin| ("admin".to_owned(), Value::Object(admin))));
    all
}

/// What a known repository's secret is in a document: where it comes from.
pub(super) fn of_secret(known: &KnownRepository, column: SecretColumn) -> Value {
    match known.row.secret_sources.0.get(&column) {
        _ if !known.has(column) => Value::Null,
        Some(source) => json!(source),
        None => json!(KEPT),
    }
}

/// Of the maintenance of a repository, whose runner has this hostname.
pub(super) fn of_maintenance(entries: &[Entry], runner: Option<&str>, limit: ForgetLimit) -> Settings {
    let entry = |kind: &str| {
        let entry = entries.iter().find(|entry| entry.kind == kind)?;
        let fields = [("cron", json!(entry.cron)), ("enabled", json!(entry.enabled)), ("subset", json!(entry.subset))];
        Some(settings(fields))
    };
    settings([
        ("timezone", json!(entries.first().map(|entry| &entry.timezone))),
        ("forget", json!(entry("forget"))),
        ("prune", json!(entry("prune"))),
        ("check", json!(entry("check"))),
        ("runner", json!(runner)),
        ("forget_limit", json!(limit)),
    ])
}
