//! From what somebody asks for to the `command.run` that an agent gets. Pure.

use crate::db::hosts::Host;
use crate::db::jobs::{NewJob, Origin};
use crate::db::json::Json;
use crate::db::repositories::Repository;
use crate::db::source_groups::SourceGroup;
use crate::maintenance::{forget_limit, guards};
use fleet_wire::{Cap, CommandRun, ForgetGroup, ForgetLimit, Kind, Timestamp, is_check_subset};
use uuid::Uuid;

/// What somebody asks a host to do.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The source group, for a backup; for a forget, to keep it to that one.
    pub source_group: Option<String>,
    /// Arguments of the kind.
    pub args: Vec<String>,
    /// Only report what a forget would delete.
    pub dry_run: bool,
    /// What a forget may delete, where a person has said so; otherwise what the repository allows.
    pub limit: Option<ForgetLimit>,
    /// The groups of a forget that are not just the host's own.
    pub forget_groups: Vec<ForgetGroup>,
    /// Upload limit of this job.
    pub bandwidth_up_kbps: Cap,
    /// Download limit of this job.
    pub bandwidth_down_kbps: Cap,
}

/// What is wrong with a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The field at fault, as a JSON pointer.
    pub pointer: &'static str,
    /// What is wrong with it, for people.
    pub detail: String,
}

impl Objection {
    fn new(pointer: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer, detail: detail.into() }
    }
}

/// All that is wrong with a wish, for people.
pub fn said(objections: &[Objection]) -> String {
    objections.iter().map(|objection| objection.detail.as_str()).collect::<Vec<_>>().join("; ")
}

/// Who wants a job, and why.
#[derive(Clone, Debug)]
pub struct Cause {
    /// Why there is a job.
    pub origin: Origin,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub at: Timestamp,
}

/// The job of `kind` that `wish` asks of `host`.
///
/// # Errors
/// Everything that is wrong with the wish.
pub fn plan(
    kind: Kind,
    wish: &Wish,
    host: &Host,
    repository: &Repository,
    groups: &[SourceGroup],
    cause: Cause,
) -> Result<NewJob, Vec<Objection>> {
    let id = Uuid::now_v7();
    let mut run = CommandRun::new(id.to_string().as_str().into(), kind);
    run.bandwidth_up_kbps = wish.bandwidth_up_kbps;
    run.bandwidth_down_kbps = wish.bandwidth_down_kbps;
    run.requires_admin_creds = kind == Kind::Prune || (kind == Kind::Forget && repository.append_only);
    let mut objections = objections_to_arguments(kind, wish);
    objections.extend(runner_objection(kind.as_str(), repository, host).map(|detail| Objection::new("/kind", detail)));
    if run.requires_admin_creds && repository.append_only && !repository.has_admin {
        let name = &repository.name;
        let detail = format!("{kind} needs an admin credential, and the append-only repository {name:?} has none");
        objections.push(Objection::new("/kind", detail));
    }
    let filled = match kind {
        Kind::Backup => fill_backup(&mut run, wish, host, groups),
        Kind::Forget => fill_forget(&mut run, wish, host, repository, groups),
        Kind::Check => {
            run.args.clone_from(&wish.args);
            Ok(())
        }
        Kind::Init | Kind::Prune | Kind::Unlock => Ok(()),
    };
    objections.extend(filled.err());
    if !objections.is_empty() {
        return Err(objections);
    }
    Ok(NewJob {
        id,
        host_id: host.id,
        repository_id: repository.id,
        kind: kind.as_str().to_owned(),
        origin: cause.origin.as_str().to_owned(),
        source_group: run.tag.clone(),
        schedule_id: None,
        scheduled_at: None,
        attempt: 1,
        retry_of: None,
        run_id: None,
        requested_by: Some(cause.requested_by),
        command: Json(run),
        created_at: cause.at,
        operation_id: None,
    })
}

/// Why a host may not do what deletes, if only the repository's runner may.
pub(super) fn runner_objection(kind: &str, repository: &Repository, host: &Host) -> Option<String> {
    let deletes = [Kind::Forget, Kind::Prune].iter().any(|deletes| deletes.as_str() == kind);
    let is_others = deletes && repository.runner_host_id.is_some_and(|runner| runner != host.id);
    is_others.then(|| format!("the repository {:?} has a runner: no other host may {kind}", repository.name))
}

/// What is wrong with a wish whatever host it is for.
pub fn objections(kind: Kind, wish: &Wish) -> Vec<Objection> {
    let mut objections = objections_to_arguments(kind, wish);
    if kind == Kind::Backup && wish.source_group.is_none() {
        objections.push(no_source_group());
    }
    objections
}

fn no_source_group() -> Objection {
    Objection::new("/source_group", "a backup needs a source group")
}

fn objections_to_arguments(kind: Kind, wish: &Wish) -> Vec<Objection> {
    let mut objections = Vec::new();
    if wish.dry_run && kind != Kind::Forget {
        objections.push(Objection::new("/dry_run", format!("a {kind} can't be tried dry")));
    }
    if wish.source_group.is_some() && !matches!(kind, Kind::Backup | Kind::Forget) {
        objections.push(Objection::new("/source_group", format!("a {kind} has no source group")));
    }
    match wish.args.as_slice() {
        [] => {}
        [subset] if kind == Kind::Check && is_check_subset(subset) => {}
        [subset] if kind == Kind::Check => {
            let detail =
                format!("{subset:?} is no part to read: give a percentage (5%), a part (1/10) or a size (500M)");
            objections.push(Objection::new("/args/0", detail));
        }
        _ if kind == Kind::Check => {
            objections.push(Objection::new("/args", "a check takes one argument: the subset to read"));
        }
        _ => objections.push(Objection::new("/args", format!("a {kind} takes no arguments"))),
    }
    objections
}

fn find<'a>(name: &str, groups: &'a [SourceGroup]) -> Result<&'a SourceGroup, Objection> {
    let missing = || Objection::new("/source_group", format!("this host has no source group {name:?}"));
    groups.iter().find(|group| group.name == name).ok_or_else(missing)
}

fn fill_backup(run: &mut CommandRun, wish: &Wish, host: &Host, groups: &[SourceGroup]) -> Result<(), Objection> {
    let name = wish.source_group.as_deref();
    let name = name.ok_or_else(no_source_group)?;
    let group = find(name, groups)?;
    take_group(run, group, host);
    Ok(())
}

/// Makes a backup one of this group, as it is now.
pub(super) fn take_group(run: &mut CommandRun, group: &SourceGroup, host: &Host) {
    run.includes.clone_from(&group.includes.0);
    run.excludes.clone_from(&group.excludes.0);
    run.tag = Some(group.name.clone());
    run.pre_hook = group.pre_hook.clone().or_else(|| host.pre_hook.clone());
    run.post_hook = group.post_hook.clone().or_else(|| host.post_hook.clone());
}

fn fill_forget(
    run: &mut CommandRun,
    wish: &Wish,
    host: &Host,
    repository: &Repository,
    groups: &[SourceGroup],
) -> Result<(), Objection> {
    run.dry_run = wish.dry_run;
    run.forget_limit = wish.limit.or_else(|| forget_limit(repository)).filter(|_| !wish.dry_run);
    if (run.dry_run || run.forget_limit.is_some()) && !guards(host) {
        let (pointer, what) = match wish.dry_run {
            true => ("/dry_run", "try a forget dry"),
            false => ("/kind", "keep the repository's limit on what a forget may delete"),
        };
        return Err(Objection::new(pointer, format!("the agent of this host is too old to {what}")));
    }
    if !wish.forget_groups.is_empty() {
        run.forget_groups.clone_from(&wish.forget_groups);
        return Ok(());
    }
    let wanted = match wish.source_group.as_deref() {
        Some(name) => std::slice::from_ref(find(name, groups)?),
        None => groups,
    };
    run.forget_groups = wanted
        .iter()
        .filter_map(|group| {
            let policy = group.retention.as_ref()?.0;
            policy.check().is_ok().then(|| ForgetGroup { tag: group.name.clone(), policy, host: None })
        })
        .collect();
    if run.forget_groups.is_empty() {
        let (pointer, whose) = match &wish.source_group {
            Some(name) => ("/source_group", format!("the source group {name:?} has no retention policy")),
            None => ("/kind", "none of this host's source groups has a retention policy".to_owned()),
        };
        return Err(Objection::new(pointer, format!("{whose}: there is nothing to forget by")));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chrono::Utc;
    use fleet_wire::RetentionPolicy;

    pub(crate) fn host() -> Host {
        let hooks = (Some("host pre".to_owned()), Some("host post".to_owned()));
        Host {
            repository_id: Some(Uuid::from_u128(2)),
            pre_hook: hooks.0,
            post_hook: hooks.1,
            ..Host::sample(Uuid::from_u128(1))
        }
    }

    pub(crate) fn repository(append_only: bool, has_admin: bool) -> Repository {
        Repository { append_only, has_admin, ..Repository::sample(Uuid::from_u128(2)) }
    }

    pub(crate) fn group(name: &str, retention: Option<i64>) -> SourceGroup {
        let policy = |keep_last| Json(RetentionPolicy { keep_last: Some(keep_last), ..RetentionPolicy::default() });
        SourceGroup {
            host_id: Uuid::from_u128(1),
            name: name.to_owned(),
            includes: Json(vec!["/etc".to_owned()]),
            excludes: Json(vec!["*.tmp".to_owned()]),
            retention: retention.map(policy),
            retry_max: 0,
            retry_backoff_seconds: 60,
            pre_hook: Some("group pre".to_owned()),
            post_hook: None,
            created_at: Utc::now(),
            updated_at: Utc::now(),
            rpo_seconds: None,
        }
    }

    fn planned(
        kind: Kind,
        wish: &Wish,
        repository: &Repository,
        groups: &[SourceGroup],
    ) -> Result<NewJob, Vec<Objection>> {
        let cause = Cause { origin: Origin::Operator, requested_by: "test".to_owned(), at: Utc::now() };
        plan(kind, wish, &host(), repository, groups, cause)
    }

    fn of_group(name: &str) -> Wish {
        Wish { source_group: Some(name.to_owned()), ..Wish::default() }
    }

    #[test]
    fn a_backup_takes_its_groups_hooks_before_its_hosts() {
        let job =
            planned(Kind::Backup, &of_group("etc"), &repository(false, false), &[group("etc", None)]).expect("planned");
        let run = job.command.0;
        assert_eq!((run.tag.as_deref(), run.includes), (Some("etc"), vec!["/etc".to_owned()]));
        assert_eq!((run.pre_hook.as_deref(), run.post_hook.as_deref()), (Some("group pre"), Some("host post")));
        assert_eq!(job.id.to_string(), run.job_id.as_str());
    }

    #[test]
    fn a_backup_of_no_or_of_an_unknown_group_names_the_field() {
        for wish in [Wish::default(), of_group("nope")] {
            let objections = planned(Kind::Backup, &wish, &repository(false, false), &[]).expect_err("refused");
            assert_eq!(objections[0].pointer, "/source_group");
        }
    }

    #[test]
    fn a_forget_takes_the_groups_that_have_a_policy_and_needs_one() {
        let groups = [group("etc", Some(3)), group("home", None), group("zero", Some(0))];
        let job = planned(Kind::Forget, &Wish::default(), &repository(false, false), &groups).expect("planned");
        let tags: Vec<_> = job.command.0.forget_groups.iter().map(|group| group.tag.as_str()).collect();
        assert_eq!(tags, ["etc"]);
        assert!(!job.command.0.requires_admin_creds);
        assert!(planned(Kind::Forget, &Wish::default(), &repository(false, false), &groups[1..]).is_err());
        assert!(planned(Kind::Forget, &of_group("home"), &repository(false, false), &groups).is_err());
    }

    #[test]
    fn what_deletes_asks_for_the_admin_slot_where_the_repository_demands_it() {
        let groups = [group("etc", Some(3))];
        let needs = |kind, append_only| {
            let job = planned(kind, &Wish::default(), &repository(append_only, true), &groups).expect("planned");
            job.command.0.requires_admin_creds
        };
        assert!(needs(Kind::Prune, false) && needs(Kind::Prune, true) && needs(Kind::Forget, true));
        assert!(!needs(Kind::Forget, false) && !needs(Kind::Check, true));
        let none = planned(Kind::Prune, &Wish::default(), &repository(true, false), &groups).expect_err("refused");
        assert!(none[0].detail.contains("admin credential"));
    }

    #[test]
    fn arguments_that_restic_would_refuse_are_refused_here() {
        let check = |args: &[&str]| {
            let wish = Wish { args: args.iter().map(ToString::to_string).collect(), ..Wish::default() };
            planned(Kind::Check, &wish, &repository(false, false), &[])
        };
        assert_eq!(check(&["1/7"]).expect("planned").command.0.args, ["1/7"]);
        assert_eq!(check(&["50"]).expect_err("refused")[0].pointer, "/args/0");
        assert_eq!(check(&["5%", "6%"]).expect_err("refused")[0].pointer, "/args");
        let wish = Wish { args: vec!["x".to_owned()], ..Wish::default() };
        assert_eq!(
            planned(Kind::Unlock, &wish, &repository(false, false), &[]).expect_err("refused")[0].pointer,
            "/args"
        );
    }
}
