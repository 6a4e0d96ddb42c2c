//! `fleet repositories`.

use super::{Context, Fields};
use crate::args::Key;
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::list::{self, Kind, Limit};
use crate::names::repository_id;
use crate::query::Query;
use crate::secrets;
use crate::table::Column;
use crate::value::text;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Repositories.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Repositories {
    #[command(flatten)]
    limit: Limit,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All that is known of a repository, and its health
    Show {
        /// Its name or id
        repository: String,
    },
    /// What is in it
    Stats {
        /// Its name or id
        repository: String,
    },
    /// Tell of a repository; its first host initialises it if that was not done
    Add(Box<Add>),
    /// Change what is known of a repository
    Set(Box<Set>),
    /// Forget about a repository; what is in it stays
    Remove {
        /// Its name or id
        repository: String,
    },
}

#[derive(Debug, Args)]
struct Add {
    /// What it shall be called
    name: String,
    /// Where it is, as restic names it, without credentials: `rest:https://backup.example.org/main`
    address: String,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    key: Key,
}

#[derive(Debug, Args)]
struct Set {
    /// Its name or id
    repository: String,
    /// Call it this
    #[arg(long)]
    name: Option<String>,
    /// It is there now
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// How to get in. Secrets come from files, of which the first line counts; `-` is stdin.
#[derive(Debug, Args)]
struct Access {
    /// Restic's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The user of the server that it is on
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The password of that user
    #[arg(long, value_name = "FILE")]
    credential_file: Option<PathBuf>,
    /// The user that may delete, if another one
    #[arg(long, value_name = "NAME")]
    admin_username: Option<String>,
    /// The password of that user
    #[arg(long, value_name = "FILE")]
    admin_credential_file: Option<PathBuf>,
    /// The address at which may be deleted, if another one
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<String>,
    /// Whether hosts can only add to it
    #[arg(long, value_name = "BOOL")]
    append_only: Option<bool>,
    /// So many backups at once at most
    #[arg(long, value_name = "NUMBER")]
    max_backups: Option<u32>,
}

const COLUMNS: &[Column] = &[
    Column::text("REPOSITORY", |repository, _| text(repository, "name").to_owned()),
    Column::long("ADDRESS", |repository, _| text(repository, "url").to_owned()),
    Column::text("APPEND ONLY", |repository, _| yes(&repository["append_only"])),
    Column::word("PAUSED", |repository, _| yes(&(!repository["paused"].is_null()).into())),
    Column::text("ID", |repository, _| text(repository, "id").to_owned()),
];

fn yes(value: &Value) -> String {
    if *value == true { "yes" } else { "no" }.to_owned()
}

impl Repositories {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done. So for the others.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let client = &context.client;
        match self.command {
            None => {
                let path = Query::new("/v1/repositories");
                list::show(context, path, COLUMNS, Kind::Inventory, self.limit, "no repositories")?;
                Ok(Outcome::Done)
            }
            Some(Command::Show { repository }) => {
                list::one(context, &client.ask(&Ask::get(path(context, &repository, "")?))?)
            }
            Some(Command::Stats { repository }) => {
                list::one(context, &client.ask(&Ask::get(path(context, &repository, "/stats")?))?)
            }
            Some(Command::Add(add)) => add.run(context),
            Some(Command::Set(set)) => set.run(context),
            Some(Command::Remove { repository }) => {
                client.ask(&Ask::change("DELETE", path(context, &repository, "")?, None))?;
                context.screen.note(&format!("{repository} is forgotten; what is in it stays"));
                Ok(Outcome::Done)
            }
        }
    }
}

/// Where a repository is, and what is below it.
pub(crate) fn path(context: &Context, repository: &str, below: &str) -> Result<Query, Failure> {
    Ok(Query::new(format!("/v1/repositories/{}{below}", repository_id(&context.client, repository)?)))
}

impl Access {
    fn add_to(self, fields: Fields) -> Result<Fields, Failure> {
        let secret = |path: Option<&Path>| path.map(secrets::read).transpose();
        let text = |path: Option<&Path>| Ok::<_, Failure>(secret(path)?.map(|secret| secret.expose().to_owned()));
        let admin = Fields::default()
            .with("username", self.admin_username)
            .with("credential", text(self.admin_credential_file.as_deref())?)
            .with("url", self.admin_address);
        Ok(fields
            .with("password", text(self.password_file.as_deref())?)
            .with("username", self.username)
            .with("credential", text(self.credential_file.as_deref())?)
            .with("admin", (!admin.is_empty()).then(|| admin.into_value()))
            .with("append_only", self.append_only)
            .with("max_backups", self.max_backups))
    }
}

impl Add {
    fn run(self, context: &Context) -> Result<Outcome, Failure> {
        if self.access.password_file.is_none() {
            return Err(Failure::Usage(
                "--password-file must name a file with restic's password, or - for stdin".to_owned(),
            ));
        }
        let fields = Fields::default().with("name", Some(self.name)).with("url", Some(self.address));
        let body = self.access.add_to(fields)?.into_value();
        let answer = context.client.ask(&Ask::post(Query::new("/v1/repositories"), &body, self.key.get()))?;
        list::one(context, &answer)
    }
}

impl Set {
    fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let path = path(context, &self.repository, "")?;
        let fields = self.access.add_to(Fields::default().with("name", self.name).with("url", self.address))?;
        if fields.is_empty() {
            return Err(Failure::Usage("nothing to change: fleet repositories set --help says what can be".to_owned()));
        }
        let answer = context.client.ask(&Ask::change("PATCH", path, Some(&fields.into_value())))?;
        list::one(context, &answer)
    }
}
