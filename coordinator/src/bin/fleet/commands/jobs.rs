//! `fleet jobs`, and what is done to one: wait, cancel, release.

use super::Context;
use crate::args::{KINDS, Key};
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::human::{ago, parse_moment, span};
use crate::list::{self, Kind, Limit};
use crate::names::host_id;
use crate::query::{Query, segment};
use crate::table::Column;
use crate::value::{moment, text, time, words};
use crate::wait::{self, Until};
use clap::{Args, Subcommand};
use fleet_wire::{Timestamp, parse_duration};
use serde_json::{Value, json};
use std::time::Duration;

/// Jobs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Jobs {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct List {
    /// Only jobs of this host
    #[arg(long)]
    host: Option<String>,
    /// Only jobs of this kind
    #[arg(long, value_parser = KINDS)]
    kind: Option<String>,
    /// Only jobs in this status
    #[arg(long, value_parser = ["queued", "running", "succeeded", "failed", "cancelled"])]
    status: Option<String>,
    /// Only jobs that came about in this way
    #[arg(long, value_parser = ["operator", "schedule", "maintenance", "first_connect", "retry"])]
    origin: Option<String>,
    /// Only jobs of this operation
    #[arg(long, value_name = "ID")]
    operation: Option<String>,
    /// Only jobs made since then: a time, or how long ago, such as 24h
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Timestamp>,
    #[command(flatten)]
    limit: Limit,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All that is known of a job
    Show {
        /// Its id
        job: String,
    },
}

/// The columns of a table of jobs.
pub(crate) const COLUMNS: &[Column] = &[
    Column::text("HOST", |job, names| names.host(job)),
    Column::text("KIND", |job, _| text(job, "kind").to_owned()),
    Column::text("GROUP", |job, _| text(job, "source_group").to_owned()),
    Column::word("STATUS", |job, _| standing(job).to_owned()),
    Column::text("MADE", |job, _| ago(time(job, "created_at"))),
    Column::number("TOOK", |job, _| took(job)),
    Column::text("ID", |job, _| text(job, "id").to_owned()),
    Column::long("ABOUT", |job, _| about(job)),
];

/// A job's status, which for a partial success is that.
pub(crate) fn standing(job: &Value) -> &str {
    if job["partial"] == true { "partial" } else { text(job, "status") }
}

/// How long it has run, or has been running.
pub(crate) fn took(job: &Value) -> String {
    let Some(started) = time(job, "started_at") else { return String::new() };
    let until = time(job, "finished_at").or(time(job, "ended_at")).unwrap_or_else(chrono::Utc::now);
    span((until - started).num_seconds())
}

/// What there is to say about how it is.
fn about(job: &Value) -> String {
    match wait::fraction(job) {
        _ if !job["error"].is_null() => text(job, "error").to_owned(),
        _ if !job["waiting_for"].is_null() => format!("waits for {}", text(job, "waiting_for")),
        Some(fraction) => format!("{:.0} %", fraction * 100.0),
        None => String::new(),
    }
}

impl Jobs {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done. So for the others.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        if let Some(Command::Show { job }) = self.command {
            return show(context, &job);
        }
        let List { host, kind, status, origin, operation, since, limit } = self.list;
        let host = host.as_deref().map(|host| host_id(&context.client, host)).transpose()?;
        let path = Query::new("/v1/jobs")
            .with_some("host_id", host.as_deref())
            .with_some("kind", kind.as_deref())
            .with_some("status", status.as_deref())
            .with_some("origin", origin.as_deref())
            .with_some("operation_id", operation.as_deref())
            .with_some("since", since.map(|since| since.to_rfc3339()).as_deref());
        list::show(context, path, COLUMNS, Kind::History, limit, "no jobs")?;
        Ok(Outcome::Done)
    }
}

/// What a forget has deleted, or would.
const REMOVED: &[Column] = &[
    Column::text("SNAPSHOT", |snapshot, _| text(snapshot, "short_id").to_owned()),
    Column::text("TAKEN", |snapshot, _| moment(snapshot, "time")),
    Column::text("HOST", |snapshot, _| text(snapshot, "hostname").to_owned()),
    Column::text("GROUP", |snapshot, _| words(&snapshot["tags"])),
    Column::long("PATHS", |snapshot, _| words(&snapshot["paths"])),
];

fn show(context: &Context, job: &str) -> Result<Outcome, Failure> {
    let answer = context.client.ask(&Ask::get(path(job)))?;
    let shown = list::one(context, &answer)?;
    let removed = removed(&answer.json["stats"]);
    if context.screen.is_table() && !removed.is_empty() {
        let preview = answer.json["stats"]["dry_run"] == true;
        context.screen.line(if preview { "\nIt would delete:" } else { "\nIt has deleted:" })?;
        list::rows(context, &removed, REMOVED)?;
    }
    Ok(shown)
}

/// The snapshots that a forget has removed: in restic's list of groups, or in a preview's list of those.
fn removed(stats: &Value) -> Vec<Value> {
    let of_groups = |groups: &Value| -> Vec<Value> {
        let groups = groups.as_array().into_iter().flatten();
        groups.filter_map(|group| group["remove"].as_array()).flatten().cloned().collect()
    };
    match stats["groups"].as_array() {
        Some(previews) => previews.iter().flat_map(|preview| of_groups(&preview["results"])).collect(),
        None => of_groups(stats),
    }
}

/// Where a job is.
pub(crate) fn path(job: &str) -> Query {
    Query::new(format!("/v1/jobs/{}", segment(job)))
}

/// For how long an end is waited for.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Timeout {
    /// Wait no longer than this, such as 2h; what is waited for goes on [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Timeout {
    /// From now on.
    pub(crate) fn until(self) -> Until {
        Until::new(self.timeout)
    }
}

/// Waits for the end of a job or an operation.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// The id of a job or an operation
    id: String,
    #[command(flatten)]
    timeout: Timeout,
}

impl Wait {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        match What::find(context, &self.id)? {
            What::Job => wait::for_job(context, &self.id, self.timeout.until()),
            What::Operation => wait::for_operation(context, &self.id, self.timeout.until()),
        }
    }
}

/// What an id is of.
enum What {
    Job,
    Operation,
}

impl What {
    fn find(context: &Context, id: &str) -> Result<Self, Failure> {
        if context.client.find(path(id).as_str())?.is_some() {
            return Ok(Self::Job);
        }
        match context.client.find(super::operations::path(id).as_str())? {
            Some(_) => Ok(Self::Operation),
            None => Err(Failure::unknown(format!("there is no job or operation {id:?}"))),
        }
    }
}

/// Cancels a job or an operation.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The id of a job or an operation
    id: String,
    /// Wait until it is over
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    key: Key,
}

impl Cancel {
    /// Does it. What ended as it was to, cancelled, is a success here.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let until = self.timeout.until();
        let what = What::find(context, &self.id)?;
        let of = match what {
            What::Job => "jobs",
            What::Operation => "operations",
        };
        let cancel = Query::new(format!("/v1/{of}/{}/cancel", segment(&self.id)));
        let answer = context.client.ask(&Ask::post(cancel, &json!({}), self.key.get()))?;
        if !self.wait {
            return match what {
                What::Job => wait::tell_job(context, &answer),
                What::Operation => wait::tell_operation(context, &answer),
            };
        }
        let ended = match what {
            What::Job => wait::for_job(context, &self.id, until)?,
            What::Operation => wait::for_operation(context, &self.id, until)?,
        };
        Ok(if ended == Outcome::Failed { Outcome::Done } else { ended })
    }
}

/// Gives the repository of a lost job free.
#[derive(Debug, Args)]
pub(crate) struct Release {
    /// Its id
    job: String,
    #[command(flatten)]
    key: Key,
}

impl Release {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let release = Query::new(format!("/v1/jobs/{}/release", segment(&self.job)));
        let answer = context.client.ask(&Ask::post(release, &json!({}), self.key.get()))?;
        wait::tell_job(context, &answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_backup_never_reads_as_a_plain_success() {
        assert_eq!(standing(&json!({"status": "succeeded", "partial": true})), "partial");
        assert_eq!(standing(&json!({"status": "succeeded", "partial": false})), "succeeded");
    }

    #[test]
    fn what_a_forget_removes_is_found_in_either_form() {
        let groups = json!([{"remove": [{"short_id": "a"}]}, {"remove": null}, {"kept": 1}]);
        assert_eq!(removed(&groups), [json!({"short_id": "a"})]);
        assert_eq!(removed(&json!({"dry_run": true, "groups": [{"results": groups}]})), [json!({"short_id": "a"})]);
        assert!(removed(&json!({"total_files_processed": 3})).is_empty() && removed(&Value::Null).is_empty());
    }

    #[test]
    fn the_most_telling_of_a_job_is_shown() {
        assert_eq!(about(&json!({"status": "queued", "waiting_for": "its host"})), "waits for its host");
        assert_eq!(about(&json!({"status": "running", "progress": {"percent_done": 0.417}})), "42 %");
        assert_eq!(about(&json!({"status": "failed", "error": "no", "progress": {"percent_done": 0.417}})), "no");
        assert_eq!(about(&json!({"status": "succeeded", "progress": {"percent_done": 1.0}})), "");
        let job = json!({"started_at": "2026-03-01T02:00:00Z", "finished_at": "2026-03-01T02:01:09.5Z"});
        assert_eq!((took(&job), took(&json!({}))), ("1m 9s".to_owned(), String::new()));
    }
}
