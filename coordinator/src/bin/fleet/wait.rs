//! Waiting for the end of a job or an operation, and telling how it ended. The coordinator may restart meanwhile.

use crate::client::{Answer, Ask};
use crate::commands::jobs::{self, standing, took};
use crate::commands::{Context, operations};
use crate::failure::{Failure, Outcome};
use crate::human::{bytes, count, printable, span};
use crate::names::Names;
use crate::query::Query;
use crate::screen::{Format, Screen};
use crate::value::{number, text};
use indicatif::ProgressBar;
use serde_json::Value;
use std::collections::HashMap;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

/// How long the coordinator keeps a question before it answers that nothing has ended. Bars are drawn with each answer.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);
/// What answers at once, though it is not over, is not asked in a loop.
const PAUSE: Duration = Duration::from_millis(200);
/// So many of an operation's running jobs have a bar.
const BARS: usize = 8;
/// Lines about progress, where there are no bars, come with each such part of the whole.
const STEP: f64 = 0.1;

/// For how long an end is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until(Option<Instant>);

impl Until {
    /// From now on for `limit`; without one for as long as it takes.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self(limit.map(|limit| Instant::now() + limit))
    }

    /// How long the next question may take.
    fn next(self, screen: &Screen) -> Duration {
        let usual = if screen.live { SHORT } else { LONG };
        match self.0 {
            // The API counts in whole seconds.
            Some(end) => usual.min(end.saturating_duration_since(Instant::now()) + Duration::from_millis(999)),
            None => usual,
        }
    }

    /// How much of it is left; `None` if there is no end.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1)))
    }

    /// Fails if the time is over.
    ///
    /// # Errors
    /// It is.
    pub(crate) fn check(self, what: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.0 {
            Some(end) if Instant::now() >= end => Err(Failure::NotOver(format!("{} is not over, and goes on", what()))),
            _ => Ok(()),
        }
    }
}

/// Asks until the answer is `over`; `look` sees each that is not.
fn until_over(
    context: &Context,
    path: &Query,
    until: Until,
    what: &str,
    over: impl Fn(&Value) -> bool,
    mut look: impl FnMut(&Value) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    loop {
        let wait = until.next(&context.screen);
        let asked = Instant::now();
        let answer = context.waiting.ask(&Ask::wait(path.clone(), wait))?;
        if over(&answer.json) {
            return Ok(answer);
        }
        look(&answer.json)?;
        until.check(|| what.to_owned())?;
        if asked.elapsed() < PAUSE {
            thread::sleep(PAUSE);
        }
    }
}

/// Whether a job is over.
pub(crate) fn is_over(job: &Value) -> bool {
    matches!(text(job, "status"), "succeeded" | "failed" | "cancelled")
}

/// What the end of a job means for the exit status.
pub(crate) fn end_of_job(job: &Value) -> Outcome {
    match standing(job) {
        "succeeded" => Outcome::Done,
        "partial" => Outcome::Partial,
        _ => Outcome::Failed,
    }
}

/// What the end of an operation means for the exit status.
fn end_of_operation(operation: &Value) -> Outcome {
    match text(operation, "state") {
        "succeeded" if number(&operation["counts"], "partial") > 0 => Outcome::Partial,
        "succeeded" => Outcome::Done,
        _ => Outcome::Failed,
    }
}

/// Waits for a job, and tells how it ended.
///
/// # Errors
/// It can't be asked for, or `until` is over.
pub(crate) fn for_job(context: &Context, id: &str, until: Until) -> Result<Outcome, Failure> {
    let mut view = JobView::default();
    let look = |job: &Value| view.show(context, job);
    let answer = until_over(context, &jobs::path(id), until, &format!("job {id}"), is_over, look)?;
    view.clear();
    tell_job(context, &answer)?;
    Ok(end_of_job(&answer.json))
}

/// Waits for an operation, and tells how it ended.
///
/// # Errors
/// It can't be asked for, or `until` is over.
pub(crate) fn for_operation(context: &Context, id: &str, until: Until) -> Result<Outcome, Failure> {
    let mut view = OperationView::default();
    let look = |operation: &Value| view.show(context, operation);
    let over = |operation: &Value| !operation["ended_at"].is_null();
    let answer = until_over(context, &operations::path(id), until, &format!("operation {id}"), over, look)?;
    view.clear();
    tell_operation(context, &answer)?;
    Ok(end_of_operation(&answer.json))
}

/// Tells how a job is.
///
/// # Errors
/// Nobody takes the output, or there is no answer to what its host is called.
pub(crate) fn tell_job(context: &Context, answer: &Answer) -> Result<Outcome, Failure> {
    match context.screen.format {
        Format::Json => context.screen.line(&answer.text)?,
        Format::Id => context.screen.line(text(&answer.json, "id"))?,
        Format::Table => {
            let (word, rest) = (standing(&answer.json), describe(context, &answer.json)?);
            context.screen.line(format!("{}: {rest}", context.screen.word(word)))?;
        }
    }
    Ok(Outcome::Done)
}

/// How a job ended, in words.
///
/// # Errors
/// There is no answer to what its host is called.
pub(crate) fn describe_end(context: &Context, job: &Value) -> Result<String, Failure> {
    Ok(format!("{}: {}", standing(job), describe(context, job)?))
}

fn describe(context: &Context, job: &Value) -> Result<String, Failure> {
    let mut names = Names::default();
    names.learn(&context.client, slice::from_ref(&serde_json::json!({"host_id": job["host_id"]})))?;
    Ok(sentence(job, &names))
}

/// `backup of etc on web1`.
fn what(job: &Value, names: &Names) -> String {
    let of = Some(text(job, "source_group")).filter(|group| !group.is_empty());
    let of = of.map(|group| format!(" of {group}")).unwrap_or_default();
    printable(&format!("{}{of} on {}", text(job, "kind"), names.host(job)))
}

fn sentence(job: &Value, names: &Names) -> String {
    let mut sentence = what(job, names);
    if is_over(job) && !took(job).is_empty() {
        sentence += &format!(" in {}", took(job));
    }
    let about = figures(job);
    if !about.is_empty() {
        sentence += &format!(", {about}");
    }
    sentence += &format!(" (job {})", text(job, "id"));
    if !is_over(job) && !text(job, "waiting_for").is_empty() {
        sentence += &format!(", waits for {}", text(job, "waiting_for"));
    }
    for line in text(job, "error").lines() {
        sentence += &format!("\n  {line}");
    }
    printable(&sentence)
}

/// What restic's summary says that matters most.
fn figures(job: &Value) -> String {
    let stats = &job["stats"];
    let mut said = Vec::new();
    if let (Some(files), Some(size)) =
        (stats["total_files_processed"].as_i64(), stats["total_bytes_processed"].as_i64())
    {
        said.push(format!("{} of {}", count(files, "file"), bytes(size)));
    }
    if let Some(added) = stats["data_added"].as_i64() {
        said.push(format!("{} added", bytes(added)));
    }
    if let Some(snapshot) = stats["snapshot_id"].as_str().filter(|id| id.is_ascii()) {
        said.push(format!("snapshot {}", &snapshot[..snapshot.len().min(8)]));
    }
    if text(job, "kind") == "forget" {
        let (kept, removed) = forgotten(stats);
        let verbs = if stats["dry_run"] == true { ("would delete", "keep") } else { ("deleted", "kept") };
        said.push(format!("{} {} and {} {kept}", verbs.0, count(removed, "snapshot"), verbs.1));
    }
    said.join(", ")
}

/// How many snapshots a forget has kept and removed (or would): by its preview, or by restic's list of groups.
fn forgotten(stats: &Value) -> (i64, i64) {
    let size = |value: &Value, list: &str, sum: &str| {
        let listed = value[list].as_array().and_then(|list| i64::try_from(list.len()).ok());
        listed.unwrap_or_else(|| number(value, sum))
    };
    let of = |value: &Value| (size(value, "keep", "kept"), size(value, "remove", "removed"));
    match stats.as_array() {
        Some(groups) => groups.iter().map(of).fold((0, 0), |sum, group| (sum.0 + group.0, sum.1 + group.1)),
        None => of(stats),
    }
}

/// A job on its way.
#[derive(Default)]
struct JobView {
    names: Names,
    bar: Option<ProgressBar>,
    said: String,
    fraction: f64,
}

impl JobView {
    fn show(&mut self, context: &Context, job: &Value) -> Result<(), Failure> {
        self.names.learn(&context.waiting, slice::from_ref(&serde_json::json!({"host_id": job["host_id"]})))?;
        let what = what(job, &self.names);
        let state = match text(job, "waiting_for") {
            "" => text(job, "status").to_owned(),
            obstacle => format!("{}, waits for {}", text(job, "status"), printable(obstacle)),
        };
        if context.screen.live {
            let bar = self.bar.get_or_insert_with(|| bar_of_job(&context.screen));
            fill(bar, job, &what, &state);
        } else {
            self.say(context, job, &what, state);
        }
        Ok(())
    }

    fn say(&mut self, context: &Context, job: &Value, what: &str, state: String) {
        let fraction = fraction(job).unwrap_or_default();
        if state != self.said || fraction >= self.fraction + STEP {
            let progress = Some(progress(job)).filter(|progress| !progress.is_empty());
            let progress = progress.map(|progress| format!(", {progress}")).unwrap_or_default();
            context.screen.note(&format!("{what}: {state}{progress}"));
            (self.said, self.fraction) = (state, fraction);
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar_of_job(screen: &Screen) -> ProgressBar {
    screen.bar(1_000, "{spinner} {prefix} [{bar:20}] {wide_msg}")
}

fn fill(bar: &ProgressBar, job: &Value, what: &str, state: &str) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1,000")]
    bar.set_position((fraction(job).unwrap_or_default() * 1_000.0) as u64);
    bar.set_prefix(what.to_owned());
    let progress = progress(job);
    bar.set_message(if progress.is_empty() { state.to_owned() } else { progress });
}

/// How much of a job that runs is done, from 0 to 1; the API's `percent_done` is a fraction, as restic's is.
pub(crate) fn fraction(job: &Value) -> Option<f64> {
    let done = job["progress"]["percent_done"].as_f64().filter(|_| text(job, "status") == "running");
    done.map(|done| done.clamp(0.0, 1.0))
}

/// `42 %, 1.2 GiB of 2.8 GiB, 12.0 MiB/s, 3m left`.
fn progress(job: &Value) -> String {
    let progress = &job["progress"];
    let Some(fraction) = fraction(job) else { return String::new() };
    let mut said = vec![format!("{:.0} %", fraction * 100.0)];
    if number(progress, "total_bytes") > 0 {
        said.push(format!("{} of {}", bytes(number(progress, "bytes_done")), bytes(number(progress, "total_bytes"))));
    }
    if number(progress, "throughput_bps") > 0 {
        said.push(format!("{}/s", bytes(number(progress, "throughput_bps"))));
    }
    if number(progress, "eta_seconds") > 0 {
        said.push(format!("{} left", span(number(progress, "eta_seconds"))));
    }
    said.join(", ")
}

/// Tells how an operation is.
///
/// # Errors
/// Nobody takes the output.
pub(crate) fn tell_operation(context: &Context, answer: &Answer) -> Result<Outcome, Failure> {
    let operation = &answer.json;
    match context.screen.format {
        Format::Json => context.screen.line(&answer.text)?,
        Format::Id => context.screen.line(text(operation, "id"))?,
        Format::Table => {
            let (state, counts) = (text(operation, "state"), tally(&operation["counts"]));
            let (kind, id) = (text(operation, "kind"), text(operation, "id"));
            context.screen.line(format!("{}: {kind}, {counts} (operation {id})", context.screen.word(state)))?;
            if let Some(reason) = operation["halt_reason"].as_str() {
                context.screen.line(format!("  {}", printable(reason)))?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// `20 jobs: 17 succeeded (2 partial), 1 failed, 2 skipped`.
fn tally(counts: &Value) -> String {
    let mut said = Vec::new();
    for field in ["queued", "running", "succeeded", "failed", "cancelled", "skipped"] {
        let count = number(counts, field);
        let partial = number(counts, "partial");
        if field == "succeeded" && partial > 0 {
            said.push(format!("{count} succeeded ({partial} partial)"));
        } else if count > 0 {
            said.push(format!("{count} {field}"));
        }
    }
    format!("{}: {}", count(number(counts, "jobs"), "job"), said.join(", "))
}

/// An operation on its way: a bar for all of it, and one for each of a few jobs that run.
#[derive(Default)]
struct OperationView {
    names: Names,
    whole: Option<ProgressBar>,
    jobs: HashMap<String, ProgressBar>,
    said: String,
}

impl OperationView {
    fn show(&mut self, context: &Context, operation: &Value) -> Result<(), Failure> {
        let counts = &operation["counts"];
        let state = format!("{} {}: {}", text(operation, "kind"), text(operation, "state"), tally(counts));
        if !context.screen.live {
            if state != self.said {
                context.screen.note(&state);
                self.said = state;
            }
            return Ok(());
        }
        let whole = self.whole.get_or_insert_with(|| context.screen.bar(1, "{spinner} [{bar:20}] {wide_msg}"));
        let over: i64 = ["succeeded", "failed", "cancelled"].iter().map(|field| number(counts, field)).sum();
        whole.set_length(number(counts, "jobs").unsigned_abs());
        whole.set_position(over.unsigned_abs());
        whole.set_message(state);
        self.show_jobs(context, text(operation, "id"))
    }

    fn show_jobs(&mut self, context: &Context, operation: &str) -> Result<(), Failure> {
        let path = Query::new(format!("/v1/operations/{operation}/jobs"));
        let path = path.with("status", "running").with("limit", &BARS.to_string());
        let mut page = context.waiting.ask(&Ask::get(path))?.json;
        let Value::Array(running) = page["items"].take() else { return Ok(()) };
        self.names.learn(&context.waiting, &running)?;
        self.jobs.retain(|id, bar| {
            let runs = running.iter().any(|job| text(job, "id") == id);
            if !runs {
                bar.finish_and_clear();
            }
            runs
        });
        for job in &running {
            let bar = self.jobs.entry(text(job, "id").to_owned()).or_insert_with(|| bar_of_job(&context.screen));
            fill(bar, job, &what(job, &self.names), text(job, "status"));
        }
        Ok(())
    }

    fn clear(&self) {
        self.jobs.values().chain(&self.whole).for_each(ProgressBar::finish_and_clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_exit_status_follows_the_end() {
        let job = |status, partial| end_of_job(&json!({"status": status, "partial": partial}));
        assert_eq!(job("succeeded", false), Outcome::Done);
        assert_eq!(job("succeeded", true), Outcome::Partial);
        assert_eq!((job("failed", false), job("cancelled", false)), (Outcome::Failed, Outcome::Failed));
        let operation = |state, partial| end_of_operation(&json!({"state": state, "counts": {"partial": partial}}));
        assert_eq!((operation("succeeded", 0), operation("succeeded", 1)), (Outcome::Done, Outcome::Partial));
        for state in ["failed", "cancelled", "halted"] {
            assert_eq!(operation(state, 0), Outcome::Failed, "{state}");
        }
    }

    #[test]
    fn a_backup_that_is_over_is_told_with_what_it_did() {
        let job = json!({
            "id": "j1", "host_id": "h1", "kind": "backup", "source_group": "etc", "status": "succeeded",
            "started_at": "2026-03-01T02:00:00Z", "finished_at": "2026-03-01T02:00:12Z",
            "stats": {"total_files_processed": 3, "total_bytes_processed": 2048, "data_added": 1024, "snapshot_id": "0123456789"},
        });
        let told = sentence(&job, &Names::default());
        assert_eq!(told, "backup of etc on h1 in 12s, 3 files of 2.0 KiB, 1.0 KiB added, snapshot 01234567 (job j1)");
    }

    #[test]
    fn a_forget_says_what_it_deleted_or_would() {
        let of = |stats: Value| figures(&json!({"kind": "forget", "stats": stats}));
        assert_eq!(of(json!({"dry_run": true, "kept": 4, "removed": 1})), "would delete 1 snapshot and keep 4");
        let groups = json!([{"keep": [{"id": "a"}], "remove": null}, {"keep": [], "remove": [{}, {}]}]);
        assert_eq!(of(groups), "deleted 2 snapshots and kept 1");
        assert_eq!(of(json!([{"kept": 1, "removed": 2}])), "deleted 2 snapshots and kept 1");
    }

    #[test]
    fn what_is_not_over_says_what_it_waits_for_and_an_error_its_lines() {
        let waits = json!({"id": "j", "host_id": "h", "kind": "check", "status": "queued", "waiting_for": "its host"});
        assert_eq!(sentence(&waits, &Names::default()), "check on h (job j), waits for its host");
        let failed = json!({"id": "j", "host_id": "h", "kind": "check", "status": "failed", "error": "one\ntwo"});
        assert_eq!(sentence(&failed, &Names::default()), "check on h (job j)\n  one\n  two");
    }

    #[test]
    fn operations_are_counted_in_words() {
        let counts = json!({"jobs": 20, "succeeded": 17, "partial": 2, "failed": 1, "running": 2, "skipped": 3});
        assert_eq!(tally(&counts), "20 jobs: 2 running, 17 succeeded (2 partial), 1 failed, 3 skipped");
    }

    #[test]
    fn progress_is_of_what_runs() {
        let mut job = json!({"status": "running", "progress": {"percent_done": 0.424, "bytes_done": 1024,
            "total_bytes": 2048, "throughput_bps": 512, "eta_seconds": 62}});
        assert_eq!(progress(&job), "42 %, 1.0 KiB of 2.0 KiB, 512 B/s, 1m 2s left");
        job["status"] = json!("queued");
        assert_eq!(progress(&job), "");
    }

    #[test]
    fn a_time_that_is_over_ends_the_wait() {
        assert!(Until::new(None).check(String::new).is_ok());
        let over = Until::new(Some(Duration::ZERO)).check(|| "job j".to_owned());
        assert!(matches!(over, Err(Failure::NotOver(text)) if text.starts_with("job j is not over")));
    }
}
