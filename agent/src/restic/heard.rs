//! What a restic has said that matters for the outcome of its job.

use super::failure::Words;
#[cfg(test)]
use super::output::read_event;
use super::output::{Event, Pruned, is_not_removed, read_pruned, read_remaining};
use crate::process::Origin;

/// How many lines of standard error are kept to judge a failure by.
const KEPT_LINES: usize = 50;

/// How much of each.
const KEPT_CHARS: usize = 2000;

/// How many unreadable items are named in a job's error.
const NAMED_ITEMS: usize = 5;

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
    /// Files of the repository that were to be removed and are not: restic says so and exits with 0.
    pub not_removed: usize,
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

    /// Takes in a JSON object.
    pub(super) fn note_event(&mut self, line: &str, event: &Event) {
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

    /// Takes in any other line.
    pub(super) fn note_text(&mut self, origin: Origin, line: &str) {
        match origin {
            Origin::Stdout => {
                self.pruned = read_pruned(line).or(self.pruned);
                self.remaining = read_remaining(line).or(self.remaining);
            }
            Origin::Stderr if self.fatal.is_none() && line.starts_with("Fatal:") => self.fatal = Some(shortened(line)),
            Origin::Stderr => {
                self.not_removed += usize::from(is_not_removed(line));
                self.keep(line);
            }
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
