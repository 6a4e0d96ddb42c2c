//! `fleet hosts`.

use super::{Context, Fields};
use crate::args::{Label, labels, parse_label};
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::human::ago;
use crate::list::{self, Kind, Limit};
use crate::names::{host_id, repository_id};
use crate::query::Query;
use crate::table::Column;
use crate::value::{pairs, text, time};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

/// Hosts.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Hosts {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct List {
    /// Only these
    #[arg(long, value_parser = ["online", "offline"])]
    status: Option<String>,
    /// Only hosts with this label; may be given several times, for hosts with all of them
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<Label>,
    #[command(flatten)]
    limit: Limit,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All that is known of a host
    Show {
        /// Its name or id
        host: String,
    },
    /// Change a host's labels, repository, limits or hooks
    Set(Set),
    /// Take a host out of service; its history stays
    Remove {
        /// Its name or id
        host: String,
    },
}

#[derive(Debug, Args)]
struct Set {
    /// Its name or id
    host: String,
    /// Give it a label; the others stay
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<Label>,
    /// Take a label away
    #[arg(long, value_name = "NAME")]
    unlabel: Vec<String>,
    /// Back up into this repository
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Upload at most so much, in kbit/s; 0 is no limit
    #[arg(long, value_name = "KBPS")]
    bandwidth_up: Option<u64>,
    /// Download at most so much, in kbit/s; 0 is no limit
    #[arg(long, value_name = "KBPS")]
    bandwidth_down: Option<u64>,
    /// Run before each backup; empty for nothing
    #[arg(long, value_name = "SCRIPT")]
    pre_hook: Option<String>,
    /// Run after each backup; empty for nothing
    #[arg(long, value_name = "SCRIPT")]
    post_hook: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column::text("HOST", |host, _| text(host, "hostname").to_owned()),
    Column::word("STATUS", |host, _| match host["paused"].is_null() {
        true => text(host, "status").to_owned(),
        false => "paused".to_owned(),
    }),
    Column::text("SEEN", |host, _| ago(time(host, "last_seen_at"))),
    Column::text("REPOSITORY", |host, names| names.repository(host)),
    Column::text("RESTIC", |host, _| text(host, "restic_version").to_owned()),
    Column::long("LABELS", |host, _| pairs(&host["labels"])),
    Column::text("ID", |host, _| text(host, "id").to_owned()),
];

impl Hosts {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done. So for the others.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let client = &context.client;
        match self.command {
            None => {
                let List { status, label, limit } = self.list;
                let path = Query::new("/v1/hosts").with_some("status", status.as_deref());
                let by_label =
                    |path: Query, label: &Label| path.with("label", &format!("{}={}", label.name, label.value));
                let path = label.iter().fold(path, by_label);
                list::show(context, path, COLUMNS, Kind::Inventory, limit, "no hosts")?;
                Ok(Outcome::Done)
            }
            Some(Command::Show { host }) => list::one(context, &client.ask(&Ask::get(path(context, &host)?))?),
            Some(Command::Set(set)) => set.run(context),
            Some(Command::Remove { host }) => {
                client.ask(&Ask::change("DELETE", path(context, &host)?, None))?;
                context.screen.note(&format!("{host} is out of service"));
                Ok(Outcome::Done)
            }
        }
    }
}

fn path(context: &Context, host: &str) -> Result<Query, Failure> {
    Ok(Query::new(format!("/v1/hosts/{}", host_id(&context.client, host)?)))
}

impl Set {
    fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let path = path(context, &self.host)?;
        let repository = self.repository.as_deref().map(|name| repository_id(&context.client, name)).transpose()?;
        let labels = match self.label.is_empty() && self.unlabel.is_empty() {
            true => None,
            false => Some(self.labels(&context.client.ask(&Ask::get(path.clone()))?.json)),
        };
        let fields = Fields::default()
            .with("labels", labels)
            .with("repository_id", repository)
            .with("bandwidth_up_kbps", self.bandwidth_up)
            .with("bandwidth_down_kbps", self.bandwidth_down)
            .with("pre_hook", self.pre_hook)
            .with("post_hook", self.post_hook);
        if fields.is_empty() {
            return Err(Failure::Usage("nothing to change: fleet hosts set --help says what can be".to_owned()));
        }
        let answer = context.client.ask(&Ask::change("PATCH", path, Some(&fields.into_value())))?;
        list::one(context, &answer)
    }

    /// The API takes labels as a whole.
    fn labels(&self, host: &Value) -> Value {
        let mut all: Map<String, Value> = host["labels"].as_object().cloned().unwrap_or_default();
        all.retain(|name, _| !self.unlabel.contains(name));
        all.extend(labels(&self.label).into_iter().map(|(name, value)| (name.to_owned(), json!(value))));
        Value::Object(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_are_not_named_stay() {
        let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
        let set = Set {
            host: String::new(),
            label: vec![label("site", "ulm"), label("new", "1")],
            unlabel: vec!["old".to_owned()],
            repository: None,
            bandwidth_up: None,
            bandwidth_down: None,
            pre_hook: None,
            post_hook: None,
        };
        let host = json!({"labels": {"site": "bonn", "old": "x", "rack": "4"}});
        assert_eq!(set.labels(&host), json!({"site": "ulm", "rack": "4", "new": "1"}));
    }
}
