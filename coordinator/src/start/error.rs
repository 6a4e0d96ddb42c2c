//! Why the coordinator can't run.

use crate::db::{DatabaseError, Outlook, outlook_of_query};
use crate::embedded_postgres::EmbeddedError;
use crate::persistence::LockError;
use crate::vault::KeyError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use thiserror::Error;

/// Why the coordinator can't run. The text is what the operator sees.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error("can't use the data folder {}: {source}. Make it writable, or set FLEET_DATA_DIR", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(
        "the key file {} is not the one that this database was sealed with: put the right one there from your backup",
        .0.display()
    )]
    WrongKey(PathBuf),
    #[error("can't listen on {address}: {source}. Choose another address with FLEET_LISTEN")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("no random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    #[error("e-mail can't be sent like this: {0}")]
    Mail(String),
    #[error("the HTTP server failed: {0}")]
    Http(#[source] io::Error),
}

impl StartError {
    /// Whether it is worth while to wait until it passes.
    pub(super) fn outlook(&self) -> Outlook {
        match self {
            Self::Database(error) | Self::Lock(LockError::Database(error)) => error.outlook(),
            Self::Lock(LockError::Query(error)) => outlook_of_query(error),
            _ => Outlook::Stays,
        }
    }
}
