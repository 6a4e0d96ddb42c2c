//! From what somebody asks for to the `command.run` that an agent gets. Pure.

use crate::db::hosts::Host;
use crate::db::jobs::{NewJob, Origin};
use crate::db::json::Json;
use crate::db::repositories::Repository;
use crate::db::source_groups::SourceGroup;
use fleet_wire::{Cap, CommandRun, ForgetGroup, Kind, Timestamp};
use uuid::Uuid;

/// What somebody asks a host to do.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The source group, for a backup; for a forget, to keep it to that one.
    pub source_group: Option<String>,
    /// Arguments of the kind.
    pub args: Vec<String>,
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
    if run.requires_admin_creds && repository.append_only && !repository.has_admin {
        let name = &repository.name;
        let detail = format!("{kind} needs an admin credential, and the append-only repository {name:?} has none");
        objections.push(Objection::new("/kind", detail));
    }
    let filled = match kind {
        Kind::Backup => fill_backup(&mut run, wish, host, groups),
        Kind::Forget => fill_forget(&mut run, wish, groups),
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
        requested_by: Some(cause.requested_by),
        command: Json(run),
        created_at: cause.at,
    })
}

fn objections_to_arguments(kind: Kind, wish: &Wish) -> Vec<Objection> {
    let mut objections = Vec::new();
    if wish.source_group.is_some() && !matches!(kind, Kind::Backup | Kind::Forget) {
        objections.push(Objection::new("/source_group", format!("a {kind} has no source group")));
    }
    match wish.args.as_slice() {
        [] => {}
        [_] if kind == Kind::Check => {}
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
    let name = name.ok_or_else(|| Objection::new("/source_group", "a backup needs a source group"))?;
    let group = find(name, groups)?;
    run.includes.clone_from(&group.includes.0);
    run.excludes.clone_from(&group.excludes.0);
    run.tag = Some(group.name.clone());
    run.pre_hook = group.pre_hook.clone().or_else(|| host.pre_hook.clone());
    run.post_hook = group.post_hook.clone().or_else(|| host.post_hook.clone());
    Ok(())
}

fn fill_forget(run: &mut CommandRun, wish: &Wish, groups: &[SourceGroup]) -> Result<(), Objection> {
    let wanted = match wish.source_group.as_deref() {
        Some(name) => std::slice::from_ref(find(name, groups)?),
        None => groups,
    };
    run.forget_groups = wanted
        .iter()
        .filter_map(|group| {
            let policy = group.retention.as_ref()?.0;
            policy.check().is_ok().then(|| ForgetGroup { tag: group.name.clone(), policy })
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
