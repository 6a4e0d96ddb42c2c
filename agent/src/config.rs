//! How the agent is started.

use crate::process::{Assignment, Ending, signal_of};
use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use fleet_wire::{Secret, parse_duration};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The command line; every option is also an environment variable.
#[derive(Debug, Parser)]
#[command(name = "fleet-agent", version, about = "Runs restic on this host, as its fleet's coordinator asks")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this host known to a coordinator, with a token that it gave out
    Enroll(EnrollArgs),
    /// Connect to the coordinator and run its jobs, until stopped
    Run(RunArgs),
    /// Run one child and record what it writes; the agent starts this
    #[command(hide = true)]
    Scribe(ScribeArgs),
}

/// Options of `enroll`.
#[derive(Debug, Args)]
pub struct EnrollArgs {
    /// The coordinator's address.
    #[arg(
        long,
        env = "FLEET_SERVER",
        value_name = "URL",
        help = "The coordinator's address, such as https://fleet.example.org"
    )]
    pub server: String,
    /// The enrolment token; better in the variable, where other users can't see it
    #[arg(long, env = "FLEET_ENROLL_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = secret)]
    pub token: Secret,
    /// Enrol again although this host is enrolled already
    #[arg(long, env = "FLEET_ENROLL_FORCE", value_parser = BoolishValueParser::new())]
    pub force: bool,
    /// What both commands share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The restic to run
    #[arg(long, env = "FLEET_RESTIC", value_name = "PATH", default_value = "restic")]
    pub restic: PathBuf,
    /// Size of the journal past which the oldest log lines go that the coordinator does not have yet, in MiB
    #[arg(long, env = "FLEET_JOURNAL_LIMIT_MIB", value_name = "MIB", default_value_t = 512,
          value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub journal_limit_mib: u64,
    /// How long a hook may run, in seconds or with a unit: 90s, 15m, 2h
    #[arg(long, env = "FLEET_HOOK_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    pub hook_limit: Duration,
    /// How long there must be no connection before the agent starts scheduled backups by itself
    #[arg(long, env = "FLEET_LOCAL_RUN_AFTER", value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub local_run_after: Duration,
    /// How long a backup waits for a lock that another restic holds in the repository; other jobs wait 10 min at most
    #[arg(long, env = "FLEET_LOCK_WAIT", value_name = "TIME", value_parser = parse_duration, default_value = "1h")]
    pub lock_wait: Duration,
    /// For tests: how many seconds the clock that schedules go by is ahead of the host's
    #[arg(
        long,
        env = "FLEET_TEST_CLOCK_AHEAD",
        value_name = "SECONDS",
        hide = true,
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub clock_ahead: i64,
    /// What both commands share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `scribe`.
#[derive(Debug, Args)]
pub struct ScribeArgs {
    /// The file of the record
    #[arg(long)]
    record: PathBuf,
    /// The signal that ends the child
    #[arg(long, value_parser = signal_of)]
    signal: Signal,
    /// The time between that and SIGKILL
    #[arg(long)]
    grace_ms: u64,
    /// How long the child may run
    #[arg(long)]
    limit_ms: Option<u64>,
    /// The child
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl ScribeArgs {
    /// What the scribe is to do.
    pub fn assignment(&self) -> Assignment {
        let (grace, limit) = (Duration::from_millis(self.grace_ms), self.limit_ms.map(Duration::from_millis));
        let ending = Ending { signal: self.signal, grace, limit };
        Assignment { record: self.record.clone(), ending, command: self.command.clone() }
    }
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Where the agent keeps identity, settings, journal and restic's cache
    /// [default: /var/lib/fleet-agent as root, else ~/.local/share/fleet-agent]
    #[arg(long, env = "FLEET_AGENT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Talk unencrypted to a coordinator on another machine
    #[arg(long, env = "FLEET_ALLOW_PLAIN_HTTP", value_parser = BoolishValueParser::new())]
    pub allow_plain_http: bool,
    /// The name of this host: kept from its enrolment on, another one later only leads to a warning
    /// [default: what the system calls it]
    #[arg(long, env = "FLEET_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,
}

impl CommonArgs {
    /// The data folder: the one given, else the one for the user who runs this.
    ///
    /// # Errors
    /// None is given and the user has no home.
    pub fn data_dir(&self) -> Result<PathBuf, String> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        match &self.data_dir {
            Some(given) => std::path::absolute(given).map_err(|error| format!("--data-dir: {error}")),
            None => default_data_dir(nix::unistd::geteuid().is_root(), home)
                .ok_or_else(|| "HOME is not set; name a folder with --data-dir".to_owned()),
        }
    }

    /// The host's name: the one given, else the system's.
    ///
    /// # Errors
    /// None is given and the system has none that can be used.
    pub fn hostname(&self) -> Result<String, String> {
        let unusable = || "this system has no usable host name; give one with --hostname".to_owned();
        let name = match &self.hostname {
            Some(given) => given.trim().to_owned(),
            None => nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default(),
        };
        if name.is_empty() { Err(unusable()) } else { Ok(name) }
    }
}

fn secret(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(Secret::new(text)) }
}

fn default_data_dir(root: bool, home: Option<PathBuf>) -> Option<PathBuf> {
    if root {
        Some(PathBuf::from("/var/lib/fleet-agent"))
    } else {
        home.filter(|home| home.is_absolute()).map(|home| home.join(".local/share/fleet-agent"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_has_a_variable_and_help() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let own = command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()));
            for arg in own {
                assert!(arg.get_env().is_some(), "{} of {}", arg.get_id(), command.get_name());
                assert!(arg.get_help().is_some(), "{} of {}", arg.get_id(), command.get_name());
            }
        }
    }

    #[test]
    fn the_data_folder_depends_on_the_user() {
        assert_eq!(default_data_dir(true, None), Some("/var/lib/fleet-agent".into()));
        assert_eq!(default_data_dir(false, Some("/home/u".into())), Some("/home/u/.local/share/fleet-agent".into()));
        assert_eq!(default_data_dir(false, None), None);
    }

    #[test]
    fn a_token_is_never_shown() {
        let cli =
            Cli::try_parse_from(["fleet-agent", "enroll", "--server", "https://x", "--token", "hunter2"]).unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
    }
}
