//! The sandbox of tests and demo: real processes, real sockets, a real PostgreSQL and real restic, all of them private
//! to whoever starts them and gone with the handle.
//!
//! [`Sandbox`] is the usual start of a test: a coordinator with a database of its own, to which agents are added.

mod account;
mod agent;
mod api;
pub mod bench;
pub mod chaos;
mod coordinator;
mod database;
mod eventually;
mod failure;
mod fake_agent;
mod fleet_cli;
mod mail_server;
mod postmaster;
mod process;
mod programs;
mod receiver;
mod rest_server;
mod restic;
mod sandbox;
mod server;
mod small_disk;
mod swarm;
mod tls;

pub use account::Account;
pub use agent::{Agent, AgentSettings};
pub use api::{Api, Reply, is_over};
pub use coordinator::{Coordinator, CoordinatorSettings};
pub use database::Database;
pub use eventually::eventually;
pub use failure::{Context, Failure};
pub use fake_agent::{FakeAgent, Received};
pub use fleet_cli::{Ended, FleetCli};
pub use mail_server::{Mail, MailServer};
pub use postmaster::pause_postgres;
pub use process::{Process, command, leak_free_dir};
pub use programs::{postgres_programs, program, restics};
pub use receiver::{Manner, Receiver, Webhook};
pub use rest_server::{RestServer, RestServerSettings};
pub use restic::Restic;
pub use sandbox::Sandbox;
pub use server::Server;
pub use small_disk::SmallDisk;
pub use swarm::{Crowd, Host};
pub use tls::Tls;
