//! What came of it.

use std::fmt;
use std::path::PathBuf;

/// The numbers, and what is behind each that is not as it should be.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Jobs that the coordinator knows.
    pub jobs: usize,
    /// Jobs that were accepted or ran, and that it does not know.
    pub lost: usize,
    /// Jobs that ran twice, or that nobody asked for.
    pub duplicated: usize,
    /// Jobs that are not over.
    pub stuck: usize,
    /// Lines of log that the coordinator has.
    pub lines: usize,
    /// Lines that restic said and that it does not have.
    pub missing_lines: usize,
    /// Lines that it has twice, or that nobody said.
    pub duplicated_lines: usize,
    /// Every discrepancy, also of outcomes, in words.
    pub details: Vec<String>,
    /// What is worth knowing and is no discrepancy.
    pub notes: Vec<String>,
    /// The folder with every log, which is kept if there is a discrepancy.
    pub folder: Option<PathBuf>,
}

impl Verdict {
    /// Whether all is as promised.
    pub fn is_good(&self) -> bool {
        self.details.is_empty()
            && [self.lost, self.duplicated, self.stuck, self.missing_lines, self.duplicated_lines] == [0; 5]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for detail in &self.details {
            writeln!(f, "wrong: {detail}")?;
        }
        if let Some(folder) = &self.folder {
            writeln!(f, "everything is in {}", folder.display())?;
        }
        write!(f, "jobs {} lost {} duplicated {} stuck {} ", self.jobs, self.lost, self.duplicated, self.stuck)?;
        write!(f, "lines {} missing {} duplicated {}", self.lines, self.missing_lines, self.duplicated_lines)
    }
}
