//! The commands, a file for what belongs together: its arguments, and what it does.

pub(crate) mod api;
pub(crate) mod apply;
pub(crate) mod hosts;
pub(crate) mod jobs;
pub(crate) mod logs;
pub(crate) mod maintenance;
pub(crate) mod operations;
pub(crate) mod pauses;
pub(crate) mod records;
pub(crate) mod repositories;
pub(crate) mod run;
pub(crate) mod schedules;
pub(crate) mod source_groups;
pub(crate) mod tokens;

use crate::args::{Cli, Command, Global};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::screen::Screen;
use crate::secrets;
use clap::CommandFactory;
use fleet_wire::Secret;
use serde_json::{Map, Value};
use std::env;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

/// For how long a request without an answer is asked again.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// The same while an end is waited for, which may be hours away: a coordinator that is upgraded meanwhile is back by then.
const RETRY_FOR_WAITING: Duration = Duration::from_secs(600);

/// What every command works with.
pub(crate) struct Context {
    /// For what is answered at once.
    pub(crate) client: Client,
    /// For what is waited for.
    pub(crate) waiting: Client,
    /// Where output goes.
    pub(crate) screen: Rc<Screen>,
}

impl Context {
    fn new(global: &Global) -> Result<Self, Failure> {
        let screen = Rc::new(Screen::new(global.output));
        let token = match (&global.token_file, env::var("FLEET_TOKEN")) {
            (Some(path), _) => Some(secrets::read(path)?),
            (None, Ok(token)) if !token.trim().is_empty() => Some(Secret::new(token.trim())),
            (None, _) => None,
        };
        let retry_for = global.retry_for.unwrap_or(RETRY_FOR);
        let client = Client::new(&global.url, token, retry_for, global.allow_plain_http, screen.clone())?;
        let waiting = client.patient(global.retry_for.unwrap_or(RETRY_FOR_WAITING));
        Ok(Self { client, waiting, screen })
    }
}

/// Carries out what the command line says.
///
/// # Errors
/// It can't be carried out.
pub(crate) fn run(cli: Cli) -> Result<Outcome, Failure> {
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "fleet", &mut script);
        std::io::stdout().write_all(&script)?;
        return Ok(Outcome::Done);
    }
    let context = Context::new(&cli.global)?;
    match cli.command {
        Command::Hosts(hosts) => hosts.run(&context),
        Command::Jobs(jobs) => jobs.run(&context),
        Command::Run(run) => run.run(&context),
        Command::Wait(wait) => wait.run(&context),
        Command::Logs(logs) => logs.run(&context),
        Command::Cancel(cancel) => cancel.run(&context),
        Command::Release(release) => release.run(&context),
        Command::Operations(operations) => operations.run(&context),
        Command::Retry(retry) => retry.run(&context),
        Command::Overdue(overdue) => overdue.run(&context),
        Command::Runs(runs) => runs.run(&context),
        Command::Snapshots(snapshots) => snapshots.run(&context),
        Command::Repositories(repositories) => repositories.run(&context),
        Command::SourceGroups(groups) => groups.run(&context),
        Command::Schedules(schedules) => schedules.run(&context),
        Command::Maintenance(maintenance) => maintenance.run(&context),
        Command::Pause(pause) => pause.run(&context),
        Command::Resume(resume) => resume.run(&context),
        Command::Pauses(pauses) => pauses.run(&context),
        Command::EnrollToken(token) => token.run(&context),
        Command::Token(tokens) => tokens.run(&context),
        Command::Audit(audit) => audit.run(&context),
        Command::Apply(apply) => apply.run(&context),
        Command::Export(export) => export.run(&context),
        Command::Api(api) => api.run(&context),
        Command::Completions { .. } => Ok(Outcome::Done),
    }
}

/// A body of JSON that has only what is given.
#[derive(Debug, Default)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Adds a field, if there is something in it.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Adds a list, if it has items.
    #[must_use]
    pub(crate) fn with_list(self, name: &str, items: &[String]) -> Self {
        self.with(name, (!items.is_empty()).then(|| items.to_vec()))
    }

    /// Adds a field that is true, if it is.
    #[must_use]
    pub(crate) fn with_true(self, name: &str, set: bool) -> Self {
        self.with(name, set.then_some(true))
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it.
    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// Seconds as the API takes them.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs()
}
