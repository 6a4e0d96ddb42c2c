//! `fleet source-groups`: what of a host is backed up.

use super::{Context, Fields, seconds};
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::human::span;
use crate::list::{self, Kind, Limit};
use crate::names::host_id;
use crate::query::{Query, segment};
use crate::table::Column;
use crate::value::{number, pairs, text, words};
use clap::{Args, Subcommand};
use fleet_wire::parse_duration;
use std::time::Duration;

/// Source groups.
#[derive(Debug, Args)]
pub(crate) struct SourceGroups {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Those of a host
    List {
        /// Its name or id
        host: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// All that is known of one
    Show {
        /// The host's name or id
        host: String,
        /// Its name
        name: String,
    },
    /// Make one, or say anew what it is: what is not given is as if it had never been
    Set(Box<Set>),
    /// Remove one; its snapshots stay
    Remove {
        /// The host's name or id
        host: String,
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
struct Set {
    /// The host's name or id
    host: String,
    /// Its name
    name: String,
    /// Back this up; may be given several times
    #[arg(long, value_name = "PATH", required = true)]
    include: Vec<String>,
    /// Leave out what is like this; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Keep the newest so many snapshots
    #[arg(long, value_name = "NUMBER")]
    keep_last: Option<u32>,
    /// Keep one for each of so many hours
    #[arg(long, value_name = "NUMBER")]
    keep_hourly: Option<u32>,
    /// Keep one for each of so many days
    #[arg(long, value_name = "NUMBER")]
    keep_daily: Option<u32>,
    /// Keep one for each of so many weeks
    #[arg(long, value_name = "NUMBER")]
    keep_weekly: Option<u32>,
    /// Keep one for each of so many months
    #[arg(long, value_name = "NUMBER")]
    keep_monthly: Option<u32>,
    /// Keep one for each of so many years
    #[arg(long, value_name = "NUMBER")]
    keep_yearly: Option<u32>,
    /// Try a scheduled backup that has failed so many times more
    #[arg(long, value_name = "NUMBER")]
    retry_max: Option<u32>,
    /// Wait so long before the first of these, and twice as long before each next
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    retry_backoff: Option<Duration>,
    /// Within so long of the last one a backup must succeed, or it is overdue, such as 36h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    rpo: Option<Duration>,
    /// Run before each backup
    #[arg(long, value_name = "SCRIPT")]
    pre_hook: Option<String>,
    /// Run after each backup
    #[arg(long, value_name = "SCRIPT")]
    post_hook: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column::text("GROUP", |group, _| text(group, "name").to_owned()),
    Column::long("INCLUDES", |group, _| words(&group["includes"])),
    Column::long("EXCLUDES", |group, _| words(&group["excludes"])),
    Column::long("KEEPS", |group, _| pairs(&group["retention"]).replace("keep_", "")),
    Column::number("RETRIES", |group, _| number(group, "retry_max").to_string()),
    Column::number("DUE WITHIN", |group, _| group["rpo_seconds"].as_i64().map(span).unwrap_or_default()),
];

fn path(context: &Context, host: &str, name: Option<&str>) -> Result<Query, Failure> {
    let host = host_id(&context.client, host)?;
    let name = name.map(|name| format!("/{}", segment(name))).unwrap_or_default();
    Ok(Query::new(format!("/v1/hosts/{host}/source-groups{name}")))
}

impl SourceGroups {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done. So for the others.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        match self.command {
            Command::List { host, limit } => {
                let path = path(context, &host, None)?;
                list::show(context, path, COLUMNS, Kind::Inventory, limit, "no source groups")?;
                Ok(Outcome::Done)
            }
            Command::Show { host, name } => {
                list::one(context, &context.client.ask(&Ask::get(path(context, &host, Some(&name))?))?)
            }
            Command::Set(set) => set.run(context),
            Command::Remove { host, name } => {
                context.client.ask(&Ask::change("DELETE", path(context, &host, Some(&name))?, None))?;
                context.screen.note(&format!("{name} of {host} is removed; its snapshots stay"));
                Ok(Outcome::Done)
            }
        }
    }
}

impl Set {
    fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let path = path(context, &self.host, Some(&self.name))?;
        let retention = Fields::default()
            .with("keep_last", self.keep_last)
            .with("keep_hourly", self.keep_hourly)
            .with("keep_daily", self.keep_daily)
            .with("keep_weekly", self.keep_weekly)
            .with("keep_monthly", self.keep_monthly)
            .with("keep_yearly", self.keep_yearly);
        let body = Fields::default()
            .with_list("includes", &self.include)
            .with_list("excludes", &self.exclude)
            .with("retention", (!retention.is_empty()).then(|| retention.into_value()))
            .with("retry_max", self.retry_max)
            .with("retry_backoff_seconds", self.retry_backoff.map(seconds))
            .with("rpo_seconds", self.rpo.map(seconds))
            .with("pre_hook", self.pre_hook)
            .with("post_hook", self.post_hook);
        let answer = context.client.ask(&Ask::change("PUT", path, Some(&body.into_value())))?;
        list::one(context, &answer)
    }
}
