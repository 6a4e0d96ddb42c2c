//! Reads what the recorders wrote.

use super::recorder::RUNS;
use crate::{Context, Failure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One restic that was run.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) job: String,
    pub(super) command: String,
    pub(super) started: u64,
    /// Its exit code, if it ended in order; one that was killed with its recorder has none.
    pub(super) code: Option<i64>,
    pub(super) stdout: Vec<String>,
    pub(super) stderr: Vec<String>,
}

impl Run {
    /// Its standard output goes into the log of its job: it is the job's own command or an unlock, and no query.
    pub(super) fn is_logged(&self) -> bool {
        matches!(self.command.as_str(), "backup" | "forget" | "prune" | "check" | "init" | "unlock")
    }
}

/// All runs recorded in this folder, by their jobs, in the order of their starts.
pub(super) fn read(folder: &Path) -> Result<BTreeMap<String, Vec<Run>>, Failure> {
    let mut runs: BTreeMap<String, Run> = BTreeMap::new();
    let text = fs::read_to_string(folder.join(RUNS)).context(folder.display())?;
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).context("a line of the record")?;
        let id = entry["run"].as_str().unwrap_or_default().to_owned();
        let run = runs.entry(id.clone()).or_insert_with(|| Run { id, ..Run::default() });
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        if let Some(started) = entry["started"].as_u64() {
            (run.started, run.job, run.command) = (started, text("job"), text("command"));
        }
        run.code = entry["code"].as_i64().or(run.code);
    }
    let mut by_job: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for mut run in runs.into_values() {
        run.stdout = lines(&folder.join(format!("{}.out", run.id)));
        run.stderr = lines(&folder.join(format!("{}.err", run.id)));
        by_job.entry(run.job.clone()).or_default().push(run);
    }
    for runs in by_job.values_mut() {
        runs.sort_by_key(|run| run.started);
    }
    Ok(by_job)
}

/// A recorder that was killed at once has not even made its files.
fn lines(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split_terminator('\n').map(str::to_owned).collect()
}
