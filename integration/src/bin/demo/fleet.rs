//! What the demo runs: one coordinator with a PostgreSQL of its own, two repositories, three agents.

use crate::files;
use crate::screen::Screen;
use crate::stop;
use fleet_integration::{
    Account, Agent, AgentSettings, Api, Context, Coordinator, CoordinatorSettings, Failure, Restic, leak_free_dir,
    program, restics,
};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// A repository of the demo.
#[derive(Debug)]
pub(crate) struct Repository {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its id.
    pub(crate) id: String,
    /// restic, to look into it without the fleet.
    pub(crate) restic: Restic,
}

/// A source group of a host.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its name, which its snapshots are tagged with.
    pub(crate) name: &'static str,
    /// What it backs up.
    pub(crate) folder: PathBuf,
    /// What it leaves out.
    pub(crate) exclude: Option<PathBuf>,
    /// How many files or folders in it the agent can't read: with any, its backup is partial.
    pub(crate) unreadable: u64,
}

/// A host of the demo, with its agent.
#[derive(Debug)]
pub(crate) struct Host {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its id.
    pub(crate) id: String,
    /// Which of the repositories it backs up into.
    pub(crate) repository: usize,
    /// What it backs up.
    pub(crate) groups: Vec<Group>,
    agent: Agent,
}

/// Everything. Fields go in this order: agents first, the folder last.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// The hosts.
    pub(crate) hosts: Vec<Host>,
    /// The coordinator.
    pub(crate) coordinator: Coordinator,
    /// The repositories.
    pub(crate) repositories: Vec<Repository>,
    /// A client of the coordinator.
    pub(crate) api: Api,
    dir: TempDir,
}

/// A host's name, which repository it uses, and its source groups.
type PlannedHost = (&'static str, usize, Vec<Group>);

/// What is known before anything runs.
struct Plan {
    dir: PathBuf,
    account: Option<Account>,
    restic: PathBuf,
    agent_program: PathBuf,
    checkout: PathBuf,
}

impl Fleet {
    /// Starts everything, up to hosts that are online and know what to back up.
    pub(crate) fn start(checkout: &Path, screen: &Screen) -> Result<Self, Failure> {
        screen.heading("restic-fleet, on this machine");
        let dir = leak_free_dir("fleet-demo.")?;
        let plan = Plan::make(dir.path(), checkout)?;
        let coordinator = start_coordinator(&plan, screen)?;
        let api = coordinator.api();
        let repositories =
            vec![repository(&plan, &api, "shared", "team/shared")?, repository(&plan, &api, "own", "own")?];
        screen.done("repositories", "shared: alder and birch; own: cedar");
        let mut fleet = Self { hosts: Vec::new(), coordinator, repositories, api, dir };
        fleet.add_hosts(&plan, screen)?;
        Ok(fleet)
    }

    fn add_hosts(&mut self, plan: &Plan, screen: &Screen) -> Result<(), Failure> {
        let began = Instant::now();
        for (name, repository, groups) in plan.hosts()? {
            stop::check()?;
            let host = self.add_host(plan, name, repository, groups)?;
            self.hosts.push(host);
        }
        let version = self.api.get(&format!("/v1/hosts/{}", self.hosts[0].id))?["restic_version"].clone();
        let account = plan.account.as_ref().map_or_else(Account::own_name, |account| account.name.clone());
        let version = version.as_str().unwrap_or("?");
        let about =
            format!("enrolled and online as {account}, with restic {version} ({:.1} s)", began.elapsed().as_secs_f64());
        screen.done("three agents", &about);
        Ok(())
    }

    fn add_host(
        &self,
        plan: &Plan,
        name: &'static str,
        repository: usize,
        groups: Vec<Group>,
    ) -> Result<Host, Failure> {
        let mut settings = AgentSettings::new(plan.dir.join(format!("agent-{name}")), name, &plan.restic);
        settings.account = plan.account.clone();
        settings.program = Some(plan.agent_program.clone());
        let token = self.api.enrollment_token(Some(&self.repositories[repository].id))?;
        settings.enroll(&self.coordinator.url(), &token).context(format!("enrolling {name}"))?;
        let mut agent = Agent::start(settings)?;
        let host = agent.online(&self.api)?;
        let id = host["id"].as_str().unwrap_or_default().to_owned();
        for group in &groups {
            self.api.create_source_group(&id, &source_group(group))?;
        }
        Ok(Host { name, id, repository, groups, agent })
    }

    /// A path in the demo's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An error if a part of the fleet has ended.
    pub(crate) fn must_run(&mut self) -> Result<(), Failure> {
        self.coordinator.process().must_run()?;
        self.hosts.iter_mut().try_for_each(|host| host.agent.process().must_run())
    }

    /// The last lines of everyone's log, for a demo that failed.
    pub(crate) fn last_words(&mut self) -> String {
        let mut text = format!("\ncoordinator, last lines:\n{}", self.coordinator.process().tail(15));
        for host in &mut self.hosts {
            text.push_str(&format!("\n{}, last lines:\n{}", host.name, host.agent.process().tail(10)));
        }
        text
    }

    /// Stops all in good order; an error if something had to be killed, failed at its end or was left behind.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        for host in &mut self.hosts {
            host.agent.process().signal(nix::sys::signal::Signal::SIGTERM);
        }
        for host in &mut self.hosts {
            let status = host.agent.process().stop()?;
            if !status.success() {
                return Err(Failure::new(format!("the agent of {} ended with {status}", host.name)));
            }
        }
        let status = self.coordinator.process().stop()?;
        if !status.success() {
            return Err(Failure::new(format!("the coordinator ended with {status}")));
        }
        let path = self.dir.path().to_owned();
        self.dir.close().context(format!("removing {}", path.display()))
    }
}

impl Plan {
    fn make(dir: &Path, checkout: &Path) -> Result<Self, Failure> {
        let account = Account::instead_of_root(&["nobody"])?;
        let checkout = fs::canonicalize(checkout).context(checkout.display())?;
        let restic = restics()?.remove(0);
        let mut plan = Self { dir: dir.to_owned(), account, restic, agent_program: program("fleet-agent")?, checkout };
        plan.move_within_reach()?;
        Ok(plan)
    }

    /// An account that root drops to may not get to a checkout in /root: then it works on copies.
    fn move_within_reach(&mut self) -> Result<(), Failure> {
        let Some(account) = &self.account else { return Ok(()) };
        if !account.reaches(&self.agent_program) {
            let copy = self.dir.join("fleet-agent");
            fs::copy(&self.agent_program, &copy)?;
            self.agent_program = copy;
        }
        if !account.reaches(&self.checkout) {
            let copy = self.dir.join("checkout");
            fs::create_dir(&copy)?;
            copy_without_target(&self.checkout, &copy)?;
            self.checkout = copy;
        }
        Ok(())
    }

    fn hosts(&self) -> Result<Vec<PlannedHost>, Failure> {
        let (odd, sparse) = (self.dir.join("odd names"), self.dir.join("disk image"));
        files::make_odd(&odd)?;
        files::make_sparse(&sparse)?;
        let target = Some(self.checkout.join("target"));
        Ok(vec![
            ("alder", 0, vec![self.group("checkout", self.checkout.clone(), target)]),
            ("birch", 0, vec![self.group("docs", PathBuf::from("/usr/share/doc"), None)]),
            ("cedar", 1, vec![self.group("odd-names", odd, None), self.group("sparse", sparse, None)]),
        ])
    }

    fn group(&self, name: &'static str, folder: PathBuf, exclude: Option<PathBuf>) -> Group {
        let skip = exclude.clone().unwrap_or_default();
        let unreadable = files::unreadable(&folder, &skip, self.account.as_ref());
        Group { name, folder, exclude, unreadable }
    }
}

fn source_group(group: &Group) -> Value {
    let excludes: Vec<_> = group.exclude.iter().map(|path| path.display().to_string()).collect();
    json!({
        "name": group.name, "includes": [group.folder.display().to_string()], "excludes": excludes,
        "retention": {"keep_last": 1},
    })
}

fn start_coordinator(plan: &Plan, screen: &Screen) -> Result<Coordinator, Failure> {
    let began = Instant::now();
    let coordinator = Coordinator::start(&plan.dir.join("coordinator"), &CoordinatorSettings::default())?;
    let about = format!("{}, with a PostgreSQL of its own ({:.1} s)", coordinator.url(), began.elapsed().as_secs_f64());
    screen.done("coordinator", &about);
    Ok(coordinator)
}

fn repository(plan: &Plan, api: &Api, name: &'static str, path: &str) -> Result<Repository, Failure> {
    let folder = plan.dir.join("repositories");
    fs::create_dir_all(&folder)?;
    if let Some(account) = &plan.account {
        account.own(&folder)?;
    }
    let repository = folder.join(path).display().to_string();
    let password = uuid::Uuid::new_v4().to_string();
    let id = api.create_repository(name, &repository, &password)?;
    let restic = Restic { program: plan.restic.clone(), repository, password, account: plan.account.clone() };
    Ok(Repository { name, id, restic })
}

fn copy_without_target(from: &Path, to: &Path) -> Result<(), Failure> {
    let archive = to.with_extension("tar");
    let mut pack = Command::new("tar");
    pack.args(["--exclude=./target", "-C"]).arg(from).args(["-c", "."]);
    let status = pack.stdin(Stdio::null()).stdout(File::create(&archive)?).status().context("tar")?;
    let unpack = Command::new("tar").arg("-C").arg(to).args(["-x", "--no-same-owner", "-f"]).arg(&archive).status()?;
    fs::remove_file(&archive)?;
    if status.success() && unpack.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("copying {} failed", from.display())))
    }
}
