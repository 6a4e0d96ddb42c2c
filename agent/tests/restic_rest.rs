//! Repositories on Debian's real REST server, append-only for everyday use.
//!
//! `FLEET_TEST_REST_SERVER` is the path of `restic-rest-server`; `htpasswd` comes with `apache2-utils`.

mod restic_support;

use fleet_agent::restic::probe::ProbeLimits;
use fleet_wire::{ForgetGroup, Kind, RetentionPolicy, Secret, Status};
use restic_support::{Background, Sandbox, eventually, is_at_least, restics};
use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A password that breaks a URL unless it is encoded.
const CREDENTIAL: &str = "p@ss/w#rd%41";

struct Server {
    _process: Background,
    port: u16,
}

/// Starts a server on the sandbox's folder `served`.
async fn serve(sandbox: &Sandbox, append_only: bool) -> Server {
    let program = std::env::var_os("FLEET_TEST_REST_SERVER").expect(
        "FLEET_TEST_REST_SERVER is not set: ./dev test installs the server and sets it; by hand, unpack Debian's \
         package restic-rest-server and set it to the path of restic-rest-server",
    );
    let users = sandbox.path("users");
    if !users.exists() {
        let made = Command::new("htpasswd").args(["-B", "-b", "-c"]).arg(&users).args(["h1", CREDENTIAL]).output();
        let made = made.expect("htpasswd runs: install apache2-utils");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    // The port is free now; should another process take it first, the server ends and another one is tried.
    for _ in 0..10 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(&program);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--path"]).arg(sandbox.path("served"));
        command.arg("--htpasswd-file").arg(&users).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if append_only {
            command.arg("--append-only");
        }
        let mut process = Background(command.spawn().expect("the REST server runs"));
        let mut ended = false;
        eventually("the REST server listens", || {
            ended = process.0.try_wait().expect("its state").is_some();
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        if !ended {
            return Server { _process: process, port };
        }
    }
    panic!("no REST server could be started");
}

fn use_server(sandbox: &mut Sandbox, port: u16, credential: &str) {
    sandbox.credentials.url = Some(format!("rest:http://127.0.0.1:{port}/repo/"));
    sandbox.credentials.username = Some("h1".into());
    sandbox.credentials.credential = Some(Secret::new(credential));
}

#[tokio::test]
async fn an_append_only_server_keeps_what_restic_says_is_gone() {
    for restic in restics() {
        let mut sandbox = Sandbox::new(&restic);
        let (everyday, admin) = (serve(&sandbox, true).await, serve(&sandbox, false).await);
        let calls = sandbox.text_path("calls");
        sandbox.wrap(&format!("echo \"$@\" >> '{calls}'; exec \"$RESTIC\" \"$@\""));
        sandbox.limits.query = Duration::from_secs(30);
        use_server(&mut sandbox, everyday.port, CREDENTIAL);
        sandbox.place_repository("served/repo");
        for content in ["one", "two"] {
            sandbox.write("source/file", content);
            let ran = sandbox.run_kind(Kind::Backup).await;
            assert!(!ran.assert(Status::Succeeded, 0).text().contains(CREDENTIAL));
        }
        let policy = RetentionPolicy { keep_last: Some(1), ..RetentionPolicy::default() };
        let mut forget = sandbox.job(Kind::Forget);
        forget.forget_groups = vec![ForgetGroup { tag: "docs".into(), policy, host: None }];
        // restic 0.14 says the truth here, after 42 s of tries that add nothing to this test.
        if is_at_least(&restic, 17) {
            let ran = sandbox.run(forget.clone()).await;
            assert_eq!(ran.outcome.status, Status::Failed, "{}", ran.text());
            assert!(ran.error().contains("still there after the forget"), "{}", ran.error());
            assert!(ran.error().contains("admin credential"), "{}", ran.error());
            assert_eq!(ran.snapshots[0].snapshots.len(), 2);
        }
        use_server(&mut sandbox, admin.port, CREDENTIAL);
        let ran = sandbox.run(forget).await;
        ran.assert(Status::Succeeded, 0);
        assert_eq!(ran.snapshots[0].snapshots.len(), 1);
        let calls = fs::read_to_string(calls).unwrap();
        assert!(!calls.contains("p@ss") && !calls.contains("p%40ss"), "a secret on a command line: {calls}");
    }
}

/// The names of the files in a folder of the served repository.
fn served(sandbox: &Sandbox, folder: &str) -> BTreeSet<PathBuf> {
    let folder = sandbox.path("served/repo").join(folder);
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_prune_whose_removals_are_refused_is_no_success() {
    // The last one: 0.14 tells the same after 54 s of tries.
    let restic = restics().pop().unwrap();
    let mut sandbox = Sandbox::new(&restic);
    let everyday = serve(&sandbox, true).await;
    use_server(&mut sandbox, everyday.port, CREDENTIAL);
    sandbox.place_repository("served/repo");
    sandbox.write("source/file", "kept");
    sandbox.run_kind(Kind::Backup).await.assert(Status::Succeeded, 0);
    // A backup that was broken off leaves packs that no index names.
    let (snapshots, indexes) = (served(&sandbox, "snapshots"), served(&sandbox, "index"));
    sandbox.write_random("source/more", 1);
    sandbox.run_kind(Kind::Backup).await.assert(Status::Succeeded, 0);
    let made =
        |folder, before: BTreeSet<PathBuf>| served(&sandbox, folder).difference(&before).cloned().collect::<Vec<_>>();
    for path in made("snapshots", snapshots).into_iter().chain(made("index", indexes)) {
        fs::remove_file(path).unwrap();
    }
    let mut prune = sandbox.job(Kind::Prune);
    prune.requires_admin_creds = true;
    let ran = sandbox.run(prune).await;
    assert_eq!(ran.outcome.status, Status::Failed, "{}", ran.text());
    assert!(ran.error().contains("could not be removed"), "{}\n{}", ran.error(), ran.text());
    assert!(ran.stats.iter().all(|stats| stats.last_prune_freed_bytes.is_none()), "{:?}", ran.stats);
}

#[tokio::test]
async fn a_wrong_credential_of_the_server_is_said_clearly() {
    for restic in restics() {
        let mut sandbox = Sandbox::new(&restic);
        let server = serve(&sandbox, true).await;
        use_server(&mut sandbox, server.port, "not the right one");
        let ran = sandbox.run_kind(Kind::Init).await;
        assert_eq!(ran.outcome.status, Status::Failed);
        assert!(ran.error().starts_with("the repository's server refuses the user: "), "{}", ran.error());
        assert!(ran.error().contains("check the user name and its password"), "{}", ran.error());
        assert!(!ran.text().contains("not%20the") && !ran.error().contains("not the right"), "{}", ran.text());

        use_server(&mut sandbox, server.port, CREDENTIAL);
        sandbox.write("source/file", "x");
        let absent = sandbox.run_kind(Kind::Backup).await;
        let error = absent.error();
        assert!(error.starts_with("there is no repository at rest:http://127.0.0.1:"), "{error}");
        sandbox.run_kind(Kind::Init).await.assert(Status::Succeeded, 0);
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_known_at_once() {
    // restic 0.18 alone would try for 15 minutes.
    for restic in restics() {
        let mut sandbox = Sandbox::new(&restic);
        sandbox.limits.probe =
            ProbeLimits { tries: 2, timeout: Duration::from_secs(5), pause: Duration::from_millis(50) };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        use_server(&mut sandbox, port, CREDENTIAL);
        sandbox.write("source/file", "x");
        let started = Instant::now();
        let ran = sandbox.run_kind(Kind::Backup).await;
        ran.assert(Status::Failed, -1);
        assert!(ran.error().starts_with(&format!("repository unreachable: 127.0.0.1:{port}: ")), "{}", ran.error());
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }
}
