//! `fleet-coordinator`: the command line.

use clap::Parser;
use fleet_coordinator::config::{Cli, Command};
use fleet_coordinator::start;

fn main() {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info,actix_server=warn")).init();
    let system = actix::System::new();
    let outcome = system.block_on(async {
        match cli.command {
            Command::Serve(config) => start::serve(config).await,
            Command::Migrate(config) => start::migrate(&config).await,
        }
    });
    let status = match outcome {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("fleet-coordinator: {error}");
            1
        }
    };
    // Not by the end of `main`, which would wait for what other threads still do: a migration has no limit of time, and
    // its database may hang. Everything that is to end in good order has ended.
    std::process::exit(status)
}
