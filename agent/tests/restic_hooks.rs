//! Hooks around a backup.

mod restic_support;

use fleet_agent::report::Report;
use fleet_agent::stop::Stop;
use fleet_wire::{Kind, Status};
use restic_support::{PASSWORD, Sandbox, restics};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A host whose restic is recorded in the file `called`, with one file to back up.
fn sandbox() -> Sandbox {
    // What hooks do does not depend on restic's version.
    let mut sandbox = Sandbox::new(&restics()[0]);
    sandbox.write("source/file", "x");
    let called = sandbox.text_path("called");
    sandbox.wrap(&format!("[ \"$1\" = version ] || echo \"$1\" >> '{called}'; exec \"$RESTIC\" \"$@\""));
    sandbox
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn hooks_run_around_restic_and_are_told_the_outcome_but_no_secret() {
    let sandbox = sandbox();
    sandbox.place_repository("repo");
    let (before, after) = (sandbox.text_path("before"), sandbox.text_path("after"));
    let mut run = sandbox.job(Kind::Backup);
    // The pre-hook makes one of the sources.
    run.includes.push(sandbox.text_path("dump"));
    run.pre_hook = Some(format!("env > '{before}'; echo dumped; echo x > '{}'", sandbox.text_path("dump")));
    run.post_hook = Some(format!("env > '{after}'; echo cleaned >&2"));
    let ran = sandbox.run(run).await;
    assert_eq!(ran.assert(Status::Succeeded, 0).outcome.error, None);
    let (before, after) = (read(before.into()), read(after.into()));
    assert!(!before.contains("RESTIC_") && !after.contains("RESTIC_"), "{before}\n{after}");
    for expected in ["FLEET_JOB_ID=job-1", "FLEET_TAG=docs", "LANG=C.UTF-8"] {
        assert!(before.contains(expected) && after.contains(expected), "{expected}: {before}\n{after}");
    }
    let id = &ran.snapshots[0].snapshots[0].id;
    for expected in ["FLEET_STATUS=succeeded\n", "FLEET_EXIT_CODE=0\n", &format!("FLEET_SNAPSHOT_ID={id}\n")] {
        assert!(after.contains(expected) && !before.contains(expected), "{expected}: {after}");
    }
    let text = ran.text();
    assert!(text.contains("stdout dumped\n") && text.contains("stderr cleaned\n"), "{text}");
    let left: Vec<_> = fs::read_dir(sandbox.path("data/tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_failing_pre_hook_stops_the_backup_and_the_post_hook_is_told() {
    let sandbox = sandbox();
    let told = sandbox.text_path("told");
    let mut run = sandbox.job(Kind::Backup);
    run.pre_hook = Some("echo the database is down >&2; exit 7".into());
    run.post_hook = Some(format!("echo $FLEET_STATUS $FLEET_EXIT_CODE [$FLEET_SNAPSHOT_ID] > '{told}'"));
    let ran = sandbox.run(run).await;
    ran.assert(Status::Failed, -1);
    assert_eq!(ran.error(), "the pre-hook failed with exit code 7: the database is down; restic was not run");
    assert_eq!(read(sandbox.path("called")), "", "restic was run");
    assert_eq!(read(told.into()), "failed -1 []\n");
}

#[tokio::test]
async fn a_failing_post_hook_is_noted_and_the_backup_stays_a_success() {
    let sandbox = sandbox();
    sandbox.place_repository("repo");
    let mut run = sandbox.job(Kind::Backup);
    run.post_hook = Some("exit 9".into());
    let ran = sandbox.run(run).await;
    ran.assert(Status::Succeeded, 0);
    assert_eq!(ran.error(), "the post-hook failed with exit code 9");
    assert_eq!(ran.snapshots.len(), 1);
}

#[tokio::test]
async fn a_hook_over_its_time_is_killed_with_all_that_it_started() {
    let mut sandbox = sandbox();
    sandbox.limits.hook = Duration::from_secs(2);
    sandbox.limits.hook_grace = Duration::from_millis(100);
    let mark = sandbox.text_path("mark");
    let mut run = sandbox.job(Kind::Backup);
    // A child in the background that ignores the polite signal, as the hook itself does.
    run.pre_hook = Some(format!("trap '' TERM; sh -c 'echo started; sleep 600; :' '{mark}' & wait"));
    let mut running = sandbox.start(run);
    running.until("the child", |report| matches!(report, Report::Log { line, .. } if line == "started")).await;
    assert!(is_running(&mark));
    let ran = running.end().await;
    ran.assert(Status::Failed, -1);
    assert_eq!(ran.error(), "the pre-hook took longer than 2 s and was ended; restic was not run");
    restic_support::eventually("the hook's child is gone", || !is_running(&mark)).await;
}

/// Whether a process has `argument` on its command line.
fn is_running(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).any(|line| line.split('\0').any(|a| a == argument))
}

#[tokio::test]
async fn a_stop_ends_a_hook_and_the_post_hook_still_runs() {
    for (stop, status, word) in
        [(Stop::Cancel, Status::Cancelled, "cancelled"), (Stop::AgentStops, Status::Failed, "failed")]
    {
        let sandbox = sandbox();
        let told = sandbox.text_path("told");
        let mut run = sandbox.job(Kind::Backup);
        run.pre_hook = Some("echo waiting; sleep 600".into());
        run.post_hook = Some(format!("echo $FLEET_STATUS > '{told}'"));
        let mut running = sandbox.start(run);
        running.until("the pre-hook", |report| matches!(report, Report::Log { line, .. } if line == "waiting")).await;
        running.stop(stop);
        let ran = running.end().await;
        ran.assert(status, -1);
        assert_eq!(ran.error(), if status == Status::Cancelled { "cancelled" } else { "agent stopped" });
        assert_eq!(read(told.into()), format!("{word}\n"));
        assert_eq!(read(sandbox.path("called")), "", "restic was run");
    }
}

#[tokio::test]
async fn a_host_may_run_its_hooks_with_another_program() {
    let mut sandbox = sandbox();
    sandbox.hook_shell = Some("cat".into());
    let mut run = sandbox.job(Kind::Backup);
    // Neither a script of the shell nor discreet: half of the secret would stand on either side of a cut.
    let long = "x".repeat(1024 * 1024 - 5);
    run.pre_hook = Some(format!("this is no shell script\n{long}{PASSWORD}{:100}.", ""));
    run.includes = vec![sandbox.text_path("nothere")];
    let ran = sandbox.run(run).await;
    ran.assert(Status::Failed, -1);
    let lines: Vec<_> = ran.log.iter().map(|(_, line)| line.trim_start_matches('x')).collect();
    assert_eq!(lines, ["this is no shell script", "", &format!("***{:100}.", "")]);

    sandbox.hook_shell = Some("/no/such/shell".into());
    let mut run = sandbox.job(Kind::Backup);
    run.pre_hook = Some("true".into());
    let ran = sandbox.run(run).await;
    assert!(ran.error().contains("the pre-hook could not be started: /no/such/shell: "), "{}", ran.error());
}
