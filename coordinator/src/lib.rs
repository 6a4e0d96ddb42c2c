//! The coordinator of restic-fleet. `docs/architecture.md` is the way in.

pub mod access;
pub mod audit;
pub mod board;
pub mod clock;
pub mod config;
pub mod db;
pub mod dispatcher;
pub mod embedded_postgres;
pub mod expected;
pub mod firing;
pub mod http;
pub mod job;
pub mod live;
pub mod maintenance;
pub mod operation;
pub mod pauses;
pub mod persistence;
pub mod registry;
pub mod request;
pub mod services;
pub mod session;
pub mod start;
pub mod ticker;
pub mod timetable;
pub mod tokens;
pub mod vault;
