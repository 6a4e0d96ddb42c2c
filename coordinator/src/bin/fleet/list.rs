//! Lists of any length, and single things in full.

use crate::client::{Answer, Ask};
use crate::commands::Context;
use crate::failure::{Failure, Outcome};
use crate::human::{ago, bytes, count, moment_of, printable};
use crate::names::Names;
use crate::query::Query;
use crate::screen::Format;
use crate::table::{self, Column};
use crate::value::{pairs, text, time, word, words};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest page.
const PAGE: usize = 500;
/// A table of what has no end has so many lines unless more are asked for.
const TABLE: usize = 100;

/// How much of a list is wanted.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Limit {
    /// At most so many [default: all; of jobs, operations, runs and the audit log, in a table, the newest 100]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

/// Whether a list grows for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All that is there.
    Inventory,
    /// The newest first, for ever.
    History,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// Shows a list; gives the number of its items.
///
/// # Errors
/// It is refused, there is no answer, or nobody takes the output.
pub(crate) fn show(
    context: &Context,
    path: Query,
    columns: &[Column],
    kind: Kind,
    Limit { limit }: Limit,
    nothing: &str,
) -> Result<usize, Failure> {
    let screen = &context.screen;
    let usual = if kind == Kind::History && screen.is_table() { TABLE } else { usize::MAX };
    let most = limit.unwrap_or(usual);
    let mut rows: Vec<Value> = Vec::new();
    let mut shown = 0;
    let mut cursor = None;
    let mut more = most > 0;
    while more && shown < most {
        let page = PAGE.min(most - shown).to_string();
        let path = path.clone().with("limit", &page).with_some("cursor", cursor.as_deref());
        let page: Page = read(&context.client.ask(&Ask::get(path))?)?;
        shown += page.items.len();
        for item in &page.items {
            match screen.format {
                Format::Json => screen.json(item)?,
                Format::Id => screen.line(id_of(&read_item(item)))?,
                Format::Table => rows.push(read_item(item)),
            }
        }
        cursor = page.next_cursor;
        more = cursor.is_some();
    }
    if screen.is_table() && shown > 0 {
        table(context, &rows, columns)?;
    }
    if shown == 0 && screen.is_table() {
        screen.note(nothing);
    } else if more && limit.is_none() {
        screen.note(&format!("these are the newest {shown}; --limit gives more"));
    }
    Ok(shown)
}

fn table(context: &Context, items: &[Value], columns: &[Column]) -> Result<(), Failure> {
    let mut names = Names::default();
    names.learn(&context.client, items)?;
    let lines = table::lines(columns, items, &names, &context.screen);
    lines.iter().try_for_each(|line| context.screen.line(line))
}

/// Shows items that are here already.
///
/// # Errors
/// Nobody takes the output, or there is no answer to what their names are.
pub(crate) fn rows(context: &Context, items: &[Value], columns: &[Column]) -> Result<(), Failure> {
    match context.screen.format {
        Format::Json => items.iter().try_for_each(|item| context.screen.line(item)),
        Format::Id => items.iter().try_for_each(|item| context.screen.line(id_of(item))),
        Format::Table => table(context, items, columns),
    }
}

fn read(answer: &Answer) -> Result<Page, Failure> {
    serde_json::from_str(&answer.text).map_err(|error| Failure::NoAnswer(format!("this is no list: {error}")))
}

fn read_item(item: &RawValue) -> Value {
    // It has been read as JSON already.
    serde_json::from_str(item.get()).unwrap_or_default()
}

/// The id of something, or the name of what has none.
fn id_of(item: &Value) -> &str {
    ["id", "name", "job_id", "host_id", "repository_id"]
        .into_iter()
        .map(|field| text(item, field))
        .find(|id| !id.is_empty())
        .unwrap_or_default()
}

/// Shows one thing: what a change has made of it, or all that is known of it.
///
/// # Errors
/// Nobody takes the output, or there is no answer to what its names are.
pub(crate) fn one(context: &Context, answer: &Answer) -> Result<Outcome, Failure> {
    match context.screen.format {
        Format::Json => context.screen.line(&answer.text)?,
        Format::Id => context.screen.line(id_of(&answer.json))?,
        Format::Table => {
            let mut names = Names::default();
            names.learn(&context.client, std::slice::from_ref(&answer.json))?;
            let lines = details(&answer.json, &names);
            lines.iter().try_for_each(|line| context.screen.line(line))?;
        }
    }
    Ok(Outcome::Done)
}

/// What stands first.
const FIRST: [&str; 12] = [
    "id",
    "name",
    "hostname",
    "kind",
    "status",
    "state",
    "partial",
    "host_id",
    "source_group",
    "repository_id",
    "url",
    "error",
];

/// A field with objects in it is shown in full up to so many characters.
const LONGEST: usize = 300;

/// A line for each field that says something.
fn details(item: &Value, names: &Names) -> Vec<String> {
    let Some(fields) = item.as_object() else { return vec![printable(&word(item))] };
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    let mut order: Vec<&String> = fields.keys().collect();
    order.sort_by_key(|name| (rank(name), name.as_str()));
    let mut said = Vec::new();
    for name in order {
        detail(item, name, name, names, &mut said);
    }
    let width = said.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let line = |(name, said): &(String, String)| {
        let said = printable(said).replace('\n', &format!("\n{}", " ".repeat(width + 2)));
        format!("{name:<width$}  {said}")
    };
    said.iter().map(line).collect()
}

/// Whether something has nothing below it.
fn is_flat(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

/// What a field of `item` says, under the name `shown`; of an object that is no plain list of names, what its fields say.
fn detail(item: &Value, field: &str, shown: &str, names: &Names, said: &mut Vec<(String, String)>) {
    let value = &item[field];
    let named = |name: String| if name == text(item, field) { name } else { format!("{name} ({})", text(item, field)) };
    let text = match (field, value) {
        ("host_id" | "runner_host_id", Value::String(id)) => named(names.host_called(id)),
        ("repository_id", Value::String(_)) => named(names.repository(item)),
        (_, Value::String(moment)) if field.ends_with("_at") || field == "since" => match time(item, field) {
            Some(at) => format!("{} ({})", moment_of(at), ago(Some(at))),
            None => moment.clone(),
        },
        (_, Value::Number(number)) if field.ends_with("_bytes") => {
            number.as_i64().map_or_else(|| number.to_string(), bytes)
        }
        (_, Value::Array(list)) if list.iter().all(is_flat) => words(value),
        (_, Value::Object(fields)) if fields.values().all(is_flat) => pairs(value).replace(',', ", "),
        (_, Value::Object(fields)) => {
            for name in fields.keys() {
                detail(value, name, &format!("{shown}.{name}"), names, said);
            }
            return;
        }
        (_, Value::Array(list)) if value.to_string().len() > LONGEST => {
            format!("{}: -o json shows them", count(i64::try_from(list.len()).unwrap_or(i64::MAX), "item"))
        }
        _ => word(value),
    };
    if !text.is_empty() {
        said.push((shown.to_owned(), text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn details_say_what_there_is_to_say() {
        let item = json!({
            "error": "one\ntwo", "id": "7", "labels": {"site": "ulm", "rack": "4"}, "lost_at": null, "size_bytes": 2048,
            "tags": ["a", "b"], "host_id": "h", "done_at": "2020-01-01T00:00:00.123Z",
        });
        let lines = details(&item, &Names::default());
        assert_eq!(lines[..3], ["id          7", "host_id     h", "error       one\n            two"]);
        assert!(
            lines[3].starts_with("done_at     2020-01-01T00:00:00Z (") && lines[3].ends_with("d ago)"),
            "{lines:?}"
        );
        assert_eq!(lines[4..], ["labels      rack=4, site=ulm", "size_bytes  2.0 KiB", "tags        a, b"]);
    }

    #[test]
    fn what_is_below_something_has_a_longer_name_and_what_has_no_end_is_cut() {
        let item = json!({"check": {"cron": "@daily", "next_runs": ["a", "b"], "last_success_at": null},
            "groups": vec![json!({"host": "web1"}); 100]});
        let lines = details(&item, &Names::default());
        assert_eq!(
            lines,
            ["check.cron       @daily", "check.next_runs  a, b", "groups           100 items: -o json shows them"]
        );
    }

    #[test]
    fn what_has_no_id_has_a_name() {
        assert_eq!(id_of(&json!({"name": "etc"})), "etc");
        assert_eq!(id_of(&json!({"name": "main", "id": "1"})), "1");
        assert_eq!(id_of(&json!({})), "");
    }
}
