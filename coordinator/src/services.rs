//! What sessions and REST handlers share: the addresses of the actors and the few things that are not actors.

use crate::audit::Unrecorded;
use crate::board::Board;
use crate::config::{self, Deadlines, Leases, Maintenance, SecretSources};
use crate::db::jobs::Job;
use crate::db::lookup::Lookup;
use crate::db::tokens::ApiToken;
use crate::db::{Database, hosts, jobs, planning, schedules};
use crate::dispatcher::Dispatcher;
use crate::http::idempotency::Keys;
use crate::job::JobServices;
use crate::live::LiveJobs;
use crate::metrics::Metrics;
use crate::notify::{Mailer, Outbox};
use crate::operation::OpenOperations;
use crate::pauses::Pauses;
use crate::persistence::Persistence;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::release::{Release, Releases};
use crate::tokens::Tokens;
use crate::vault::{Vault, hash_token};
use actix::{Actor, Addr};
use fleet_wire::Secret;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Handles to the running coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// For reading. Writes go through [`persistence`](Self::persistence).
    pub database: Database,
    /// Opens and seals secrets.
    pub vault: Arc<Vault>,
    /// The one writer.
    pub persistence: Addr<Persistence>,
    /// Which host is connected where.
    pub registry: Addr<Registry>,
    /// Decides which job goes out when.
    pub dispatcher: Addr<Dispatcher>,
    /// What is true right now.
    pub board: Arc<Board>,
    /// Whose agent's token it is, by its hash.
    pub tokens: Arc<Lookup<hosts::ByToken>>,
    /// Jobs in the ledger.
    pub jobs: Arc<Lookup<jobs::ById>>,
    /// What jobs are planned with.
    pub planning: Arc<Lookup<planning::OfHost>>,
    /// Schedules, deleted ones too.
    pub schedules: Arc<Lookup<schedules::ById>>,
    /// What is paused.
    pub pauses: Arc<Pauses>,
    /// The jobs that have an actor.
    pub live: Arc<LiveJobs>,
    /// How repositories are maintained.
    pub maintenance: Arc<Maintenance>,
    /// The operations that are not over.
    pub operations: Arc<OpenOperations>,
    /// Who may use the REST API.
    pub api_tokens: Arc<Tokens>,
    /// What was refused, until it is recorded.
    pub unrecorded: Arc<Unrecorded>,
    /// What is under way under an `Idempotency-Key`.
    pub keys: Arc<Keys>,
    /// Where secrets are that the document of the fleet names.
    pub secrets: Arc<SecretSources>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What anybody wants to be told.
    pub outbox: Arc<Outbox>,
    /// Sends e-mail, if there is a mail server.
    pub mailer: Option<Arc<Mailer>>,
    /// How many requests come.
    pub rates: Arc<Rates>,
    /// The newest agent.
    pub release: Arc<Releases>,
}

/// What must be known of the ledger before the first lease is given and the first request is answered.
#[derive(Debug, Default)]
pub struct Found {
    /// The jobs that are not over, and the lost ones that hold their lease.
    pub open: Vec<Job>,
    /// What is paused.
    pub pauses: Pauses,
    /// How many backups may be out at once in the repositories that have a limit of their own.
    pub most_backups: HashMap<Uuid, u32>,
    /// The tokens that are not revoked.
    pub api_tokens: Vec<ApiToken>,
    /// What anybody wants to be told.
    pub outbox: Arc<Outbox>,
    /// The newest agent.
    pub release: Option<Release>,
}

/// What a person has set.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long jobs may wait and run.
    pub deadlines: Deadlines,
    /// How repositories are maintained.
    pub maintenance: Maintenance,
    /// How jobs share repositories.
    pub leases: Leases,
    /// Where secrets are that the document of the fleet names.
    pub secrets: SecretSources,
    /// What sends e-mail.
    pub mailer: Option<Arc<Mailer>>,
    /// How many requests may come.
    pub rates: config::Rates,
}

impl Services {
    /// Starts registry and dispatcher, which knows what was `found` in the ledger.
    pub fn start(
        found: Found,
        database: Database,
        vault: Vault,
        persistence: Addr<Persistence>,
        admin: &Secret,
        rules: Rules,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Rules { deadlines, maintenance, leases, secrets, mailer, rates } = rules;
        let registry = Registry::default().start();
        let (board, live) = (Arc::new(Board::default()), Arc::new(LiveJobs::default()));
        let operations = Arc::new(OpenOperations::default());
        let planning = Lookup::new(database.clone());
        let of_jobs = JobServices {
            database: database.clone(),
            planning: Arc::clone(&planning),
            persistence: persistence.clone(),
            registry: registry.clone(),
            board: Arc::clone(&board),
            live: Arc::clone(&live),
            operations: Arc::clone(&operations),
            limits: deadlines,
            metrics: Arc::clone(&metrics),
        };
        let Found { open, pauses, most_backups, api_tokens, outbox, release } = found;
        let pauses = Arc::new(pauses);
        let dispatcher = Dispatcher::new(open, most_backups, leases, Arc::clone(&pauses), of_jobs).start();
        Self {
            tokens: Lookup::new(database.clone()),
            jobs: Lookup::new(database.clone()),
            planning,
            schedules: Lookup::new(database.clone()),
            database,
            vault: Arc::new(vault),
            persistence,
            registry,
            dispatcher,
            board,
            pauses,
            live,
            maintenance: Arc::new(maintenance),
            operations,
            api_tokens: Arc::new(Tokens::new(hash_token(admin.expose()), api_tokens)),
            unrecorded: Arc::default(),
            keys: Arc::default(),
            secrets: Arc::new(secrets),
            metrics,
            outbox,
            mailer,
            rates: Arc::new(Rates::new(&rates)),
            release: Arc::new(Releases::new(release)),
        }
    }
}
