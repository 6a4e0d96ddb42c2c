//! restic: how it is found, called and understood. What it really does stands beside the code that relies on it.

pub mod command;
pub mod environment;
pub mod failure;
mod find;
pub mod heard;
pub mod listen;
pub mod lock;
pub mod output;
pub mod probe;
pub mod progress;
pub mod redact;
mod session;
pub mod version;

pub use find::{Found, find};
pub use session::{Call, Finished, Restic, Setup, clear_temporary, unlock_stale};
