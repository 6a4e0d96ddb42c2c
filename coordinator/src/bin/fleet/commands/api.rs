//! `fleet api`: anything else that the API can.

use super::Context;
use crate::args::Key;
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::query::Query;
use crate::secrets::read_whole;
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Asks the API anything; shows the answer as it came.
#[derive(Debug, Args)]
pub(crate) struct Api {
    /// GET, POST, PUT, PATCH or DELETE
    #[arg(value_parser = ["GET", "POST", "PUT", "PATCH", "DELETE"], ignore_case = true)]
    method: String,
    /// Such as /v1/hosts?limit=5
    path: String,
    /// The body: a file with JSON, or - for stdin
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    #[command(flatten)]
    key: Key,
}

impl Api {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let method = self.method.to_uppercase();
        if !self.path.starts_with('/') {
            return Err(Failure::Usage("the path begins with /v1/".to_owned()));
        }
        let body = self.body.as_deref().map(json_of).transpose()?;
        let path = Query::new(self.path);
        let ask = match method.as_str() {
            "GET" => Ask::get(path),
            "POST" => Ask::post(path, &body.unwrap_or_else(|| Value::Object(serde_json::Map::new())), self.key.get()),
            other => Ask::change(other, path, body.as_ref()),
        };
        let answer = context.client.ask(&ask)?;
        if !answer.text.is_empty() {
            context.screen.line(&answer.text)?;
        }
        Ok(Outcome::Done)
    }
}

fn json_of(path: &Path) -> Result<Value, Failure> {
    serde_json::from_str(&read_whole(path)?).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}
