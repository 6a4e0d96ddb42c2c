//! `fleet schedules`: when a host is backed up.

use super::{Context, Fields, seconds};
use crate::args::Key;
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::human::ago;
use crate::list::{self, Kind, Limit};
use crate::names::host_id;
use crate::query::{Query, segment};
use crate::table::Column;
use crate::value::{text, words};
use clap::{Args, Subcommand};
use fleet_wire::parse_duration;
use serde_json::Value;
use std::time::Duration;

/// Schedules.
#[derive(Debug, Args)]
pub(crate) struct Schedules {
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
    /// Make one
    Add {
        /// The host's name or id
        host: String,
        #[command(flatten)]
        timetable: Timetable,
        #[command(flatten)]
        key: Key,
    },
    /// Say anew what one is: what is not given is as if it had never been
    Set {
        /// The host's name or id
        host: String,
        /// Its id
        schedule: String,
        #[command(flatten)]
        timetable: Timetable,
    },
    /// Remove one
    Remove {
        /// The host's name or id
        host: String,
        /// Its id
        schedule: String,
    },
}

#[derive(Debug, Args)]
struct Timetable {
    /// When, as in crontab(5): "30 2 * * *", @daily
    #[arg(long, value_name = "EXPRESSION")]
    cron: String,
    /// A source group to back up; may be given several times
    #[arg(long, value_name = "NAME", required = true)]
    group: Vec<String>,
    /// By the clocks of this time zone, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// It does nothing for now
    #[arg(long)]
    disabled: bool,
    /// A firing that was missed is made up for if it is not older than this [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    catch_up: Option<Duration>,
    /// Upload at most so much, in kbit/s
    #[arg(long, value_name = "KBPS")]
    bandwidth_up: Option<u64>,
    /// Download at most so much, in kbit/s
    #[arg(long, value_name = "KBPS")]
    bandwidth_down: Option<u64>,
}

const COLUMNS: &[Column] = &[
    Column::text("WHEN", |schedule, _| text(schedule, "cron").to_owned()),
    Column::text("TIME ZONE", |schedule, _| text(schedule, "timezone").to_owned()),
    Column::long("GROUPS", |schedule, _| words(&schedule["source_groups"])),
    Column::text("NEXT", |schedule, _| match schedule["enabled"] == true {
        true => schedule["next_runs"][0].as_str().map(|next| ago(next.parse().ok())).unwrap_or_default(),
        false => "disabled".to_owned(),
    }),
    Column::text("ID", |schedule, _| text(schedule, "id").to_owned()),
];

fn path(context: &Context, host: &str, schedule: Option<&str>) -> Result<Query, Failure> {
    let host = host_id(&context.client, host)?;
    let schedule = schedule.map(|id| format!("/{}", segment(id))).unwrap_or_default();
    Ok(Query::new(format!("/v1/hosts/{host}/schedules{schedule}")))
}

impl Timetable {
    fn body(self) -> Value {
        Fields::default()
            .with("cron", Some(self.cron))
            .with_list("source_groups", &self.group)
            .with("timezone", self.timezone)
            .with("enabled", self.disabled.then_some(false))
            .with("catch_up_seconds", self.catch_up.map(seconds))
            .with("bandwidth_up_kbps", self.bandwidth_up)
            .with("bandwidth_down_kbps", self.bandwidth_down)
            .into_value()
    }
}

impl Schedules {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        match self.command {
            Command::List { host, limit } => {
                let path = path(context, &host, None)?;
                list::show(context, path, COLUMNS, Kind::Inventory, limit, "no schedules")?;
                Ok(Outcome::Done)
            }
            Command::Add { host, timetable, key } => {
                let path = path(context, &host, None)?;
                list::one(context, &context.client.ask(&Ask::post(path, &timetable.body(), key.get()))?)
            }
            Command::Set { host, schedule, timetable } => {
                let path = path(context, &host, Some(&schedule))?;
                list::one(context, &context.client.ask(&Ask::change("PUT", path, Some(&timetable.body())))?)
            }
            Command::Remove { host, schedule } => {
                context.client.ask(&Ask::change("DELETE", path(context, &host, Some(&schedule))?, None))?;
                context.screen.note("it is removed");
                Ok(Outcome::Done)
            }
        }
    }
}
