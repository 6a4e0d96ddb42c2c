//! The agent: one per host, runs restic as the coordinator asks and reports what came of it.
//!
//! [`connection`] moves messages, [`worker`] owns the jobs, [`cron`] says when schedules fire, [`journal`] keeps on disk
//! what was promised, [`runner`] runs one job. [`agent::run`] puts them together.

pub mod address;
pub mod agent;
pub mod config;
pub mod connection;
pub mod credentials;
pub mod cron;
pub mod enroll;
pub mod files;
pub mod host;
pub mod identity;
pub mod journal;
pub mod orphans;
pub mod outcome;
pub mod process;
pub mod report;
pub mod restic;
pub mod runner;
pub mod settings;
pub mod stop;
mod tls;
pub mod worker;
