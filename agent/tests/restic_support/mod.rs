//! A repository, a host and its jobs, with real restic: every version that `FLEET_TEST_RESTICS` names.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use fleet_agent::credentials::Credentials;
use fleet_agent::outcome::Outcome;
use fleet_agent::process::Spool;
use fleet_agent::report::{Report, Reporter, Reports};
use fleet_agent::restic::probe::ProbeLimits;
use fleet_agent::runner::{self, JobContext, Limits};
use fleet_agent::stop::Stop;
use fleet_wire::{CommandRun, JobProgress, Kind, LogStream, RepoStats, Secret, SnapshotsReport};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

/// The repository's password; it must not turn up anywhere.
pub const PASSWORD: &str = "repo-pa55/w@rd";

/// The files of an empty repository that opens with [`PASSWORD`].
const REPOSITORY: [(&str, &[u8]); 2] = [
    ("config", include_bytes!("../data/repository/config")),
    (
        "keys/40d05240d648a7e1a2e6d5fcd90ec6e969c7aa16bebf366ec2fa997f3028fc0c",
        include_bytes!("../data/repository/keys/40d05240d648a7e1a2e6d5fcd90ec6e969c7aa16bebf366ec2fa997f3028fc0c"),
    ),
];

/// Every restic to test with: `FLEET_TEST_RESTICS`, or the one in `PATH`.
pub fn restics() -> Vec<PathBuf> {
    let listed = std::env::var_os("FLEET_TEST_RESTICS").unwrap_or_else(|| "restic".into());
    let all: Vec<_> = std::env::split_paths(&listed).collect();
    assert!(!all.is_empty(), "FLEET_TEST_RESTICS is empty");
    all
}

/// Whether this restic is at least `0.minor`.
pub fn is_at_least(restic: &Path, minor: u32) -> bool {
    let printed = Command::new(restic).arg("version").output().expect("restic runs");
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    let found: u32 = text.split(['.', ' ']).nth(2).expect("a version").parse().expect("a number");
    found >= minor
}

/// One host with one repository in a folder of its own.
pub struct Sandbox {
    folder: TempDir,
    /// The restic as it is.
    pub real: PathBuf,
    /// The restic that jobs run: a script around it, or itself.
    pub restic: PathBuf,
    /// The credentials of its jobs.
    pub credentials: Credentials,
    /// The program that runs hooks.
    pub hook_shell: Option<String>,
    /// The upload limit.
    pub upload_kib: Option<i64>,
    /// The time limits.
    pub limits: Limits,
}

/// What a job said and what came of it.
pub struct Ran {
    pub outcome: Outcome,
    pub log: Vec<(LogStream, String)>,
    pub progress: Vec<JobProgress>,
    pub snapshots: Vec<SnapshotsReport>,
    pub stats: Vec<RepoStats>,
}

impl Ran {
    /// The error, or nothing.
    pub fn error(&self) -> &str {
        self.outcome.error.as_deref().unwrap_or("")
    }

    /// Every line of the log.
    pub fn text(&self) -> String {
        self.log.iter().map(|(stream, line)| format!("{stream} {line}\n")).collect()
    }

    #[track_caller]
    pub fn assert(&self, status: fleet_wire::Status, exit_code: i64) -> &Self {
        let found = (self.outcome.status, self.outcome.exit_code);
        assert_eq!(found, (status, exit_code), "error: {:?}\nlog:\n{}", self.outcome.error, self.text());
        self
    }
}

/// A job that runs.
pub struct Running {
    job: tokio::task::JoinHandle<Outcome>,
    reports: Reports,
    stop: watch::Sender<Stop>,
    ran: Ran,
}

impl Running {
    /// Waits until a report is as it should be, at most 60 s.
    pub async fn until(&mut self, what: &str, is: impl Fn(&Report) -> bool) {
        let wait = async {
            loop {
                let Some(report) = self.reports.recv().await else {
                    panic!("the job ended before {what}; log:\n{}", self.ran.text());
                };
                let found = is(&report);
                note(&mut self.ran, report);
                if found {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "no {what} within 60 s");
    }

    pub fn stop(&self, stop: Stop) {
        self.stop.send(stop).expect("the job listens");
    }

    pub async fn end(mut self) -> Ran {
        while let Some(report) = self.reports.recv().await {
            note(&mut self.ran, report);
        }
        self.ran.outcome = self.job.await.expect("a job never panics");
        self.ran
    }
}

fn note(ran: &mut Ran, report: Report) {
    match report {
        Report::Log { stream, line, .. } => ran.log.push((stream, line)),
        Report::Progress(progress) => ran.progress.push(progress),
        Report::Snapshots(list) => ran.snapshots.push(list),
        Report::Stats(stats) => ran.stats.push(stats),
        Report::Settle(settled) => drop(settled),
    }
}

impl Sandbox {
    /// A host without a repository yet.
    pub fn new(restic: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Another user runs restic in some tests.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let url = folder.path().join("repo").to_string_lossy().into_owned();
        fs::create_dir(folder.path().join("source")).expect("a folder");
        Self {
            real: restic.to_owned(),
            restic: restic.to_owned(),
            credentials: Credentials {
                url: Some(url),
                password: Some(Secret::new(PASSWORD)),
                ..Credentials::default()
            },
            hook_shell: None,
            upload_kib: None,
            limits: Limits {
                // Locks are waited for where that is tested.
                lock_wait: Duration::ZERO,
                lock_pause: Duration::from_millis(100),
                probe: ProbeLimits { tries: 2, timeout: Duration::from_secs(5), pause: Duration::from_millis(10) },
                ..Limits::default()
            },
            folder,
        }
    }

    /// The same with a repository in it.
    pub fn with_repository(restic: &Path) -> Self {
        let sandbox = Self::new(restic);
        sandbox.place_repository("repo");
        sandbox
    }

    /// Puts an empty repository into a folder. restic made it; where the time for one more `init`, and for opening
    /// what that made, adds nothing to a test (see `tests/data/repository/README.md`).
    pub fn place_repository(&self, folder: &str) {
        for kept in ["data", "index", "keys", "locks", "snapshots"] {
            fs::create_dir_all(self.path(folder).join(kept)).expect("a folder");
        }
        for (name, content) in REPOSITORY {
            fs::write(self.path(folder).join(name), content).expect("a file");
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text_path(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Writes a file below the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(&path, content).expect("a file");
        path.to_string_lossy().into_owned()
    }

    /// Data that does not compress.
    pub fn write_random(&self, name: &str, megabytes: u64) -> String {
        let path = self.write(name, "");
        let mut noise = fs::File::open("/dev/urandom").expect("noise").take(megabytes * 1024 * 1024);
        io::copy(&mut noise, &mut fs::File::create(&path).expect("a file")).expect("room");
        path
    }

    /// Lets jobs run `script` instead of restic; in it, `"$RESTIC"` is the real one.
    ///
    /// A shell writes it: a script that this process had open for writing could not be run while another test forks.
    pub fn wrap(&mut self, script: &str) {
        let path = self.path("wrapped-restic");
        let text = format!("#!/bin/sh\nRESTIC='{}'\n{script}\n", self.real.display());
        let written = Command::new("/bin/sh")
            .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &text])
            .arg(&path)
            .status()
            .expect("a shell");
        assert!(written.success());
        self.restic = path;
    }

    /// Runs the real restic beside the jobs, with the sandbox's credentials.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.real);
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RESTIC_REPOSITORY", self.credentials.url.clone().unwrap_or_default())
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_CACHE_DIR", self.path("other-cache"))
            .stdin(Stdio::null());
        command
    }

    /// What it prints; it must end well.
    #[track_caller]
    pub fn restic_says(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(args).output().expect("restic runs");
        assert!(status.success(), "restic {args:?} ended with {status}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    /// The ids of the locks in the repository.
    pub fn locks(&self) -> String {
        self.restic_says(&["list", "locks"])
    }

    /// A job with the tag `docs` that would back up the folder `source`.
    pub fn job(&self, kind: Kind) -> CommandRun {
        let mut run = CommandRun::new("job-1".into(), kind);
        if kind == Kind::Backup {
            run.includes = vec![self.text_path("source")];
            run.tag = Some("docs".into());
        }
        run
    }

    /// Where the output of its jobs' children is recorded.
    pub fn spool(&self) -> Spool {
        Spool::new(Path::new(env!("CARGO_BIN_EXE_fleet-agent")), &self.path("data"), &"job-1".into())
    }

    pub fn start(&self, run: CommandRun) -> Running {
        let (reporter, reports) = Reporter::channel();
        let (stop, receiver) = watch::channel(Stop::No);
        let context = JobContext {
            run,
            credentials: self.credentials.clone(),
            upload_kib: self.upload_kib,
            download_kib: None,
            hook_shell: self.hook_shell.clone(),
            hostname: "h1".into(),
            restic: self.restic.clone(),
            data_dir: self.path("data"),
            spool: self.spool(),
            reporter,
            stop: receiver,
        };
        let ran = Ran {
            outcome: Outcome { status: fleet_wire::Status::Queued, exit_code: 0, stats: None, error: None },
            log: Vec::new(),
            progress: Vec::new(),
            snapshots: Vec::new(),
            stats: Vec::new(),
        };
        Running { job: tokio::spawn(runner::run(context, self.limits)), reports, stop, ran }
    }

    pub async fn run(&self, run: CommandRun) -> Ran {
        self.start(run).end().await
    }

    pub async fn run_kind(&self, kind: Kind) -> Ran {
        self.run(self.job(kind)).await
    }
}

/// A child of a test that ends with it.
pub struct Background(pub std::process::Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Polls until `is` holds, at most 60 s.
pub async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: not within 60 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
