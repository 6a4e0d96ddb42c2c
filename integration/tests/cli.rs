//! `fleet`, the command line, as a process against a real coordinator: in a pipe, on a terminal, and with a coordinator
//! that dies while it waits.

mod support;

use fleet_integration::{Crowd, Ended, Failure, FleetCli, Sandbox, eventually, restics};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use support::{Host, LIMIT, enroll_many, group, journalling, labelled, repository};

/// What takes longer than usual.
const LONG: Duration = Duration::from_secs(180);

/// With a token that is good in every life of the coordinator.
fn cli(sandbox: &Sandbox) -> FleetCli {
    let token = sandbox.api().post("/v1/tokens", &json!({"name": "cli", "scope": "admin"})).unwrap();
    FleetCli::new(&sandbox.coordinator.url(), token["token"].as_str().unwrap())
}

/// A host with a group `etc`, whose agent does what the test says.
fn host(sandbox: &Sandbox, name: &str) -> Host {
    let repository = sandbox.api().create_repository(name, &format!("/nowhere/{name}"), "password").unwrap();
    let host = Host::ready_as(sandbox, name, &repository, &journalling(name, &[]));
    group(&sandbox.api(), &host.id, "etc", Value::Null);
    host
}

/// Takes the job that a host is sent, and begins it.
fn begin(host: &mut Host, kind: &str) -> String {
    let job = host.run(kind);
    host.accept(&job);
    let last = host.start(&job, kind);
    host.settled(last);
    job
}

fn finish(host: &mut Host, job: &str, status: &str, exit_code: i64) {
    let last = host.finish(job, status, exit_code);
    host.settled(last);
}

/// How many jobs of a kind there are.
fn jobs_of_kind(sandbox: &Sandbox, kind: &str) -> usize {
    sandbox.api().list(&format!("/v1/jobs?kind={kind}")).unwrap().len()
}

#[test]
fn a_backup_of_a_real_host_is_set_up_run_and_looked_at() {
    let restic = restics().unwrap().remove(0);
    let sandbox = Sandbox::start().unwrap();
    let fleet = cli(&sandbox);
    let password = sandbox.path("password");
    fs::write(&password, "the password\n").unwrap();
    let address = sandbox.path("repository").display().to_string();
    let add = ["repositories", "add", "main", &address, "--password-file", &password.display().to_string(), "-o", "id"];
    let repository = fleet.run(&add).unwrap().ok().unwrap().trim().to_owned();
    let (_agent, _) = sandbox.agent("alder", &repository, &restic).unwrap();

    let source = sandbox.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), vec![b'a'; 100_000]).unwrap();
    let source = source.display().to_string();
    fleet
        .run(&["source-groups", "set", "alder", "etc", "--include", &source, "--keep-last", "3"])
        .unwrap()
        .ok()
        .unwrap();
    let told = fleet.run(&["run", "alder", "backup", "etc", "--wait"]).unwrap();
    assert_eq!(told.status, Some(0), "{told:?}");
    assert!(told.stdout.starts_with("succeeded: backup of etc on alder in "), "{told:?}");
    assert!(told.stdout.contains("1 file of 97.7 KiB") && told.stdout.contains("snapshot "), "{told:?}");

    let snapshots = || {
        let shown = fleet.run(&["snapshots", "alder"]).unwrap().ok()?;
        if shown.lines().count() == 2 { Ok(shown) } else { Err(Failure::new(shown)) }
    };
    let shown = eventually("the snapshot to be known", LIMIT, snapshots).unwrap();
    assert!(shown.starts_with("SNAPSHOT") && shown.contains(&source), "{shown}");
    let followed = fleet.run(&["run", "alder", "check", "-f"]).unwrap();
    assert_eq!(followed.status, Some(0), "{followed:?}");
    assert!(!followed.stdout.is_empty() && followed.stderr.contains("succeeded: check on alder"), "{followed:?}");
    let hosts = fleet.run(&["hosts"]).unwrap().ok().unwrap();
    assert!(hosts.contains("alder") && hosts.contains("online") && hosts.contains("main"), "{hosts}");
}

#[test]
fn the_exit_status_tells_how_it_ended() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut web = host(&sandbox, "web");
    let fleet = cli(&sandbox);
    for (status, exit_code, expected) in
        [("succeeded", 0, 0), ("failed", 1, 1), ("cancelled", 130, 1), ("succeeded", 3, 3)]
    {
        let waits = fleet.start(&["run", "web", "backup", "etc", "--wait", "-o", "json"]).unwrap();
        let job = begin(&mut web, "backup");
        finish(&mut web, &job, status, exit_code);
        let ended = Ended::of(waits).unwrap();
        assert_eq!(ended.status, Some(expected), "{ended:?}");
        let shown = ended.json().unwrap();
        assert_eq!((shown.len(), &shown[0]["id"], &shown[0]["status"]), (1, &json!(job), &json!(status)), "{ended:?}");
        // Asked once more, later.
        assert_eq!(fleet.run(&["wait", &job]).unwrap().status, Some(expected));
    }
    let status = |fleet: &FleetCli, line: &str| {
        let ended = fleet.run(&line.split(' ').collect::<Vec<_>>()).unwrap();
        assert!(ended.stderr.starts_with("fleet: ") || ended.status == Some(2), "{ended:?}");
        ended.status.unwrap()
    };
    assert_eq!(status(&fleet, "run web nonsense"), 2);
    assert_eq!(status(&fleet, "run nobody check"), 5);
    assert_eq!(status(&fleet, "run web backup nothing"), 5);
    assert_eq!(status(&fleet.with_token("wrong"), "hosts"), 5);
    assert_eq!(status(&fleet, "run web check --wait --timeout 0s"), 6);
    sandbox.take_down();
    assert_eq!(status(&fleet, "hosts --retry-for 0s"), 4);
    assert_eq!(status(&fleet, "run 018f0000-0000-7000-8000-000000000000 check --retry-for 1s"), 4);
}

#[test]
fn waiting_survives_a_coordinator_that_dies() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut web = host(&sandbox, "web");
    let fleet = cli(&sandbox);
    let waits = fleet.start(&["run", "web", "backup", "etc", "--wait"]).unwrap();
    let job = begin(&mut web, "backup");
    sandbox.take_down();
    // Asked while nobody is there; by its id, for a name would have to be looked up first.
    let asks = fleet.start(&["run", &web.id, "check", "--wait"]).unwrap();
    sandbox.bring_back().unwrap();
    web.connect(&sandbox, &journalling("web", &[&job]));
    finish(&mut web, &job, "succeeded", 0);
    let check = begin(&mut web, "check");
    finish(&mut web, &check, "succeeded", 0);
    for (ended, id) in [(Ended::of(waits).unwrap(), &job), (Ended::of(asks).unwrap(), &check)] {
        assert_eq!(ended.status, Some(0), "{ended:?}");
        assert!(ended.stdout.contains(id.as_str()), "{ended:?}");
    }
    assert_eq!((jobs_of_kind(&sandbox, "backup"), jobs_of_kind(&sandbox, "check")), (1, 1));
}

/// A way to the coordinator on which one of each three connections loses its first answer: what was asked has been done by then.
fn lossy(target: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (target, lost) = (target.to_owned(), Arc::new(AtomicUsize::new(0)));
    let counted = lost.clone();
    thread::spawn(move || {
        for (number, near) in listener.incoming().flatten().enumerate() {
            // Where the coordinator is away, the connection just ends.
            let Ok(far) = TcpStream::connect(&target) else { continue };
            let counted = counted.clone();
            thread::spawn(move || carry(near, far, number % 3 == 0, &counted));
        }
    });
    (url, lost)
}

fn carry(mut near: TcpStream, mut far: TcpStream, loses: bool, lost: &AtomicUsize) {
    let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
    if loses {
        let _ = far.read(&mut [0]);
        lost.fetch_add(1, Ordering::SeqCst);
    } else {
        let _ = std::io::copy(&mut far, &mut near);
    }
    let _ = near.shutdown(Shutdown::Both);
}

/// Has a host checked as a script would that may be killed at any time: the same line again until it has succeeded.
fn check_at_last(fleet: &FleetCli, host: &str, lost: &AtomicUsize, kill: bool) {
    let line = ["run", host, "check", "--wait", "--idempotency-key", &format!("check-{host}"), "-o", "id"];
    if kill {
        let before = lost.load(Ordering::SeqCst);
        let mut killed = fleet.start(&line).unwrap();
        eventually("some answer to be lost, or this one to come", LIMIT, || {
            let over = killed.try_wait().is_ok_and(|status| status.is_some());
            if over || lost.load(Ordering::SeqCst) > before { Ok(()) } else { Err("nothing yet") }
        })
        .unwrap();
        let _ = killed.kill();
        killed.wait().unwrap();
    }
    let ended = fleet.run(&line).unwrap();
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

#[test]
fn a_script_that_loses_answers_and_is_killed_gets_one_job_for_each_of_500_hosts() {
    const HOSTS: usize = 500;
    const SCRIPTS: usize = 6;
    let mut sandbox = Sandbox::start().unwrap();
    let hosts = enroll_many(&sandbox, HOSTS);
    let ids: Vec<String> = hosts.iter().map(|host| host.id.clone()).collect();
    let address = sandbox.coordinator.address().to_owned();
    let _swarm = Crowd::start(&address, hosts).unwrap();
    let (url, lost) = lossy(&address);
    let fleet = cli(&sandbox).at(&url);
    let next = AtomicUsize::new(0);
    let script = || {
        while let Some((number, id)) = Some(next.fetch_add(1, Ordering::SeqCst)).and_then(|at| Some((at, ids.get(at)?)))
        {
            check_at_last(&fleet, id, &lost, number % 5 == 0);
        }
    };
    thread::scope(|scope| {
        let scripts: Vec<_> = (0..SCRIPTS).map(|_| scope.spawn(script)).collect();
        for far in [HOSTS / 3, HOSTS / 2] {
            let seen = || if next.load(Ordering::SeqCst) >= far { Ok(()) } else { Err(next.load(Ordering::SeqCst)) };
            eventually("the scripts to be so far", LONG, seen).unwrap();
            sandbox.take_down();
            sandbox.bring_back().unwrap();
        }
        scripts.into_iter().for_each(|script| script.join().unwrap());
    });
    assert!(lost.load(Ordering::SeqCst) >= HOSTS / 3, "{lost:?}");
    let jobs = sandbox.api().list("/v1/jobs?kind=check&status=succeeded&limit=500").unwrap();
    let of: HashSet<&str> = jobs.iter().map(|job| job["host_id"].as_str().unwrap()).collect();
    assert_eq!((jobs.len(), of.len(), jobs_of_kind(&sandbox, "check")), (HOSTS, HOSTS, HOSTS));
}

#[test]
fn lists_page_by_themselves_and_a_reader_may_leave() {
    const HOSTS: usize = 520;
    let sandbox = Sandbox::start().unwrap();
    enroll_many(&sandbox, HOSTS);
    let fleet = cli(&sandbox);
    let ids = fleet.run(&["hosts", "-o", "id"]).unwrap().ok().unwrap();
    assert_eq!(ids.lines().collect::<HashSet<_>>().len(), HOSTS);
    assert_eq!(fleet.run(&["hosts", "-o", "json"]).unwrap().json().unwrap().len(), HOSTS);
    assert_eq!(fleet.run(&["hosts", "--limit", "7"]).unwrap().ok().unwrap().lines().count(), 8);
    let mut reads = fleet.start(&["hosts", "-o", "json"]).unwrap();
    let mut some = [0; 10];
    reads.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let ended = Ended::of(reads).unwrap();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn on_a_terminal_there_are_bars_and_in_a_pipe_there_are_lines() {
    let sandbox = Sandbox::start().unwrap();
    let mut web = host(&sandbox, "web");
    let fleet = cli(&sandbox);
    let progress = |job: &str| {
        json!({"job_id": job, "percent_done": 0.5, "files_done": 1, "total_files": 2, "bytes_done": 1024,
               "total_bytes": 2048, "eta_seconds": 61, "throughput_bps": 512})
    };
    let mut terminal = fleet.start_on_terminal("run web backup etc --wait").unwrap();
    let mut output = terminal.stdout.take().unwrap();
    let shown = Arc::new(Mutex::new(String::new()));
    let screen = shown.clone();
    let reader = thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut some) {
            screen.lock().unwrap().push_str(&String::from_utf8_lossy(&some[..count]));
        }
    });
    let job = begin(&mut web, "backup");
    web.say("job.progress", progress(&job));
    eventually("the bar", LIMIT, || {
        let shown = shown.lock().unwrap().clone();
        let bar = "50 %, 1.0 KiB of 2.0 KiB, 512 B/s, 1m 1s left";
        if shown.contains(bar) && shown.contains("=>") { Ok(()) } else { Err(shown) }
    })
    .unwrap();
    finish(&mut web, &job, "succeeded", 0);
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
    reader.join().unwrap();
    let shown = shown.lock().unwrap().clone();
    assert!(shown.contains("\u{1b}[32msucceeded\u{1b}[0m: backup of etc on web"), "{shown:?}");

    let piped = fleet.start(&["run", "web", "backup", "etc", "--wait"]).unwrap();
    let job = begin(&mut web, "backup");
    finish(&mut web, &job, "succeeded", 0);
    let ended = Ended::of(piped).unwrap();
    assert!(!ended.stdout.contains('\u{1b}') && !ended.stderr.contains('\u{1b}'), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
}

#[test]
fn a_log_is_followed_to_its_end_whatever_the_coordinator_does() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut web = host(&sandbox, "web");
    let fleet = cli(&sandbox);
    group(&sandbox.api(), &web.id, "docs", Value::Null);
    let job = support::backup(&sandbox.api(), &web.id, "docs");
    assert_eq!(begin(&mut web, "backup"), job);
    let last = web.log(&job, 0, "one");
    web.settled(last);
    let follows = fleet.start(&["logs", "-f", &job]).unwrap();
    sandbox.take_down();
    sandbox.bring_back().unwrap();
    web.connect(&sandbox, &journalling("web", &[&job]));
    let last = web.log(&job, 1, "two");
    web.settled(last);
    finish(&mut web, &job, "failed", 1);
    let ended = Ended::of(follows).unwrap();
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(1), "one\ntwo\n"), "{ended:?}");
    let rest = fleet.run(&["logs", &job, "--after-seq", "0", "-o", "json"]).unwrap();
    assert_eq!(rest.json().unwrap()[0]["payload"], "two");
}

#[test]
fn an_operation_is_previewed_run_and_tried_again() {
    let sandbox = Sandbox::start().unwrap();
    let fleet = cli(&sandbox);
    let (mut a, mut b) = (host(&sandbox, "a"), host(&sandbox, "b"));
    for name in ["a", "b"] {
        fleet.run(&["hosts", "set", name, "--label", "site=ulm"]).unwrap().ok().unwrap();
    }
    labelled(&sandbox, "c", &repository(&sandbox), json!({"site": "bonn"}));
    let which = ["operations", "run", "check", "--label", "site=ulm"];
    let preview = fleet.run(&[&which[..], &["--dry-run"]].concat()).unwrap();
    assert_eq!(preview.status, Some(0), "{preview:?}");
    assert!(preview.stderr.contains("would make 2 jobs") && preview.stdout.lines().count() == 3, "{preview:?}");
    assert_eq!(jobs_of_kind(&sandbox, "check"), 0);

    let waits = fleet.start(&[&which[..], &["--wait", "-o", "json"]].concat()).unwrap();
    let (first, second) = (begin(&mut a, "check"), begin(&mut b, "check"));
    finish(&mut a, &first, "succeeded", 0);
    finish(&mut b, &second, "failed", 1);
    let ended = Ended::of(waits).unwrap();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let operation = ended.json().unwrap()[0]["id"].as_str().unwrap().to_owned();
    let failed = fleet.run(&["operations", "jobs", &operation, "--status", "failed"]).unwrap().ok().unwrap();
    assert!(failed.lines().count() == 2 && failed.contains(&second), "{failed}");

    let again = fleet.start(&["retry", &operation, "--wait"]).unwrap();
    let third = begin(&mut b, "check");
    finish(&mut b, &third, "succeeded", 0);
    let ended = Ended::of(again).unwrap();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("succeeded: check, 1 job: 1 succeeded"), "{ended:?}");
}

#[test]
fn tokens_pauses_and_the_audit_log_are_at_hand() {
    let sandbox = Sandbox::start().unwrap();
    let web = labelled(&sandbox, "web", &repository(&sandbox), json!({"site": "ulm"}));
    let admin = cli(&sandbox);
    let token =
        admin.run(&["token", "create", "ulm", "--scope", "operate", "--label", "site=ulm"]).unwrap().ok().unwrap();
    let ulm = admin.with_token(token.trim());
    assert!(ulm.run(&["hosts", "-o", "id"]).unwrap().ok().unwrap().contains(&web));
    let refused = ulm.run(&["token"]).unwrap();
    assert!(refused.status == Some(5) && refused.stderr.contains("This token does not allow that"), "{refused:?}");
    ulm.run(&["pause", "--host", "web", "--reason", "new disks"]).unwrap().ok().unwrap();
    let pauses = admin.run(&["pauses"]).unwrap().ok().unwrap();
    assert!(pauses.contains("host web") && pauses.contains("new disks") && pauses.contains("ulm"), "{pauses}");
    ulm.run(&["resume", "--host", "web"]).unwrap().ok().unwrap();
    let audit = admin.run(&["audit", "--by", "ulm", "-o", "json"]).unwrap().json().unwrap();
    assert!(audit.len() >= 3, "{audit:?}");
    admin.run(&["token", "revoke", "ulm"]).unwrap().ok().unwrap();
    let revoked = ulm.run(&["hosts"]).unwrap();
    assert!(revoked.status == Some(5) && revoked.stderr.contains("FLEET_TOKEN"), "{revoked:?}");
    // A secret on the command line is no secret: there is no such option.
    assert_eq!(admin.run(&["hosts", "--token", "x"]).unwrap().status, Some(2));
}

#[test]
fn the_fleet_becomes_what_a_document_says() {
    let sandbox = Sandbox::start_with(&[("FLEET_SECRET_MAIN", "the password")]).unwrap();
    let fleet = cli(&sandbox);
    let file = sandbox.path("fleet.yaml");
    let name = file.display().to_string();
    fs::write(&file, "repositories:\n  main:\n    url: /srv/main\n    password: {env: FLEET_SECRET_MAIN}\n").unwrap();
    let dry = fleet.run(&["apply", &name, "--dry-run"]).unwrap();
    assert_eq!(dry.status, Some(0), "{dry:?}");
    assert!(dry.stdout.contains("create  repository  main") && dry.stderr.contains("would create 1"), "{dry:?}");
    assert_eq!(fleet.run(&["repositories", "-o", "id"]).unwrap().ok().unwrap(), "");
    // Just what was seen.
    let tag = dry.stderr.trim().rsplit(' ').next().unwrap().to_owned();
    let done = fleet.run(&["apply", &name, "--if-match", &tag]).unwrap();
    assert!(done.status == Some(0) && done.stderr.contains("created 1"), "{done:?}");
    assert!(fleet.run(&["repositories"]).unwrap().ok().unwrap().contains("/srv/main"));
    let again = fleet.run(&["apply", &name]).unwrap();
    assert!(again.status == Some(0) && again.stderr.contains("is as the document says"), "{again:?}");
    let export = fleet.run(&["export"]).unwrap().ok().unwrap();
    assert!(export.contains("/srv/main") && !export.contains("the password"), "{export}");
    fs::write(&file, "repositories: {main: {ur: /srv/main}}\n").unwrap();
    let wrong = fleet.run(&["apply", &name]).unwrap();
    assert!(wrong.status == Some(5) && wrong.stderr.contains("repositories"), "{wrong:?}");
}

#[test]
fn completions_are_written_without_a_coordinator() {
    let fleet = FleetCli::new("http://127.0.0.1:1", "");
    for shell in ["bash", "zsh", "fish"] {
        let script = fleet.run(&["completions", shell]).unwrap().ok().unwrap();
        assert!(script.contains("enroll-token"), "{shell}");
    }
}
