//! `fleet-coordinator`: the command line.

use clap::Parser;
use fleet_coordinator::config::{Cli, Command};
use fleet_coordinator::start;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Gives memory back that a burst has taken, which glibc's does not when something small lies behind it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info,actix_server=warn")).init();
    raise_open_files();
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

/// Agents take a socket each: the soft limit of open files, 1,024 by custom, goes up to what the system allows.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most).map(|()| most));
    match raised {
        Ok(most) => log::debug!("up to {most} files may be open, and an agent takes one"),
        Err(error) => log::warn!("the limit of open files stays as it is: {error}"),
    }
}
