//! Listens to one restic: every line goes to the job's log, and what matters for the outcome is kept.

use super::failure::Words;
use super::output::{BackupSummary, Event, Pruned, read_event, read_pruned, read_remaining, read_text_progress};
use super::progress::Meter;
use super::redact::Redactor;
use crate::process::{Origin, Sink};
use crate::report::Reporter;
use fleet_wire::{JobId, LogStream};
use std::time::Instant;

/// How many lines of standard error are kept to judge a failure by.
const KEPT_LINES: usize = 50;

/// How much of each.
const KEPT_CHARS: usize = 2000;

/// How many unreadable items are named in a job's error.
const NAMED_ITEMS: usize = 5;

/// The largest output of a query (a list of snapshots, say) that is read, in bytes.
const MAX_CAPTURE: usize = 64 * 1024 * 1024;

/// What a restic has said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// The `summary` object, as it came.
    pub summary: Option<String>,
    /// Items that could not be read: the first few.
    pub unreadable: Vec<String>,
    /// How many there were in all.
    pub unreadable_count: usize,
    /// What a prune frees.
    pub pruned: Option<Pruned>,
    /// What is left after it.
    pub remaining: Option<Pruned>,
    /// All of standard output, if it was asked for.
    pub stdout: Vec<u8>,
    /// Standard output was larger than what can be read.
    pub stdout_cut: bool,
    exit_error: Option<String>,
    fatal: Option<String>,
    others: Vec<String>,
}

impl Heard {
    /// restic's words about its end.
    pub fn words(&self) -> Words<'_> {
        Words { exit_error: self.exit_error.as_deref(), fatal: self.fatal.as_deref(), others: &self.others }
    }

    fn note_event(&mut self, line: &str, event: &Event) {
        match event {
            Event::Summary => self.summary = Some(line.trim().to_owned()),
            Event::ExitError(message) => self.exit_error = Some(message.clone()),
            Event::Error(error) => match (&error.item, &error.message) {
                (Some(_), _) if error.counting => {}
                (Some(item), _) => {
                    self.unreadable_count += 1;
                    if self.unreadable.len() < NAMED_ITEMS {
                        self.unreadable.push(shortened(item));
                    }
                }
                (None, Some(message)) => self.keep(message),
                (None, None) => {}
            },
            Event::Status(_) | Event::Other => {}
        }
    }

    fn note_text(&mut self, origin: Origin, line: &str) {
        match origin {
            Origin::Stdout => {
                self.pruned = read_pruned(line).or(self.pruned);
                self.remaining = read_remaining(line).or(self.remaining);
            }
            Origin::Stderr if self.fatal.is_none() && line.starts_with("Fatal:") => self.fatal = Some(shortened(line)),
            Origin::Stderr => self.keep(line),
        }
    }

    fn keep(&mut self, line: &str) {
        if self.others.len() == KEPT_LINES {
            // The first ones tell the cause, the last ones the end: what falls out is the middle.
            self.others.remove(KEPT_LINES / 2);
        }
        self.others.push(shortened(line));
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(KEPT_CHARS).collect()
}

/// What is done with standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// It goes to the log: the job's own command.
    Log,
    /// It goes to the log and is kept as well.
    LogAndKeep,
    /// It is only kept: a query beside the job's own command.
    Keep,
}

/// The sink of one restic.
pub struct Listener<'a> {
    reporter: &'a Reporter,
    redactor: &'a Redactor,
    how: Listen,
    meter: Meter,
    heard: Heard,
    /// The line that comes next on standard output and standard error is the rest of one that was cut.
    continued: [bool; 2],
}

impl<'a> Listener<'a> {
    /// Listens for `job`.
    pub fn new(job: JobId, reporter: &'a Reporter, redactor: &'a Redactor, how: Listen) -> Self {
        Self { reporter, redactor, how, meter: Meter::new(job), heard: Heard::default(), continued: [false; 2] }
    }

    /// What was heard, when restic is over.
    pub fn heard(self) -> Heard {
        self.heard
    }

    fn capture(&mut self, piece: &[u8], ends: bool) {
        if self.heard.stdout.len() + piece.len() >= MAX_CAPTURE {
            self.heard.stdout_cut = true;
            return;
        }
        self.heard.stdout.extend_from_slice(piece);
        if ends {
            self.heard.stdout.push(b'\n');
        }
    }

    /// Reports progress; true if the line was nothing else.
    fn progress(&mut self, event: Option<&Event>, line: &str) -> bool {
        let now = Instant::now();
        let (progress, only) = match event {
            Some(Event::Status(status)) => (self.meter.status(now, *status), true),
            Some(Event::Summary) => {
                // The summary of a check has no snapshot, and nothing was processed.
                let summary: BackupSummary = serde_json::from_str(line).unwrap_or_default();
                ((!summary.snapshot_id.is_empty()).then(|| self.meter.done(now, &summary)), false)
            }
            Some(_) => (None, false),
            None => (read_text_progress(line).and_then(|fraction| self.meter.fraction(now, fraction)), false),
        };
        if let Some(progress) = progress {
            self.reporter.progress(progress);
        }
        only
    }

    async fn log(&self, origin: Origin, is_event: bool, line: &str) {
        let line = self.redactor.redact(line);
        // A secret that is a part of JSON itself leaves no JSON when it is masked.
        let is_event = is_event && serde_json::from_str::<serde::de::IgnoredAny>(&line).is_ok();
        let stream = match (is_event, origin) {
            (true, _) => LogStream::Event,
            (false, Origin::Stdout) => LogStream::Stdout,
            (false, Origin::Stderr) => LogStream::Stderr,
        };
        self.reporter.log(stream, line).await;
    }
}

impl Sink for Listener<'_> {
    async fn line(&mut self, origin: Origin, piece: Vec<u8>, ends: bool) {
        let continued = std::mem::replace(&mut self.continued[usize::from(origin == Origin::Stderr)], !ends);
        let whole = ends && !continued;
        if origin == Origin::Stdout && self.how != Listen::Log {
            self.capture(&piece, ends);
            if self.how == Listen::Keep {
                return;
            }
        }
        let line = clean(&piece);
        let event = if whole { read_event(&line) } else { None };
        match &event {
            Some(event) => self.heard.note_event(&line, event),
            None => self.heard.note_text(origin, &line),
        }
        if !self.progress(event.as_ref(), &line) {
            self.log(origin, event.is_some(), &line).await;
        }
    }

    fn overlap(&self) -> usize {
        self.redactor.longest()
    }

    fn cut(&self, line: &[u8], wanted: usize) -> usize {
        self.redactor.cut(line, wanted)
    }
}

/// A line as it goes into the log: UTF-8, without what moves a terminal's cursor.
pub fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line).replace("\u{1b}[2K", "");
    if text.contains('\r') {
        let parts: Vec<_> = text.split('\r').filter(|part| !part.is_empty()).collect();
        parts.join(" ")
    } else {
        text
    }
}

/// What would be heard of this output, for tests on recorded output.
#[cfg(test)]
pub(crate) fn heard_for_tests(stdout: &str, stderr: &str) -> Heard {
    let mut heard = Heard::default();
    for (origin, text) in [(Origin::Stdout, stdout), (Origin::Stderr, stderr)] {
        for line in text.lines() {
            match read_event(line) {
                Some(event) => heard.note_event(line, &event),
                None => heard.note_text(origin, line),
            }
        }
    }
    heard
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::runner::Credentials;
    use fleet_wire::Secret;

    async fn log_of(password: &str, lines: &[(Origin, &[u8])]) -> (Heard, Vec<(LogStream, String)>, usize) {
        let credentials = Credentials { password: Some(Secret::new(password)), ..Credentials::default() };
        let redactor = Redactor::new(&credentials);
        let (reporter, mut reports) = Reporter::channel();
        let mut listener = Listener::new("1".into(), &reporter, &redactor, Listen::Log);
        for (origin, line) in lines {
            listener.line(*origin, line.to_vec(), true).await;
        }
        let heard = listener.heard();
        drop(reporter);
        let (mut log, mut progress) = (Vec::new(), 0);
        while let Some(report) = reports.recv().await {
            match report {
                Report::Log { stream, line, .. } => log.push((stream, line)),
                _ => progress += 1,
            }
        }
        (heard, log, progress)
    }

    #[tokio::test]
    async fn status_becomes_progress_and_everything_else_a_line() {
        let (heard, log, progress) = log_of(
            "hush-hush",
            &[
                (Origin::Stdout, br#"{"message_type":"status","percent_done":0.5}"#),
                (Origin::Stdout, br#"{"message_type":"summary","snapshot_id":"ab12","note":"hush-hush"}"#),
                (Origin::Stderr, b"\r\x1b[2Kcaf\xe9 hush-hush\r"),
                (Origin::Stderr, b"NUL \0 passes"),
                (Origin::Stdout, b""),
            ],
        )
        .await;
        let expected = [
            (LogStream::Event, r#"{"message_type":"summary","snapshot_id":"ab12","note":"***"}"#),
            (LogStream::Stderr, "caf\u{fffd} ***"),
            (LogStream::Stderr, "NUL \0 passes"),
            (LogStream::Stdout, ""),
        ];
        assert_eq!(log, expected.map(|(stream, line)| (stream, line.to_owned())));
        assert_eq!(progress, 2, "the status and the end");
        assert!(heard.summary.unwrap().contains("ab12"));
    }

    #[tokio::test]
    async fn a_masked_event_that_is_no_json_any_more_is_a_line() {
        let (_, log, _) = log_of("123", &[(Origin::Stdout, br#"{"message_type":"x","n":1234}"#)]).await;
        assert_eq!(log, [(LogStream::Stdout, r#"{"message_type":"x","n":***4}"#.to_owned())]);
    }

    #[test]
    fn unreadable_items_are_counted_once_and_named_up_to_a_bound() {
        for stderr in [
            include_str!("../../tests/data/0.14/backup-unreadable.stderr"),
            include_str!("../../tests/data/0.18/backup-unreadable.stderr"),
        ] {
            let heard = heard_for_tests("", stderr);
            assert_eq!((heard.unreadable_count, heard.unreadable.len()), (2, 2), "{heard:?}");
        }
        let line = r#"{"message_type":"error","error":{},"during":"archival","item":"/x"}"#;
        let heard = heard_for_tests("", &format!("{line}\n").repeat(100));
        assert_eq!((heard.unreadable_count, heard.unreadable.len()), (100, NAMED_ITEMS));
    }

    #[test]
    fn a_flood_of_errors_keeps_the_first_and_the_last() {
        let flood: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let heard = heard_for_tests("", &flood);
        assert_eq!(heard.others.len(), KEPT_LINES);
        assert_eq!((heard.others[0].as_str(), heard.others[KEPT_LINES - 1].as_str()), ("line 0", "line 999"));
    }
}
