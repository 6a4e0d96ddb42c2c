//! `fleet run`: a job on one host.

use super::jobs::Timeout;
use super::{Context, Fields, logs};
use crate::args::{KINDS, Key};
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::names::host_id;
use crate::query::Query;
use crate::value::text;
use crate::wait;
use clap::Args;
use serde_json::Value;

/// What is wanted of a host, or of each of many.
#[derive(Debug, Args)]
pub(crate) struct Wish {
    /// What to do
    #[arg(value_parser = KINDS)]
    kind: String,
    /// The source group; a backup needs one, a forget without one is of all that have a policy
    group: Option<String>,
    /// A further argument, such as the part of a check: 1/7
    #[arg(long = "arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    args: Vec<String>,
    /// Upload at most so much, in kbit/s; 0 is no limit
    #[arg(long, value_name = "KBPS")]
    bandwidth_up: Option<u64>,
    /// Download at most so much, in kbit/s; 0 is no limit
    #[arg(long, value_name = "KBPS")]
    bandwidth_down: Option<u64>,
}

impl Wish {
    /// As the API takes it.
    pub(crate) fn fields(self) -> Fields {
        Fields::default()
            .with("kind", Some(self.kind))
            .with("source_group", self.group)
            .with_list("args", &self.args)
            .with("bandwidth_up_kbps", self.bandwidth_up)
            .with("bandwidth_down_kbps", self.bandwidth_down)
    }
}

/// Runs a job on a host.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Its name or id
    host: String,
    #[command(flatten)]
    wish: Wish,
    /// Of a forget: only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Of a forget: delete as much as this job would have, which was refused for it
    #[arg(long, value_name = "JOB")]
    confirm: Option<String>,
    /// Wait until it is over; the exit status says how it ended
    #[arg(long)]
    wait: bool,
    /// Wait, and show its log meanwhile
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    key: Key,
}

impl Run {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let until = self.timeout.until();
        let waits = self.wait || self.follow;
        let host = host_id(&context.client, &self.host)?;
        let body = self.wish.fields().with_true("dry_run", self.dry_run).with("confirm", self.confirm).into_value();
        let ask = Ask::post(Query::new(format!("/v1/hosts/{host}/jobs")), &body, self.key.get());
        let client = if waits { &context.waiting } else { &context.client };
        let answer = client.ask(&ask)?;
        let id = id(&answer.json)?;
        match (self.follow, self.wait) {
            (true, _) => logs::follow(context, id, until),
            (false, true) => wait::for_job(context, id, until),
            (false, false) => wait::tell_job(context, &answer),
        }
    }
}

/// The id of what was made.
///
/// # Errors
/// There is none in the answer.
pub(crate) fn id(made: &Value) -> Result<&str, Failure> {
    let id = text(made, "id");
    if id.is_empty() { Err(Failure::NoAnswer("the answer has no id in it".to_owned())) } else { Ok(id) }
}
