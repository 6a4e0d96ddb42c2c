//! Telling people and programs what is wrong in the fleet.
//!
//! What is to be told is a *notice*: a row that is written in the transaction which makes it true, with a *delivery* for each
//! channel that wants it ([`db::notices`](crate::db::notices)). The [`Notifier`] carries deliveries out until they have
//! succeeded or are given up, so nothing is lost by a crash; what was sent and not yet noted is sent again, under the same id.

mod backoff;
pub mod condition;
mod event;
mod mail;
mod notice;
mod notifier;
mod outbox;
mod queue;
pub mod signature;
mod summary;
mod webhook;

pub use event::{Event, Events};
pub use mail::{Mailer, address};
pub use notice::Notice;
pub use notifier::Notifier;
pub use outbox::Outbox;
