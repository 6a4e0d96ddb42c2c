//! Jobs of every kind with real restic on a local repository.

mod restic_support;

use fleet_wire::{ForgetGroup, Kind, LogStream, RetentionPolicy, Status};
use restic_support::{PASSWORD, Sandbox, is_at_least, restics};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn keep_last(tag: &str, keep_last: i64) -> ForgetGroup {
    let policy = RetentionPolicy { keep_last: Some(keep_last), keep_daily: Some(0), ..RetentionPolicy::default() };
    ForgetGroup { tag: tag.into(), policy, host: None }
}

#[tokio::test]
async fn an_init_makes_the_repository_and_a_second_one_finds_it() {
    for restic in restics() {
        let sandbox = Sandbox::new(&restic);
        sandbox.run_kind(Kind::Init).await.assert(Status::Succeeded, 0);
        let again = sandbox.run_kind(Kind::Init).await;
        assert!(again.assert(Status::Succeeded, 0).text().contains("already initialised"), "{}", again.text());
    }
}

#[tokio::test]
async fn a_repository_lives_from_backup_to_check() {
    for restic in restics() {
        let mut sandbox = Sandbox::with_repository(&restic);
        let (calls, environments) = (sandbox.path("calls"), sandbox.path("environments"));
        sandbox.wrap(&format!(
            "echo \"$@\" >> '{}'; env >> '{}'; exec \"$RESTIC\" \"$@\"",
            calls.display(),
            environments.display()
        ));
        two_backups(&sandbox).await;
        forget_one_group(&sandbox).await;
        prune_check_unlock(&sandbox).await;

        let calls = fs::read_to_string(calls).unwrap();
        assert!(calls.contains("backup --json --host=h1 --tag=docs"), "{calls}");
        assert!(!calls.contains(PASSWORD), "a secret on a command line: {calls}");
        let environments = fs::read_to_string(environments).unwrap();
        assert!(environments.contains("RESTIC_PASSWORD=") && environments.contains("LANG=C.UTF-8"), "{environments}");
        assert!(!environments.contains("CARGO"), "the environment is not cleared: {environments}");
    }
}

async fn two_backups(sandbox: &Sandbox) {
    sandbox.write("source/[br]*/file", "x".repeat(30_000));
    sandbox.write("source/line\nbreak", "a name of two lines");
    let odd = sandbox.path("source").join(OsStr::from_bytes(b"no\xffutf8"));
    fs::write(odd, "a name that is no UTF-8").unwrap();
    // Another host's snapshot of a group of the same name, and another group of this host.
    let file = sandbox.write("elsewhere", "not of this host");
    sandbox.restic_says(&["backup", "-q", "--host", "h2", "--tag", "docs", &file]);
    let mut other = sandbox.job(Kind::Backup);
    other.tag = Some("photos".into());
    // Taken literally: a glob would match nothing.
    other.includes = vec![sandbox.text_path("source/[br]*")];
    sandbox.run(other).await.assert(Status::Succeeded, 0);

    let ran = sandbox.run_kind(Kind::Backup).await;
    ran.assert(Status::Succeeded, 0);
    assert_eq!(ran.outcome.error, None);
    assert!(ran.outcome.stats.as_ref().unwrap().as_str().contains("\"total_files_processed\":3"));
    let summaries = ran.log.iter().filter(|(stream, line)| *stream == LogStream::Event && line.contains("\"summary\""));
    assert_eq!(summaries.count(), 1, "{}", ran.text());
    assert!(!ran.text().contains("\"status\""), "status belongs to progress: {}", ran.text());
    let last = ran.progress.last().expect("progress");
    assert_eq!((last.percent_done, last.files_done), (1.0, 3));

    let list = &ran.snapshots[0];
    assert!(list.as_of.is_some() && list.snapshots.len() == 2, "{list:?}");
    assert!(list.snapshots.iter().all(|snapshot| snapshot.hostname == "h1" && snapshot.id.len() == 64), "{list:?}");
    let newest = list.snapshots.last().unwrap();
    assert_eq!((newest.tags.as_slice(), newest.short_id.as_str()), (["docs".to_owned()].as_slice(), &newest.id[..8]));
    // Known since restic 0.17, whatever the documentation of others says.
    let known = if is_at_least(&sandbox.real, 17) { Some(3) } else { Some(0) };
    assert_eq!(newest.file_count, known);

    let stats = &ran.stats[0];
    assert_eq!((stats.snapshot_count, stats.lock_present), (Some(3), Some(false)), "{stats:?}");
    assert!(stats.total_size_bytes > Some(60_000) && stats.raw_size_bytes > Some(0), "{stats:?}");
    // Four distinct contents; restic counts everything without content, the folders here, as one more.
    assert_eq!(stats.unique_files, Some(5), "{stats:?}");
    assert!(stats.as_of.is_some());
}

async fn forget_one_group(sandbox: &Sandbox) {
    // An older snapshot of the group with other paths: grouping by paths would keep it for ever.
    let old = ["backup", "-q", "--host", "h1", "--tag", "docs", "--time", "2020-01-01 12:00:00"];
    sandbox.restic_says(&[&old[..], &[&sandbox.text_path("elsewhere")]].concat());
    let mut forget = sandbox.job(Kind::Forget);
    // For the unknown tag restic prints nothing at all.
    forget.forget_groups = vec![keep_last("docs", 1), keep_last("nobody", 1)];
    let ran = sandbox.run(forget).await;
    ran.assert(Status::Succeeded, 0);
    let stats = ran.outcome.stats.as_ref().unwrap().as_str();
    let groups: serde_json::Value = serde_json::from_str(stats).unwrap();
    assert_eq!(groups.as_array().unwrap().len(), 1, "{stats}");
    assert_eq!(groups[0]["remove"].as_array().unwrap().len(), 1, "{stats}");
    assert_eq!(ran.snapshots[0].snapshots.len(), 2, "{:?}", ran.snapshots);
    let left = sandbox.restic_says(&["snapshots", "--json"]);
    assert!(left.contains("\"h2\"") && left.contains("\"photos\""), "others' snapshots are gone: {left}");
}

#[tokio::test]
async fn a_forget_whose_answer_can_not_be_read_is_no_success() {
    let mut sandbox = Sandbox::with_repository(&restics()[0]);
    sandbox.write("source/file", "content");
    sandbox.run_kind(Kind::Backup).await.assert(Status::Succeeded, 0);
    sandbox.wrap("[ \"$1\" != forget ] || echo 'a word of somebody else'\nexec \"$RESTIC\" \"$@\"");
    let mut forget = sandbox.job(Kind::Forget);
    forget.forget_groups = vec![keep_last("docs", 1)];
    let ran = sandbox.run(forget).await;
    assert_eq!(ran.outcome.status, Status::Failed, "{}", ran.text());
    assert!(ran.error().contains("could not be read"), "{}", ran.error());
}

async fn prune_check_unlock(sandbox: &Sandbox) {
    // Something to prune: a snapshot with data of its own that is gone.
    let big = sandbox.write_random("big", 3);
    sandbox.restic_says(&["backup", "-q", "--host", "h3", &big]);
    sandbox.restic_says(&["forget", "-q", "--host", "h3", "--tag", "", "--keep-last", "1", "--group-by", "host"]);
    let snapshots = sandbox.restic_says(&["snapshots", "--json", "--host", "h3"]);
    let snapshots: serde_json::Value = serde_json::from_str(&snapshots).unwrap();
    sandbox.restic_says(&["forget", "-q", snapshots[0]["id"].as_str().unwrap()]);

    let prune = sandbox.run_kind(Kind::Prune).await;
    let stats = &prune.assert(Status::Succeeded, 0).stats[0];
    assert!(stats.last_prune_at.is_some() && stats.snapshot_count == Some(3), "{stats:?}");
    let freed = stats.last_prune_freed_bytes.expect("freed bytes");
    assert!((3_000_000..3_400_000).contains(&freed), "{freed}");
    assert!(prune.outcome.stats.as_ref().unwrap().as_str().contains(&format!("\"freed_bytes\":{freed}")));
    assert!(prune.text().contains("total prune:"), "{}", prune.text());

    let mut check = sandbox.job(Kind::Check);
    check.args = vec!["50%".into()];
    let check = sandbox.run(check).await;
    let stats = &check.assert(Status::Succeeded, 0).stats[0];
    assert_eq!((stats.last_check_status.as_deref(), stats.lock_present), (Some("ok"), Some(false)));
    assert!(stats.last_check_at.is_some() && stats.total_size_bytes.is_none(), "{stats:?}");

    let unlock = sandbox.run_kind(Kind::Unlock).await;
    assert_eq!(unlock.assert(Status::Succeeded, 0).stats[0].lock_present, Some(false));
    assert_eq!(unlock.stats[0].last_check_at, None);
}

#[tokio::test]
async fn a_missing_source_makes_a_partial_backup() {
    for restic in restics() {
        let sandbox = Sandbox::with_repository(&restic);
        sandbox.write("source/file", "x");
        let missing = sandbox.text_path("nothere");
        let mut run = sandbox.job(Kind::Backup);
        run.includes.push(missing.clone());
        let ran = sandbox.run(run).await;
        ran.assert(Status::Succeeded, 3);
        assert!(ran.error().contains(&format!("not there: {missing}")), "{}", ran.error());
        assert_eq!(ran.snapshots[0].snapshots.len(), 1);

        let mut run = sandbox.job(Kind::Backup);
        run.includes = vec![missing];
        let ran = sandbox.run(run).await;
        ran.assert(Status::Failed, -1);
        assert!(ran.error().contains("nothing to back up"), "{}", ran.error());
    }
}

#[tokio::test]
async fn excludes_that_cover_the_source_make_a_partial_backup() {
    for restic in restics() {
        let sandbox = Sandbox::with_repository(&restic);
        sandbox.write("source/file", "x");
        let mut run = sandbox.job(Kind::Backup);
        run.excludes = vec![sandbox.text_path("source")];
        let ran = sandbox.run(run).await;
        ran.assert(Status::Succeeded, 3);
        assert!(ran.error().contains("the snapshot has no files"), "{}", ran.error());
    }
}

#[tokio::test]
async fn unreadable_files_make_a_partial_backup_that_names_them() {
    for restic in restics() {
        let mut sandbox = Sandbox::with_repository(&restic);
        run_unprivileged(&mut sandbox);
        sandbox.write("source/file", "x");
        let secret = sandbox.write("source/unreadable", "x");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
        let ran = sandbox.run_kind(Kind::Backup).await;
        ran.assert(Status::Succeeded, 3);
        assert_eq!(ran.error(), format!("1 item(s) could not be read: {secret}"));
    }
}

/// Root reads every file: then restic runs as another user, with folders of its own.
fn run_unprivileged(sandbox: &mut Sandbox) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for folder in ["free", "free/tmp", "free/cache"] {
        fs::create_dir(sandbox.path(folder)).unwrap();
    }
    sandbox.place_repository("free/repo");
    let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(sandbox.path("free")).status().unwrap();
    assert!(owned.success());
    sandbox.credentials.url = Some(sandbox.text_path("free/repo"));
    let free = sandbox.text_path("free");
    sandbox.wrap(&format!(
        "export TMPDIR='{free}/tmp' RESTIC_CACHE_DIR='{free}/cache'\n\
         exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$RESTIC\" \"$@\""
    ));
}

#[tokio::test]
async fn a_snapshot_that_is_not_in_the_repository_is_no_success() {
    for restic in restics() {
        let mut sandbox = Sandbox::with_repository(&restic);
        sandbox.write("source/file", "x");
        let snapshots = sandbox.text_path("repo/snapshots");
        // The repository loses the snapshot as soon as it is made.
        sandbox.wrap(&format!("\"$RESTIC\" \"$@\"; rc=$?; [ \"$1\" != backup ] || rm -f '{snapshots}'/*; exit $rc"));
        let ran = sandbox.run_kind(Kind::Backup).await;
        ran.assert(Status::Failed, 0);
        assert!(ran.error().contains("does not list it"), "{}", ran.error());
        assert!(ran.snapshots.is_empty() && ran.stats.is_empty());
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_absent_repository_are_said_clearly() {
    for restic in restics() {
        let mut sandbox = Sandbox::new(&restic);
        sandbox.write("source/file", "x");
        let absent = sandbox.run_kind(Kind::Backup).await;
        let error = absent.error();
        assert_eq!(absent.outcome.status, Status::Failed);
        assert!(error.starts_with("there is no repository at /") && error.contains("run an init job"), "{error}");

        sandbox.place_repository("repo");
        sandbox.credentials.password = Some(fleet_wire::Secret::new("another-one"));
        for kind in [Kind::Init, Kind::Backup] {
            let wrong = sandbox.run_kind(kind).await;
            assert_eq!(wrong.outcome.status, Status::Failed, "{kind}");
            assert!(wrong.error().starts_with("wrong repository password"), "{kind}: {}", wrong.error());
        }
    }
}

#[tokio::test]
async fn an_init_that_comes_second_looks_whether_its_password_opens_the_repository() {
    for restic in restics() {
        for (theirs, status) in [(PASSWORD, Status::Succeeded), ("of somebody else", Status::Failed)] {
            let mut sandbox = Sandbox::new(&restic);
            // Another host is faster, just between our look and our init.
            sandbox.wrap(&format!(
                "[ \"$1\" != init ] || RESTIC_PASSWORD='{theirs}' \"$RESTIC\" init >/dev/null; exec \"$RESTIC\" \"$@\""
            ));
            let ran = sandbox.run_kind(Kind::Init).await;
            assert_eq!(ran.outcome.status, status, "{:?} {}", ran.outcome.error, ran.text());
            let expected = if status == Status::Failed { "wrong repository password" } else { "" };
            assert!(ran.error().starts_with(expected), "{}", ran.error());
        }
    }
}

#[tokio::test]
async fn a_damaged_repository_fails_its_check() {
    for restic in restics() {
        let sandbox = Sandbox::with_repository(&restic);
        let file = sandbox.write_random("source/file", 1);
        sandbox.restic_says(&["backup", "-q", &file]);
        let folders = fs::read_dir(sandbox.path("repo/data")).unwrap().map(|entry| entry.unwrap().path());
        let packs = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
        // The pack with the file's data. For one with trees restic 0.14 would try for 45 s.
        let pack = packs.max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
        fs::remove_file(&pack).unwrap();
        let ran = sandbox.run_kind(Kind::Check).await;
        ran.assert(Status::Failed, 1);
        let name = pack.file_name().unwrap().to_string_lossy().into_owned();
        assert!(ran.error().starts_with(&format!("the check found errors: pack {name}")), "{}", ran.error());
        assert_eq!(ran.stats[0].last_check_status.as_deref(), Some("errors"));
    }
}

#[tokio::test]
async fn a_disk_of_the_agent_that_takes_no_more_is_said_clearly() {
    for restic in restics() {
        let mut sandbox = Sandbox::with_repository(&restic);
        sandbox.write_random("source/file", 20);
        // A limit on the size of files stands for the full disk, for any user can set one: writes past it fail.
        sandbox.wrap("[ \"$1\" != backup ] || { ulimit -f 2048; trap '' XFSZ; }; exec \"$RESTIC\" \"$@\"");
        let ran = sandbox.run_kind(Kind::Backup).await;
        ran.assert(Status::Failed, 1);
        let error = ran.error();
        assert!(error.starts_with("a file can't grow: ") && error.contains("restic-temp-pack"), "{error}");
    }
}

#[tokio::test]
async fn without_restic_a_job_says_what_to_do() {
    let mut sandbox = Sandbox::new("/no/such/restic".as_ref());
    sandbox.restic = "/no/such/restic".into();
    let ran = sandbox.run_kind(Kind::Check).await;
    ran.assert(Status::Failed, -1);
    assert!(ran.error().ends_with("install it or set FLEET_RESTIC"), "{}", ran.error());
}
