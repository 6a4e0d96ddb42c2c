//! The embedded PostgreSQL against the real server programs of this machine: starts, stops, crashes, and what is in
//! its way. Runs as root (the server then drops to another account) or as anybody else.

use fleet_coordinator::embedded_postgres::{EmbeddedError, EmbeddedPostgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Names the data folder for a test that runs itself in a second process.
const SECOND_PROCESS: &str = "FLEET_TEST_SECOND_PROCESS";

/// A folder that the server's account may pass through, as /var/lib is.
fn sandbox() -> TempDir {
    let dir = tempfile::Builder::new().prefix("fleet-pg-").tempdir_in("/tmp").expect("a folder under /tmp");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("chmod");
    dir
}

async fn start(data_dir: &Path) -> EmbeddedPostgres {
    EmbeddedPostgres::start(data_dir).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn start_error(data_dir: &Path) -> String {
    match EmbeddedPostgres::start(data_dir).await {
        Ok(server) => {
            server.stop().await;
            panic!("it started, though it should not")
        }
        Err(error) => error.to_string(),
    }
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn value(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// Polls until `condition` gives a value; on failure says why it last gave none.
async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(last) if Instant::now() > deadline => panic!("waited 60 s for {what}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits until a postmaster other than `old` answers.
async fn successor_of(old: Pid, url: &str) -> Client {
    wait_for("the server to come back", async || {
        if lives(old) {
            return Err(format!("postmaster {old} still lives"));
        }
        connect(url).await.map_err(|error| format!("{error:?}"))
    })
    .await
}

fn postmaster(data_dir: &Path) -> Pid {
    let text = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).expect("postmaster.pid");
    Pid::from_raw(text.lines().next().and_then(|pid| pid.parse().ok()).expect("a pid"))
}

/// A field of /proc/PID/status; `None` once the process is gone.
fn status_of(pid: Pid, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn lives(pid: Pid) -> bool {
    status_of(pid, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

fn socket_dir(url: &str) -> PathBuf {
    let config: tokio_postgres::Config = url.parse().expect("a URL");
    match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Unix(dir) => dir.clone(),
        other => panic!("not a socket: {other:?}"),
    }
}

/// Runs one test of this binary again in a process of its own, as `user` if one is given.
fn run_self(test: &str, data_dir: &Path, user: Option<&User>) -> Output {
    let me = env::current_exe().expect("this binary");
    let copy = sandbox();
    let mut command = match user {
        None => Command::new(me),
        Some(user) => {
            // The build folder may lie where others can't go.
            let program = copy.path().join("test");
            fs::copy(me, &program).expect("copy");
            fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("chmod");
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid)).arg("--clear-groups");
            command.arg(program);
            command
        }
    };
    command.args(["--exact", test, "--nocapture"]).env(SECOND_PROCESS, data_dir).current_dir("/");
    command.output().expect("runs")
}

fn nobody() -> User {
    User::from_name("nobody").expect("the passwd file").expect("a user nobody")
}

#[tokio::test]
async fn data_survives_a_stop_and_a_new_start() {
    let root = sandbox();
    let data_dir = root.path().join("state/fleet");
    let server = start(&data_dir).await;
    let client = connect(server.url()).await.expect("connects");
    client.batch_execute("CREATE TABLE kept (word text); INSERT INTO kept VALUES ('Bücher')").await.expect("insert");
    let settings = "SELECT concat_ws('|', current_setting('server_encoding'), current_setting('listen_addresses'), \
                    current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'))";
    assert_eq!(value(&client, settings).await, "UTF8||on|on|on");
    let socket = fs::metadata(socket_dir(server.url())).expect("the socket's folder");
    assert_eq!(socket.mode() & 0o777, 0o700, "nobody else may reach the socket");
    assert_eq!(fs::metadata(data_dir.join("postgres")).expect("cluster").mode() & 0o777, 0o700);
    let pid = postmaster(&data_dir);
    server.stop().await;
    assert!(!lives(pid), "stop returns when the server is gone");
    assert!(client.simple_query("SELECT 1").await.is_err());

    let server = start(&data_dir).await;
    let client = connect(server.url()).await.expect("connects again");
    assert_eq!(value(&client, "SELECT word FROM kept").await, "Bücher");
    server.stop().await;
}

#[tokio::test]
async fn the_server_is_never_root_and_keeps_none_of_its_groups() {
    let root = sandbox();
    let server = start(root.path()).await;
    let pid = postmaster(root.path());
    let ids = status_of(pid, "Uid").expect("Uid");
    let uids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().expect("a uid")).collect();
    let me = Uid::effective();
    if me.is_root() {
        let account = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).expect("the passwd file"));
        let account = account.expect("postgres or nobody");
        assert_eq!(uids, [account.uid.as_raw(); 4]);
        let gid = account.gid.to_string();
        assert_eq!(status_of(pid, "Gid").expect("Gid").split_whitespace().collect::<Vec<_>>(), [gid.as_str(); 4]);
        assert_eq!(status_of(pid, "Groups").expect("Groups"), "", "supplementary groups are dropped as well");
        assert_eq!(fs::metadata(root.path().join("postgres")).expect("cluster").uid(), account.uid.as_raw());
    } else {
        assert_eq!(uids, [me.as_raw(); 4]);
    }
    let group = nix::unistd::getpgid(Some(pid)).expect("its group");
    assert_eq!(group, pid, "Ctrl-C in our terminal must not reach it");
    server.stop().await;
}

#[tokio::test]
async fn psql_and_pg_dump_read_the_url() {
    let root = sandbox();
    let server = start(&root.path().join("a folder & more")).await;
    let client = connect(server.url()).await.expect("connects");
    client.batch_execute("CREATE TABLE dumped (n int)").await.expect("table");
    let psql = Command::new("psql").args(["-XAtc", "SELECT current_user", server.url()]).output().expect("psql");
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "fleet", "{psql:?}");
    let dump = Command::new("pg_dump").args(["--schema-only", server.url()]).output().expect("pg_dump");
    assert!(String::from_utf8_lossy(&dump.stdout).contains("CREATE TABLE public.dumped"), "{dump:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_killed_server_comes_back_with_what_was_committed() {
    let root = sandbox();
    let server = start(root.path()).await;
    let client = connect(server.url()).await.expect("connects");
    client.batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").await.expect("insert");
    // Twice: the one that came back must be watched as well.
    for _ in 0..2 {
        let killed = postmaster(root.path());
        kill(killed, Signal::SIGKILL).expect("kill");
        let client = successor_of(killed, server.url()).await;
        assert_eq!(value(&client, "SELECT n::text FROM kept").await, "7");
        assert_ne!(postmaster(root.path()), killed);
    }
    let last = postmaster(root.path());
    server.stop().await;
    assert!(!lives(last), "stop ends the one that came back");
}

#[tokio::test]
async fn a_server_left_by_a_killed_coordinator_is_adopted() {
    const ME: &str = "a_server_left_by_a_killed_coordinator_is_adopted";
    if let Some(data_dir) = env::var_os(SECOND_PROCESS) {
        let _server = start(Path::new(&data_dir)).await;
        kill(Pid::this(), Signal::SIGKILL).expect("kill");
    }
    let root = sandbox();
    let output = run_self(ME, root.path(), None);
    assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stdout));
    let left = postmaster(root.path());
    assert!(lives(left), "the server outlives its coordinator");

    let server = start(root.path()).await;
    assert_eq!(postmaster(root.path()), left, "it is adopted, not replaced");
    connect(server.url()).await.expect("connects");
    kill(left, Signal::SIGKILL).expect("kill");
    successor_of(left, server.url()).await;
    let second = postmaster(root.path());
    server.stop().await;
    assert!(!lives(second));

    run_self(ME, root.path(), None);
    let left = postmaster(root.path());
    assert!(lives(left));
    start(root.path()).await.stop().await;
    assert!(!lives(left), "stop ends an adopted server too");
}

#[tokio::test]
async fn an_unprivileged_user_runs_the_server_itself() {
    if Uid::effective().is_root() {
        let nobody = nobody();
        let root = sandbox();
        let data_dir = root.path().join("data");
        fs::create_dir(&data_dir).expect("mkdir");
        chown(&data_dir, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).expect("chown");
        let output = run_self("an_unprivileged_user_runs_the_server_itself", &data_dir, Some(&nobody));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let cluster = fs::metadata(data_dir.join("postgres")).expect("nobody's cluster");
        assert_eq!(cluster.uid(), nobody.uid.as_raw());

        // Root runs it as its owner.
        let server = start(&data_dir).await;
        let uid = status_of(postmaster(&data_dir), "Uid").expect("Uid");
        assert_eq!(uid.split_whitespace().next(), Some(nobody.uid.to_string().as_str()));
        server.stop().await;
        return;
    }
    let own = sandbox();
    let data_dir = env::var_os(SECOND_PROCESS).map_or_else(|| own.path().to_owned(), PathBuf::from);
    let server = start(&data_dir).await;
    connect(server.url()).await.expect("connects");
    server.stop().await;
}

#[tokio::test]
async fn another_users_cluster_is_refused_by_name() {
    if let Some(data_dir) = env::var_os(SECOND_PROCESS) {
        let error = start_error(Path::new(&data_dir)).await;
        assert!(error.contains("belongs to uid") && error.contains("FLEET_DATA_DIR"), "{error}");
        return;
    }
    if !Uid::effective().is_root() {
        // It takes root to have a cluster of somebody else's.
        return;
    }
    let root = sandbox();
    fs::create_dir(root.path().join("postgres")).expect("mkdir");
    let output = run_self("another_users_cluster_is_refused_by_name", root.path(), Some(&nobody()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn a_cluster_of_another_version_names_both_versions() {
    let root = sandbox();
    start(root.path()).await.stop().await;
    let version = root.path().join("postgres/PG_VERSION");
    let installed = fs::read_to_string(&version).expect("PG_VERSION");
    fs::write(&version, "9\n").expect("write");
    let error = start_error(root.path()).await;
    assert!(error.contains("made by PostgreSQL 9"), "{error}");
    assert!(error.contains(installed.trim()), "{error} does not name {installed}");
}

#[tokio::test]
async fn a_long_data_folder_gets_a_short_socket_folder() {
    let root = sandbox();
    let data_dir = root.path().join("a-rather-long-name-of-a-folder".repeat(4));
    let server = start(&data_dir).await;
    let sockets = socket_dir(server.url());
    assert!(!sockets.starts_with(&data_dir), "{sockets:?}");
    let metadata = fs::symlink_metadata(&sockets).expect("the socket's folder");
    assert_eq!((metadata.mode() & 0o777, metadata.is_dir()), (0o700, true));
    connect(server.url()).await.expect("connects");
    server.stop().await;
    assert!(!sockets.exists(), "a folder outside of the data folder goes with the server");
}

#[tokio::test]
async fn an_interrupted_first_start_begins_anew() {
    let root = sandbox();
    let unfinished = root.path().join("postgres.new");
    fs::create_dir_all(unfinished.join("base")).expect("mkdir");
    fs::write(unfinished.join("PG_VERSION"), "15\n").expect("half a cluster");
    let server = start(root.path()).await;
    connect(server.url()).await.expect("connects");
    server.stop().await;
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn stale_lock_files_are_no_problem() {
    let root = sandbox();
    let server = start(root.path()).await;
    let sockets = socket_dir(server.url());
    let paths = [root.path().join("postgres/postmaster.pid"), sockets.join(".s.PGSQL.5432.lock")];
    let texts = paths.each_ref().map(|path| fs::read_to_string(path).expect("a lock file"));
    server.stop().await;
    // As after a reboot: both name a pid that is now another process, of the server's own account.
    let owner = fs::metadata(root.path().join("postgres")).expect("cluster");
    let mut other = Command::new("sleep");
    if Uid::effective().is_root() {
        other.uid(owner.uid());
    }
    let mut other = other.arg("600").spawn().expect("sleep");
    fs::create_dir_all(&sockets).expect("the socket's folder");
    for (path, text) in paths.iter().zip(&texts) {
        let rest = text.split_once('\n').expect("lines").1;
        fs::write(path, format!("{}\n{rest}", other.id())).expect("write");
        chown(path, Some(owner.uid()), Some(owner.gid())).expect("chown");
    }
    let outcome = EmbeddedPostgres::start(root.path()).await;
    let other_lives = other.try_wait().expect("sleep's status").is_none();
    other.kill().and_then(|()| other.wait()).expect("sleep ends");
    let server = outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(other_lives, "a process that only has the number is left alone");
    connect(server.url()).await.expect("connects");
    server.stop().await;
}

#[tokio::test]
async fn a_socket_of_another_server_is_refused_by_name() {
    let (first, second) = (sandbox(), sandbox());
    let server = start(first.path()).await;
    let taken = second.path().join("postgres-socket");
    fs::create_dir(&taken).expect("mkdir");
    fs::copy(socket_dir(server.url()).join(".s.PGSQL.5432.lock"), taken.join(".s.PGSQL.5432.lock")).expect("copy");
    let error = start_error(second.path()).await;
    assert!(error.contains(&postmaster(first.path()).to_string()), "{error}");
    assert!(error.contains(&*first.path().join("postgres").to_string_lossy()), "{error}");
    connect(server.url()).await.expect("the first is not disturbed");
    server.stop().await;
}

#[tokio::test]
async fn a_second_coordinator_is_refused_and_the_first_goes_on() {
    let root = sandbox();
    let server = start(root.path()).await;
    assert!(matches!(EmbeddedPostgres::start(root.path()).await, Err(EmbeddedError::InUse { .. })));
    connect(server.url()).await.expect("the first goes on");
    server.stop().await;
}

#[tokio::test]
async fn a_closed_parent_folder_is_named() {
    let root = sandbox();
    let closed = root.path().join("closed");
    fs::create_dir(&closed).expect("mkdir");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("chmod");
    let outcome = EmbeddedPostgres::start(&closed.join("data")).await;
    if Uid::effective().is_root() {
        let error = outcome.err().expect("the server's account can't get there").to_string();
        assert!(error.contains(&*closed.to_string_lossy()) && error.contains("FLEET_DATA_DIR"), "{error}");
        assert_eq!(fs::metadata(&closed).expect("closed").mode() & 0o777, 0o700, "it is not ours to open");
    } else {
        outcome.unwrap_or_else(|error| panic!("its own folder: {error}")).stop().await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_its_own_words() {
    let root = sandbox();
    start(root.path()).await.stop().await;
    let conf = root.path().join("postgres/postgresql.conf");
    let good = fs::read_to_string(&conf).expect("conf");
    fs::write(&conf, format!("{good}\nmax_connections = plenty\n")).expect("write");
    let error = start_error(root.path()).await;
    assert!(error.contains("max_connections"), "{error}");
}

#[tokio::test]
async fn a_dropped_server_ends_by_itself() {
    let root = sandbox();
    let server = start(root.path()).await;
    let pid = postmaster(root.path());
    drop(server);
    wait_for("the server to end", async || if lives(pid) { Err(format!("{pid} lives")) } else { Ok(()) }).await;
}

#[tokio::test]
async fn a_server_on_its_way_out_is_waited_for() {
    let root = sandbox();
    let data_dir = root.path().to_owned();
    // A runtime that ends without a stop: the server is told to end, and nobody waits for it.
    let abandoned = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(start(&data_dir));
        let pid = postmaster(&data_dir);
        drop(runtime);
        drop(server);
        pid
    });
    let old = abandoned.join().expect("the first one started");
    let server = start(root.path()).await;
    assert_ne!(postmaster(root.path()), old);
    connect(server.url()).await.expect("connects");
    server.stop().await;
}
