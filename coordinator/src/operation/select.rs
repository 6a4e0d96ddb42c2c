//! From the hosts that a selector names to the members of an operation: who runs a job, and who does not and why. Pure.

use crate::db::hosts::Host;
use crate::db::jobs::NewJob;
use crate::db::planning::Planning;
use crate::job::plan::{Cause, Objection, Wish, plan};
use fleet_wire::Kind;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Whom a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Each host runs its own.
    Host,
    /// One host of each repository runs it for all.
    Repository,
}

impl Per {
    /// Whom a job of this kind is for, unless somebody says otherwise. A forget goes by its host's policies and an unlock
    /// finds its host's dead processes; the others do for the whole repository what they do.
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Backup | Kind::Forget | Kind::Unlock => Self::Host,
            Kind::Init | Kind::Prune | Kind::Check => Self::Repository,
        }
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Repository => "repository",
        })
    }
}

/// One host that an operation means.
#[derive(Clone, Debug)]
pub struct Member {
    /// The host.
    pub host_id: Uuid,
    /// Its name.
    pub hostname: String,
    /// Its repository.
    pub repository_id: Option<Uuid>,
    /// Its job, or why it gets none, for people.
    pub job: Result<NewJob, String>,
}

/// The members among `known`, in the order in which they go: those that are connected first, so that canaries can sing.
pub fn members(
    kind: Kind,
    per: Per,
    wish: &Wish,
    known: Vec<Arc<Planning>>,
    is_connected: impl Fn(Uuid) -> bool,
    cause: &Cause,
) -> Vec<Member> {
    let mut known = known;
    let connected: HashSet<Uuid> = known.iter().map(|known| known.host.id).filter(|&id| is_connected(id)).collect();
    known.sort_by(|a, b| order(&a.host, &connected).cmp(&order(&b.host, &connected)));
    if per == Per::Repository {
        known = runners(known, &connected);
    }
    known.iter().map(|known| member(kind, wish, known, cause)).collect()
}

fn order<'a>(host: &'a Host, connected: &HashSet<Uuid>) -> (bool, &'a str, Uuid) {
    (!connected.contains(&host.id), &host.hostname, host.id)
}

/// One host of each repository: its runner if it has one that is meant, else one that is connected, that knows the repository and is not cloned, the first by name. A
/// host without a repository stands for itself, and will be told so.
fn runners(known: Vec<Arc<Planning>>, connected: &HashSet<Uuid>) -> Vec<Arc<Planning>> {
    let fitness = |known: &Planning| {
        let host = &known.host;
        let runner = known.repository.as_ref().and_then(|repository| repository.runner_host_id);
        let knows = host.initialized_repository_id == host.repository_id;
        let is_other = runner.is_some_and(|runner| runner != host.id);
        (is_other, !connected.contains(&host.id), !knows, host.cloned_at.is_some())
    };
    let mut best: HashMap<Uuid, &Arc<Planning>> = HashMap::new();
    for candidate in &known {
        let Some(repository_id) = candidate.host.repository_id else { continue };
        let there = best.entry(repository_id).or_insert(candidate);
        if fitness(candidate) < fitness(there) {
            *there = candidate;
        }
    }
    let chosen: HashSet<Uuid> = best.values().map(|chosen| chosen.host.id).collect();
    known.into_iter().filter(|known| known.repository.is_none() || chosen.contains(&known.host.id)).collect()
}

fn member(kind: Kind, wish: &Wish, known: &Planning, cause: &Cause) -> Member {
    let Planning { host, repository, groups } = known;
    let job = match repository {
        None => Err("this host has no repository: assign one first".to_owned()),
        Some(repository) => plan(kind, wish, host, repository, groups, cause.clone()).map_err(in_words),
    };
    Member { host_id: host.id, hostname: host.hostname.clone(), repository_id: host.repository_id, job }
}

fn in_words(objections: Vec<Objection>) -> String {
    let details: Vec<String> = objections.into_iter().map(|objection| objection.detail).collect();
    details.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::jobs::Origin;
    use crate::job::plan::tests::{group, host, repository};
    use chrono::Utc;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// A host of the fixtures' repository, with one source group.
    fn known(number: u128, hostname: &str) -> Planning {
        let mut host = host();
        (host.id, host.hostname) = (id(number), hostname.to_owned());
        host.initialized_repository_id = host.repository_id;
        Planning { host, repository: Some(Arc::new(repository(false, true))), groups: vec![group("docs", None)] }
    }

    fn chosen(kind: Kind, per: Per, wish: &Wish, known: Vec<Planning>, connected: &[u128]) -> Vec<Member> {
        let cause = Cause { origin: Origin::Operator, requested_by: "me".to_owned(), at: Utc::now() };
        let known = known.into_iter().map(Arc::new).collect();
        members(kind, per, wish, known, |host| connected.contains(&host.as_u128()), &cause)
    }

    fn ids(members: &[Member]) -> Vec<u128> {
        members.iter().map(|member| member.host_id.as_u128()).collect()
    }

    #[test]
    fn those_that_are_connected_go_first_and_jobs_are_in_that_order() {
        let known = vec![known(1, "a"), known(2, "c"), known(3, "b")];
        let members = chosen(Kind::Unlock, Per::Host, &Wish::default(), known, &[2, 3]);
        assert_eq!(ids(&members), [3, 2, 1]);
        let jobs: Vec<Uuid> = members.iter().filter_map(|member| Some(member.job.as_ref().ok()?.id)).collect();
        assert!(jobs.len() == 3 && jobs.is_sorted(), "members are released by the order of their ids");
    }

    #[test]
    fn who_can_not_run_it_is_a_member_with_a_reason() {
        let wish = Wish { source_group: Some("docs".to_owned()), ..Wish::default() };
        let mut homeless = known(2, "b");
        (homeless.host.repository_id, homeless.repository) = (None, None);
        let empty = Planning { groups: Vec::new(), ..known(3, "c") };
        let members = chosen(Kind::Backup, Per::Host, &wish, vec![known(1, "a"), homeless, empty], &[]);
        let reasons: Vec<Option<&str>> =
            members.iter().map(|member| member.job.as_ref().err().map(String::as_str)).collect();
        let expected = [
            None,
            Some("this host has no repository: assign one first"),
            Some("this host has no source group \"docs\""),
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn one_host_runs_it_for_its_repository() {
        let of = |known: Planning, repository: u128| {
            let mut known = known;
            known.host.repository_id = Some(id(repository));
            known.host.initialized_repository_id = Some(id(repository));
            known
        };
        let check =
            |known, connected: &[u128]| ids(&chosen(Kind::Check, Per::Repository, &Wish::default(), known, connected));
        let fleet = || vec![of(known(1, "a"), 8), of(known(2, "b"), 8), of(known(3, "c"), 9), of(known(4, "d"), 9)];
        assert_eq!(check(fleet(), &[]), [1, 3], "the first by name");
        assert_eq!(check(fleet(), &[2, 3]), [2, 3], "one that is connected before one that is not");
        let mut fleet = fleet();
        fleet[1].host.initialized_repository_id = None;
        fleet[2].host.cloned_at = Some(Utc::now());
        assert_eq!(check(fleet, &[1, 2, 3, 4]), [1, 4], "one that knows the repository and is itself");
        let mut homeless = known(5, "e");
        (homeless.host.repository_id, homeless.repository) = (None, None);
        assert_eq!(check(vec![homeless, of(known(1, "a"), 8)], &[]), [1, 5], "which will be told so");
    }
}
