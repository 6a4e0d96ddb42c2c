//! `fleet token` and `fleet enroll-token`.

use super::{Context, Fields, seconds};
use crate::args::{Key, Label, labels, parse_label};
use crate::client::{Answer, Ask};
use crate::failure::{Failure, Outcome};
use crate::human::ago;
use crate::list::{self, Kind, Limit};
use crate::names::{all, host_id, repository_id};
use crate::query::{Query, segment};
use crate::screen::Format;
use crate::table::Column;
use crate::value::{pairs, text, time};
use clap::{Args, Subcommand};
use fleet_wire::parse_duration;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// Tokens of the API.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Tokens {
    #[command(flatten)]
    limit: Limit,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make one; it is shown this once
    Create(Create),
    /// All that is known of one
    Show {
        /// Its name or id
        token_id: String,
    },
    /// It opens nothing any more, at once
    Revoke {
        /// Its name or id
        token_id: String,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What it shall be called: jobs and the audit log show it
    name: String,
    /// What it allows
    #[arg(long, value_parser = ["read", "operate", "admin"])]
    scope: String,
    /// Only for hosts with this label; may be given several times, for hosts with all of them
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<Label>,
    /// For how long it is good, such as 365d [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    key: Key,
}

const COLUMNS: &[Column] = &[
    Column::text("TOKEN", |token, _| text(token, "name").to_owned()),
    Column::text("SCOPE", |token, _| text(token, "scope").to_owned()),
    Column::long("ONLY HOSTS", |token, _| pairs(&token["host_labels"])),
    Column::text("LAST USED", |token, _| ago(time(token, "last_used_at"))),
    Column::text("EXPIRES", |token, _| ago(time(token, "expires_at"))),
    Column::text("MADE BY", |token, _| text(token, "created_by").to_owned()),
    Column::text("ID", |token, _| text(token, "id").to_owned()),
];

impl Tokens {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done. So for the others.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let client = &context.client;
        match self.command {
            None => {
                let path = Query::new("/v1/tokens");
                list::show(context, path, COLUMNS, Kind::Inventory, self.limit, "no tokens but the built-in one")?;
                Ok(Outcome::Done)
            }
            Some(Command::Create(create)) => create.run(context),
            Some(Command::Show { token_id }) => list::one(context, &client.ask(&Ask::get(path(context, &token_id)?))?),
            Some(Command::Revoke { token_id }) => {
                client.ask(&Ask::change("DELETE", path(context, &token_id)?, None))?;
                context.screen.note(&format!("{token_id} is revoked"));
                Ok(Outcome::Done)
            }
        }
    }
}

fn path(context: &Context, given: &str) -> Result<Query, Failure> {
    if given.parse::<Uuid>().is_ok() {
        return Ok(Query::new(format!("/v1/tokens/{}", segment(given))));
    }
    // Those that are good have different names.
    let found = all(&context.client, Query::new("/v1/tokens"))?;
    let found = found.iter().find(|token| text(token, "name") == given);
    let id = found
        .map(|token| text(token, "id"))
        .ok_or_else(|| Failure::unknown(format!("there is no token called {given:?}")))?;
    Ok(Query::new(format!("/v1/tokens/{id}")))
}

impl Create {
    fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let body = Fields::default()
            .with("name", Some(self.name))
            .with("scope", Some(self.scope))
            .with("host_labels", (!self.label.is_empty()).then(|| json!(labels(&self.label))))
            .with("ttl_seconds", self.ttl.map(seconds))
            .into_value();
        let answer = context.client.ask(&Ask::post(Query::new("/v1/tokens"), &body, self.key.get()))?;
        show_secret(context, &answer, "keep it: it is not shown again")
    }
}

/// A secret that is made: alone on stdout, so that it can be taken from there.
fn show_secret(context: &Context, answer: &Answer, about: &str) -> Result<Outcome, Failure> {
    match context.screen.format {
        Format::Json => context.screen.line(&answer.text)?,
        Format::Id => context.screen.line(text(&answer.json, "id"))?,
        Format::Table => {
            context.screen.line(text(&answer.json, "token"))?;
            context.screen.note(about);
        }
    }
    Ok(Outcome::Done)
}

/// Makes a token with which one host enrols, once.
#[derive(Debug, Args)]
pub(crate) struct EnrollToken {
    /// The host backs up into this repository
    #[arg(long)]
    repository: Option<String>,
    /// Enrols this host again, which keeps its id and its history
    #[arg(long)]
    host: Option<String>,
    /// Gives the host a label; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<Label>,
    /// For how long it is good, up to 30d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    key: Key,
}

impl EnrollToken {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let client = &context.client;
        let repository = self.repository.as_deref().map(|name| repository_id(client, name)).transpose()?;
        let host = self.host.as_deref().map(|name| host_id(client, name)).transpose()?;
        let body = Fields::default()
            .with("repository_id", repository)
            .with("host_id", host)
            .with("labels", (!self.label.is_empty()).then(|| json!(labels(&self.label))))
            .with("ttl_seconds", self.ttl.map(seconds))
            .into_value();
        let answer = client.ask(&Ask::post(Query::new("/v1/enrollment-tokens"), &body, self.key.get()))?;
        let until = ago(time(&answer.json, "expires_at"));
        show_secret(
            context,
            &answer,
            &format!("on the host: fleet-agent enroll --server URL --token TOKEN (it expires {until})"),
        )
    }
}
