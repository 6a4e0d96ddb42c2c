//! The REST API against a real PostgreSQL, with the real actors behind it, over the application as it is served.

mod enrollment;
mod errors;
mod filters;
mod hosts;
mod maintenance;
mod openapi;
mod operations;
mod pauses;
mod projections;
mod repositories;
mod rig;
mod runs;
mod schedules;
mod slow;
mod source_groups;
mod twice;
