//! `fleet logs`.

use super::Context;
use super::jobs::{Timeout, path};
use crate::client::Ask;
use crate::failure::{Failure, Outcome};
use crate::human::printable;
use crate::query::{Query, segment};
use crate::screen::Format;
use crate::sse;
use crate::value::text;
use crate::wait::{self, Until};
use clap::Args;
use serde_json::Value;
use std::io::{self, BufRead, BufReader};
use std::thread;
use std::time::Duration;

/// Lines that are asked for at once: what breaks off is asked for again from there on.
const LINES_AT_ONCE: &str = "10000";
/// How often a log is looked at while its job runs.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the log of a job.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Its id
    job: String,
    /// Go on until the job is over; the exit status says how it ended
    #[arg(short, long)]
    follow: bool,
    /// Begin behind the line with this number
    #[arg(long, value_name = "SEQ", allow_negative_numbers = true)]
    after_seq: Option<i64>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    #[command(flatten)]
    timeout: Timeout,
}

impl Logs {
    /// Does it.
    ///
    /// # Errors
    /// It can't be done.
    pub(crate) fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let until = self.timeout.until();
        let mut log = Log { context, job: &self.job, after: self.after_seq, timestamps: self.timestamps };
        if self.follow {
            return log.follow(until);
        }
        log.catch_up()?;
        Ok(Outcome::Done)
    }
}

/// Shows a job's log until the job is over, and then how it ended.
///
/// # Errors
/// It can't be done, or `until` is over.
pub(crate) fn follow(context: &Context, job: &str, until: Until) -> Result<Outcome, Failure> {
    Log { context, job, after: None, timestamps: false }.follow(until)
}

/// A log, as far as it was shown.
struct Log<'a> {
    context: &'a Context,
    job: &'a str,
    after: Option<i64>,
    timestamps: bool,
}

impl Log<'_> {
    fn follow(&mut self, until: Until) -> Result<Outcome, Failure> {
        loop {
            let heard = match self.listen(until) {
                Ok(heard) => heard,
                // It breaks off, and so does the time.
                Err(Failure::NoAnswer(_)) => false,
                Err(failure) => return Err(failure),
            };
            // Asked with patience: this fails if nobody is there for too long.
            let job = self.context.waiting.ask(&Ask::get(path(self.job)))?;
            if wait::is_over(&job.json) {
                // What comes before the end is there by then.
                self.catch_up()?;
                // Results are the log here; how it ended is said beside it.
                self.context.screen.note(&wait::describe_end(self.context, &job.json)?);
                return Ok(wait::end_of_job(&job.json));
            }
            until.check(|| format!("job {}", self.job))?;
            if !heard {
                thread::sleep(PAUSE);
            }
        }
    }

    fn path(&self) -> Query {
        let path = Query::new(format!("/v1/jobs/{}/logs", segment(self.job)));
        path.with_some("after_seq", self.after.map(|seq| seq.to_string()).as_deref())
    }

    /// Shows what there is and then what comes, until the end of the job. False if the coordinator does not tell of what comes: it is
    /// of an earlier version.
    fn listen(&mut self, until: Until) -> Result<bool, Failure> {
        let accept = [("Accept", "text/event-stream, application/x-ndjson")];
        let (kind, body) = self.context.waiting.stream(self.path(), &accept, until.left())?;
        let mut body = BufReader::new(body);
        if !kind.starts_with("text/event-stream") {
            self.show_all(body)?;
            return Ok(false);
        }
        while let Some(event) = sse::next(&mut body).map_err(|error| broken(&error))? {
            if event.name == "log" {
                self.show(&event.data)?;
            }
        }
        Ok(true)
    }

    /// Shows what is there.
    fn catch_up(&mut self) -> Result<(), Failure> {
        loop {
            match self.page() {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // What was shown is not shown again, and it is asked for with patience.
                Err(Failure::NoAnswer(_)) => drop(self.context.waiting.ask(&Ask::get(path(self.job)))?),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn page(&mut self) -> Result<u64, Failure> {
        let (_, body) = self.context.waiting.stream(self.path().with("limit", LINES_AT_ONCE), &[], None)?;
        self.show_all(BufReader::new(body))
    }

    fn show_all(&mut self, lines: impl BufRead) -> Result<u64, Failure> {
        let mut count = 0;
        for line in lines.lines() {
            self.show(&line.map_err(|error| broken(&error))?)?;
            count += 1;
        }
        Ok(count)
    }

    fn show(&mut self, line: &str) -> Result<(), Failure> {
        let read: Value = serde_json::from_str(line)
            .map_err(|_| Failure::NoAnswer("the log broke off in the middle of a line".to_owned()))?;
        match self.context.screen.format {
            Format::Json => self.context.screen.line(line)?,
            Format::Table | Format::Id => self.context.screen.line(plain(&read, self.timestamps))?,
        }
        self.after = read["seq"].as_i64().or(self.after);
        Ok(())
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::NoAnswer(format!("the log broke off: {error}"))
}

/// A line for people.
fn plain(line: &Value, timestamps: bool) -> String {
    let payload = printable(text(line, "payload"));
    if timestamps { format!("{}  {payload}", text(line, "ts")) } else { payload }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_is_what_was_written() {
        let line = json!({"seq": 0, "ts": "2026-03-01T02:00:00Z", "stream": "stdout", "payload": "a\x1b[1mb"});
        assert_eq!(plain(&line, false), "a\u{fffd}[1mb");
        assert_eq!(plain(&line, true), "2026-03-01T02:00:00Z  a\u{fffd}[1mb");
    }
}
