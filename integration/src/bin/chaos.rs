//! `./dev chaos`: breaks a real fleet for a while and checks that nothing was lost, doubled or stuck.

use clap::{Parser, Subcommand};
use fleet_integration::{Failure, chaos};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Breaks a real fleet at random: kills, pauses, cut connections, database stops. Then compares what each agent did
/// with what the coordinator says.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    /// How long things are broken; settling and checking come after that
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The same seed gives the same schedule [default: by the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// How many agents
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    agents: u16,
    #[command(subcommand)]
    inner: Option<Inner>,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// Run restic and record what it does: what the scenario's agents have for a restic
    #[command(hide = true)]
    Record {
        /// The real one
        #[arg(long)]
        restic: PathBuf,
        /// The folder of the record
        #[arg(long)]
        into: PathBuf,
        /// restic's arguments
        #[arg(last = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let ended = match &options.inner {
        Some(Inner::Record { restic, into, args }) => chaos::record(restic, into, args),
        None => scenario(&options),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            tell(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn scenario(options: &Options) -> Result<u8, Failure> {
    let length = Duration::try_from_secs_f64(options.minutes * 60.0)?;
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
    let (seed, agents) = (options.seed.unwrap_or_else(clock), usize::from(options.agents));
    let verdict = chaos::run(chaos::Settings { seed, length, agents }, &mut tell)?;
    tell(&format!("seed {seed}\n{verdict}"));
    Ok(u8::from(!verdict.is_good()))
}

#[allow(clippy::print_stdout, reason = "what the command is for")]
fn tell(text: &str) {
    println!("{text}");
}
