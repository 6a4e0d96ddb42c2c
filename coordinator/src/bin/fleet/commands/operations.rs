//! `fleet operations` and `fleet retry`: one wish for many hosts.

use super::Context;
use super::jobs::{self, Timeout};
use super::run::{Wish, id};
use crate::args::{Key, Label, labels, parse_label};
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::human::{ago, count};
use crate::list::{self, Kind, Limit};
use crate::names::{Names, host_id, repository_id};
use crate::query::{Query, segment};
use crate::table::Column;
use crate::value::{number, pairs, text, time};
use crate::wait;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Operations.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Operations {
    #[command(flatten)]
    limit: Limit,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a job on each of many hosts
    Run(Box<RunMany>),
    /// All that is known of an operation
    Show {
        /// Its id
        operation: String,
    },
    /// Its jobs
    Jobs {
        /// Its id
        operation: String,
        /// Only jobs in this status
        #[arg(long, value_parser = ["queued", "running", "succeeded", "failed", "cancelled"])]
        status: Option<String>,
        #[command(flatten)]
        limit: Limit,
    },
    /// The hosts that got no job, and why
    Skipped {
        /// Its id
        operation: String,
        #[command(flatten)]
        limit: Limit,
    },
}

/// Which hosts.
#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = true)]
struct Which {
    /// The whole fleet
    #[arg(long, conflicts_with_all = ["label", "status", "repository", "host"])]
    all: bool,
    /// Hosts with this label; may be given several times, for hosts with all of them
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<Label>,
    /// Hosts in this status
    #[arg(long, value_parser = ["online", "offline"])]
    status: Option<String>,
    /// Hosts that back up into this repository
    #[arg(long)]
    repository: Option<String>,
    /// This host; may be given several times
    #[arg(long)]
    host: Vec<String>,
}

#[derive(Debug, Args)]
struct RunMany {
    #[command(flatten)]
    wish: Wish,
    #[command(flatten)]
    which: Which,
    /// A job for each host, or for each repository [default: repository for init, prune and check, else host]
    #[arg(long, value_parser = ["host", "repository"])]
    per: Option<String>,
    /// So many go first, alone; the others only if all of those have succeeded
    #[arg(long, value_name = "NUMBER")]
    canaries: Option<u64>,
    /// So many at once at most
    #[arg(long, value_name = "NUMBER")]
    max_parallel: Option<u64>,
    /// Stop when so many have failed
    #[arg(long, value_name = "NUMBER")]
    stop_after_failures: Option<u64>,
    /// Only say whom it would hit
    #[arg(long)]
    dry_run: bool,
    /// Wait until it is over; the exit status says how it ended
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    key: Key,
}

const COLUMNS: &[Column] = &[
    Column::text("KIND", |operation, _| text(operation, "kind").to_owned()),
    Column::long("HOSTS", |operation, _| selector(&operation["selector"])),
    Column::word("STATE", |operation, _| text(operation, "state").to_owned()),
    Column::number("JOBS", |operation, _| number(&operation["counts"], "jobs").to_string()),
    Column::number("OPEN", |operation, _| {
        let counts = &operation["counts"];
        (number(counts, "queued") + number(counts, "running")).to_string()
    }),
    Column::number("FAILED", |operation, _| number(&operation["counts"], "failed").to_string()),
    Column::number("PARTIAL", |operation, _| number(&operation["counts"], "partial").to_string()),
    Column::text("MADE", |operation, _| ago(time(operation, "created_at"))),
    Column::text("BY", |operation, _| text(operation, "requested_by").to_owned()),
    Column::text("ID", |operation, _| text(operation, "id").to_owned()),
];

const SKIPPED: &[Column] = &[
    Column::text("HOST", |skipped, names| names.host(skipped)),
    Column::long("WHY", |skipped, _| text(skipped, "reason").to_owned()),
];

const PREVIEW: &[Column] = &[
    Column::text("HOST", |member, _| match text(member, "hostname") {
        "" => text(member, "host_id").to_owned(),
        name => name.to_owned(),
    }),
    Column::text("REPOSITORY", |member, names: &Names| names.repository(member)),
    Column::long("SKIPPED BECAUSE", |member, _| text(member, "skipped").to_owned()),
];

/// A selector in a few words.
fn selector(selector: &Value) -> String {
    let mut words = Vec::new();
    if selector["all"] == true {
        words.push("all".to_owned());
    }
    words.extend(Some(pairs(&selector["labels"])).filter(|labels| !labels.is_empty()));
    words.extend(selector["status"].as_str().map(str::to_owned));
    words.extend(selector["repository_id"].as_str().map(|id| format!("repository {id}")));
    words.extend(selector["ids"].as_i64().map(|ids| count(ids, "host")));
    words.join(", ")
}

/// Where an operation is.
pub(crate) fn path(operation: &str) -> Query {
    Query::new(format!("/v1/operations/{}", segment(operation)))
}

fn below(operation: &str, what: &str) -> Query {
    Query::new(format!("/v1/operations/{}/{what}", segment(operation)))
}

impl Operations {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done. So for the others.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        match self.command {
            None => {
                let path = Query::new("/v1/operations");
                list::show(context, path, COLUMNS, Kind::History, self.limit, "no operations")?;
                Ok(Outcome::Done)
            }
            Some(Command::Run(run)) => run.run(context),
            Some(Command::Show { operation }) => list::one(context, &context.client.ask(&Ask::get(path(&operation)))?),
            Some(Command::Jobs { operation, status, limit }) => {
                let path = below(&operation, "jobs").with_some("status", status.as_deref());
                list::show(context, path, jobs::COLUMNS, Kind::Inventory, limit, "no jobs")?;
                Ok(Outcome::Done)
            }
            Some(Command::Skipped { operation, limit }) => {
                let path = below(&operation, "skipped");
                list::show(context, path, SKIPPED, Kind::Inventory, limit, "no hosts were skipped")?;
                Ok(Outcome::Done)
            }
        }
    }
}

impl Which {
    fn into_selector(self, context: &Context) -> Result<Value, Failure> {
        let client = &context.client;
        let repository = self.repository.as_deref().map(|name| repository_id(client, name)).transpose()?;
        let hosts = self.host.iter().map(|host| host_id(client, host)).collect::<Result<Vec<_>, _>>()?;
        let labels = (!self.label.is_empty()).then(|| json!(labels(&self.label)));
        Ok(super::Fields::default()
            .with_true("all", self.all)
            .with("labels", labels)
            .with("status", self.status)
            .with("repository_id", repository)
            .with_list("ids", &hosts)
            .into_value())
    }
}

impl RunMany {
    fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let until = self.timeout.until();
        let body = self
            .wish
            .fields()
            .with("selector", Some(self.which.into_selector(context)?))
            .with("per", self.per)
            .with("canaries", self.canaries)
            .with("max_parallel", self.max_parallel)
            .with("stop_after_failures", self.stop_after_failures)
            .with_true("dry_run", self.dry_run)
            .into_value();
        if self.dry_run {
            return preview(context, &body);
        }
        let client = if self.wait { &context.waiting } else { &context.client };
        let answer = client.ask(&Ask::post(Query::new("/v1/operations"), &body, self.key.get()))?;
        match self.wait {
            true => wait::for_operation(context, id(&answer.json)?, until),
            false => wait::tell_operation(context, &answer),
        }
    }
}

/// Whom it would hit, all pages of it.
fn preview(context: &Context, body: &Value) -> Result<Outcome, Failure> {
    let mut rows = Vec::new();
    let mut cursor: Option<String> = None;
    let counts = loop {
        let path = Query::new("/v1/operations").with("limit", "500").with_some("cursor", cursor.as_deref());
        // A page is a request of its own, which changes nothing.
        let mut page = context.client.ask(&Ask::post(path, body, None))?.json;
        if let Value::Array(items) = page["items"].take() {
            rows.extend(items);
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break page["counts"].take();
        }
    };
    list::rows(context, &rows, PREVIEW)?;
    let (jobs, skipped) = (number(&counts, "jobs"), number(&counts, "skipped"));
    context.screen.note(&format!(
        "would make {}, and skip {}; nothing was done",
        count(jobs, "job"),
        count(skipped, "host")
    ));
    Ok(Outcome::Done)
}

/// Tries again what has failed in an operation.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// Its id
    operation: String,
    /// What is tried again; may be given several times [default: failed]
    #[arg(long, value_parser = ["failed", "cancelled", "skipped"])]
    outcome: Vec<String>,
    /// Wait until it is over; the exit status says how it ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    key: Key,
}

impl Retry {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let until = self.timeout.until();
        let body = super::Fields::default().with_list("outcomes", &self.outcome).into_value();
        let client = if self.wait { &context.waiting } else { &context.client };
        let answer = client.ask(&Ask::post(below(&self.operation, "retry"), &body, self.key.get()))?;
        match self.wait {
            true => wait::for_operation(context, id(&answer.json)?, until),
            false => wait::tell_operation(context, &answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_told_in_a_few_words() {
        assert_eq!(selector(&json!({"all": true})), "all");
        let asked = json!({"labels": {"site": "ulm"}, "status": "online", "ids": 2, "repository_id": null});
        assert_eq!(selector(&asked), "site=ulm, online, 2 hosts");
    }
}
