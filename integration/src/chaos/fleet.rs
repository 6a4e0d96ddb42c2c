//! The fleet that is broken: PostgreSQL, coordinator, agents and the links between them.

use super::proxy::Link;
use super::recorder::RUNS;
use super::schedule::{Blow, Fault, Part};
use super::unit::{Surprise, Unit};
use crate::{
    Agent, AgentSettings, Api, Context, Coordinator, CoordinatorSettings, Failure, Restic, eventually, is_over,
    leak_free_dir, program, restics, server,
};
use serde_json::json;
use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the fleet may take to be ready before the chaos begins.
const START_LIMIT: Duration = Duration::from_secs(90);

/// No job may take longer than this while the next one ends, once nothing is broken any more. An agent that was cut off
/// often waits up to 60 s before it tries again.
const STUCK_AFTER: Duration = Duration::from_secs(150);

/// How long a REST client waits for an answer.
const REST_LIMIT: Duration = Duration::from_secs(8);

/// How often it is looked whether all jobs are over.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The group whose snapshots are forgotten but for the last few.
pub(super) const SMALL: &str = "small";
/// The group whose backups take some seconds; its snapshots stay.
pub(super) const SLOW: &str = "slow";
/// How many snapshots of [`SMALL`] a forget keeps.
pub(super) const KEPT: usize = 3;

/// A host, seen from outside.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) id: String,
    pub(super) name: String,
    /// The file of [`SLOW`].
    pub(super) slow_file: PathBuf,
    /// What its restic has done.
    pub(super) record: PathBuf,
    pub(super) restic: Restic,
}

/// Everything that runs. Fields go in this order: PostgreSQL last.
#[derive(Debug)]
pub(super) struct Fleet {
    agents: Vec<Unit>,
    coordinator: Unit,
    postgres: Unit,
    links: Vec<Link>,
    pub(super) hosts: Vec<Host>,
    pub(super) api: Api,
    dir: TempDir,
}

impl Fleet {
    /// Starts it and waits until every repository is there.
    pub(super) fn start(agents: usize) -> Result<Self, Failure> {
        let dir = leak_free_dir("fleet-chaos.")?;
        let postgres = start_postgres(dir.path())?;
        let address = free_address()?;
        let token = format!("chaos-{}", uuid::Uuid::new_v4().simple());
        let api = Api::with_limit(&format!("http://{address}"), &token, REST_LIMIT);
        let coordinator = start_coordinator(dir.path(), address, &token)?;
        let mut fleet =
            Self { agents: Vec::new(), coordinator, postgres, links: Vec::new(), hosts: Vec::new(), api, dir };
        eventually("the coordinator to be ready", START_LIMIT, || {
            fleet.look_after();
            fleet.api.get("/readyz")
        })?;
        let repositories =
            (0..agents.div_ceil(2)).map(|index| fleet.repository(index)).collect::<Result<Vec<_>, _>>()?;
        for index in 0..agents {
            let (id, restic) = &repositories[index % repositories.len()];
            fleet.add_agent(index, address, id, restic.clone())?;
        }
        fleet.initialised()?;
        // What happened while it started was no chaos.
        let _ = fleet.surprises();
        Ok(fleet)
    }

    fn repository(&self, index: usize) -> Result<(String, Restic), Failure> {
        let repository = self.path(&format!("repository-{index}")).display().to_string();
        let program = restics()?.into_iter().next().ok_or_else(|| Failure::new("no restic"))?;
        let restic = Restic { program, repository, password: format!("the secret of number {index}"), account: None };
        let id = self.api.create_repository(&format!("chaos-{index}"), &restic.repository, &restic.password)?;
        Ok((id, restic))
    }

    fn add_agent(
        &mut self,
        index: usize,
        coordinator: SocketAddr,
        repository: &str,
        restic: Restic,
    ) -> Result<(), Failure> {
        let name = format!("chaos-{index}");
        let record = self.path(&format!("record-{index}"));
        fs::create_dir(&record)?;
        fs::write(record.join(RUNS), "")?;
        let script = self.path(&format!("restic-{index}"));
        write_script(&script, &restic.program, &record)?;
        let link = Link::start(coordinator)?;
        let settings = AgentSettings::new(self.path(&format!("agent-{index}")), &name, &script);
        settings.enroll(&link.url(), &self.api.enrollment_token(Some(repository))?)?;
        let start = move || Ok(Agent::start(settings.clone())?.into_process());
        self.agents.push(Unit::start(&format!("agent {index}"), false, Box::new(start))?);
        self.links.push(link);
        let hosts = self.api.list("/v1/hosts")?;
        let host = hosts.iter().find(|host| host["hostname"] == name.as_str());
        let id = crate::api::text_of(host.unwrap_or(&json!({})), "id")?;
        let slow_file = self.sources(index, &id)?;
        self.hosts.push(Host { id, name, slow_file, record, restic });
        Ok(())
    }

    /// Makes the files of a host and its source groups; gives the file of the slow one.
    fn sources(&self, index: usize, host: &str) -> Result<PathBuf, Failure> {
        let (small, slow) = (self.path(&format!("source-{index}/small")), self.path(&format!("source-{index}/slow")));
        for folder in [&small, &slow] {
            fs::create_dir_all(folder)?;
        }
        for number in 0..20 {
            fs::write(small.join(format!("file-{number}")), format!("{index} {number}\n").repeat(100))?;
        }
        fs::write(slow.join("file"), "nothing yet")?;
        let retention = json!({"keep_last": KEPT});
        self.api.create_source_group(host, &json!({"name": SMALL, "includes": [small], "retention": retention}))?;
        self.api.create_source_group(host, &json!({"name": SLOW, "includes": [slow]}))?;
        Ok(slow.join("file"))
    }

    fn initialised(&mut self) -> Result<(), Failure> {
        eventually("every repository to be initialised", START_LIMIT, || {
            self.look_after();
            let hosts = self.api.list("/v1/hosts")?;
            let ready = hosts.iter().all(|host| host["repository_initialized"] == true);
            if ready { Ok(()) } else { Err(Failure::new(json!(hosts).to_string())) }
        })
    }

    /// A path in its folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Does what the schedule says.
    pub(super) fn apply(&mut self, fault: Fault) {
        match fault.part {
            Part::Coordinator => self.coordinator.apply(fault.blow),
            Part::Postgres => self.postgres.apply(fault.blow),
            Part::Agent(index) => self.agents[index].apply(fault.blow),
            Part::Link(index) => strike_link(&self.links[index], fault.blow),
        }
    }

    /// Ends every fault.
    pub(super) fn mend(&mut self) {
        self.links.iter().for_each(|link| strike_link(link, Blow::Mend));
        self.units().for_each(|unit| unit.apply(Blow::Mend));
    }

    /// Starts again what is down and shall not be.
    pub(super) fn look_after(&mut self) {
        self.units().for_each(Unit::look_after);
    }

    fn units(&mut self) -> impl Iterator<Item = &mut Unit> {
        [&mut self.postgres, &mut self.coordinator].into_iter().chain(&mut self.agents)
    }

    /// Waits until all jobs are over; false if for too long none ends.
    pub(super) fn settle(&mut self, tell: &mut dyn FnMut(&str)) -> bool {
        let (mut fewest, mut since, mut told) = (usize::MAX, Instant::now(), Instant::now());
        loop {
            let looked = Instant::now();
            let jobs = self.api.list("/v1/jobs");
            let left = jobs.map_or(usize::MAX - 1, |jobs| jobs.iter().filter(|job| !is_over(job)).count());
            if left == 0 && self.units().all(Unit::is_up) {
                return true;
            }
            if left < fewest {
                (fewest, since) = (left, Instant::now());
            } else if since.elapsed() > STUCK_AFTER {
                return false;
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                tell(&format!("settling: {left} jobs to go"));
            }
            while looked.elapsed() < LOOK_EVERY {
                self.look_after();
                thread::sleep(LOOK_EVERY / 10);
            }
        }
    }

    /// What ended or did not start without being told to.
    pub(super) fn surprises(&mut self) -> Vec<(Surprise, usize)> {
        self.units().flat_map(Unit::surprises).collect()
    }

    /// Leaves the folder with all logs behind.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }
}

fn strike_link(link: &Link, blow: Blow) {
    match blow {
        Blow::Cut => link.cut(),
        Blow::Refuse => link.refuse(true),
        Blow::Pause => link.pause(true),
        Blow::Mend => {
            link.refuse(false);
            link.pause(false);
        }
        Blow::Kill | Blow::Term => {}
    }
}

fn start_postgres(dir: &Path) -> Result<Unit, Failure> {
    let dir = dir.join("pg");
    fs::create_dir(&dir)?;
    let account = server::make(&dir)?;
    Unit::start("postgres", true, Box::new(move || server::serve(account.as_ref(), &dir, &[])))
}

fn start_coordinator(dir: &Path, address: SocketAddr, token: &str) -> Result<Unit, Failure> {
    let settings = CoordinatorSettings {
        database_url: Some(server::url(&dir.join("pg"))),
        listen: Some(address.to_string()),
        variables: vec![("FLEET_ADMIN_TOKEN".to_owned(), token.to_owned())],
    };
    let data = dir.join("coordinator");
    let start = move || Ok(Coordinator::launch(&data, &settings)?.into_process());
    Unit::start("coordinator", false, Box::new(start))
}

/// A port that no outgoing connection takes while the coordinator is down: below those that the system gives out.
fn free_address() -> Result<SocketAddr, Failure> {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    let mut addresses = (first..32_768).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).ok_or_else(|| Failure::new("no free port below 32768"))
}

/// The `FLEET_RESTIC` of an agent: the recorder around the real one.
fn write_script(script: &Path, restic: &Path, record: &Path) -> Result<(), Failure> {
    let (recorder, restic, record) = (program("chaos")?, restic.display(), record.display());
    let text = format!(
        "#!/bin/sh\n# What it runs for a job is recorded.\n[ -n \"$FLEET_JOB_ID\" ] || exec '{restic}' \"$@\"\n\
         exec '{}' record --restic '{restic}' --into '{record}' -- \"$@\"\n",
        recorder.display()
    );
    fs::write(script, text).context(script.display())?;
    Ok(fs::set_permissions(script, Permissions::from_mode(0o755))?)
}
