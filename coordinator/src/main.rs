//! `fleet-coordinator`: the command line.

use clap::Parser;
use fleet_coordinator::config::{Cli, Command};
use fleet_coordinator::start;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info,actix_server=warn")).init();
    let outcome = actix::System::new().block_on(async {
        match cli.command {
            Command::Serve(config) => start::serve(config).await,
            Command::Migrate(config) => start::migrate(&config).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet-coordinator: {error}");
            ExitCode::FAILURE
        }
    }
}
