//! Jobs while they run: a line each, drawn again and again in a terminal, else printed when the job ends.

use crate::screen::{Screen, bytes};
use crate::stop;
use fleet_integration::{Api, Failure, is_over};
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};

/// How often jobs are looked at.
const PAUSE: Duration = Duration::from_millis(150);
/// How long all jobs of one round may take.
const LIMIT: Duration = Duration::from_secs(900);
/// How often a running job is mentioned where lines can't be drawn again.
const MENTION: Duration = Duration::from_secs(10);

/// A job to follow.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    /// The host.
    pub(crate) host: String,
    /// What is shown beside it: the source group or the kind.
    pub(crate) what: String,
    /// The job's id.
    pub(crate) id: String,
}

/// Shows the jobs until all are over; gives them in the same order. `summarize` puts a finished job into a few words.
pub(crate) fn follow(
    api: &Api,
    screen: &Screen,
    jobs: &[Followed],
    summarize: impl Fn(&Value) -> String,
) -> Result<Vec<Value>, Failure> {
    let began = Instant::now();
    let mut mentioned = Instant::now();
    let mut states: Vec<Value> = vec![Value::Null; jobs.len()];
    let mut drawn = 0;
    loop {
        let mention = mentioned.elapsed() >= MENTION;
        for (job, state) in jobs.iter().zip(&mut states) {
            if is_over(state) {
                continue;
            }
            *state = api.job(&job.id)?;
            if !screen.live && (is_over(state) || mention) {
                screen.line(&row(screen, job, state, &summarize));
            }
        }
        if mention {
            mentioned = Instant::now();
        }
        if screen.live {
            let rows: Vec<String> =
                jobs.iter().zip(&states).map(|(job, state)| row(screen, job, state, &summarize)).collect();
            drawn = draw(screen, drawn, &rows.join("\n"));
        }
        if states.iter().all(is_over) {
            return Ok(states);
        }
        stop::check()?;
        if began.elapsed() > LIMIT {
            return Err(Failure::new(format!("jobs are not over after {LIMIT:?}; last seen: {states:?}")));
        }
        thread::sleep(PAUSE);
    }
}

/// Draws lines over the `drawn` ones that are there already; gives how many are there then.
fn draw(screen: &Screen, drawn: usize, text: &str) -> usize {
    let up = if drawn > 0 { format!("\x1b[{drawn}A") } else { String::new() };
    // Each line is cleared to its end after it is written, which flickers less than clearing it before.
    let lines: Vec<String> = text.lines().map(|line| format!("{line}\x1b[K")).collect();
    screen.line(&format!("{up}{}", lines.join("\n")));
    lines.len()
}

fn row(screen: &Screen, job: &Followed, state: &Value, summarize: &impl Fn(&Value) -> String) -> String {
    let start = format!("{:<7}{:<11}", job.host, job.what);
    match state["status"].as_str().unwrap_or("unknown") {
        "succeeded" if state["partial"] == true => {
            format!("  {} {start} {}", screen.paint("33", "!"), summarize(state))
        }
        "succeeded" => format!("  {} {start} {}", screen.paint("32", screen.tick()), summarize(state)),
        "failed" | "cancelled" => {
            let status = state["status"].as_str().unwrap_or_default();
            format!("  {} {start} {status}: {}", screen.paint("31", "x"), one_line(&state["error"], 44))
        }
        "running" => format!("    {start} {}", progress(screen, &state["progress"])),
        _ => format!("    {start} {}", waiting(state)),
    }
}

fn progress(screen: &Screen, progress: &Value) -> String {
    let fraction = progress["percent_done"].as_f64().unwrap_or(0.0);
    let (done, total) = (progress["bytes_done"].as_i64().unwrap_or(0), progress["total_bytes"].as_i64().unwrap_or(0));
    let amount = if total > 0 { format!("{} of {}", bytes(done), bytes(total)) } else { String::new() };
    format!("{} {:>3.0} %  {amount}", screen.bar(fraction), fraction * 100.0).trim_end().to_owned()
}

fn waiting(state: &Value) -> String {
    match state["waiting_for"].as_str() {
        Some(what) => format!("waits for {}", one_line(&Value::from(what), 46)),
        None => "queued".to_owned(),
    }
}

/// The first line of a text, with its middle left out where it would not stay on its line of the screen.
pub(crate) fn one_line(text: &Value, width: usize) -> String {
    let first: Vec<char> = text.as_str().unwrap_or_default().lines().next().unwrap_or_default().chars().collect();
    if first.len() <= width {
        return first.into_iter().collect();
    }
    let start = (width - 3) / 2;
    let end = first.len() - (width - 3 - start);
    first[..start].iter().chain(&['.'; 3]).chain(&first[end..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(state: Value) -> String {
        let screen = Screen::new();
        let job = Followed { host: "alder".into(), what: "checkout".into(), id: "1".into() };
        row(&screen, &job, &state, &|_| "done".to_owned())
    }

    #[test]
    fn every_state_has_a_line_of_at_most_80_columns() {
        let long = "x".repeat(200);
        let states = [
            json!({"status": "queued", "waiting_for": long}),
            json!({"status": "running", "progress": {"percent_done": 0.5, "bytes_done": 1_i64 << 33, "total_bytes": 1_i64 << 34}}),
            json!({"status": "running", "progress": null}),
            json!({"status": "failed", "error": long}),
            json!({"status": "succeeded", "partial": true}),
        ];
        for state in states {
            let line = shown(state.clone());
            assert!(line.contains("alder") && line.chars().count() <= 80, "{state}: {line}");
        }
    }

    #[test]
    fn a_long_line_keeps_both_ends() {
        let text = Value::from("could not be read: /a/very/long/way/to/secret\nand more");
        assert_eq!(one_line(&text, 21), "could not...to/secret");
        assert_eq!(one_line(&Value::from("short"), 21), "short");
    }

    #[test]
    fn a_failure_shows_its_first_line() {
        assert!(shown(json!({"status": "failed", "error": "disk full\nat x"})).ends_with("failed: disk full"));
    }
}
