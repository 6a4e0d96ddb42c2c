//! restic's command lines. Nothing secret is on any of them.

use fleet_wire::{CommandRun, ForgetGroup};
use std::ffi::OsString;

/// Limits in force, in KiB a second, which is restic's unit. Anything below 1 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// For what is sent.
    pub upload: Option<i64>,
    /// For what is fetched.
    pub download: Option<i64>,
}

impl Bandwidth {
    fn options(self) -> impl Iterator<Item = String> {
        let option = |name: &str, limit: Option<i64>| {
            limit.filter(|limit| *limit > 0).map(|limit| format!("--limit-{name}={limit}"))
        };
        option("upload", self.upload).into_iter().chain(option("download", self.download))
    }
}

/// Which sizes `restic stats` adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsMode {
    /// Every snapshot as if restored, added up.
    RestoreSize,
    /// The stored size of what the snapshots refer to.
    RawData,
    /// Files with distinct contents.
    FilesByContents,
}

/// `restic backup` of one source group. The includes are literal paths; `--` lets them begin with a dash.
pub fn backup(run: &CommandRun, host: &str, bandwidth: Bandwidth) -> Vec<OsString> {
    let mut all = words(["backup", "--json"]);
    all.push(format!("--host={host}").into());
    all.extend(run.tag.as_ref().map(|tag| format!("--tag={tag}").into()));
    all.extend(bandwidth.options().map(OsString::from));
    all.extend(run.excludes.iter().map(|pattern| format!("--exclude={pattern}").into()));
    all.push("--".into());
    all.extend(run.includes.iter().map(OsString::from));
    all
}

/// Whether a forget is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgetting {
    /// It is.
    Really,
    /// It only says what would go. That needs no lock, in no version.
    InADryRun,
}

/// `restic forget` for one source group of the host that it names, or of `own_host`.
///
/// Without `--group-by host` every set of paths that the group ever had would keep snapshots of its own for ever;
/// without `--host` the group of the same name of another host would be hit.
pub fn forget(group: &ForgetGroup, own_host: &str, how: Forgetting) -> Vec<OsString> {
    let mut all = words(["forget", "--json", "--group-by=host"]);
    if how == Forgetting::InADryRun {
        all.extend(words(["--dry-run", "--no-lock"]));
    }
    let host = group.host.as_deref().unwrap_or(own_host);
    all.push(format!("--host={host}").into());
    all.push(format!("--tag={}", group.tag).into());
    let rules = group.policy.rules().into_iter().filter_map(|(rule, value)| Some((rule, value?)));
    all.extend(rules.filter(|(_, value)| *value > 0).map(|(rule, value)| {
        let option = rule.replace('_', "-");
        format!("--{option}={value}").into()
    }));
    all
}

/// `restic prune`, which has no JSON up to 0.19.1.
pub fn prune(bandwidth: Bandwidth) -> Vec<OsString> {
    words(["prune"]).into_iter().chain(bandwidth.options().map(OsString::from)).collect()
}

/// `restic check`, reading `subset` of the data.
pub fn check(subset: Option<&str>, bandwidth: Bandwidth) -> Vec<OsString> {
    let mut all = words(["check", "--json"]);
    all.extend(subset.map(|subset| format!("--read-data-subset={subset}").into()));
    all.extend(bandwidth.options().map(OsString::from));
    all
}

/// `restic init`.
pub fn init() -> Vec<OsString> {
    words(["init", "--json"])
}

/// Reads the repository's configuration: is it there, and does the password open it?
pub fn probe() -> Vec<OsString> {
    words(["cat", "config", "--json", "--no-lock"])
}

/// `restic unlock`: stale locks only. Never `--remove-all`.
pub fn unlock() -> Vec<OsString> {
    words(["unlock"])
}

/// The ids of all locks, one a line; takes no lock itself.
pub fn list_locks() -> Vec<OsString> {
    words(["list", "locks"])
}

/// The snapshots of one host, or of all.
pub fn snapshots(host: Option<&str>) -> Vec<OsString> {
    let mut all = words(["snapshots", "--json", "--no-lock"]);
    all.extend(host.map(|host| format!("--host={host}").into()));
    all
}

/// Sizes of the whole repository.
pub fn stats(mode: StatsMode) -> Vec<OsString> {
    let mode = match mode {
        StatsMode::RestoreSize => "restore-size",
        StatsMode::RawData => "raw-data",
        StatsMode::FilesByContents => "files-by-contents",
    };
    words(["stats", "--json", "--no-lock", "--mode", mode])
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::{Kind, RetentionPolicy};

    fn line(args: &[OsString]) -> String {
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_backup_names_host_tag_limits_and_literal_paths() {
        let mut run = CommandRun::new("1".into(), Kind::Backup);
        run.includes = vec!["/srv".into(), "-dash".into()];
        run.excludes = vec!["*.tmp".into()];
        run.tag = Some("docs".into());
        let bandwidth = Bandwidth { upload: Some(500), download: Some(0) };
        assert_eq!(
            line(&backup(&run, "h1", bandwidth)),
            "backup --json --host=h1 --tag=docs --limit-upload=500 --exclude=*.tmp -- /srv -dash"
        );
    }

    #[test]
    fn a_forget_touches_one_group_of_one_host_and_leaves_zero_rules_out() {
        let policy = RetentionPolicy { keep_last: Some(0), keep_daily: Some(7), ..RetentionPolicy::default() };
        let group = ForgetGroup { tag: "docs".into(), policy, host: None };
        let told = |group: &ForgetGroup, how| line(&forget(group, "h1", how));
        let own = "forget --json --group-by=host --host=h1 --tag=docs --keep-daily=7";
        assert_eq!(told(&group, Forgetting::Really), own);
        let group = ForgetGroup { host: Some("h2".into()), ..group };
        let others = "forget --json --group-by=host --dry-run --no-lock --host=h2 --tag=docs --keep-daily=7";
        assert_eq!(told(&group, Forgetting::InADryRun), others);
    }

    #[test]
    fn a_check_may_read_a_part_of_the_data() {
        assert_eq!(line(&check(None, Bandwidth::default())), "check --json");
        assert_eq!(line(&check(Some("5%"), Bandwidth::default())), "check --json --read-data-subset=5%");
    }
}
