//! The coordinator of restic-fleet. `docs/architecture.md` is the way in.

pub mod board;
pub mod config;
pub mod db;
pub mod embedded_postgres;
pub mod persistence;
pub mod vault;
