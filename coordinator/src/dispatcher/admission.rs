//! Who may work on a repository now. Pure: the dispatcher carries it out.
//!
//! restic's `forget`, `prune` and `check` take a repository for themselves, two racing `init` can destroy it, and a
//! `backup` that meets one of them fails. So a job gets a lease on its repository before it goes out: shared for a
//! backup, exclusive for the others; an unlock needs none, but keeps away from an init. Leases go out in the order of
//! asking: who waits holds up those behind it that would conflict with it, unless its host is offline.

use fleet_wire::Kind;
use uuid::Uuid;

/// A job that has a lease or wants one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The job.
    pub job_id: Uuid,
    /// Its host.
    pub host_id: Uuid,
    /// What it does.
    pub kind: Kind,
}

/// Why a job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Its host is not connected.
    HostOffline,
    /// A job that is out conflicts with it.
    Held(Claim),
    /// A job that asked earlier conflicts with it, and waits itself.
    Behind(Claim),
}

impl Obstacle {
    /// The text for `waiting_for`.
    pub fn describe(&self) -> String {
        match self {
            Self::HostOffline => "host is offline".to_owned(),
            Self::Held(Claim { job_id, host_id, kind }) => {
                format!("repository is in use: {kind} job {job_id} of host {host_id}")
            }
            Self::Behind(Claim { job_id, host_id, kind }) => {
                format!("its turn in the repository: {kind} job {job_id} of host {host_id} comes first")
            }
        }
    }
}

/// Whether two jobs may not be out at once in one repository.
fn conflict(a: Kind, b: Kind) -> bool {
    let exclusive = |kind| !matches!(kind, Kind::Backup | Kind::Unlock);
    match (a, b) {
        (Kind::Init, _) | (_, Kind::Init) => true,
        (Kind::Unlock, _) | (_, Kind::Unlock) => false,
        _ => exclusive(a) || exclusive(b),
    }
}

/// What keeps `claim` from going out, if anything does: `out` have leases, `ahead` asked earlier.
pub fn obstacle(claim: &Claim, out: &[Claim], ahead: &[Claim], connected: impl Fn(Uuid) -> bool) -> Option<Obstacle> {
    if !connected(claim.host_id) {
        return Some(Obstacle::HostOffline);
    }
    let conflicts = |other: &&Claim| conflict(claim.kind, other.kind);
    if let Some(holder) = out.iter().find(conflicts) {
        return Some(Obstacle::Held(*holder));
    }
    ahead.iter().filter(|earlier| connected(earlier.host_id)).find(conflicts).map(|earlier| Obstacle::Behind(*earlier))
}

/// Which of `waiting`, in the order of asking, get a lease beside those that are `out`.
pub fn grant(out: &[Claim], waiting: &[Claim], connected: impl Fn(Uuid) -> bool) -> Vec<Claim> {
    let mut out = out.to_vec();
    let mut granted = Vec::new();
    let mut passed_over = Vec::new();
    for claim in waiting {
        if obstacle(claim, &out, &passed_over, &connected).is_none() {
            out.push(*claim);
            granted.push(*claim);
        } else {
            passed_over.push(*claim);
        }
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(number: u128, kind: Kind) -> Claim {
        Claim { job_id: Uuid::from_u128(number), host_id: Uuid::from_u128(number % 3), kind }
    }

    const ALL: fn(Uuid) -> bool = |_| true;

    #[test]
    fn backups_share_and_everything_else_waits_for_them() {
        let backups = [claim(1, Kind::Backup), claim(2, Kind::Backup)];
        assert_eq!(grant(&[], &backups, ALL), backups);
        let prune = claim(3, Kind::Prune);
        assert_eq!(grant(&backups, &[prune], ALL), []);
        assert_eq!(obstacle(&prune, &backups, &[], ALL), Some(Obstacle::Held(backups[0])));
    }

    #[test]
    fn a_waiting_prune_is_not_starved_by_later_backups() {
        let (out, prune, later) = (claim(1, Kind::Backup), claim(2, Kind::Prune), claim(3, Kind::Backup));
        assert_eq!(grant(&[out], &[prune, later], ALL), []);
        assert_eq!(obstacle(&later, &[out], &[prune], ALL), Some(Obstacle::Behind(prune)));
    }

    #[test]
    fn a_job_of_an_offline_host_holds_up_nobody() {
        let (prune, backup) = (claim(1, Kind::Prune), claim(2, Kind::Backup));
        let connected = |host| host == backup.host_id;
        assert_eq!(grant(&[], &[prune, backup], connected), [backup]);
        assert_eq!(obstacle(&prune, &[], &[], connected), Some(Obstacle::HostOffline));
    }

    #[test]
    fn an_unlock_goes_at_once_unless_an_init_is_out() {
        let unlock = claim(1, Kind::Unlock);
        assert_eq!(grant(&[claim(2, Kind::Prune)], &[unlock], ALL), [unlock]);
        assert_eq!(grant(&[claim(2, Kind::Init)], &[unlock], ALL), []);
    }

    fn any_claims() -> impl Strategy<Value = Vec<Claim>> {
        prop::collection::vec(prop::sample::select(Kind::ALL), 0..12)
            .prop_map(|kinds| kinds.into_iter().zip(1..).map(|(kind, number)| claim(number, kind)).collect())
    }

    proptest! {
        #[test]
        fn no_two_leases_conflict_and_the_first_is_never_starved(waiting in any_claims()) {
            let granted = grant(&[], &waiting, ALL);
            for (index, a) in granted.iter().enumerate() {
                for b in &granted[index + 1..] {
                    prop_assert!(!conflict(a.kind, b.kind), "{a:?} beside {b:?}");
                }
            }
            prop_assert_eq!(granted.first(), waiting.first());
        }
    }
}
