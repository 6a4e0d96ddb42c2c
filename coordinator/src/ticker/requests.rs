//! What requests leave behind: who used which token, what was refused, and keys whose time is over.

use super::history::aged;
use crate::clock;
use crate::db::aged::Aged;
use crate::db::tokens;
use crate::http::idempotency::KEPT;
use crate::persistence::{Patience, Save, WriteError};
use crate::services::Services;

/// Writes down what is in memory, and takes out of the ledger what is not needed any more.
pub(super) async fn pass(services: Services) {
    let outcome = async {
        write_down(&services).await?;
        if let Some(now) = clock::certain() {
            aged(&services.persistence, Aged::Keys, now - KEPT).await?;
        }
        Ok::<_, WriteError>(())
    };
    if let Err(error) = outcome.await {
        log::warn!("what requests leave behind could not be written, it is tried again: {error}");
    }
}

/// Writes down what is in memory.
///
/// # Errors
/// It is not written, or not known to be.
pub async fn write_down(services: &Services) -> Result<(), WriteError> {
    services.unrecorded.write(&services.persistence).await?;
    let used = services.api_tokens.take_used();
    if used.is_empty() {
        return Ok(());
    }
    let save = Save { write: tokens::NoteUse(used), patience: Patience::REST };
    services.persistence.send(save).await.unwrap_or(Err(WriteError::Unknown))
}
