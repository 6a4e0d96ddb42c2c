//! Starts and stops of the coordinator: what is in its way is said in one clear sentence, and what it leaves behind.

mod support;

use fleet_integration::{
    Account, Api, Coordinator, CoordinatorSettings, Database, Failure, FakeAgent, Sandbox, Server, command, eventually,
    leak_free_dir, program,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{LIMIT, core};

fn on(database: &Database) -> CoordinatorSettings {
    CoordinatorSettings { database_url: Some(database.url()), ..CoordinatorSettings::default() }
}

/// Starts a coordinator that must not come up; gives its last words, which are one line.
fn refusal(data_dir: &Path, settings: &CoordinatorSettings) -> String {
    let mut coordinator = Coordinator::launch(data_dir, settings).unwrap();
    let status = coordinator.process().wait(LIMIT).unwrap();
    let output = coordinator.process().output();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(!output.contains("panicked"), "{output}");
    assert!(!data_dir.join("listen").exists());
    let last = output.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("fleet-coordinator: "), "the last line is for people: {output}");
    last
}

fn says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

/// Runs `fleet-coordinator migrate` to its end.
fn migrate(database: &Database, data_dir: &Path) -> Output {
    let mut migrate = command(&program("fleet-coordinator").unwrap(), None);
    migrate.arg("migrate").env("FLEET_DATA_DIR", data_dir).env("DATABASE_URL", database.url());
    migrate.output().unwrap()
}

fn tables(database: &Database) -> usize {
    database.query("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").unwrap().len()
}

fn at(url: &str) -> CoordinatorSettings {
    CoordinatorSettings { database_url: Some(url.to_owned()), ..CoordinatorSettings::default() }
}

#[test]
fn a_database_that_only_a_person_can_mend_ends_the_start() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    let url = database.url().replace("postgresql:///", "postgresql://postgres:hunter2@/");
    for (url, words) in [
        ("http://fleet:hunter2@127.0.0.1/x", ["can't be read", "DATABASE_URL"]),
        ("not hunter2 a URL", ["can't be read", "DATABASE_URL"]),
        (&url.replace("fleet_test_", "missing_fleet_test_"), ["missing_fleet_test_", "does not exist"]),
        (&url.replace("user=postgres", "user=stranger"), ["stranger", "does not exist"]),
    ] {
        let last = refusal(&dir.path().join("data"), &at(url));
        says(&last, &words);
        assert!(!last.contains("hunter2"), "{last}");
    }
}

/// A coordinator that was started while the server of its database was away, with a password in its URL.
fn started_too_early(server: &mut Server, database: &Database, dir: &Path) -> Coordinator {
    server.stop().unwrap();
    let url = database.url().replace("postgresql:///", "postgresql://postgres:hunter2@/");
    let mut coordinator = Coordinator::launch(&dir.join("data"), &at(&url)).unwrap();
    coordinator.wait_until_there().unwrap();
    eventually("it says what it waits for", LIMIT, || {
        let output = coordinator.process().output();
        if output.contains("waiting for the database \"fleet_test_") { Ok(()) } else { Err(output) }
    })
    .unwrap();
    coordinator
}

#[test]
fn a_database_that_comes_up_later_is_waited_for() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let mut server = Server::start().unwrap();
    let database = Database::on(&server).unwrap();
    let mut coordinator = started_too_early(&mut server, &database, dir.path());
    let api = coordinator.api();
    let status = |path: &str| api.call("GET", path, None, &[]).unwrap().status;
    assert_eq!((status("/healthz"), status("/readyz")), (200, 503));
    for (method, path) in [("GET", "/v1/hosts"), ("POST", "/v1/repositories"), ("GET", "/v1/agent/connect")] {
        let reply = api.call(method, path, None, &[]).unwrap();
        assert_eq!((reply.status, reply.header("content-type")), (503, Some("application/problem+json")), "{path}");
        assert!(reply.header("retry-after").is_some(), "{path}");
    }
    // From now on somebody is at the address all the time.
    let (address, over) = (coordinator.address().to_owned(), Arc::new(AtomicBool::new(false)));
    let watch = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                TcpStream::connect(&address).unwrap();
            }
        }
    });
    server.start_again().unwrap();
    coordinator.wait_until_ready().unwrap();
    over.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    let repository = api.create_repository("main", "/srv/r", "pw").unwrap();
    assert_eq!(api.get(&format!("/v1/repositories/{repository}")).unwrap()["name"], "main");
    coordinator.process().stop().unwrap();
    let output = coordinator.process().output();
    assert!(!output.contains("hunter2"), "{output}");
    let waits = output.lines().filter(|line| line.contains("waiting for the database")).count();
    assert!(waits <= 4, "a line for each reason, not for each try: {output}");
}

#[test]
fn a_database_that_hangs_at_the_start_is_waited_for() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let mut server = Server::start().unwrap();
    let database = Database::on(&server).unwrap();
    server.pause();
    let mut coordinator = Coordinator::launch(&dir.path().join("data"), &on(&database)).unwrap();
    coordinator.wait_until_there().unwrap();
    let api = coordinator.api();
    eventually("it notices", LIMIT, || {
        let output = coordinator.process().output();
        if output.contains("waiting for the database") { Ok(()) } else { Err(output) }
    })
    .unwrap();
    assert_eq!(api.call("GET", "/readyz", None, &[]).unwrap().status, 503);
    server.resume();
    coordinator.wait_until_ready().unwrap();
    coordinator.process().stop().unwrap();
}

#[test]
fn a_stop_while_the_database_is_waited_for_is_heard_at_once() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let mut server = Server::start().unwrap();
    let database = Database::on(&server).unwrap();
    let mut coordinator = started_too_early(&mut server, &database, dir.path());
    coordinator.process().signal(Signal::SIGTERM);
    let status = coordinator.process().wait(Duration::from_secs(10)).unwrap();
    assert!(status.success(), "{status}: {}", coordinator.process().tail(5));
    assert!(!dir.path().join("data/listen").exists());
    server.start_again().unwrap();
}

#[test]
fn a_taken_port_is_said_and_nothing_is_disturbed() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let settings = CoordinatorSettings { listen: Some(address.clone()), ..on(&database) };
    says(&refusal(&dir.path().join("data"), &settings), &[&address, "in use", "FLEET_LISTEN"]);
}

#[test]
fn a_key_file_that_is_none_is_refused_and_left_alone() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    let key = dir.path().join("data/secret.key");
    let good = "ab".repeat(32);
    fs::create_dir_all(key.parent().unwrap()).unwrap();
    let path = key.display().to_string();
    for (content, mode, words) in [
        (&b"not a key"[..], 0o600, [path.as_str(), "64 hexadecimal digits", "backup"]),
        (b"", 0o600, [&path, "64 hexadecimal digits", "backup"]),
        (b"\xff\xfe\x00", 0o600, [&path, "64 hexadecimal digits", "backup"]),
        (good.as_bytes(), 0o644, [&path, "644", "chmod 600"]),
        (good.as_bytes(), 0o620, [&path, "620", "chmod 600"]),
    ] {
        fs::write(&key, content).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        says(&refusal(&dir.path().join("data"), &on(&database)), &words);
        assert_eq!(fs::read(&key).unwrap(), content, "it is not overwritten");
    }
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    says(&refusal(&dir.path().join("data"), &on(&database)), &[&path, "can't read the key file"]);
    assert_eq!(tables(&database), 0, "nothing was touched before the key was good");
}

#[test]
fn the_key_of_another_installation_is_refused() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    drop(Coordinator::start(&dir.path().join("first"), &on(&database)).unwrap());
    let other = dir.path().join("second");
    let path = other.join("secret.key").display().to_string();
    says(&refusal(&other, &on(&database)), &[&path, "not the one", "backup"]);
    // FLEET_KEY_FILE leads to the right one.
    let right = dir.path().join("first/secret.key").display().to_string();
    let settings = CoordinatorSettings { variables: vec![("FLEET_KEY_FILE".to_owned(), right)], ..on(&database) };
    drop(Coordinator::start(&other, &settings).unwrap());
}

#[test]
fn a_data_folder_that_can_not_be_written_is_said() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let within = dir.path().join("file/data");
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, Permissions::from_mode(0o555)).unwrap();
    // Permissions don't stop root: the program is then run as somebody else, from where that one may run it.
    let account = Account::instead_of_root(&["nobody"]).unwrap();
    let copy = dir.path().join("fleet-coordinator");
    fs::copy(program("fleet-coordinator").unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    let start = |data_dir: &Path| {
        let mut serve = command(&copy, account.as_ref());
        serve.arg("serve").env("FLEET_DATA_DIR", data_dir).env("DATABASE_URL", database.url());
        let output = serve.env("FLEET_LISTEN", "127.0.0.1:0").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said.lines().last().unwrap_or_default().to_owned()
    };
    for data_dir in [within, locked.clone(), locked.join("below")] {
        says(&start(&data_dir), &["fleet-coordinator: ", &data_dir.display().to_string(), "FLEET_DATA_DIR"]);
    }
    // Somebody else's key.
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    let key = foreign.join("secret.key");
    fs::write(&key, "ab".repeat(32)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(if account.is_some() { 0o600 } else { 0o000 })).unwrap();
    says(&start(&foreign), &["can't read the key file", &key.display().to_string(), "Permission denied", "may read"]);
}

#[test]
fn migrate_migrates_and_does_nothing_else() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    let data_dir = dir.path().join("data");
    for said in ["brought up to date", "is up to date"] {
        let output = migrate(&database, &data_dir);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        assert!(log.contains(said), "{log}");
        assert!(!log.contains("listening"), "{log}");
    }
    assert!(tables(&database) > 5);
    for table in ["settings", "jobs", "hosts"] {
        let rows = database.query(&format!("SELECT 1 FROM {table}")).unwrap();
        assert!(rows.is_empty(), "{table} has rows");
    }
    let left: Vec<_> = fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    // It does not need the database for itself: it may run beside a coordinator.
    let running = Coordinator::start(&dir.path().join("other"), &on(&database)).unwrap();
    assert!(migrate(&database, &data_dir).status.success());
    drop(running);
}

#[test]
fn several_may_migrate_at_once() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    let logs: Vec<String> = thread::scope(|scope| {
        let one = |number: usize| {
            let (database, data_dir) = (&database, dir.path().join(number.to_string()));
            let url = database.url();
            scope.spawn(move || {
                let mut migrate = command(&program("fleet-coordinator").unwrap(), None);
                migrate.arg("migrate").env("FLEET_DATA_DIR", data_dir).env("DATABASE_URL", url);
                let output = migrate.output().unwrap();
                let log = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{log}");
                log
            })
        };
        let threads: Vec<_> = (0..4).map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let did = logs.iter().filter(|log| log.contains("brought up to date")).count();
    assert_eq!(did, 1, "{logs:?}");
    assert_eq!(tables(&database), migrated_tables());
}

/// How many tables a database has that one process migrated alone.
fn migrated_tables() -> usize {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    assert!(migrate(&database, dir.path()).status.success());
    tables(&database)
}

#[test]
fn a_second_coordinator_on_the_same_database_is_told_so() {
    let sandbox = Sandbox::start().unwrap();
    let second = sandbox.path("second");
    fs::create_dir(&second).unwrap();
    fs::copy(sandbox.path("coordinator/secret.key"), second.join("secret.key")).unwrap();
    says(&refusal(&second, &on(&sandbox.database)), &["another coordinator", "DATABASE_URL"]);
    sandbox.api().get("/readyz").unwrap();
}

#[test]
fn a_stop_closes_every_socket_with_a_reason_and_is_quick() {
    let mut sandbox = Sandbox::start().unwrap();
    let repository = support::repository(&sandbox);
    let mut agents: Vec<FakeAgent> =
        (0..5).map(|number| sandbox.fake_agent(&format!("web-{number}"), &repository).unwrap().0).collect();
    // One that has not said hello, and a REST client that waits for a job.
    let (host, token) = sandbox.enroll("silent", Some(&repository)).unwrap();
    let mut silent = FakeAgent::connect(sandbox.coordinator.address(), &token).unwrap();
    let job = sandbox.api().run_job(&host, &json!({"kind": "check"})).unwrap();
    let api = sandbox.api();
    let waiter = thread::spawn(move || api.get(&format!("/v1/jobs/{job}?wait=60")).map(drop));
    let began = Instant::now();
    sandbox.coordinator.process().signal(Signal::SIGTERM);
    for agent in &mut agents {
        let (code, reason) = agent.expect_close().unwrap();
        assert_eq!(code, Some(1001));
        assert!(!reason.is_empty());
    }
    let status = sandbox.coordinator.process().wait(Duration::from_secs(10)).unwrap();
    assert!(status.success(), "{status}: {}", sandbox.coordinator.process().tail(5));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    silent.expect_close().unwrap();
    let _ = waiter.join().unwrap(); // answered or cut off, but not kept waiting
    assert!(!sandbox.path("coordinator/listen").exists());
    drop(agents);
}

#[test]
fn without_a_token_given_one_is_made_and_kept() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let database = Database::create().unwrap();
    let data_dir = dir.path().join("data");
    let start = || {
        let mut serve = command(&program("fleet-coordinator").unwrap(), None);
        serve.arg("serve").env("FLEET_DATA_DIR", &data_dir).env("DATABASE_URL", database.url());
        serve.env("FLEET_LISTEN", "127.0.0.1:0");
        let mut process = fleet_integration::Process::start("coordinator", serve, dir.path().join("log")).unwrap();
        let address = eventually("the address", LIMIT, || {
            process.must_run()?;
            Ok::<_, Failure>(fs::read_to_string(data_dir.join("listen"))?)
        });
        let token = fs::read_to_string(data_dir.join("admin-token")).unwrap();
        let api = Api::new(&format!("http://{}", address.unwrap().trim()), token.trim());
        let hosts = eventually("the coordinator to serve", LIMIT, || api.list("/v1/hosts"));
        assert_eq!(hosts.unwrap().len(), 0);
        assert_eq!(api.with_token("wrong").call("GET", "/v1/hosts", None, &[]).unwrap().status, 401);
        process.stop().unwrap();
        assert!(!process.output().contains(token.trim()), "{}", process.output());
        token
    };
    assert_eq!(start(), start());
    let mode = fs::metadata(data_dir.join("admin-token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// The server process of the PostgreSQL that a coordinator runs.
fn postmaster(data_dir: &Path) -> u32 {
    let text = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

/// Whether a process runs. One that has ended may stay as a zombie where nobody collects orphans.
fn lives(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:")).map(str::trim);
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

#[test]
fn without_a_database_given_it_runs_one_of_its_own_and_keeps_the_data() {
    let dir = leak_free_dir("fleet-startup.").unwrap();
    let data_dir = dir.path().join("data");
    let settings = CoordinatorSettings::default();
    let mut coordinator = Coordinator::start(&data_dir, &settings).unwrap();
    let repository = coordinator.api().create_repository("main", "/srv/r", "pw").unwrap();
    let first = postmaster(&data_dir);
    assert!(lives(first));
    coordinator.process().stop().unwrap();
    assert!(!lives(first), "it ends with the coordinator");

    // A killed coordinator leaves its server behind; the next one takes it over, or follows it.
    let mut coordinator = Coordinator::start(&data_dir, &settings).unwrap();
    let second = postmaster(&data_dir);
    coordinator.process().kill();
    let mut coordinator = Coordinator::start(&data_dir, &settings).unwrap();
    let found = coordinator.api().get(&format!("/v1/repositories/{repository}")).unwrap();
    assert_eq!(found["name"], "main");
    let last = postmaster(&data_dir);
    let mut agent = FakeAgent::connect(coordinator.address(), &enroll(&coordinator, &repository)).unwrap();
    agent.hello("web-1", &core()).unwrap();
    assert_eq!(agent.expect("config.update").unwrap()["repo_password"], "pw");
    coordinator.process().stop().unwrap();
    for pid in [second, last] {
        assert!(!lives(pid), "{pid} still lives");
    }
}

fn enroll(coordinator: &Coordinator, repository: &str) -> String {
    let token = coordinator.api().enrollment_token(Some(repository)).unwrap();
    let body = json!({"token": token, "hostname": "web-1", "os": "linux", "arch": "amd64"});
    let reply = coordinator.api().post("/v1/agent/enroll", &body).unwrap();
    reply["agent_token"].as_str().unwrap().to_owned()
}
