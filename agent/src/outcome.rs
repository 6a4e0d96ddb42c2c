//! What came of a job.

use crate::stop::Stop;
use fleet_wire::{RawJson, Status};

/// What came of a job: the core of `job.finished`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// A terminal status.
    pub status: Status,
    /// restic's exit code, 3 for every partial backup, -1 where there is none.
    pub exit_code: i64,
    /// restic's summary, or our own where restic has none.
    pub stats: Option<RawJson>,
    /// What went wrong, for people.
    pub error: Option<String>,
}

impl Outcome {
    /// A success, with restic's figures.
    pub(crate) fn succeeded(stats: Option<RawJson>) -> Self {
        Self { status: Status::Succeeded, exit_code: 0, stats, error: None }
    }

    /// A failure, with what is said to people.
    pub(crate) fn failed(exit_code: i64, error: impl Into<String>) -> Self {
        Self { status: Status::Failed, exit_code, stats: None, error: Some(error.into()) }
    }

    /// The end of a job that was told to stop.
    pub(crate) fn stopped(stop: Stop, exit_code: i64) -> Self {
        match stop {
            Stop::AgentStops => Self::failed(exit_code, "agent stopped"),
            Stop::Cancel | Stop::No => {
                Self { status: Status::Cancelled, exit_code, stats: None, error: Some("cancelled".into()) }
            }
        }
    }

    /// Adds to what is said to people; the status stays.
    pub(crate) fn note(&mut self, note: &str) {
        match &mut self.error {
            Some(error) => {
                error.push_str("; ");
                error.push_str(note);
            }
            None => self.error = Some(note.to_owned()),
        }
    }
}
