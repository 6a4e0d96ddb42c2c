//! `fleet apply` and `fleet export`: the fleet as one document.

use super::Context;
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::list;
use crate::query::Query;
use crate::screen::Format;
use crate::secrets::read_whole;
use crate::table::Column;
use crate::value::{number, text, word};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where the document is.
const FLEET: &str = "/v1/fleet";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// Makes the fleet what a document says, whole or not at all.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The document, in YAML or (if it ends in .json) JSON; `-` is stdin
    file: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Delete what the document does not name
    #[arg(long)]
    delete: bool,
    /// Only if what would be done is still what a dry run has said under this tag
    #[arg(long, value_name = "TAG")]
    if_match: Option<String>,
}

const STEPS: &[Column] = &[
    Column::word("ACTION", |step, _| text(step, "action").to_owned()),
    Column::text("KIND", |step, _| text(step, "kind").replace('_', " ")),
    Column::text("WHAT", |step, _| thing(step)),
    Column::long("CHANGES", |step, _| changes(step)),
];

/// `etc of web1 in main`.
fn thing(step: &Value) -> String {
    let part = |word: &str, field: &str| match text(step, field) {
        "" => String::new(),
        name => format!("{word}{name}"),
    };
    match (text(step, "name"), text(step, "hostname")) {
        ("", "") => text(step, "repository").to_owned(),
        ("", host) => format!("{host}{}", part(" in ", "repository")),
        (name, _) => format!("{name}{}{}", part(" of ", "hostname"), part(" in ", "repository")),
    }
}

/// `cron: 0 2 * * * → 0 3 * * *`.
fn changes(step: &Value) -> String {
    let value = |value: &Value| if value.is_null() { "nothing".to_owned() } else { word(value) };
    let change = |change: &Value| match change["from"].is_null() {
        true => format!("{}: {}", text(change, "field"), value(&change["to"])),
        false => format!("{}: {} → {}", text(change, "field"), value(&change["from"]), value(&change["to"])),
    };
    step["changes"].as_array().into_iter().flatten().map(change).collect::<Vec<_>>().join("; ")
}

impl Apply {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done. So for the other.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let kind = if self.file.extension().is_some_and(|end| end == "json") { JSON } else { YAML };
        let path = Query::new(FLEET)
            .with_some("dry_run", self.dry_run.then_some("true"))
            .with_some("delete", self.delete.then_some("true"));
        let mut ask = Ask::put_document(path, read_whole(Path::new(&self.file))?, kind);
        if let Some(tag) = &self.if_match {
            ask = ask.with_header("If-Match", format!("\"{}\"", tag.trim_matches('"')));
        }
        let answer = context.client.ask(&ask)?;
        if context.screen.format != Format::Table {
            return list::one(context, &answer);
        }
        let plan = &answer.json;
        let steps = plan["steps"].as_array().cloned().unwrap_or_default();
        if !steps.is_empty() {
            list::rows(context, &steps, STEPS)?;
        }
        for (field, said) in [("pending", "has to wait"), ("left", "is not named, and stays")] {
            for one in plan[field].as_array().into_iter().flatten() {
                let what = format!("{} {}", text(one, "kind").replace('_', " "), thing(one));
                context.screen.note(&format!("{what} {said}: {}", text(one, "why")));
            }
        }
        let counts = &plan["counts"];
        let [create, change, delete] = ["create", "change", "delete"].map(|field| number(counts, field));
        match (steps.is_empty(), self.dry_run, &answer.tag) {
            (true, ..) => context.screen.note("the fleet is as the document says"),
            (false, true, Some(tag)) => context.screen.note(&format!(
                "would create {create}, change {change} and delete {delete}; nothing was done. Just this: --if-match {tag}"
            )),
            (false, true, None) => {
                context.screen.note(&format!("would create {create}, change {change} and delete {delete}"));
            }
            (false, false, _) => context.screen.note(&format!("created {create}, changed {change}, deleted {delete}")),
        }
        Ok(Outcome::Done)
    }
}

/// Writes the fleet as a document, without secrets, to stdout.
#[derive(Debug, Args)]
pub(crate) struct Export {}

impl Export {
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let kind = if context.screen.format == Format::Json { JSON } else { YAML };
        let answer = context.client.ask(&Ask::get(Query::new(FLEET)).with_header("Accept", kind.to_owned()))?;
        context.screen.line(answer.text.trim_end())?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_read_as_sentences() {
        let step = json!({"kind": "source_group", "name": "etc", "hostname": "web1", "repository": "main",
            "changes": [{"field": "retry_max", "from": 0, "to": 3}, {"field": "pre_hook", "from": null, "to": "x"},
                        {"field": "post_hook", "from": "y", "to": null}]});
        assert_eq!(thing(&step), "etc of web1 in main");
        assert_eq!(changes(&step), "retry_max: 0 → 3; pre_hook: x; post_hook: y → nothing");
        assert_eq!(thing(&json!({"kind": "maintenance", "repository": "main"})), "main");
        assert_eq!(thing(&json!({"kind": "host", "hostname": "web1"})), "web1");
    }
}
