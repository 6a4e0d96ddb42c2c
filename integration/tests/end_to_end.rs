//! The main job, over REST, with every restic there is: enrol, init, backup, forget, prune, check, unlock.

use fleet_integration::{Api, Failure, Restic, Sandbox, eventually, restics};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// How long one job may take.
const JOB: Duration = Duration::from_secs(120);
/// How long a projection may lag behind its job.
const LAG: Duration = Duration::from_secs(20);

/// Runs a job to its end, which must be success.
fn run(api: &Api, host: &str, job: Value) -> Value {
    let id = api.run_job(host, &job).unwrap();
    let over = api.finished_job(&id, JOB).unwrap();
    assert_eq!(over["status"], "succeeded", "{job}: {over}\nlog: {:?}", api.logs(&id));
    over
}

/// The first job of a kind on a host, once it is over.
fn over(api: &Api, host: &str, kind: &str) -> Value {
    let path = format!("/v1/jobs?host_id={host}&kind={kind}");
    let id = eventually(&format!("a job of kind {kind}"), LAG, || {
        let jobs = api.list(&path)?;
        jobs.first()
            .and_then(|job| job["id"].as_str().map(str::to_owned))
            .ok_or_else(|| Failure::new(format!("{jobs:?}")))
    });
    api.finished_job(&id.unwrap(), JOB).unwrap()
}

/// Waits until the coordinator shows as many snapshots of a host as restic does; gives them.
fn snapshots(api: &Api, host: &str, expected: usize) -> Vec<Value> {
    eventually(&format!("{expected} snapshots"), LAG, || {
        let known = api.list(&format!("/v1/hosts/{host}/snapshots"))?;
        if known.len() == expected { Ok(known) } else { Err(Failure::new(format!("{known:?}"))) }
    })
    .unwrap()
}

/// Waits until a repository's statistics are as wanted.
fn stats(api: &Api, repository: &str, what: &str, right: impl Fn(&Value) -> bool) -> Value {
    eventually(what, LAG, || {
        let stats = api.get(&format!("/v1/repositories/{repository}/stats"))?;
        if right(&stats) { Ok(stats) } else { Err(Failure::new(stats.to_string())) }
    })
    .unwrap()
}

fn each_restic(scenario: impl Fn(&Path)) {
    for restic in restics().unwrap() {
        scenario(&restic);
    }
}

#[test]
fn the_six_kinds_do_what_they_say() {
    each_restic(|restic| {
        let sandbox = Sandbox::start().unwrap();
        let api = sandbox.api();
        let (repository, real) = sandbox.repository("repository", restic).unwrap();
        let (_agent, host) = sandbox.agent("alder", &repository, restic).unwrap();
        let init = over(&api, &host, "init");
        assert_eq!((&init["status"], &init["origin"]), (&json!("succeeded"), &json!("first_connect")));

        let source = sandbox.path("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a"), vec![b'a'; 100_000]).unwrap();
        let group = json!({"name": "docs", "includes": [source.display().to_string()], "retention": {"keep_last": 1}});
        api.create_source_group(&host, &group).unwrap();
        back_up_twice(&api, &host, &source, &real);
        forget_and_prune(&api, &host, &repository, &real);
        check_and_unlock(&api, &host, &repository, &real);
    });
}

fn back_up_twice(api: &Api, host: &str, source: &Path, real: &Restic) {
    let backup = run(api, host, json!({"kind": "backup", "source_group": "docs"}));
    assert_eq!((&backup["partial"], &backup["exit_code"]), (&json!(false), &json!(0)));
    assert_eq!(backup["stats"]["files_new"], 1, "{backup}");
    let first = snapshots(api, host, 1).remove(0);
    assert_eq!((&first["hostname"], &first["tags"]), (&json!("alder"), &json!(["docs"])));
    assert_eq!(first["paths"], json!([source.display().to_string()]));

    fs::write(source.join("b"), "b").unwrap();
    let backup = run(api, host, json!({"kind": "backup", "source_group": "docs"}));
    assert_eq!((&backup["stats"]["files_new"], &backup["stats"]["files_unmodified"]), (&json!(1), &json!(1)));
    let known = snapshots(api, host, 2);
    let mut known: Vec<_> = known.iter().map(|snapshot| snapshot["id"].clone()).collect();
    let mut there: Vec<_> = real.snapshots().unwrap().iter().map(|snapshot| snapshot["id"].clone()).collect();
    known.sort_by_key(Value::to_string);
    there.sort_by_key(Value::to_string);
    assert_eq!(known, there);
}

fn forget_and_prune(api: &Api, host: &str, repository: &str, real: &Restic) {
    let newest = real.snapshots().unwrap().pop().unwrap()["id"].clone();
    run(api, host, json!({"kind": "forget"}));
    assert_eq!(snapshots(api, host, 1)[0]["id"], newest);
    assert_eq!(real.snapshots().unwrap().len(), 1);
    run(api, host, json!({"kind": "prune"}));
    let shown = stats(api, repository, "statistics after the prune", |stats| stats["last_prune_at"].is_string());
    assert_eq!(shown["snapshot_count"], 1, "{shown}");
    assert!(shown["raw_size_bytes"].as_i64().is_some_and(|size| size > 0), "{shown}");
}

fn check_and_unlock(api: &Api, host: &str, repository: &str, real: &Restic) {
    run(api, host, json!({"kind": "check", "args": ["100%"]}));
    stats(api, repository, "statistics after the check", |stats| stats["last_check_at"].is_string());
    leave_a_lock(real);
    assert_eq!(real.locks().unwrap().len(), 1);
    run(api, host, json!({"kind": "unlock"}));
    assert_eq!(real.locks().unwrap(), Vec::<String>::new());
    stats(api, repository, "no lock", |stats| stats["lock_present"] == false);
}

/// Kills a restic that waits for its input.
fn leave_a_lock(real: &Restic) {
    let mut backup = real.command(&["backup", "--stdin", "--quiet"]);
    let mut child = backup.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let locks = Path::new(&real.repository).join("locks");
    eventually("a lock", LAG, || {
        let names: Vec<_> = fs::read_dir(&locks).unwrap().flatten().map(|entry| entry.file_name()).collect();
        // While it is being written it has a longer name.
        if names.iter().any(|name| name.len() == 64) { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn hosts_that_share_a_repository_keep_out_of_each_others_snapshots() {
    each_restic(|restic| {
        let sandbox = Sandbox::start().unwrap();
        let api = sandbox.api();
        let (repository, real) = sandbox.repository("shared", restic).unwrap();
        let source = sandbox.path("source");
        fs::create_dir(&source).unwrap();
        let agents: Vec<_> =
            ["alder", "birch"].iter().map(|name| sandbox.agent(name, &repository, restic).unwrap()).collect();
        for (_, host) in &agents {
            assert_eq!(over(&api, host, "init")["status"], "succeeded");
            let group =
                json!({"name": "docs", "includes": [source.display().to_string()], "retention": {"keep_last": 1}});
            api.create_source_group(host, &group).unwrap();
            for round in ["one", "two"] {
                fs::write(source.join(round), format!("{round} of {host}")).unwrap();
                run(&api, host, json!({"kind": "backup", "source_group": "docs"}));
            }
        }
        run(&api, &agents[0].1, json!({"kind": "forget"}));
        snapshots(&api, &agents[0].1, 1);
        snapshots(&api, &agents[1].1, 2);
        let there = real.snapshots().unwrap();
        let of = |name: &str| there.iter().filter(|snapshot| snapshot["hostname"] == name).count();
        assert_eq!((of("alder"), of("birch")), (1, 2));
    });
}

#[test]
fn a_failed_backup_says_why_and_logs_are_kept_in_order() {
    each_restic(|restic| {
        let sandbox = Sandbox::start().unwrap();
        let api = sandbox.api();
        let (repository, real) = sandbox.repository("repository", restic).unwrap();
        let (_agent, host) = sandbox.agent("alder", &repository, restic).unwrap();
        let init = over(&api, &host, "init");
        let lines = api.logs(init["id"].as_str().unwrap()).unwrap();
        let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_i64().unwrap()).collect();
        assert!(!lines.is_empty() && seqs.windows(2).all(|pair| pair[0] < pair[1]), "{lines:?}");
        api.create_source_group(&host, &json!({"name": "gone", "includes": ["/no/such/folder"]})).unwrap();
        let id = api.run_job(&host, &json!({"kind": "backup", "source_group": "gone"})).unwrap();
        let job = api.finished_job(&id, JOB).unwrap();
        assert_eq!(job["status"], "failed", "{job}");
        assert!(job["error"].as_str().unwrap().contains("/no/such/folder"), "{job}");
        assert_eq!(real.snapshots().unwrap().len(), 0);
        let everything = format!("{lines:?}{job}");
        assert!(!everything.contains(&real.password), "the password is in {everything}");
    });
}

#[test]
fn secrets_stand_nowhere_in_the_open() {
    let restic = restics().unwrap().remove(0);
    let mut sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (repository, real) = sandbox.repository("repository", &restic).unwrap();
    let (mut agent, host) = sandbox.agent("alder", &repository, &restic).unwrap();
    over(&api, &host, "init");
    let shown = api.call("GET", &format!("/v1/repositories/{repository}"), None, &[]).unwrap().text;
    assert!(!shown.contains(&real.password), "{shown}");
    let rows = sandbox.database.query("SELECT row_to_json(repositories)::text FROM repositories").unwrap();
    let hexadecimal: String = real.password.bytes().map(|byte| format!("{byte:02x}")).collect();
    let row = rows[0][0].clone().unwrap();
    assert!(!row.contains(&real.password) && !row.contains(&hexadecimal), "{row}");
    let logs = format!("{}{}", agent.process().output(), sandbox.coordinator.process().output());
    assert!(!logs.contains(&real.password) && !logs.contains(sandbox.coordinator.admin_token()), "{logs}");
    for entry in fs::read_dir(&agent.settings().data_dir).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
    }
}
