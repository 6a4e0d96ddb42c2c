//! What benchmarks run on: the real coordinator with a PostgreSQL of its own, and hosts for it.

use crate::swarm::Host;
use crate::{Context, Coordinator, CoordinatorSettings, Database, Failure, Server, leak_free_dir};
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The one source group of every host.
pub(super) const GROUP: &str = "data";
/// PostgreSQL as in production: what is committed is on disk (its default). Only checkpoints are kept from falling into
/// one round and not into the other.
const POSTGRES: &[&str] = &["max_connections=200", "max_wal_size=16GB", "checkpoint_timeout=1h"];
/// The same where tables are to be filled: what fills a new table need not be in the WAL.
const POSTGRES_FOR_BULK: &[&str] = &[
    "max_connections=200",
    "max_wal_size=16GB",
    "checkpoint_timeout=1h",
    "wal_level=minimal",
    "max_wal_senders=0",
    "maintenance_work_mem=512MB",
];

/// A coordinator, its database, a database for the floors in the same server, and a runtime for the load. Fields go in
/// this order: the coordinator first.
pub(super) struct Rig {
    pub(super) coordinator: Coordinator,
    pub(super) database: Database,
    pub(super) floor: Database,
    pub(super) runtime: Runtime,
    settings: CoordinatorSettings,
    dir: TempDir,
    _server: Server,
}

impl Rig {
    /// Starts everything.
    ///
    /// # Errors
    /// Something does not start.
    pub(super) fn start() -> Result<Self, Failure> {
        Self::on(Server::start_with(POSTGRES)?)
    }

    /// The same, for tables that are filled first.
    ///
    /// # Errors
    /// Something does not start.
    pub(super) fn start_for_bulk() -> Result<Self, Failure> {
        Self::on(Server::start_with(POSTGRES_FOR_BULK)?)
    }

    fn on(server: Server) -> Result<Self, Failure> {
        let dir = leak_free_dir("fleet-bench.")?;
        let (database, floor) = (Database::on(&server)?, Database::on(&server)?);
        let listen = Some(format!("127.0.0.1:{}", super::echo::free_port()?));
        let settings = CoordinatorSettings { database_url: Some(database.url()), listen, ..Default::default() };
        let coordinator = Coordinator::start(&dir.path().join("coordinator"), &settings)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { coordinator, database, floor, runtime, settings, dir, _server: server })
    }

    /// Stops the coordinator and gives what starts it again.
    ///
    /// # Errors
    /// It does not stop.
    pub(super) fn stop_coordinator(&mut self) -> Result<(), Failure> {
        self.coordinator.process().stop().map(drop)
    }

    /// Starts the coordinator again.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start_coordinator(&mut self) -> Result<(), Failure> {
        self.coordinator = Coordinator::start(&self.dir.path().join("coordinator"), &self.settings)?;
        Ok(())
    }

    /// Where the coordinator listens.
    ///
    /// # Errors
    /// What it says is no address.
    pub(super) fn address(&self) -> Result<SocketAddr, Failure> {
        self.coordinator.address().parse().context(self.coordinator.address())
    }

    /// The coordinator's process id.
    pub(super) fn coordinator_id(&mut self) -> u32 {
        self.coordinator.process().id()
    }

    /// One number out of the coordinator's database.
    ///
    /// # Errors
    /// The database refuses.
    pub(super) fn number(&self, sql: &str) -> Result<f64, Failure> {
        number(&self.database, sql)
    }

    /// Makes `count` hosts, `a_repository` of them in each repository.
    ///
    /// Hosts are written into the table: enrolment over REST is two commits each and not what is measured. Their tokens
    /// are stored as SHA-256, as the coordinator does, and their repositories count as initialised.
    ///
    /// # Errors
    /// The coordinator or the database refuses.
    pub(super) fn fleet(&self, count: usize, a_repository: usize) -> Result<Vec<Host>, Failure> {
        let api = self.coordinator.api();
        let repositories: Vec<String> = (0..count.div_ceil(a_repository))
            .map(|index| api.create_repository(&format!("repository-{index}"), "/nowhere/x", "password"))
            .collect::<Result<_, _>>()?;
        let repositories: Vec<String> = repositories.iter().map(|id| format!("'{id}'")).collect();
        let repositories = repositories.join(",");
        self.database.query(&format!(
            "WITH made AS (
                 INSERT INTO hosts (id, hostname, os, arch, repository_id, initialized_repository_id, token_hash,
                     created_at)
                 SELECT gen_random_uuid(), 'host-' || n, 'linux', 'amd64', repository, repository,
                     sha256(convert_to('bench-token-' || n, 'UTF8')), now()
                 FROM generate_series(0, {count} - 1) AS n,
                     LATERAL (SELECT (ARRAY[{repositories}]::uuid[])[n / {a_repository} + 1] AS repository) AS its
                 RETURNING id)
             INSERT INTO source_groups (host_id, name, includes, created_at, updated_at)
             SELECT id, '{GROUP}', '[\"/srv/data\"]', now(), now() FROM made"
        ))?;
        // Not the tables that are still empty: a plan that is made for an empty table is kept while it fills.
        for table in ["hosts", "repositories", "source_groups"] {
            self.database.query(&format!("VACUUM ANALYZE {table}"))?;
        }
        let rows = self.database.query("SELECT id, hostname FROM hosts ORDER BY substr(hostname, 6)::int")?;
        let host = |row: Vec<Option<String>>| {
            let mut fields = row.into_iter().flatten();
            let (id, name) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            Host { token: name.replace("host-", "bench-token-"), id, name }
        };
        let hosts: Vec<Host> = rows.into_iter().map(host).collect();
        if hosts.len() == count { Ok(hosts) } else { Err(Failure::new(format!("{} hosts of {count}", hosts.len()))) }
    }
}

/// One number out of a database.
///
/// # Errors
/// The database refuses, or it is none.
pub(super) fn number(database: &Database, sql: &str) -> Result<f64, Failure> {
    let rows = database.query(sql)?;
    let value = rows.first().and_then(|row| row.first().cloned().flatten());
    let value = value.ok_or_else(|| Failure::new(format!("no value: {sql}")))?;
    value.parse().context(format!("{value} of {sql}"))
}

/// An error unless `found` is `expected`: what was counted must be in the database.
///
/// # Errors
/// It is not.
pub(super) fn expect(what: &str, found: f64, expected: usize) -> Result<(), Failure> {
    if (found - expected as f64).abs() < 0.5 {
        Ok(())
    } else {
        Err(Failure::new(format!("NOT CORRECT: {what}: {found} in the database, {expected} were counted")))
    }
}
