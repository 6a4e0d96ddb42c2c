//! How a command ends: its exit status, and what it says when it goes wrong.

use crate::problem::Problem;
use std::io;
use std::process::ExitCode;

/// What `--help` says about the exit status.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  0    it is done; with --wait: it has succeeded
  1    it has failed, was cancelled or halted (with --wait); overdue --check: something is overdue
  2    the command line makes no sense
  3    it has succeeded in part: a snapshot was made, and some files could not be read
  4    there was no answer: the coordinator could not be asked, or was away for longer than --retry-for
  5    the coordinator refused: no such thing, not allowed, or it makes no sense to it
  6    --timeout is over, and the job or operation is not

A request that gets no answer is asked again, for --retry-for, under the same Idempotency-Key: nothing is done twice.";

/// How a command ended that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It is done, or has succeeded.
    Done,
    /// Something was left out.
    Partial,
    /// What was waited for has failed.
    Failed,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::Partial => 3,
        })
    }
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for makes no sense here.
    Usage(String),
    /// There is no answer; whether it was done is not known for what changes something.
    NoAnswer(String),
    /// The coordinator, or what it knows, says no.
    Refused(Box<Problem>),
    /// The time for waiting is over.
    NotOver(String),
    /// Nobody takes our output.
    Output(io::Error),
}

impl Failure {
    /// There is nothing of that name.
    pub(crate) fn unknown(text: impl Into<String>) -> Self {
        Self::Refused(Box::new(Problem::plain(text)))
    }

    fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NoAnswer(_) => 4,
            Self::Refused(_) => 5,
            Self::NotOver(_) => 6,
            // As if the signal had ended us, which Rust's runtime ignores.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Self::Output(_) => 4,
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Usage(text) | Self::NoAnswer(text) | Self::NotOver(text) => Some(text.clone()),
            Self::Refused(problem) => Some(problem.to_string()),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Output(error) => Some(format!("the output can't be written: {error}")),
        }
    }

    /// Says what went wrong, for people; gives the exit status.
    pub(crate) fn tell(&self) -> ExitCode {
        if let Some(text) = self.text() {
            eprintln!("fleet: {}", crate::human::printable(&text));
        }
        ExitCode::from(self.status())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_a_status_of_its_own_and_the_help_tells_it() {
        let failures = [
            Failure::Usage(String::new()),
            Failure::NoAnswer(String::new()),
            Failure::unknown(""),
            Failure::NotOver(String::new()),
        ];
        assert_eq!(failures.each_ref().map(Failure::status), [2, 4, 5, 6]);
        for status in 0..=6 {
            assert!(EXIT_STATUS.contains(&format!("\n  {status}    ")), "{status}");
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure_to_talk_about() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((closed.status(), closed.text()), (141, None));
    }
}
