//! Opening the ledger: the schema, the lock, the key, and what the actors start from.
//!
//! A database that is away is waited for, however long that takes. What only a person can mend ends the start. A
//! failure that may be either is tried once more: a server that goes down says so in many ways, and a fault of the
//! installation says the same again.

use super::StartError;
use crate::clock;
use crate::config::Config;
use crate::db::operations::{Operation, Standing};
use crate::db::{
    Database, DatabaseError, Outlook, agent_release, channels, history, hosts, jobs, operations, pauses, repositories,
    settings, tokens,
};
use crate::notify::Outbox;
use crate::pauses::Pauses;
use crate::persistence::CoordinatorLock;
use crate::services::Found;
use crate::vault::Vault;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The pause before the second try; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the log says that the database is still waited for, and another reason for it.
const REMIND_EVERY: Duration = Duration::from_secs(60);
const NEW_REASON_EVERY: Duration = Duration::from_secs(10);

/// The ledger as this coordinator found it. Nobody else writes to it from now on.
pub(super) struct Ledger {
    pub(super) lock: CoordinatorLock,
    /// What must be known before anything else.
    pub(super) found: Found,
    /// Operations that are not over, and how their jobs stand.
    pub(super) operations: Vec<(Operation, Vec<Standing>)>,
    /// Hosts that were online.
    pub(super) online: Vec<Uuid>,
    /// Hosts out of service that still have open jobs.
    pub(super) removed: Vec<Uuid>,
}

/// Brings the schema up to date, takes the lock and reads the ledger. Waits for a database that is away.
pub(super) async fn open(config: &Config, database: &Database, vault: &Vault) -> Result<Ledger, StartError> {
    let mut waiting = Waiting::default();
    let mut doubted = false;
    loop {
        let error = match try_open(config, database, vault).await {
            Ok(ledger) => {
                waiting.is_over();
                return Ok(ledger);
            }
            Err(error) => error,
        };
        match error.outlook() {
            Outlook::Passes => doubted = false,
            Outlook::Unclear if !doubted => doubted = true,
            Outlook::Stays | Outlook::Unclear => return Err(error),
        }
        waiting.say(&database.place(), &error);
        tokio::time::sleep(waiting.pause()).await;
    }
}

async fn try_open(config: &Config, database: &Database, vault: &Vault) -> Result<Ledger, StartError> {
    migrate_schema(database).await?;
    let lock = CoordinatorLock::take(database).await?;
    if !settings::check_key(database, vault).await? {
        return Err(StartError::WrongKey(config.key_path()));
    }
    let read = async |reader: &mut diesel_async::AsyncPgConnection| {
        let (open, operations) = (jobs::open(reader).await?, operations::open(reader).await?);
        let pauses = Pauses::new(pauses::all(reader).await?);
        let (most_backups, api_tokens) = (repositories::most_backups(reader).await?, tokens::living(reader).await?);
        let outbox = Arc::new(Outbox::new(channels::wanted(reader).await?));
        let release = agent_release::find(reader).await?;
        let found = Found { open, pauses, most_backups, api_tokens, outbox, release };
        Ok((found, operations, hosts::online(reader).await?, hosts::removed_with_open_jobs(reader).await?))
    };
    let (found, operations, online, removed) = database.read(read).await?;
    clock::begin(database.read(async |reader| history::latest(reader).await).await?);
    Ok(Ledger { lock, found, operations, online, removed })
}

/// Brings the schema up to date, and says what that meant.
pub(super) async fn migrate_schema(database: &Database) -> Result<(), DatabaseError> {
    let ran = database.migrate().await?;
    match ran.as_slice() {
        [] => log::info!("the database's schema is up to date"),
        ran => log::info!("the database's schema was brought up to date: {}", ran.join(", ")),
    }
    Ok(())
}

/// What was waited for and said so far.
#[derive(Default)]
struct Waiting {
    tries: u32,
    /// What was said last, and when.
    said: Option<(String, Instant)>,
}

impl Waiting {
    /// Says what is waited for: at once, and then from time to time.
    fn say(&mut self, place: &str, error: &StartError) {
        let why = error.to_string();
        if self.said.as_ref().is_some_and(|(said, at)| !is_due(*said == why, at.elapsed())) {
            return;
        }
        log::warn!("waiting for the {place}: {why}");
        self.said = Some((why, Instant::now()));
    }

    fn pause(&mut self) -> Duration {
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.tries.min(16)));
        self.tries += 1;
        pause
    }

    fn is_over(&self) {
        if self.said.is_some() {
            log::info!("the database is there");
        }
    }
}

/// Whether a reason is to be said, `silent` after the last one.
fn is_due(same: bool, silent: Duration) -> bool {
    silent >= if same { REMIND_EVERY } else { NEW_REASON_EVERY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_not_flooded() {
        let mut waiting = Waiting::default();
        let away = |why: &str| StartError::Database(DatabaseError::Unreachable(why.to_owned()));
        waiting.say("database", &away("refused"));
        let first = waiting.said.clone();
        waiting.say("database", &away("refused"));
        assert_eq!(waiting.said, first, "nothing new was said");
        waiting.say("database", &away("it starts"));
        assert_eq!(waiting.said, first, "reasons may alternate with every try");
        assert!(is_due(false, NEW_REASON_EVERY) && !is_due(true, NEW_REASON_EVERY) && is_due(true, REMIND_EVERY));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut waiting = Waiting::default();
        let pauses: Vec<Duration> = (0..40).map(|_| waiting.pause()).collect();
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[39], LONGEST_PAUSE);
    }
}
