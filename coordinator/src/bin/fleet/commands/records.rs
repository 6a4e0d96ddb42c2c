//! What is only read: what is overdue, runs, snapshots, pauses, the audit log.

use super::Context;
use crate::failure::{Failure, Outcome};
use crate::human::{ago, bytes, parse_moment, span};
use crate::list::{self, Kind, Limit};
use crate::names::{host_id, repository_id};
use crate::query::Query;
use crate::table::Column;
use crate::value::{moment, number, text, time, words};
use clap::Args;
use fleet_wire::Timestamp;
use serde_json::Value;

/// What has not succeeded within its time.
#[derive(Debug, Args)]
pub(crate) struct Overdue {
    /// End with status 1 if something is
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    limit: Limit,
}

const OVERDUE: &[Column] = &[
    Column::text("KIND", |overdue, _| text(overdue, "kind").to_owned()),
    Column::text("HOST", |overdue, names| names.host(overdue)),
    Column::text("GROUP", |overdue, _| text(overdue, "source_group").to_owned()),
    Column::text("REPOSITORY", |overdue, names| names.repository(overdue)),
    Column::text("OVERDUE SINCE", |overdue, _| ago(time(overdue, "overdue_since"))),
    Column::text("LAST SUCCESS", |overdue, _| match time(overdue, "last_success_at") {
        None => "never".to_owned(),
        at => ago(at),
    }),
    Column::number("DUE WITHIN", |overdue, _| overdue["rpo_seconds"].as_i64().map(span).unwrap_or_default()),
];

impl Overdue {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done. So for the others.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let path = Query::new("/v1/overdue");
        let count = list::show(context, path, OVERDUE, Kind::Inventory, self.limit, "nothing is overdue")?;
        Ok(if self.check && count > 0 { Outcome::Failed } else { Outcome::Done })
    }
}

/// What was due, and what became of it.
#[derive(Debug, Args)]
#[group(id = "whose", required = true, multiple = false, args = ["host", "repository"])]
pub(crate) struct Runs {
    /// Whose backups
    host: Option<String>,
    /// Whose maintenance
    #[arg(long)]
    repository: Option<String>,
    #[command(flatten)]
    limit: Limit,
}

const RUNS: &[Column] = &[
    Column::text("DUE", |run, _| moment(run, "due_at")),
    Column::text("KIND", |run, _| text(run, "kind").to_owned()),
    Column::text("GROUP", |run, _| text(run, "source_group").to_owned()),
    Column::word("OUTCOME", |run, _| text(run, "outcome").to_owned()),
    Column::number("TRIES", |run, _| number(run, "attempts").to_string()),
    Column::long("WHY", |run, _| text(run, "reason").to_owned()),
    Column::text("JOB", |run, _| text(run, "job_id").to_owned()),
];

impl Runs {
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let path = match (&self.host, &self.repository) {
            (Some(host), _) => format!("/v1/hosts/{}/runs", host_id(&context.client, host)?),
            (None, name) => {
                let name = name.as_deref().unwrap_or_default();
                format!("/v1/repositories/{}/runs", repository_id(&context.client, name)?)
            }
        };
        list::show(context, Query::new(path), RUNS, Kind::History, self.limit, "nothing was due")?;
        Ok(Outcome::Done)
    }
}

/// The snapshots of a host, as its agent last reported them.
#[derive(Debug, Args)]
pub(crate) struct Snapshots {
    /// Its name or id
    host: String,
    #[command(flatten)]
    limit: Limit,
}

const SNAPSHOTS: &[Column] = &[
    Column::text("SNAPSHOT", |snapshot, _| text(snapshot, "short_id").to_owned()),
    Column::text("TAKEN", |snapshot, _| moment(snapshot, "time")),
    Column::text("GROUP", |snapshot, _| words(&snapshot["tags"])),
    // restic before 0.17 does not say.
    Column::number("SIZE", |snapshot, _| known(snapshot, "size_bytes").map(bytes).unwrap_or_default()),
    Column::number("FILES", |snapshot, _| {
        known(snapshot, "file_count").map(|files| files.to_string()).unwrap_or_default()
    }),
    Column::long("PATHS", |snapshot, _| words(&snapshot["paths"])),
];

/// A number that is not known where it is 0.
fn known(item: &Value, field: &str) -> Option<i64> {
    Some(number(item, field)).filter(|number| *number != 0)
}

impl Snapshots {
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let path = Query::new(format!("/v1/hosts/{}/snapshots", host_id(&context.client, &self.host)?));
        list::show(context, path, SNAPSHOTS, Kind::Inventory, self.limit, "no snapshots were reported")?;
        Ok(Outcome::Done)
    }
}

/// What is paused.
#[derive(Debug, Args)]
pub(crate) struct Pauses {
    #[command(flatten)]
    limit: Limit,
}

const PAUSES: &[Column] = &[
    Column::text("WHAT", |pause, names| match text(pause, "scope") {
        "host" => format!("host {}", names.host(pause)),
        "repository" => format!("repository {}", names.repository(pause)),
        other => format!("the {other}"),
    }),
    Column::text("SINCE", |pause, _| ago(time(pause, "since"))),
    Column::text("BY", |pause, _| text(pause, "by").to_owned()),
    Column::long("WHY", |pause, _| text(pause, "reason").to_owned()),
];

impl Pauses {
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let path = Query::new("/v1/pauses");
        list::show(context, path, PAUSES, Kind::Inventory, self.limit, "nothing is paused")?;
        Ok(Outcome::Done)
    }
}

/// The audit log.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only from then on: a time, or how long ago, such as 24h
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Timestamp>,
    /// Only up to then
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Timestamp>,
    /// Only what was asked for with this token, by its name or id
    #[arg(long = "by", value_name = "TOKEN")]
    by: Option<String>,
    /// Only what was about this, by an id or a name
    #[arg(long)]
    target: Option<String>,
    /// Only what came to this
    #[arg(long, value_parser = ["done", "unchanged", "refused", "failed"])]
    outcome: Option<String>,
    #[command(flatten)]
    limit: Limit,
}

const AUDIT: &[Column] = &[
    Column::text("AT", |record, _| moment(record, "at")),
    Column::text("BY", |record, _| text(&record["token"], "name").to_owned()),
    Column::text("FROM", |record, _| text(record, "remote_address").to_owned()),
    Column::text("DID", |record, _| text(record, "method").to_owned()),
    Column::long("ON", |record, _| text(record, "target").to_owned()),
    Column::word("OUTCOME", |record, _| text(record, "outcome").to_owned()),
    Column::number("TIMES", |record, _| number(record, "times").to_string()),
    Column::long("WHY", |record, _| text(record, "detail").to_owned()),
];

impl Audit {
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let at = |at: Option<Timestamp>| at.map(|at| at.to_rfc3339());
        let path = Query::new("/v1/audit")
            .with_some("since", at(self.since).as_deref())
            .with_some("until", at(self.until).as_deref())
            .with_some("token", self.by.as_deref())
            .with_some("target", self.target.as_deref())
            .with_some("outcome", self.outcome.as_deref());
        list::show(context, path, AUDIT, Kind::History, self.limit, "no records")?;
        Ok(Outcome::Done)
    }
}
