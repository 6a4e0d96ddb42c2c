//! What Prometheus sees: the series in an answer of `/metrics`, what queries name, and its tool for rules.

#![allow(dead_code, unreachable_pub, reason = "each test file includes this and uses a part of it")]

use fleet_integration::Api;
use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Labels that Prometheus adds to what it scrapes.
pub const OF_TARGETS: [&str; 2] = ["job", "instance"];

/// One series, and what it stood at.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The answer of `/metrics`.
pub fn scrape(api: &Api) -> String {
    let reply = api.call("GET", "/metrics", None, &[]).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.problem());
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    reply.text
}

/// The series in it.
pub fn series(text: &str) -> Vec<Series> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let (selector, rest) = Selector::read(line)?;
        let labels = selector.matchers.into_iter().map(|matcher| (matcher.label, matcher.value)).collect();
        Some(Series { name: selector.name, labels, value: rest.trim().parse().ok()? })
    };
    lines.map(|line| read(line).unwrap_or_else(|| panic!("no series: {line}"))).collect()
}

/// What one series stands at; those labels must tell it from all others.
pub fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let is_it = |series: &Series| {
        series.name == name
            && labels.iter().all(|(label, value)| series.labels.get(*label).is_some_and(|is| is == value))
    };
    let found: Vec<Series> = series(text).into_iter().filter(is_it).collect();
    let [one] = &found[..] else { panic!("{name} {labels:?}: {found:?} in\n{text}") };
    one.value
}

/// What a query asks of a label.
#[derive(Clone, Debug, PartialEq)]
pub struct Matcher {
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: String,
    pub value: String,
}

/// A series that a query names.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    pub name: String,
    pub matchers: Vec<Matcher>,
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The name that a text begins with, and the rest.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// The text in quotes that a text begins with, and the rest.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.strip_prefix('"')?.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 2..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

impl Selector {
    /// The selector that a text begins with, and the rest.
    fn read(text: &str) -> Option<(Self, &str)> {
        let (name_of_it, mut rest) = name(text)?;
        let mut matchers = Vec::new();
        if let Some(labels) = rest.strip_prefix('{') {
            rest = labels.trim_start();
            while !rest.starts_with('}') {
                let (label, behind) = name(rest)?;
                let operators = ["=~", "!~", "!=", "="];
                let behind = behind.trim_start();
                let operator = operators.into_iter().find(|operator| behind.starts_with(operator))?;
                let (value, behind) = quoted(behind[operator.len()..].trim_start())?;
                matchers.push(Matcher { label: label.to_owned(), operator: operator.to_owned(), value });
                rest = behind.trim_start().trim_start_matches(',').trim_start();
            }
            rest = &rest[1..];
        }
        Some((Self { name: name_of_it.to_owned(), matchers }, rest))
    }

    /// Whether there is a series that a query with it could find.
    pub fn is_in(&self, all: &[Series]) -> bool {
        let finds = |series: &&Series| {
            let fits = |matcher: &Matcher| {
                let Some(is) = series.labels.get(&matcher.label) else { return OF_TARGETS.contains(&&*matcher.label) };
                // What a variable or a pattern stands for is not known here.
                matcher.operator != "=" || matcher.value.starts_with('$') || *is == matcher.value
            };
            series.name == self.name && self.matchers.iter().all(fits)
        };
        all.iter().any(|series| finds(&series))
    }
}

/// All series with these beginnings that a text names.
pub fn selectors(text: &str, beginnings: &[&str]) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_of_name) {
        rest = &rest[at..];
        let (word, behind) = name(rest).unwrap();
        rest = match Selector::read(rest).filter(|_| beginnings.iter().any(|beginning| word.starts_with(beginning))) {
            Some((selector, behind)) => {
                found.push(selector);
                behind
            }
            None => behind,
        };
    }
    found
}

/// The labels that queries group and match by, or show: `by (…)`, `on (…)`, `{{ $labels.x }}`, `{{x}}`.
pub fn labels(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for word in ["by", "without", "on", "ignoring", "group_left"] {
        for (at, _) in text.match_indices(word) {
            let before = text[..at].chars().next_back().is_none_or(|c| !is_of_name(c));
            let list = text[at + word.len()..].trim_start().strip_prefix('(').filter(|_| before);
            if let Some((list, _)) = list.and_then(|list| list.split_once(')')) {
                found.extend(list.split(',').map(|label| label.trim().to_owned()));
            }
        }
    }
    for (at, _) in text.match_indices("{{") {
        let shown = text[at + 2..].split(['}', '|']).next().unwrap().trim();
        found.push(shown.trim_start_matches("$labels.").to_owned());
    }
    found.retain(|label| label != "$value");
    found
}

/// The folder of rules and dashboard.
pub fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring").canonicalize().unwrap()
}

/// Runs promtool in a folder; what it says, which must be of success.
#[track_caller]
pub fn promtool(folder: &Path, arguments: &[&str], input: &str) -> String {
    let program = env::var_os("FLEET_TEST_PROMTOOL");
    let program = program.expect("FLEET_TEST_PROMTOOL must name promtool, which ./dev test fetches: run that");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {} {said}\n{input}", output.status);
    said
}
