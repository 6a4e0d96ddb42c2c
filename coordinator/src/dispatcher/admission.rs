//! Who may work on a repository now. Pure: the lanes carry it out.
//!
//! restic's `forget`, `prune` and `check` take a repository for themselves, two racing `init` can destroy it, and a
//! `backup` that meets one of them fails. So a job gets a lease on its repository before it goes out: shared for a
//! backup, exclusive for the others; an unlock needs none, but keeps away from an init. Leases go out in the order of
//! asking: who waits holds up those behind it that would conflict with it, unless its host is offline.
//!
//! What conflicts depends on the kinds of jobs alone, so sets of kinds decide, however many jobs there are.

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
    /// Its operation lets others go first.
    Operation,
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
            Self::Operation => "its operation lets others go first".to_owned(),
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
pub fn conflict(a: Kind, b: Kind) -> bool {
    let exclusive = |kind| !matches!(kind, Kind::Backup | Kind::Unlock);
    match (a, b) {
        (Kind::Init, _) | (_, Kind::Init) => true,
        (Kind::Unlock, _) | (_, Kind::Unlock) => false,
        _ => exclusive(a) || exclusive(b),
    }
}

/// How many jobs there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds([u32; Kind::ALL.len()]);

impl Kinds {
    /// One more.
    pub fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// One less.
    pub fn take(&mut self, kind: Kind) {
        self.0[kind as usize] = self.0[kind as usize].saturating_sub(1);
    }

    /// Whether there is any that conflicts with `kind`.
    pub fn conflict_with(&self, kind: Kind) -> bool {
        Kind::ALL.iter().any(|&other| self.0[other as usize] > 0 && conflict(kind, other))
    }

    /// The kinds of which there are any.
    fn present(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().filter(|&kind| self.0[kind as usize] > 0)
    }
}

/// Which of `waiting` get a lease beside those that are `held`: their places in the order of asking. `kinds` counts what
/// waits, so that the look ends where nothing more can go.
pub fn grant(mut held: Kinds, mut kinds: Kinds, waiting: impl IntoIterator<Item = Kind>) -> Vec<usize> {
    let mut granted = Vec::new();
    let mut passed_over = Kinds::default();
    for (place, kind) in waiting.into_iter().enumerate() {
        if kinds.present().all(|kind| held.conflict_with(kind) || passed_over.conflict_with(kind)) {
            break;
        }
        kinds.take(kind);
        if held.conflict_with(kind) || passed_over.conflict_with(kind) {
            passed_over.add(kind);
        } else {
            held.add(kind);
            granted.push(place);
        }
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(kinds: &[Kind]) -> Kinds {
        kinds.iter().fold(Kinds::default(), |mut all, &kind| {
            all.add(kind);
            all
        })
    }

    fn granted(held: &[Kind], waiting: &[Kind]) -> Vec<usize> {
        grant(counted(held), counted(waiting), waiting.iter().copied())
    }

    #[test]
    fn backups_share_and_everything_else_waits_for_them() {
        assert_eq!(granted(&[], &[Kind::Backup, Kind::Backup]), [0, 1]);
        for kind in [Kind::Forget, Kind::Prune, Kind::Check, Kind::Init] {
            assert_eq!(granted(&[Kind::Backup], &[kind]), [0_usize; 0], "{kind}");
            assert_eq!(granted(&[kind], &[Kind::Backup]), [0_usize; 0], "{kind}");
        }
    }

    #[test]
    fn a_waiting_prune_is_not_starved_by_later_backups() {
        assert_eq!(granted(&[Kind::Backup], &[Kind::Prune, Kind::Backup, Kind::Unlock]), [2]);
    }

    #[test]
    fn an_unlock_goes_at_once_unless_an_init_is_out() {
        assert_eq!(granted(&[Kind::Prune], &[Kind::Unlock]), [0]);
        assert_eq!(granted(&[Kind::Init], &[Kind::Unlock]), [0_usize; 0]);
    }

    proptest! {
        #[test]
        fn leases_never_conflict_and_go_in_the_order_of_asking(
            held in prop::sample::select(vec![vec![], vec![Kind::Backup; 3], vec![Kind::Check], vec![Kind::Init]]),
            waiting in prop::collection::vec(prop::sample::select(Kind::ALL), 0..12),
        ) {
            let places = granted(&held, &waiting);
            let out: Vec<Kind> = held.iter().copied().chain(places.iter().map(|&place| waiting[place])).collect();
            for (index, a) in out.iter().enumerate() {
                for b in &out[index + 1..] {
                    prop_assert!(!conflict(*a, *b), "{a:?} beside {b:?}");
                }
            }
            // Whoever waits on has somebody that is out, or that waits and asked before, to wait for.
            for (place, kind) in waiting.iter().enumerate().filter(|(place, _)| !places.contains(place)) {
                let before = (0..place).filter(|before| !places.contains(before)).map(|before| waiting[before]);
                prop_assert!(out.iter().copied().chain(before).any(|other| conflict(*kind, other)), "{place}");
            }
        }
    }
}
