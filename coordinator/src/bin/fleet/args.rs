//! The command line as a whole. What a command takes stands beside what it does, in `commands`.

use crate::commands::{
    api, apply, hosts, jobs, maintenance, operations, pauses, records, repositories, run, schedules,
};
use crate::commands::{logs, source_groups, tokens};
use crate::failure::EXIT_STATUS;
use crate::screen::Format;
use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use fleet_wire::parse_duration;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Backups with restic over a whole fleet: ask the coordinator, and have it do things.
///
/// The token is taken from FLEET_TOKEN, or from the file that --token-file names. Hosts and repositories are given by name or
/// id.
#[derive(Debug, Parser)]
#[command(name = "fleet", version, propagate_version = true, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    /// What all commands take.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Where the coordinator is
    #[arg(long, global = true, env = "FLEET_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,

    /// A file whose first line is the token; without it, FLEET_TOKEN is
    #[arg(long, global = true, env = "FLEET_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// How results are shown
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,

    /// For how long a request without an answer is asked again, such as 90s [default: 30s; 10m while waiting for an end]
    #[arg(long, global = true, env = "FLEET_RETRY_FOR", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) retry_for: Option<Duration>,

    /// Talk unencrypted to a coordinator on another machine
    #[arg(long, global = true, env = "FLEET_ALLOW_PLAIN_HTTP", value_parser = BoolishValueParser::new())]
    pub(crate) allow_plain_http: bool,
}

/// What `fleet` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hosts: list, show, change, take out of service
    #[command(alias = "host")]
    Hosts(hosts::Hosts),
    /// Jobs: list, show
    #[command(alias = "job")]
    Jobs(jobs::Jobs),
    /// Run a job on a host
    Run(run::Run),
    /// Wait for the end of a job or an operation
    Wait(jobs::Wait),
    /// Show the log of a job
    Logs(logs::Logs),
    /// Cancel a job or an operation
    Cancel(jobs::Cancel),
    /// Give the repository free that a lost job still holds
    Release(jobs::Release),
    /// Operations, one wish for many hosts: list, run, show, retry
    #[command(alias = "operation", alias = "ops")]
    Operations(operations::Operations),
    /// Try again what has failed in an operation
    Retry(operations::Retry),
    /// What has not succeeded within its time
    Overdue(records::Overdue),
    /// What was due, and what became of it
    Runs(records::Runs),
    /// The snapshots of a host
    Snapshots(records::Snapshots),
    /// Repositories: list, show, add, change, remove
    #[command(alias = "repository", alias = "repos")]
    Repositories(repositories::Repositories),
    /// What of a host is backed up, and what is kept of it
    #[command(alias = "source-group", alias = "groups")]
    SourceGroups(source_groups::SourceGroups),
    /// When a host is backed up
    #[command(alias = "schedule")]
    Schedules(schedules::Schedules),
    /// When a repository is forgotten in, pruned and checked
    Maintenance(maintenance::Maintenance),
    /// Let nothing new begin on a host, in a repository or in the fleet
    Pause(pauses::Pause),
    /// End a pause
    Resume(pauses::Resume),
    /// What is paused
    Pauses(records::Pauses),
    /// Make a token with which a host enrols
    EnrollToken(tokens::EnrollToken),
    /// Tokens of the API: list, create, revoke
    #[command(alias = "tokens")]
    Token(tokens::Tokens),
    /// Who wanted to change what, and what came of it
    Audit(records::Audit),
    /// Make the fleet what a document says
    Apply(apply::Apply),
    /// Write the fleet as a document
    Export(apply::Export),
    /// Ask the API anything else
    Api(api::Api),
    /// Write completions for a shell to stdout
    Completions {
        /// Which
        shell: Shell,
    },
}

/// What an Idempotency-Key is for, from one place.
#[derive(Debug, Default, Args)]
pub(crate) struct Key {
    /// Repeats of this command with the same key do nothing twice, for 24 h [default: one of its own]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

impl Key {
    /// The key, if one is given.
    pub(crate) fn get(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }
}

/// A label as `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// Its name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: String,
}

/// Reads a label.
///
/// # Errors
/// It has no `=`.
pub(crate) fn parse_label(text: &str) -> Result<Label, String> {
    let (name, value) = text.split_once('=').ok_or("give it as name=value")?;
    Ok(Label { name: name.to_owned(), value: value.to_owned() })
}

/// Labels as an object.
pub(crate) fn labels(labels: &[Label]) -> BTreeMap<&str, &str> {
    labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect()
}

/// The kinds of job.
pub(crate) const KINDS: [&str; 6] = ["backup", "forget", "prune", "check", "init", "unlock"];

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_asked() {
        for line in [
            "fleet",
            "fleet run web1",
            "fleet run web1 backups",
            "fleet hosts --label ulm",
            "fleet hosts --status up",
            "fleet pause --reason disks",
            "fleet pause --fleet --host web1 --reason disks",
            "fleet operations run check",
            "fleet operations run check --all --label site=ulm",
            "fleet jobs --since yesterday",
            "fleet -o xml hosts",
            "fleet --retry-for soon hosts",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn lists_take_filters_and_have_commands() {
        for line in [
            "fleet hosts",
            "fleet hosts -o json --label a=b --label c=d=e --status online --limit 5",
            "fleet hosts show web1",
            "fleet run web1 backup etc --wait --timeout 2h",
            "fleet run web1 forget --dry-run -o json",
            "fleet run web1 check --arg 1/7",
            "fleet operations run check --label site=ulm --canaries 1 --max-parallel 20 --wait",
            "fleet operations run backup etc --host a --host b",
            "fleet logs -f JOB",
            "fleet pause --fleet --reason disks",
            "fleet token create nightly --scope operate --label site=ulm --ttl 365d",
            "fleet apply fleet.yaml --dry-run --delete",
            "fleet export -o json",
            "fleet completions bash",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn no_secret_is_taken_from_the_command_line() {
        let mut all = vec![Cli::command()];
        while let Some(command) = all.pop() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                let secret = ["token", "password", "credential"].iter().any(|word| name.contains(word));
                let of_file = name.ends_with("_file") || name == "token_id";
                assert!(!secret || of_file, "{} {name}", command.get_name());
            }
            all.extend(command.get_subcommands().cloned());
        }
    }
}
