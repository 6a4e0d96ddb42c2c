//! How the coordinator is started.

use crate::notify::Mailer;
use clap::{Args, Parser, Subcommand};
use fleet_wire::{Kind, Secret, parse_duration};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Coordinates restic over a fleet of hosts.
#[derive(Debug, Parser)]
#[command(name = "fleet-coordinator", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `fleet-coordinator` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve agents and REST clients until SIGTERM.
    Serve(Config),
    /// Bring the database to this version's schema, and do nothing else.
    Migrate(Config),
}

/// The settings of a coordinator.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// The address to listen on. Port 0 takes a free one; the file `listen` in the data folder says which.
    #[arg(long, env = "FLEET_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The folder for the key, the embedded PostgreSQL and the admin token. Default: /var/lib/fleet-coordinator for
    /// root, else ~/.local/share/fleet-coordinator.
    #[arg(long, env = "FLEET_DATA_DIR", default_value_os_t = default_data_dir(), hide_default_value = true)]
    pub data_dir: PathBuf,

    /// A PostgreSQL 15 or later, as postgresql://user:password@host:port/database. Without it the coordinator runs
    /// one of its own in the data folder.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = parse_secret)]
    pub database_url: Option<Secret>,

    /// The token that may do everything over REST. Without it one is made in the data folder's file `admin-token`.
    #[arg(long, env = "FLEET_ADMIN_TOKEN", hide_env_values = true, value_parser = parse_secret)]
    pub admin_token: Option<Secret>,

    /// The file with the key that seals repository secrets in the database. Default: `secret.key` in the data folder,
    /// made at the first start. Without it the database's secrets are lost: back it up, apart from the database.
    #[arg(long, env = "FLEET_KEY_FILE")]
    pub key_file: Option<PathBuf>,

    /// How long jobs may wait and run.
    #[command(flatten)]
    pub deadlines: Deadlines,

    /// How jobs share repositories.
    #[command(flatten)]
    pub leases: Leases,

    /// How long history is kept.
    #[command(flatten)]
    pub history: History,

    /// How repositories are maintained.
    #[command(flatten)]
    pub maintenance: Maintenance,

    /// How people and programs are told what is wrong.
    #[command(flatten)]
    pub notifications: Notifications,

    /// How many source groups `/metrics` tells of one by one, those that are overdue first. Of the others it has counts.
    #[arg(long, env = "FLEET_METRICS_GROUPS", value_name = "NUMBER", default_value_t = 1_000)]
    pub metrics_groups: usize,

    /// Where secrets are that the document of the fleet names.
    #[command(flatten)]
    pub secrets: SecretSources,

    /// How many requests may come.
    #[command(flatten)]
    pub rates: Rates,
}

/// Where secrets are that the document of the fleet names. Nothing else is read for it.
#[derive(Clone, Debug, Default, Args)]
pub struct SecretSources {
    /// The folder of files that a repository's secrets may be read from ({file: PATH}). Without it none are.
    #[arg(long = "secrets-dir", env = "FLEET_SECRETS_DIR", value_name = "FOLDER")]
    pub directory: Option<PathBuf>,

    /// What the names of variables begin with that a repository's secrets may be read from ({env: NAME}). If it is empty
    /// none are.
    #[arg(
        long = "secrets-env-prefix",
        env = "FLEET_SECRETS_ENV_PREFIX",
        value_name = "PREFIX",
        default_value = "FLEET_SECRET_"
    )]
    pub prefix: String,
}

/// How people and programs are told what is wrong. Times are given in seconds, or with a unit.
#[derive(Clone, Debug, Args)]
pub struct Notifications {
    /// The mail server for channels of e-mail: smtp://user:password@host:port, with ?tls=required for STARTTLS, or
    /// smtps://. Without it there are none.
    #[arg(long, env = "FLEET_SMTP_URL", value_name = "URL", hide_env_values = true, value_parser = parse_secret)]
    pub smtp_url: Option<Secret>,

    /// Who writes the e-mail, with or without a name: Fleet <fleet@example.org>.
    #[arg(long, env = "FLEET_SMTP_FROM", value_name = "ADDRESS", requires = "smtp_url")]
    pub smtp_from: Option<String>,

    /// A notification that could not be delivered for this long is given up.
    #[arg(long = "notify-limit", env = "FLEET_NOTIFY_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "72h")]
    pub give_up: Duration,

    /// What is known of notifications that were delivered or given up longer ago than this is deleted.
    #[arg(long = "keep-notifications", env = "FLEET_KEEP_NOTIFICATIONS", value_name = "TIME", value_parser = parse_duration, default_value = "7d")]
    pub keep: Duration,

    /// What sends e-mail: made of the above at the start.
    #[arg(skip)]
    pub mailer: Option<Arc<Mailer>>,
}

/// How many requests may come in a second; 0 is as many as they like.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Rates {
    /// How many requests each token may make in a second; at rest it saves up those of two. Without it 1000, and the admin
    /// token as many as it likes.
    #[arg(long = "rate-per-token", env = "FLEET_RATE_PER_TOKEN", value_name = "NUMBER")]
    pub token: Option<u32>,

    /// How many requests may come in a second from each address without a good token, refused enrolments among them. Without it 100.
    #[arg(long = "rate-per-address", env = "FLEET_RATE_PER_ADDRESS", value_name = "NUMBER")]
    pub address: Option<u32>,
}

/// How repositories are maintained. Each is given in seconds, or with a unit.
#[derive(Clone, Debug, Args)]
pub struct Maintenance {
    /// Maintenance starts up to this long after it is due (and up to a tenth of its interval), each repository's always by
    /// the same time, so that those with one timetable do not start together.
    #[arg(long = "maintenance-jitter", env = "FLEET_MAINTENANCE_JITTER", value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    pub jitter: Duration,

    /// A repository whose runner is offline for longer than this is not healthy.
    #[arg(long = "runner-offline-limit", env = "FLEET_RUNNER_OFFLINE_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "1h")]
    pub runner_offline: Duration,
}

/// How jobs share repositories.
#[derive(Clone, Debug, Args)]
pub struct Leases {
    /// A forget, prune or check that waits for backups of its repository lets further ones go before it for this long,
    /// counted from when it waits and its host is connected; then no more. In seconds, or with a unit: 90s, 15m.
    #[arg(long, env = "FLEET_DRAIN_AFTER", value_name = "TIME", value_parser = parse_duration, default_value = "60s")]
    pub drain_after: Duration,

    /// How many backups may be out at once in a repository that has no limit of its own (`max_backups`). Without it as
    /// many as there are.
    #[arg(long, env = "FLEET_BACKUPS_PER_REPOSITORY", value_name = "NUMBER")]
    pub backups_per_repository: Option<NonZeroU32>,

    /// How many backups may be out at once in all repositories together. Without it as many as there are.
    #[arg(long, env = "FLEET_BACKUPS_AT_ONCE", value_name = "NUMBER")]
    pub backups_at_once: Option<NonZeroU32>,
}

/// How long history is kept; without a time, for ever. Each is given with a unit, and is an hour at least: 24h, 400d.
#[derive(Clone, Debug, Default, Args)]
pub struct History {
    /// Jobs that ended longer ago than this are deleted, and their logs; but for the newest success of each source
    /// group. Without it they are kept for ever.
    #[arg(long = "keep-jobs", env = "FLEET_KEEP_JOBS", value_name = "TIME", value_parser = parse_keep)]
    pub jobs: Option<Duration>,

    /// The logs of jobs that ended longer ago than this are deleted. Without it they are kept as long as the jobs.
    #[arg(long = "keep-logs", env = "FLEET_KEEP_LOGS", value_name = "TIME", value_parser = parse_keep)]
    pub logs: Option<Duration>,

    /// What the audit log says of requests that came longer ago than this is deleted. Without it it is kept for ever.
    #[arg(long = "keep-audit", env = "FLEET_KEEP_AUDIT", value_name = "TIME", value_parser = parse_keep)]
    pub audit: Option<Duration>,
}

/// History is kept for this long at least: less is a slip (`90` for 90 days), and what it takes does not come back.
const SHORTEST_KEEP: Duration = Duration::from_secs(3_600);

fn parse_keep(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time < SHORTEST_KEEP {
        return Err(format!(
            "history is kept for 1h at least, and this is {} s: give a unit, such as 90d",
            time.as_secs()
        ));
    }
    Ok(time)
}

impl History {
    /// Whether anything ever goes.
    pub fn is_limited(&self) -> bool {
        self.jobs.is_some() || self.logs.is_some() || self.audit.is_some()
    }
}

/// How long jobs may wait and run. Each is given in seconds, or with a unit: 90s, 15m, 24h, 7d.
#[derive(Clone, Debug, Args)]
pub struct Deadlines {
    /// A job that could not be sent for this long (its host is offline, its repository in use) has expired.
    #[arg(long = "queued-limit", env = "FLEET_QUEUED_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "24h")]
    pub queued: Duration,

    /// An agent that is there and does not accept a job for this long has lost it.
    #[arg(long = "accept-limit", env = "FLEET_ACCEPT_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    pub accept: Duration,

    /// An agent that was not heard of for this long has lost the jobs that it had.
    #[arg(long = "agent-lost-limit", env = "FLEET_AGENT_LOST_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "30m")]
    pub agent_lost: Duration,

    /// An agent that is there and does not answer a cancel for this long has lost the job.
    #[arg(long = "cancel-limit", env = "FLEET_CANCEL_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    pub cancel: Duration,

    /// A backup that runs for longer than this is cancelled.
    #[arg(long = "backup-limit", env = "FLEET_BACKUP_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "48h")]
    pub backup: Duration,

    /// A job of any other kind that runs for longer than this is cancelled.
    #[arg(long = "maintenance-limit", env = "FLEET_MAINTENANCE_LIMIT", value_name = "TIME", value_parser = parse_duration, default_value = "24h")]
    pub maintenance: Duration,
}

impl Deadlines {
    /// How long a job of `kind` may run.
    pub fn run(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Backup => self.backup,
            _ => self.maintenance,
        }
    }
}

impl Config {
    /// Where the key is.
    pub fn key_path(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.data_dir.join("secret.key"))
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the shape that clap asks for")]
fn parse_secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

fn default_data_dir() -> PathBuf {
    if nix::unistd::Uid::effective().is_root() {
        return PathBuf::from("/var/lib/fleet-coordinator");
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    home.join(".local/share/fleet-coordinator")
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
    fn history_is_not_deleted_by_a_slip() {
        for variable in ["--keep-jobs", "--keep-logs", "--keep-audit"] {
            let with = |time| Cli::try_parse_from(["fleet-coordinator", "serve", variable, time]);
            for short in ["0s", "0", "90", "59m"] {
                let error = with(short).expect_err(short).to_string();
                assert!(error.contains(variable) && error.contains("1h at least"), "{error}");
            }
            assert!(with("1h").is_ok() && with("400d").is_ok());
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let cli = Cli::try_parse_from(["fleet-coordinator", "serve", "--admin-token", "hunter2"]).expect("parses");
        assert!(!format!("{cli:?}").contains("hunter2"));
    }
}
