//! What a job that has waited comes to by the time that it goes out: it was planned when it was asked for, and may have
//! waited for days. What was asked for stays (which groups, how much may be deleted); how that is done, policies, paths and
//! hooks, is what its hosts' settings say now.

use super::plan::{runner_objection, take_group};
use crate::db::jobs::{NewJob, Origin};
use crate::db::json::Json;
use crate::db::lookup::Lookup;
use crate::db::planning::{OfHost, OfRepositories, Planning};
use crate::db::replan::Replan;
use crate::db::{Database, DatabaseError};
use crate::persistence::{Patience, Persistence, Save, WriteError};
use actix::Addr;
use fleet_wire::{CommandRun, ForgetGroup, ForgetLimit, Kind};
use std::sync::Arc;
use std::time::Duration;

/// The pause before what can't be read is read again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a database that answers may fail to give it. A job that is held up by more has its repository's lease, and others
/// wait for that.
const TRIES: u32 = 15;

/// What a renewal needs of the coordinator.
pub(super) struct Renewal {
    pub(super) database: Database,
    pub(super) planning: Arc<Lookup<OfHost>>,
    pub(super) persistence: Addr<Persistence>,
}

/// Those of the job's host, unless it is gone, and of the hosts of its repository if it is about them.
type Settings = (Option<Arc<Planning>>, Vec<Arc<Planning>>);

/// Whether jobs of this kind are made of settings that may change while they wait.
pub(super) fn is_renewed(new: &NewJob) -> bool {
    [Kind::Backup, Kind::Forget, Kind::Prune].iter().any(|kind| kind.as_str() == new.kind)
}

impl Renewal {
    /// The job as it is to go out, which is in the ledger by then; the error says why it can't.
    pub(super) async fn of(self, new: Arc<NewJob>) -> Result<Arc<NewJob>, String> {
        let (own, all) = self.read(&new).await?;
        // Whoever takes a host out of service ends its jobs.
        let Some(own) = own else { return Ok(new) };
        let command = renewed(&new, &own, &all)?;
        if command == new.command.0 {
            return Ok(new);
        }
        log::info!(job:% = new.id; "the settings have changed while it waited: it goes out with those of now");
        let renewed = NewJob { command: Json(command), ..NewJob::clone(&new) };
        let write = Replan { job_id: new.id, command: renewed.command.clone() };
        let written = self.persistence.send(Save { write, patience: Patience::Endless }).await;
        match written.unwrap_or(Err(WriteError::Unknown)) {
            Ok(()) => Ok(Arc::new(renewed.as_stored())),
            Err(error) => Err(format!("what it was to go out with can't be stored: {error}")),
        }
    }

    /// Reads what it goes out with. A database that is away is waited for: nothing else goes out meanwhile.
    async fn read(&self, new: &NewJob) -> Result<Settings, String> {
        let mut failed = 0;
        loop {
            let error = match self.look_up(new).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            log::warn!(job:% = new.id; "what it goes out with can't be read yet: {error}");
            failed += u32::from(self.database.ping().await.is_ok());
            if failed >= TRIES {
                return Err(format!("what it was to go out with can't be read: {error}"));
            }
            actix::clock::sleep(PAUSE).await;
        }
    }

    async fn look_up(&self, new: &NewJob) -> Result<Settings, DatabaseError> {
        let own = self.planning.get(new.host_id).await?;
        let id = new.repository_id;
        let of_others = new.command.0.forget_groups.iter().any(|group| group.host.is_some());
        let all = match of_others {
            true => self.database.read(async |reader| OfRepositories::find(reader, &[id]).await).await?.remove(&id),
            false => None,
        };
        Ok((own, all.unwrap_or_default()))
    }
}

/// The command of a job by the settings of now: `own` of its host, `all` of the hosts of its repository if it is about them.
/// Pure.
fn renewed(new: &NewJob, own: &Planning, all: &[Arc<Planning>]) -> Result<CommandRun, String> {
    let mut run = new.command.0.clone();
    if let Some(objection) = own.repository.as_ref().and_then(|it| runner_objection(&new.kind, it, &own.host)) {
        return Err(objection);
    }
    if new.kind == Kind::Backup.as_str() {
        let group = own.groups.iter().find(|group| Some(&group.name) == run.tag.as_ref());
        let group = group.ok_or("its source group was deleted while it waited")?;
        take_group(&mut run, group, &own.host);
    }
    if new.kind == Kind::Forget.as_str() {
        let now: Vec<_> = run.forget_groups.iter().filter_map(|group| policy_of_now(group, own, all)).collect();
        if now != run.forget_groups && may_be_confirmed(new) {
            return Err("its groups or policies have changed since it was asked for: ask again".to_owned());
        }
        run.forget_groups = now;
        if run.forget_groups.is_empty() {
            return Err("none of its source groups has a retention policy any more".to_owned());
        }
    }
    Ok(run)
}

/// Whether a person may have seen the list of what it deletes: that holds for the policies of then only. Confirmed ones have
/// a limit in snapshots alone (see [`ForgetLimit`]), and are asked for by people.
fn may_be_confirmed(new: &NewJob) -> bool {
    let counted = |limit: &ForgetLimit| limit.snapshots.is_some() && limit.share.is_none();
    new.origin == Origin::Operator.as_str() && new.command.0.forget_limit.as_ref().is_some_and(counted)
}

/// A group of a forget with its policy of now; nothing if it has none any more: then all of it is kept.
fn policy_of_now(planned: &ForgetGroup, own: &Planning, all: &[Arc<Planning>]) -> Option<ForgetGroup> {
    let planning = match &planned.host {
        Some(name) => all.iter().find(|planning| planning.host.hostname == *name)?,
        None => own,
    };
    let group = planning.groups.iter().find(|group| group.name == planned.tag)?;
    let policy = group.retention.as_ref()?.0;
    policy.check().is_ok().then(|| ForgetGroup { policy, ..planned.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{group, host, repository};
    use super::*;
    use crate::db::hosts::Host;
    use crate::db::source_groups::SourceGroup;
    use fleet_wire::RetentionPolicy;
    use uuid::Uuid;

    fn planning(host: Host, groups: Vec<SourceGroup>) -> Arc<Planning> {
        Arc::new(Planning { host, repository: Some(Arc::new(repository(false, false))), groups })
    }

    fn job(kind: Kind, change: impl FnOnce(&mut CommandRun)) -> NewJob {
        let mut new = NewJob::sample(Uuid::from_u128(9), host().id, Uuid::from_u128(2), kind);
        change(&mut new.command.0);
        new
    }

    fn of_group(tag: &str, keep_last: i64, host: Option<&str>) -> ForgetGroup {
        let policy = RetentionPolicy { keep_last: Some(keep_last), ..RetentionPolicy::default() };
        ForgetGroup { tag: tag.to_owned(), policy, host: host.map(str::to_owned) }
    }

    #[test]
    fn a_forget_goes_by_the_policies_of_now_and_never_by_more_groups() {
        let own = planning(host(), vec![group("etc", Some(9)), group("home", None), group("new", Some(1))]);
        let groups = ["etc", "home", "gone"].map(|tag| of_group(tag, 1, None));
        let forget = job(Kind::Forget, |run| run.forget_groups = groups.to_vec());
        let run = renewed(&forget, &own, &[]).expect("there is something to forget by");
        assert_eq!(run.forget_groups, [of_group("etc", 9, None)]);
        let nothing = job(Kind::Forget, |run| run.forget_groups = vec![of_group("home", 1, None)]);
        assert!(renewed(&nothing, &own, &[]).expect_err("nothing").contains("retention policy"));
    }

    #[test]
    fn what_a_person_has_confirmed_is_not_done_by_other_policies() {
        let forget = |keep_last| {
            let mut new = job(Kind::Forget, |run| {
                run.forget_groups = vec![of_group("etc", keep_last, None)];
                run.forget_limit = Some(ForgetLimit { snapshots: Some(40), share: None });
            });
            new.origin = Origin::Operator.as_str().to_owned();
            new
        };
        let own = planning(host(), vec![group("etc", Some(9))]);
        assert!(renewed(&forget(1), &own, &[]).expect_err("other policies").contains("ask again"));
        assert_eq!(renewed(&forget(9), &own, &[]).expect("the same").forget_groups, [of_group("etc", 9, None)]);
    }

    #[test]
    fn a_forget_for_others_goes_by_their_policies() {
        let other = planning(
            Host { hostname: "db-1".to_owned(), ..Host::sample(Uuid::from_u128(3)) },
            vec![group("etc", Some(7))],
        );
        let own = planning(host(), vec![group("etc", Some(9))]);
        let groups =
            vec![of_group("etc", 1, Some("web1")), of_group("etc", 1, Some("db-1")), of_group("etc", 1, Some("x"))];
        let forget = job(Kind::Forget, |run| run.forget_groups = groups);
        let run = renewed(&forget, &own, &[Arc::clone(&own), other]).expect("two have policies");
        assert_eq!(run.forget_groups, [of_group("etc", 9, Some("web1")), of_group("etc", 7, Some("db-1"))]);
    }

    #[test]
    fn a_backup_goes_with_the_paths_and_hooks_of_now() {
        let backup = job(Kind::Backup, |run| {
            run.tag = Some("etc".to_owned());
            run.pre_hook = Some("rm what nobody wants removed any more".to_owned());
        });
        let run = renewed(&backup, &planning(host(), vec![group("etc", None)]), &[]).expect("the group is there");
        assert_eq!((run.includes, run.excludes), (vec!["/etc".to_owned()], vec!["*.tmp".to_owned()]));
        assert_eq!((run.pre_hook.as_deref(), run.post_hook.as_deref()), (Some("group pre"), Some("host post")));
        assert!(renewed(&backup, &planning(host(), vec![]), &[]).expect_err("gone").contains("deleted"));
    }

    #[test]
    fn what_only_the_runner_may_do_is_not_done_by_another() {
        let runner = Some(Uuid::from_u128(5));
        let repository =
            Some(Arc::new(crate::db::repositories::Repository { runner_host_id: runner, ..repository(false, false) }));
        let own = Planning { host: host(), repository, groups: Vec::new() };
        assert!(renewed(&job(Kind::Prune, |_| ()), &own, &[]).expect_err("refused").contains("runner"));
    }
}
