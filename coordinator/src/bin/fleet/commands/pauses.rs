//! `fleet pause` and `fleet resume`.

use super::Context;
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::list;
use crate::names::{host_id, repository_id};
use crate::query::Query;
use clap::Args;
use serde_json::json;

/// What is paused.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Nothing new on this host
    #[arg(long)]
    host: Option<String>,
    /// Nothing new in this repository
    #[arg(long)]
    repository: Option<String>,
    /// Nothing new anywhere
    #[arg(long)]
    fleet: bool,
}

impl Target {
    fn path(&self, context: &Context) -> Result<Query, Failure> {
        Ok(Query::new(match (&self.host, &self.repository) {
            (Some(host), _) => format!("/v1/hosts/{}/pause", host_id(&context.client, host)?),
            (None, Some(name)) => format!("/v1/repositories/{}/pause", repository_id(&context.client, name)?),
            (None, None) => "/v1/pause".to_owned(),
        }))
    }
}

/// Lets nothing new begin. What is under way goes on.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    target: Target,
    /// Why, for those who wonder
    #[arg(long)]
    reason: String,
}

impl Pause {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let body = json!({"reason": self.reason});
        let answer = context.client.ask(&Ask::change("PUT", self.target.path(context)?, Some(&body)))?;
        list::one(context, &answer)
    }
}

/// Ends a pause.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    target: Target,
}

impl Resume {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        context.client.ask(&Ask::change("DELETE", self.target.path(context)?, None))?;
        context.screen.note("what waits goes on");
        Ok(Outcome::Done)
    }
}
