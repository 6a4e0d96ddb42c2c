//! `fleet maintenance`: when a repository is forgotten in, pruned and checked.

use super::repositories::path;
use super::{Context, Fields};
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::list;
use crate::names::host_id;
use clap::{Args, Subcommand};
use serde_json::Value;

/// Maintenance.
#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// That of a repository
    Show {
        /// Its name or id
        repository: String,
    },
    /// Say anew what it is: what is not given is not done
    Set(Set),
}

#[derive(Debug, Args)]
struct Set {
    /// The repository's name or id
    repository: String,
    /// When to forget, as in crontab(5): "0 4 * * *"
    #[arg(long, value_name = "EXPRESSION")]
    forget: Option<String>,
    /// When to prune
    #[arg(long, value_name = "EXPRESSION")]
    prune: Option<String>,
    /// When to check
    #[arg(long, value_name = "EXPRESSION")]
    check: Option<String>,
    /// How much a check reads: 1/7 is another seventh each time
    #[arg(long, value_name = "PART", requires = "check")]
    subset: Option<String>,
    /// By the clocks of this time zone, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// The host that does it, alone
    #[arg(long, value_name = "HOST")]
    runner: Option<String>,
    /// A forget that would delete more snapshots than this deletes nothing
    #[arg(long, value_name = "NUMBER")]
    forget_limit: Option<u32>,
    /// A forget that would delete more than this share of the snapshots (0 to 1) deletes nothing
    #[arg(long, value_name = "SHARE")]
    forget_limit_share: Option<f64>,
}

impl Maintenance {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let answer = match self.command {
            Command::Show { repository } => Ask::get(path(context, &repository, "/maintenance")?),
            Command::Set(set) => {
                let path = path(context, &set.repository, "/maintenance")?;
                Ask::change("PUT", path, Some(&set.body(context)?))
            }
        };
        list::one(context, &context.client.ask(&answer)?)
    }
}

impl Set {
    fn body(self, context: &Context) -> Result<Value, Failure> {
        let runner = self.runner.as_deref().map(|host| host_id(&context.client, host)).transpose()?;
        let entry = |cron: Option<String>| cron.map(|cron| Fields::default().with("cron", Some(cron)));
        let check = entry(self.check).map(|check| check.with("subset", self.subset));
        let limit = Fields::default().with("snapshots", self.forget_limit).with("share", self.forget_limit_share);
        Ok(Fields::default()
            .with("forget", entry(self.forget).map(Fields::into_value))
            .with("prune", entry(self.prune).map(Fields::into_value))
            .with("check", check.map(Fields::into_value))
            .with("timezone", self.timezone)
            .with("runner_host_id", runner)
            .with("forget_limit", (!limit.is_empty()).then(|| limit.into_value()))
            .into_value())
    }
}
