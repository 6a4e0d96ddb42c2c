//! The hooks of a backup: shell text of the host's owner, run before and after it.
//!
//! A hook gets no secret of the repository. Its text may hold secrets of its own, so it goes into a private file and
//! not onto a command line.

use super::context::JobContext;
use super::limits::Limits;
use crate::orphans::JOB_VARIABLE;
use crate::outcome::Outcome;
use crate::process::{self, Ended, Ending, Line, Origin, Program, Role, Sink};
use crate::report::Reporter;
use crate::restic::environment::{self, Environment, Inherited, temporary_folder};
use crate::restic::listen::clean;
use crate::restic::redact::Redactor;
use crate::stop::{Stop, StopWatch};
use fleet_wire::{LogStream, Status};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs hooks unless the host has another program for it.
const DEFAULT_SHELL: &str = "/bin/sh";

/// How much of a hook's last words goes into the job's error, in characters.
const LAST_WORDS: usize = 300;

/// Why a hook was no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HookFailure {
    /// It failed: a phrase that follows "the pre-hook".
    Failed(String),
    /// It was ended because the job is to stop.
    Stopped(Stop),
}

/// Runs the pre-hook, if there is one.
pub(super) async fn pre(context: &JobContext, limits: &Limits) -> Result<(), HookFailure> {
    let Some(script) = &context.run.pre_hook else { return Ok(()) };
    run(context, script, Vec::new(), StopWatch::new(context.stop.clone()), limits.hook, limits).await
}

/// Runs the post-hook, if there is one, and tells it what came of the backup. It runs after a stop, too.
pub(super) async fn post(
    context: &JobContext,
    limits: &Limits,
    outcome: &Outcome,
    snapshot_id: &str,
) -> Result<(), HookFailure> {
    let Some(script) = &context.run.post_hook else { return Ok(()) };
    let told = vec![
        ("FLEET_STATUS".into(), status_word(outcome).into()),
        ("FLEET_EXIT_CODE".into(), outcome.exit_code.to_string().into()),
        ("FLEET_SNAPSHOT_ID".into(), snapshot_id.into()),
    ];
    let stop = StopWatch::new(context.stop.clone());
    let limit = match stop.now() {
        Some(Stop::AgentStops) => limits.hook_when_stopping.min(limits.hook),
        Some(Stop::Cancel) => limits.hook_when_cancelled.min(limits.hook),
        Some(Stop::No) | None => limits.hook,
    };
    run(context, script, told, stop.from_now(), limit, limits).await
}

/// What the post-hook is told.
fn status_word(outcome: &Outcome) -> &'static str {
    match outcome.status {
        Status::Succeeded if outcome.exit_code == 3 => "partial",
        status => status.as_str(),
    }
}

async fn run(
    context: &JobContext,
    script: &str,
    told: Environment,
    stop: StopWatch,
    limit: Duration,
    limits: &Limits,
) -> Result<(), HookFailure> {
    if let Some(stop) = stop.now() {
        return Err(HookFailure::Stopped(stop));
    }
    let failed = |error: io::Error| HookFailure::Failed(format!("could not be started: {error}"));
    let file = ScriptFile::create(&temporary_folder(&context.data_dir), script).map_err(failed)?;
    let shell = context.hook_shell.as_deref().filter(|shell| !shell.is_empty()).unwrap_or(DEFAULT_SHELL);
    let program =
        Program { path: shell.into(), args: vec![OsString::from(&file.0)], env: environment_for(context, told) };
    let ending = Ending { signal: Signal::SIGTERM, grace: limits.hook_grace, limit: Some(limit) };
    let redactor = Redactor::new(&context.credentials);
    let mut log = HookLog::new(&context.reporter, &redactor);
    let ended = process::run(&program, (&context.spool, Role::Hook), stop, ending, &mut log)
        .await
        .map_err(|error| HookFailure::Failed(format!("could not be started: {shell}: {error}")))?;
    judge(ended, limit, &log.last)
}

fn judge(ended: Ended, limit: Duration, last_words: &str) -> Result<(), HookFailure> {
    if ended.code == Some(0) {
        return Ok(());
    }
    if let Some(stop) = ended.stop {
        return Err(HookFailure::Stopped(stop));
    }
    if ended.over_time {
        return Err(HookFailure::Failed(format!("took longer than {} s and was ended", limit.as_secs_f64())));
    }
    let how = match (ended.code, ended.signal) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".to_owned(),
    };
    let words: String = last_words.chars().take(LAST_WORDS).collect();
    Err(HookFailure::Failed(if words.is_empty() { how } else { format!("{how}: {words}") }))
}

fn environment_for(context: &JobContext, told: Environment) -> Environment {
    let mut all = environment::base(&context.data_dir, &Inherited::from_process());
    all.push((JOB_VARIABLE.into(), context.run.job_id.as_str().into()));
    all.push(("FLEET_TAG".into(), context.run.tag.as_deref().unwrap_or_default().into()));
    all.extend(told);
    // A NUL can't stand in an environment; better without than no hook.
    all.retain(|(_, value)| !value.as_encoded_bytes().contains(&0));
    all
}

/// A hook's text in a file that only this user can read; it goes when this is dropped.
struct ScriptFile(PathBuf);

impl ScriptFile {
    fn create(folder: &Path, script: &str) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("hook-{}", uuid::Uuid::new_v4()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let made = Self(path);
        file.write_all(script.as_bytes())?;
        file.write_all(b"\n")?;
        Ok(made)
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            log::debug!("{} stays: {error}", self.0.display());
        }
    }
}

/// A hook's output goes into the job's log as it is.
pub(crate) struct HookLog<'a> {
    reporter: &'a Reporter,
    redactor: &'a Redactor,
    last: String,
}

impl<'a> HookLog<'a> {
    pub(crate) fn new(reporter: &'a Reporter, redactor: &'a Redactor) -> Self {
        Self { reporter, redactor, last: String::new() }
    }
}

impl Sink for HookLog<'_> {
    async fn line(&mut self, line: Line) {
        let text = self.redactor.redact(&clean(&line.bytes));
        let stream = match line.origin {
            Origin::Stdout => LogStream::Stdout,
            Origin::Stderr => LogStream::Stderr,
        };
        if line.origin == Origin::Stderr && !text.trim().is_empty() {
            self.last = text.chars().take(LAST_WORDS).collect();
        }
        self.reporter.relay(&line, stream, text).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_judged_by_how_it_ended() {
        let limit = Duration::from_secs(600);
        let with = |code, signal, stop, over_time| judge(Ended { code, signal, stop, over_time }, limit, "no space");
        assert_eq!(with(Some(0), None, Some(Stop::Cancel), false), Ok(()));
        assert_eq!(
            with(Some(7), None, None, false),
            Err(HookFailure::Failed("failed with exit code 7: no space".into()))
        );
        assert_eq!(with(None, Some(15), Some(Stop::Cancel), false), Err(HookFailure::Stopped(Stop::Cancel)));
        let over = with(None, Some(9), None, true);
        assert_eq!(over, Err(HookFailure::Failed("took longer than 600 s and was ended".into())));
    }

    #[test]
    fn a_partial_backup_has_a_word_of_its_own() {
        let outcome = Outcome { exit_code: 3, ..Outcome::succeeded(None) };
        assert_eq!(status_word(&outcome), "partial");
        assert_eq!(status_word(&Outcome::succeeded(None)), "succeeded");
        assert_eq!(status_word(&Outcome::failed(3, "x")), "failed");
        assert_eq!(status_word(&Outcome::stopped(Stop::Cancel, 130)), "cancelled");
    }

    #[test]
    fn the_text_of_a_hook_is_private_and_goes() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = ScriptFile::create(folder.path(), "echo hidden").unwrap();
        assert_eq!(std::fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file.0).unwrap(), "echo hidden\n");
        let path = file.0.clone();
        drop(file);
        assert!(!path.exists());
    }
}
