//! Who may work on a repository now. Pure: the lanes carry it out.
//!
//! restic's `forget`, `prune` and `check` take a repository for themselves, two racing `init` can destroy it, and a
//! `backup` that meets one of them fails. So a job gets a lease on its repository before it goes out: shared for a
//! backup, exclusive for the others; an unlock needs none, but keeps away from an init.
//!
//! Leases go out in the order of asking, with one exception: a backup overtakes an exclusive job that waits for other
//! backups, until that has waited for its drain time. From then on no backup that asked later goes before it. So an
//! exclusive job goes at the latest when those are over that were out at its drain time, and those that asked before
//! it; a backup is never overtaken by an exclusive job that asked later. An init goes before all that waits, and has
//! no drain time: without it nothing of its host can work. Those whose host is offline or paused stand aside and hold
//! up nobody.
//!
//! Time only takes away: what may not go now does not become free because time passes, but because a job ends. So a
//! drain time is looked at when a backup wants to go, and needs no timer.
//!
//! What conflicts depends on the kinds of jobs, and who comes first on the first to ask of each kind: so a decision
//! costs the same however many jobs there are.

use fleet_wire::Kind;
use uuid::Uuid;

/// A job's place in the order of asking, over all repositories. An init comes before all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    behind_inits: bool,
    number: u64,
}

impl Turn {
    /// The turn of the `number`th job to ask.
    pub fn new(kind: Kind, number: u64) -> Self {
        Self { behind_inits: kind != Kind::Init, number }
    }
}

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing is to be started; by whom and why.
    Paused(String),
    /// Its host is not connected.
    HostOffline,
    /// Its operation lets others go first.
    Operation,
    /// A job that is out conflicts with it.
    Held(Claim),
    /// A job that asked earlier conflicts with it, and waits itself.
    Behind(Claim),
    /// As many backups are out in its repository as may be.
    RepositoryFull(u32),
    /// As many backups are out in all as may be.
    FleetFull(u32),
}

impl Obstacle {
    /// The host of the job that is in the way, if one is.
    pub fn host(&self) -> Option<Uuid> {
        match self {
            Self::Held(claim) | Self::Behind(claim) => Some(claim.host_id),
            _ => None,
        }
    }

    /// The text for `waiting_for`, for somebody who may hear of the hosts that pass `sees`.
    pub fn describe(&self, sees: impl Fn(Uuid) -> bool) -> String {
        let name = |Claim { job_id, host_id, kind }: &Claim| match sees(*host_id) {
            true => format!("{kind} job {job_id} of host {host_id}"),
            false => format!("a {kind} job of another host"),
        };
        match self {
            Self::Paused(why) => format!("paused: {why}"),
            Self::HostOffline => "host is offline".to_owned(),
            Self::Operation => "its operation lets others go first".to_owned(),
            Self::Held(claim) => format!("repository is in use: {}", name(claim)),
            Self::Behind(claim) => format!("its turn in the repository: {} comes first", name(claim)),
            Self::RepositoryFull(limit) => format!("repository has its limit of {limit} backups"),
            Self::FleetFull(limit) => format!("the fleet has its limit of {limit} backups"),
        }
    }
}

/// Whether two jobs may not be out at once in one repository.
pub fn conflict(a: Kind, b: Kind) -> bool {
    match (a, b) {
        (Kind::Init, _) | (_, Kind::Init) => true,
        (Kind::Unlock, _) | (_, Kind::Unlock) => false,
        _ => is_exclusive(a) || is_exclusive(b),
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

    /// How many there are of a kind.
    pub fn count(&self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }
}

/// Whether jobs of this kind share a repository with none but an unlock.
pub fn is_exclusive(kind: Kind) -> bool {
    !matches!(kind, Kind::Backup | Kind::Unlock)
}

/// What keeps a job from going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The repository is paused.
    Paused,
    /// One that is out.
    Held,
    /// One that waits, and has this turn.
    Behind(Turn),
    /// As many backups are out in the repository as may be.
    Full(u32),
}

/// A repository at a moment, as far as it decides who may go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scene {
    /// What is out.
    pub held: Kinds,
    /// Of the exclusive jobs that wait, the first to ask;
    pub exclusive: Option<(Turn, Kind)>,
    /// the first to ask of those whose drain time is over;
    pub drained: Option<Turn>,
    /// and of the backups that wait.
    pub backup: Option<Turn>,
    /// How many backups may be out.
    pub most_backups: Option<u32>,
    /// Nothing is to be started, but an unlock.
    pub paused: bool,
}

impl Scene {
    /// What keeps a job from going; nothing if it may. The limit of the fleet is not looked at.
    pub fn hinders(&self, kind: Kind, turn: Turn) -> Option<Hindrance> {
        if self.paused && kind != Kind::Unlock {
            return Some(Hindrance::Paused);
        }
        if self.held.conflict_with(kind) {
            return Some(Hindrance::Held);
        }
        if let Some(first) = self.before(kind, turn) {
            return Some(Hindrance::Behind(first));
        }
        let full = self.most_backups.filter(|most| kind == Kind::Backup && self.held.count(kind) >= *most);
        full.map(Hindrance::Full)
    }

    /// Who waits too, conflicts, and comes first.
    fn before(&self, kind: Kind, turn: Turn) -> Option<Turn> {
        let exclusive = self.exclusive.filter(|(first, _)| *first < turn);
        match kind {
            Kind::Unlock => exclusive.filter(|(_, first)| conflict(kind, *first)).map(|(first, _)| first),
            Kind::Backup => {
                let drained = self.drained.filter(|first| *first < turn);
                // One whose way is free is about to go: its row is just being written.
                drained.or_else(|| exclusive.filter(|first| self.is_free(*first)).map(|(first, _)| first))
            }
            _ => exclusive.map(|(first, _)| first).or(self.backup.filter(|first| *first < turn)),
        }
    }

    /// Whether the first exclusive job may go.
    fn is_free(&self, (turn, kind): (Turn, Kind)) -> bool {
        !self.held.conflict_with(kind) && self.backup.is_none_or(|first| first > turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(number: u64) -> Turn {
        Turn::new(Kind::Prune, number)
    }

    fn with_out(kinds: &[Kind]) -> Scene {
        let mut scene = Scene::default();
        kinds.iter().for_each(|kind| scene.held.add(*kind));
        scene
    }

    #[test]
    fn backups_share_and_everything_else_waits_for_them() {
        assert_eq!(with_out(&[Kind::Backup]).hinders(Kind::Backup, turn(1)), None);
        for kind in [Kind::Forget, Kind::Prune, Kind::Check, Kind::Init] {
            assert_eq!(with_out(&[Kind::Backup]).hinders(kind, turn(1)), Some(Hindrance::Held), "{kind}");
            assert_eq!(with_out(&[kind]).hinders(Kind::Backup, turn(1)), Some(Hindrance::Held), "{kind}");
        }
    }

    #[test]
    fn a_backup_overtakes_a_waiting_prune_until_its_drain_time() {
        let mut scene = Scene { exclusive: Some((turn(1), Kind::Prune)), ..with_out(&[Kind::Backup]) };
        assert_eq!(scene.hinders(Kind::Backup, turn(2)), None);
        let free = Scene { exclusive: scene.exclusive, backup: Some(turn(0)), ..Scene::default() };
        assert_eq!(free.hinders(Kind::Check, turn(2)), Some(Hindrance::Behind(turn(1))), "only backups overtake");
        scene.drained = Some(turn(1));
        assert_eq!(scene.hinders(Kind::Backup, turn(2)), Some(Hindrance::Behind(turn(1))));
        assert_eq!(scene.hinders(Kind::Backup, turn(0)), None, "it asked before");
        assert_eq!(scene.hinders(Kind::Unlock, turn(2)), None);
    }

    #[test]
    fn nobody_overtakes_one_whose_way_is_free() {
        let scene = Scene { exclusive: Some((turn(1), Kind::Prune)), ..Scene::default() };
        assert_eq!(scene.hinders(Kind::Backup, turn(2)), Some(Hindrance::Behind(turn(1))));
        // Its way is not free: a backup that asked before waits for its place in the fleet.
        let scene = Scene { backup: Some(turn(0)), ..scene };
        assert_eq!(scene.hinders(Kind::Backup, turn(2)), None);
        assert_eq!(scene.hinders(Kind::Prune, turn(1)), Some(Hindrance::Behind(turn(0))));
    }

    #[test]
    fn an_unlock_goes_at_once_unless_an_init_is_out_or_waits() {
        let paused = Scene { paused: true, ..with_out(&[Kind::Prune]) };
        assert_eq!(paused.hinders(Kind::Unlock, turn(1)), None);
        assert_eq!(paused.hinders(Kind::Backup, turn(1)), Some(Hindrance::Paused));
        assert_eq!(with_out(&[Kind::Init]).hinders(Kind::Unlock, turn(1)), Some(Hindrance::Held));
        let init = Turn::new(Kind::Init, 9);
        let scene = Scene { exclusive: Some((init, Kind::Init)), ..with_out(&[Kind::Backup]) };
        assert_eq!(scene.hinders(Kind::Unlock, turn(1)), Some(Hindrance::Behind(init)), "it comes before all");
    }

    #[test]
    fn a_limit_counts_backups_only() {
        let full = Scene { most_backups: Some(2), ..with_out(&[Kind::Backup, Kind::Backup]) };
        assert_eq!(full.hinders(Kind::Backup, turn(1)), Some(Hindrance::Full(2)));
        assert_eq!(full.hinders(Kind::Unlock, turn(1)), None);
        let room = Scene { most_backups: Some(3), ..full };
        assert_eq!(room.hinders(Kind::Backup, turn(1)), None);
    }
}
