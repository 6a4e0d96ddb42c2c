//! Compares the log of a job, as the coordinator has it, with what its restics have said. Pure.

use super::record::Run;
use serde_json::Value;

/// How lines begin that the agent itself adds.
const OWN: &[&str] = &["fleet-agent: ", "already initialised: ", "not there: ", "no figures of the repository: "];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Lines that the coordinator has.
    pub(super) lines: usize,
    pub(super) missing: usize,
    /// Doubled, or never said by anybody.
    pub(super) duplicated: usize,
    pub(super) details: Vec<String>,
}

/// Compares. That the agent was killed meanwhile is no excuse.
pub(super) fn compare(log: &[Value], runs: &[Run]) -> Tally {
    let mut tally = Tally { lines: log.len(), ..Tally::default() };
    numbers(log, &mut tally);
    let said =
        [said(runs, |run| if run.is_logged() { &run.stdout } else { &[] }), said(runs, |run| run.stderr.as_slice())];
    let is_own = |text: &str| OWN.iter().any(|own| text.starts_with(own));
    let of_stderr = |line: &Value| match line["stream"].as_str() {
        Some("stderr") => true,
        Some("stdout") => false,
        // An event may come from either.
        _ => said[1].iter().any(|said| line["payload"] == said.as_str()),
    };
    for (stderr, said) in [false, true].into_iter().zip(&said) {
        let heard =
            log.iter().filter(|line| of_stderr(line) == stderr).map(|line| line["payload"].as_str().unwrap_or(""));
        walk(said, heard.filter(|text| !is_own(text)), &mut tally);
    }
    tally
}

/// `seq` counts from 0, each number once; only a notice of dropped lines explains a gap.
fn numbers(log: &[Value], tally: &mut Tally) {
    let mut next = 0;
    for line in log {
        let seq = line["seq"].as_i64().unwrap_or(-1);
        let notice = line["payload"].as_str().is_some_and(|text| text.contains("were dropped"));
        if seq < next {
            tally.duplicated += 1;
            tally.details.push(format!("seq {seq} where {next} was due"));
        } else if seq > next && !notice {
            tally.missing += usize::try_from(seq - next).unwrap_or(1);
            tally.details.push(format!("seq {seq} where {next} was due"));
        }
        next = next.max(seq + 1);
    }
}

fn said(runs: &[Run], output: impl Fn(&Run) -> &[String]) -> Vec<String> {
    runs.iter().flat_map(|run| output(run).iter().map(|line| clean(line))).filter(|line| !is_progress(line)).collect()
}

fn walk<'a>(said: &[String], heard: impl Iterator<Item = &'a str>, tally: &mut Tally) {
    let mut at = 0;
    for text in heard {
        match said[at..].iter().position(|said| said == text) {
            Some(skipped) => {
                if skipped > 0 {
                    tally.missing += skipped;
                    tally.details.push(format!("{skipped} lines are missing from {:?} to {text:?}", said[at]));
                }
                at += skipped + 1;
            }
            None => {
                tally.duplicated += 1;
                let known = said[..at].iter().any(|said| said == text);
                tally.details.push(format!("{} {text:?}", if known { "again:" } else { "nobody said" }));
            }
        }
    }
    if at < said.len() {
        tally.missing += said.len() - at;
        tally.details.push(format!("the last {} lines are missing, from {:?}", said.len() - at, said[at]));
    }
}

/// A line as the agent hands it on (docs/protocol.md: what moves a terminal's cursor is left out).
fn clean(line: &str) -> String {
    let text = line.replace("\u{1b}[2K", "");
    if !text.contains('\r') {
        return text;
    }
    text.split('\r').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Progress is no part of the log.
fn is_progress(line: &str) -> bool {
    line.trim_start().starts_with('{')
        && serde_json::from_str::<Value>(line).is_ok_and(|event| event["message_type"] == "status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(command: &str, stdout: &[&str]) -> Run {
        let stdout = stdout.iter().map(|line| (*line).to_owned()).collect();
        Run { command: command.to_owned(), stdout, ..Run::default() }
    }

    fn log(lines: &[&str]) -> Vec<Value> {
        let line = |(seq, text): (usize, &&str)| json!({"seq": seq, "stream": "stdout", "payload": text});
        lines.iter().enumerate().map(line).collect()
    }

    fn compared(lines: &[&str]) -> (usize, usize) {
        let status = r#"{"message_type":"status"}"#;
        let runs = [run("backup", &["a", status, "b", "c"]), run("snapshots", &["[]"]), run("unlock", &["done"])];
        let tally = compare(&log(lines), &runs);
        (tally.missing, tally.duplicated)
    }

    #[test]
    fn what_was_said_once_is_there_once() {
        assert_eq!(compared(&["a", "b", "fleet-agent: hello", "c", "done"]), (0, 0));
        assert_eq!(compared(&["a", "c", "done"]), (1, 0));
        assert_eq!(compared(&["a", "b", "b", "c", "done"]), (0, 1));
        assert_eq!(compared(&["a", "b", "c", "x", "done"]), (0, 1));
        assert_eq!(compared(&["b", "a", "c", "done"]), (1, 1), "out of order");
        assert_eq!(compared(&["a", "b"]), (2, 0));
    }

    #[test]
    fn numbers_rise_without_gaps() {
        let mut lines = log(&["a", "b", "c"]);
        lines[2]["seq"] = json!(3);
        assert_eq!(compare(&lines, &[run("backup", &["a", "b", "c"])]).missing, 1);
        lines[2]["seq"] = json!(1);
        assert_eq!(compare(&lines, &[run("backup", &["a", "b", "c"])]).duplicated, 1);
    }
}
