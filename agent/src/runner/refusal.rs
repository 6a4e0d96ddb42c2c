//! Which jobs are refused before anything is done.

use crate::credentials::Credentials;
use crate::restic::Found;
use fleet_wire::{CommandRun, Kind, check_group_name};

/// Why this job can't be run, for people; `None` if it can. What is not known of `restic` is found out when the job runs.
pub fn refusal(run: &CommandRun, admin: &Credentials, repo: &Credentials, restic: Option<&Found>) -> Option<String> {
    let Some(kind) = run.kind.known() else {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        return Some(format!("unknown kind of job {:?}: this agent knows {}", run.kind.to_string(), known.join(", ")));
    };
    refused_request(run, kind).or_else(|| refused_credentials(run, kind, admin, repo)).or_else(|| restic?.problem())
}

fn refused_request(run: &CommandRun, kind: Kind) -> Option<String> {
    match kind {
        Kind::Backup => refused_backup(run),
        Kind::Forget => refused_forget(run),
        Kind::Check => refused_check(run),
        Kind::Init | Kind::Prune | Kind::Unlock => None,
    }
}

fn refused_backup(run: &CommandRun) -> Option<String> {
    if run.includes.is_empty() {
        return Some("a backup needs at least one path to back up: give the source group an include".into());
    }
    if run.includes.iter().any(String::is_empty) {
        return Some("an include is empty: give a path".into());
    }
    if run.includes.iter().chain(&run.excludes).any(|path| path.contains('\0')) {
        return Some("an include or exclude holds a NUL character, which no path can".into());
    }
    let tag = run.tag.as_ref()?;
    check_group_name(tag).err().map(|error| format!("tag {tag:?}: {error}"))
}

fn refused_forget(run: &CommandRun) -> Option<String> {
    if run.forget_groups.is_empty() {
        return Some("a forget needs at least one source group with a retention policy".into());
    }
    let bad_group = run.forget_groups.iter().find_map(|group| {
        let bad_tag = check_group_name(&group.tag).err().map(|error| error.to_string());
        let bad_host = group.host.as_ref().filter(|host| host.chars().any(char::is_control));
        let bad_host = bad_host.map(|host| format!("no host is called {host:?}"));
        let problem = bad_tag.or(bad_host).or_else(|| group.policy.check().err().map(|error| error.to_string()))?;
        Some(format!("source group {:?}: {problem}", group.tag))
    });
    bad_group.or_else(|| run.forget_limit?.check().err())
}

fn refused_check(run: &CommandRun) -> Option<String> {
    let subset = run.args.first().filter(|subset| !subset.is_empty())?;
    (!fleet_wire::is_check_subset(subset)).then(|| {
        format!("a check can't read the subset {subset:?}: give a percentage (5%), a part (1/10) or a size (500M)")
    })
}

fn refused_credentials(run: &CommandRun, kind: Kind, admin: &Credentials, repo: &Credentials) -> Option<String> {
    if kind == Kind::Prune && !run.requires_admin_creds {
        return Some("a prune must ask for the admin credential (requires_admin_creds): it deletes data".into());
    }
    if run.requires_admin_creds && !is_complete(admin) {
        return Some(format!(
            "a {kind} that needs the admin credential, and this host has none: set the repository's admin credential"
        ));
    }
    if !run.requires_admin_creds && !is_complete(repo) {
        return Some("no repository is configured for this host: assign it one, with its password".into());
    }
    None
}

fn is_complete(credentials: &Credentials) -> bool {
    let has_password = credentials.password.as_ref().is_some_and(|password| !password.expose().is_empty());
    credentials.url.as_ref().is_some_and(|url| !url.is_empty()) && has_password
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restic::version::Version;
    use fleet_wire::{ForgetGroup, MaybeKnown, RetentionPolicy, Secret};
    use std::path::PathBuf;

    fn complete() -> Credentials {
        Credentials { url: Some("/srv/repo".into()), password: Some(Secret::new("pw")), ..Credentials::default() }
    }

    fn judge(run: &CommandRun) -> Option<String> {
        refusal(run, &complete(), &complete(), Some(&Found::Usable(Version::new(0, 14, 0))))
    }

    fn job(kind: Kind) -> CommandRun {
        let mut run = CommandRun::new("1".into(), kind);
        run.includes = vec!["/srv".into()];
        run.tag = Some("docs".into());
        run.requires_admin_creds = kind == Kind::Prune;
        let policy = RetentionPolicy { keep_last: Some(1), ..RetentionPolicy::default() };
        run.forget_groups = vec![ForgetGroup { tag: "docs".into(), policy, host: None }];
        run
    }

    #[track_caller]
    fn refused(run: &CommandRun, because: &str) {
        let reason = judge(run).expect("refused");
        assert!(reason.contains(because), "{reason}");
    }

    #[test]
    fn sound_jobs_of_every_kind_are_taken() {
        for kind in Kind::ALL {
            assert_eq!(judge(&job(*kind)), None, "{kind}");
        }
        let mut check = job(Kind::Check);
        check.args = vec!["1/10".into()];
        assert_eq!(judge(&check), None);
    }

    #[test]
    fn unsound_requests_are_refused() {
        let unknown = CommandRun { kind: MaybeKnown::Unknown("restore".into()), ..job(Kind::Backup) };
        refused(&unknown, "unknown kind of job \"restore\": this agent knows backup, init,");
        refused(&CommandRun { includes: vec![], ..job(Kind::Backup) }, "at least one path");
        refused(&CommandRun { includes: vec!["".into()], ..job(Kind::Backup) }, "empty");
        refused(&CommandRun { excludes: vec!["a\0b".into()], ..job(Kind::Backup) }, "NUL");
        refused(&CommandRun { tag: Some("a,b".into()), ..job(Kind::Backup) }, "comma");
        refused(&CommandRun { args: vec!["50".into()], ..job(Kind::Check) }, "5%");
    }

    #[test]
    fn a_forget_without_a_sound_policy_is_refused() {
        let with = |groups| CommandRun { forget_groups: groups, ..job(Kind::Forget) };
        let group = |tag: &str, keep_last| {
            let policy = RetentionPolicy { keep_last, ..RetentionPolicy::default() };
            ForgetGroup { tag: tag.into(), policy, host: None }
        };
        refused(&with(vec![]), "at least one source group");
        refused(
            &with(vec![group("a", Some(1)), group("docs", None)]),
            "source group \"docs\": the retention policy keeps nothing",
        );
        refused(&with(vec![group("docs", Some(0))]), "keeps nothing");
        refused(&with(vec![group("docs", Some(-1))]), "negative");
        refused(&with(vec![group("", Some(1))]), "empty");
        let host = |host: &str| ForgetGroup { host: Some(host.into()), ..group("docs", Some(1)) };
        refused(&with(vec![host("a\0b")]), "no host is called");
        assert_eq!(judge(&with(vec![host("web-1.example")])), None);
        let limited = |snapshots, share| CommandRun {
            forget_limit: Some(fleet_wire::ForgetLimit { snapshots, share }),
            ..job(Kind::Forget)
        };
        refused(&limited(Some(-1), None), "can't be negative");
        refused(&limited(None, Some(1.5)), "from 0 to 1");
        refused(&limited(None, Some(f64::NAN)), "from 0 to 1");
        assert_eq!(judge(&limited(Some(0), Some(1.0))), None);
    }

    #[test]
    fn jobs_without_their_credential_are_refused() {
        let found = Found::Usable(Version::new(0, 18, 0));
        let none = Credentials::default();
        let prune = refusal(&job(Kind::Prune), &none, &complete(), Some(&found)).unwrap();
        assert!(prune.contains("admin credential"), "{prune}");
        let backup = refusal(&job(Kind::Backup), &complete(), &none, Some(&found)).unwrap();
        assert!(backup.starts_with("no repository is configured"), "{backup}");
        let no_password = Credentials { password: None, ..complete() };
        assert!(refusal(&job(Kind::Backup), &complete(), &no_password, Some(&found)).is_some());
        refused(&CommandRun { requires_admin_creds: false, ..job(Kind::Prune) }, "must ask for the admin credential");
        let forget = CommandRun { requires_admin_creds: true, ..job(Kind::Forget) };
        assert!(refusal(&forget, &none, &complete(), Some(&found)).is_some());
    }

    #[test]
    fn without_a_usable_restic_every_job_is_refused() {
        let missing = Found::Unusable { path: PathBuf::from("/opt/restic"), reason: "No such file".into() };
        let reason = refusal(&job(Kind::Backup), &complete(), &complete(), Some(&missing)).unwrap();
        assert!(reason.starts_with("restic was not found at /opt/restic"), "{reason}");
        let old = Found::TooOld(Version::new(0, 12, 1));
        assert!(
            refusal(&job(Kind::Check), &complete(), &complete(), Some(&old)).unwrap().contains("0.12.1 is too old")
        );
    }
}
