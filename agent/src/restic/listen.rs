//! Listens to one restic: every line goes to the job's log, and what matters for the outcome is kept.

use super::heard::Heard;
use super::output::{BackupSummary, Event, read_event, read_text_progress};
use super::progress::Meter;
use super::redact::Redactor;
use crate::process::{Line, Origin, Role, Sink};
use crate::report::Reporter;
use fleet_wire::{JobId, LogStream};
use std::time::Instant;

/// The largest output of a query (a list of snapshots, say) that is read, in bytes.
const MAX_CAPTURE: usize = 64 * 1024 * 1024;

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

impl Listen {
    /// What the restic is to its job.
    pub(super) fn role(self) -> Role {
        if self == Self::Keep { Role::Query } else { Role::Command }
    }
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

    async fn log(&self, line: &Line, is_event: bool, text: &str) {
        let text = self.redactor.redact(text);
        // A secret that is a part of JSON itself leaves no JSON when it is masked.
        let is_event = is_event && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        let stream = match (is_event, line.origin) {
            (true, _) => LogStream::Event,
            (false, Origin::Stdout) => LogStream::Stdout,
            (false, Origin::Stderr) => LogStream::Stderr,
        };
        self.reporter.relay(line, stream, text).await;
    }
}

impl Sink for Listener<'_> {
    async fn line(&mut self, line: Line) {
        let (origin, ends) = (line.origin, line.ends);
        let continued = std::mem::replace(&mut self.continued[usize::from(origin == Origin::Stderr)], !ends);
        let whole = ends && !continued;
        if origin == Origin::Stdout && self.how != Listen::Log {
            self.capture(&line.bytes, ends);
            if self.how == Listen::Keep {
                return;
            }
        }
        let text = clean(&line.bytes);
        let event = if whole { read_event(&text) } else { None };
        match &event {
            Some(event) => self.heard.note_event(&text, event),
            None => self.heard.note_text(origin, &text),
        }
        if !self.progress(event.as_ref(), &text) {
            self.log(&line, event.is_some(), &text).await;
        }
    }

    async fn settle(&mut self) {
        self.reporter.settle().await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;
    use crate::process::Mark;
    use crate::report::Report;
    use chrono::Utc;
    use fleet_wire::Secret;

    async fn log_of(password: &str, lines: &[(Origin, &[u8])]) -> (Heard, Vec<(LogStream, String)>, usize) {
        let credentials = Credentials { password: Some(Secret::new(password)), ..Credentials::default() };
        let redactor = Redactor::new(&credentials);
        let (reporter, mut reports) = Reporter::channel();
        let mut listener = Listener::new("1".into(), &reporter, &redactor, Listen::Log);
        for (origin, line) in lines {
            let mark = Mark { child: 0, done: [0, 0] };
            let line = Line { origin: *origin, ts: Utc::now(), bytes: line.to_vec(), ends: true, mark };
            listener.line(line).await;
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
}
