//! A large write in a transaction of its own, on a connection of its own: the others need not wait for it.
//!
//! The rules are those of a batch: what is answered is committed; a commit that was not answered is found out by
//! applying the write again; only what is certainly not done is given back. The connection holds no coordinator's lock,
//! so the transaction itself makes sure that this process still has it: it holds the holder's name against a change
//! until it is over.

use super::error::Failure;
use super::messages::{Apart, Patience, Write};
use super::{Answer, Persistence, WriteError, lock};
use crate::db::{Database, requests};
use actix::{Context, Handler};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};
use std::time::{Duration, Instant};

/// A transaction that takes longer than this is given up.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause between tries.
const PAUSE: Duration = Duration::from_millis(500);

impl<W: Write> Handler<Apart<W>> for Persistence {
    type Result = Answer<W::Output>;

    fn handle(&mut self, Apart { write, patience }: Apart<W>, _: &mut Context<Self>) -> Self::Result {
        Box::pin(write_apart(self.database.clone(), write, patience))
    }
}

async fn write_apart<W: Write>(database: Database, write: W, patience: Patience) -> Result<W::Output, WriteError> {
    let began = Instant::now();
    let mut doubtful = false;
    loop {
        let why = match tokio::time::timeout(LIMIT, attempt(&database, &write)).await {
            Ok(Ok(output)) => return Ok(output),
            Ok(Err(Failure::Constraint(error))) => return Err(WriteError::Rejected(error)),
            Ok(Err(Failure::NotDone(why) | Failure::Broken(why))) => why,
            Ok(Err(Failure::Unknown(why))) => {
                doubtful = true;
                why
            }
            Err(_) => {
                // It may be anywhere, at its commit too.
                doubtful = true;
                format!("no answer from the database for {} s", LIMIT.as_secs())
            }
        };
        let waits = match patience {
            Patience::Endless => true,
            Patience::Within(limit) => began.elapsed() < limit,
        };
        if !waits && !doubtful {
            return Err(WriteError::NotDone(why));
        }
        log::warn!("a large write is tried again: {why}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt<W: Write>(database: &Database, write: &W) -> Result<W::Output, Failure> {
    let mut connection = database.connect().await.map_err(|error| Failure::NotDone(error.to_string()))?;
    // Whatever goes wrong before the commit, the connection ends and with it the transaction.
    AnsiTransactionManager::begin_transaction(&mut connection).await.map_err(Failure::before_commit)?;
    let output = apply(&mut connection, write).await?;
    let committed = AnsiTransactionManager::commit_transaction(&mut connection).await;
    committed.map_err(|error| Failure::Unknown(error.to_string()))?;
    Ok(output)
}

async fn apply<W: Write>(connection: &mut AsyncPgConnection, write: &W) -> Result<W::Output, Failure> {
    if !lock::is_ours(connection).await.map_err(Failure::before_commit)? {
        return Err(Failure::NotDone("another coordinator serves this database".to_owned()));
    }
    let output = write.apply(connection).await.map_err(Failure::before_commit)?;
    if let Some(request) = write.to_record(&output) {
        requests::record(connection, &[(request, None)], &[]).await.map_err(Failure::before_commit)?;
    }
    Ok(output)
}
