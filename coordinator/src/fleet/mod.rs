//! The fleet as one document: what that asks for ([`wanted`]), what there is ([`ledger`]), and the [`plan`] that leads from one to
//! the other. Pure, but for [`sources`], which reads secrets.
//!
//! A document names things: repositories by their names, hosts by their hostname and their repository's name, source groups
//! and schedules by their names within a host. What it names becomes as it says, whole; what it does not name stays. Only a
//! plan that may delete takes away what is not named, and only in lists that the document has: never a host, and never a
//! repository that anything needs.
//!
//! Templates say the same for all hosts that a selector means. Where several say something about one thing the last counts, and
//! the host's own entry most.

pub mod export;
mod hosts;
pub mod ledger;
mod matching;
pub mod plan;
mod repositories;
mod settings;
pub mod sources;
#[cfg(test)]
pub(crate) mod tests;
pub mod wanted;
