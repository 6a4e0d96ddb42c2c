//! The program `fleet-agent`.

use clap::Parser;
use fleet_agent::agent;
use fleet_agent::config::{Cli, Command};
use fleet_agent::enroll::enroll;
use fleet_agent::process;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let result = match cli.command {
        Command::Scribe(args) => process::run_scribe(&args.assignment()).map_err(|error| format!("scribe: {error}")),
        Command::Enroll(args) => enroll(&args)
            .map(|identity| say(&format!("enrolled as host {} at {}", identity.host_id, identity.server)))
            .map_err(|error| error.to_string()),
        Command::Run(args) => agent::run(&args).map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            #[allow(clippy::print_stderr, reason = "the exit message")]
            {
                eprintln!("fleet-agent: {message}");
            }
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the answer to whoever ran the command")]
fn say(text: &str) {
    println!("{text}");
}
