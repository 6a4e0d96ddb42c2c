//! `./dev demo`: a coordinator, three agents and real backups on this machine, driven over REST.
//!
//! `fleet` starts everything, `files` makes the sources that need making, `scenario` drives and checks,
//! `board` shows jobs while they run, `screen` prints, `tables` shows what came of it.

mod board;
mod files;
mod fleet;
mod scenario;
mod screen;
mod stop;
mod tables;

use clap::Parser;
use fleet_integration::Failure;
use nix::sys::stat::{Mode, umask};
use screen::Screen;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Shows the main job of restic-fleet on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// End when all is done, with status 0 only if all of it went well
    #[arg(long)]
    once: bool,
    /// The checkout, which is one of the things to back up
    #[arg(long, default_value = ".")]
    checkout: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Agents of another account shall read what we make, whatever this user's own habit is.
    umask(Mode::from_bits_truncate(0o022));
    let screen = Screen::new();
    match stop::listen().and_then(|()| run(&options, &screen)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if stop::asked() => {
            screen.line(&format!("\nstopped ({failure}); nothing is left running"));
            ExitCode::from(130)
        }
        Err(failure) => {
            screen.bad(&format!("\nThe demo failed: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, screen: &Screen) -> Result<(), Failure> {
    let began = Instant::now();
    let mut fleet = fleet::Fleet::start(&options.checkout, screen)?;
    let played = scenario::play(&mut fleet, screen).and_then(|()| tables::show(&fleet, screen));
    if let Err(failure) = played {
        if !stop::asked() {
            screen.line(&fleet.last_words());
        }
        return Err(failure);
    }
    if options.once {
        screen.heading(&format!("All as it should be, in {} s. Stopping.", began.elapsed().as_secs()));
    } else {
        tables::suggest(&fleet, screen);
        stay_up(&mut fleet)?;
        screen.line("\nstopping");
    }
    fleet.stop()
}

/// Until Ctrl-C, or until a part of the fleet ends by itself.
fn stay_up(fleet: &mut fleet::Fleet) -> Result<(), Failure> {
    while !stop::asked() {
        fleet.must_run()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
