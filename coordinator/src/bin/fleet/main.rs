//! `fleet`: the fleet from a command line. It is a client of the REST API and shares nothing else with the coordinator.

mod args;
mod client;
mod commands;
mod failure;
mod human;
mod list;
mod names;
mod patience;
mod problem;
mod query;
mod screen;
mod secrets;
mod sse;
mod table;
mod value;
mod wait;

use args::Cli;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(outcome) => outcome.into(),
        Err(failure) => failure.tell(),
    }
}
