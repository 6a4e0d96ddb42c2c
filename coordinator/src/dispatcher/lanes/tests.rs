//! Tests of [`Lanes`].

use super::*;
use crate::db::jobs::JobState;
use crate::dispatcher::admission::Obstacle;
use crate::pauses::Pause;
use chrono::Utc;

const REPOSITORY: Uuid = Uuid::from_u128(99);

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn job(number: u128, host: u128, kind: Kind) -> NewJob {
    NewJob::sample(id(number), id(host), REPOSITORY, kind)
}

/// Without a limit, and where everything drains at once.
fn lanes() -> Lanes {
    let leases = Leases { drain_after: Duration::ZERO, backups_per_repository: None, backups_at_once: None };
    Lanes::new(leases, HashMap::new(), Arc::default())
}

fn obstacle(lanes: &mut Lanes, job: u128) -> Option<Obstacle> {
    lanes.obstacle(id(job), Instant::now())
}

/// Adds a job and has it written; true if it went out at once.
fn add(lanes: &mut Lanes, job: &NewJob) -> bool {
    let out = lanes.add_new(job, Instant::now());
    lanes.committed(JobRecord::of(job.clone(), JobState::new()), Instant::now());
    out
}

fn granted(lanes: &mut Lanes) -> Vec<u128> {
    lanes.grant(REPOSITORY, Instant::now()).into_iter().map(|granted| granted.new.id.as_u128()).collect()
}

#[test]
fn jobs_go_in_the_order_of_asking_and_say_what_they_wait_for() {
    let mut lanes = lanes();
    lanes.host_ready(id(1), Instant::now());
    assert!(add(&mut lanes, &job(10, 1, Kind::Backup)));
    assert!(!add(&mut lanes, &job(11, 1, Kind::Prune)));
    assert!(!add(&mut lanes, &job(12, 1, Kind::Backup)));
    let waits_for = |lanes: &mut Lanes, job| match obstacle(lanes, job) {
        Some(Obstacle::Held(claim) | Obstacle::Behind(claim)) => claim.job_id.as_u128(),
        other => panic!("{other:?}"),
    };
    assert_eq!((waits_for(&mut lanes, 11), waits_for(&mut lanes, 12)), (10, 11));
    assert_eq!(granted(&mut lanes), [0_u128; 0]);
    assert_eq!(lanes.remove(id(10)), Some(REPOSITORY));
    assert_eq!(granted(&mut lanes), [11]);
    assert_eq!(obstacle(&mut lanes, 11), None);
    lanes.remove(id(11));
    assert_eq!(granted(&mut lanes), [12]);
    lanes.remove(id(12));
    assert!(lanes.lanes.is_empty() && lanes.places.is_empty() && lanes.jobs_of_host.is_empty());
    assert!(lanes.by_age.is_empty() && lanes.heads.is_empty() && lanes.backups_out == 0);
}

#[test]
fn a_job_of_an_offline_host_holds_up_nobody_and_keeps_its_turn() {
    let mut lanes = lanes();
    lanes.host_ready(id(2), Instant::now());
    assert!(!add(&mut lanes, &job(10, 1, Kind::Prune)));
    assert_eq!(obstacle(&mut lanes, 10), Some(Obstacle::HostOffline));
    assert!(add(&mut lanes, &job(11, 2, Kind::Backup)));
    lanes.host_ready(id(1), Instant::now());
    assert!(!add(&mut lanes, &job(12, 2, Kind::Backup)), "the prune asked before");
    lanes.host_gone(id(1), Instant::now());
    assert_eq!(granted(&mut lanes), [12]);
    lanes.host_ready(id(1), Instant::now());
    lanes.remove(id(11));
    assert_eq!(granted(&mut lanes), [0_u128; 0]);
    lanes.remove(id(12));
    assert_eq!(granted(&mut lanes), [10]);
}

#[test]
fn what_an_operation_holds_goes_when_it_is_released_and_its_host_is_there() {
    let mut lanes = lanes();
    let now = Instant::now();
    lanes.host_ready(id(1), now);
    let of_operation = |number| NewJob { operation_id: Some(id(7)), ..job(number, 1, Kind::Prune) };
    for held in [of_operation(10), of_operation(11)] {
        lanes.add_held(&held, now);
        lanes.committed(JobRecord::of(held, JobState::new()), Instant::now());
    }
    assert_eq!(lanes.obstacle(id(10), now), Some(Obstacle::Operation));
    assert_eq!(lanes.waiting(now).count(), 0, "how long it is held is its operation's affair");
    assert!(add(&mut lanes, &job(12, 1, Kind::Backup)), "what is held holds up nobody");
    lanes.remove(id(12));
    assert_eq!(granted(&mut lanes), [0_u128; 0]);
    assert_eq!(lanes.release(id(11), now), Released::Ready(REPOSITORY));
    assert_eq!(lanes.waiting(now).collect::<Vec<_>>(), [(id(11), Duration::ZERO)]);
    // It goes back while its host is away, and its operation hears of it.
    let both = |members: Vec<Member>| members.into_iter().map(|(_, job)| job).collect::<HashSet<_>>();
    assert_eq!(both(lanes.host_gone(id(1), now).away), HashSet::from([id(10), id(11)]));
    assert_eq!(lanes.obstacle(id(11), now), Some(Obstacle::HostOffline));
    assert_eq!(lanes.waiting(now).count(), 2, "now it is their host that they wait for");
    assert_eq!(lanes.release(id(11), now), Released::Away);
    assert_eq!(both(lanes.host_ready(id(1), now).back), HashSet::from([id(10), id(11)]));
    assert_eq!(lanes.release(id(10), now), Released::Ready(REPOSITORY));
    assert_eq!(granted(&mut lanes), [10]);
    assert_eq!(lanes.release(id(10), now), Released::Gone);
    assert_eq!(lanes.force_out(id(11)).map(|forced| forced.new.id), Some(id(11)));
    assert!(lanes.held.is_empty() && lanes.by_age.is_empty());
}

#[test]
fn an_operation_hears_of_a_pause_as_of_a_host_that_goes() {
    let pauses = Arc::new(Pauses::default());
    let leases = Leases { drain_after: Duration::ZERO, backups_per_repository: None, backups_at_once: None };
    let mut lanes = Lanes::new(leases, HashMap::new(), Arc::clone(&pauses));
    let now = Instant::now();
    let waiting = NewJob { operation_id: Some(id(7)), ..job(10, 1, Kind::Prune) };
    assert!(!add(&mut lanes, &waiting), "its host is away, and its operation does not hold it");
    let pause = Pause { reason: "a move".to_owned(), by: "anna".to_owned(), since: Utc::now() };
    pauses.set(Target::Host(id(1)), Some(pause));
    let member = vec![(id(7), id(10))];
    assert_eq!(lanes.move_waiting(id(1), now).away, member);
    assert_eq!(lanes.host_ready(id(1), now).away, member, "it is there, and paused");
    assert_eq!(lanes.release(id(10), now), Released::Away);
    pauses.set(Target::Host(id(1)), None);
    assert_eq!(lanes.move_waiting(id(1), now).back, member);
    assert_eq!(lanes.release(id(10), now), Released::Ready(REPOSITORY));
    assert_eq!(granted(&mut lanes), [10]);
}

#[test]
fn members_of_a_paused_repository_or_fleet_take_no_places() {
    let pauses = Arc::new(Pauses::default());
    let leases = Leases { drain_after: Duration::ZERO, backups_per_repository: None, backups_at_once: None };
    let mut lanes = Lanes::new(leases, HashMap::new(), Arc::clone(&pauses));
    let now = Instant::now();
    lanes.host_ready(id(1), now);
    let of_operation = |number, kind| NewJob { operation_id: Some(id(7)), ..job(number, 1, kind) };
    for target in [Target::Repository(REPOSITORY), Target::Fleet] {
        let pause = Pause { reason: "a move".to_owned(), by: "anna".to_owned(), since: Utc::now() };
        let check = of_operation(10, Kind::Check);
        lanes.add_held(&check, now);
        lanes.committed(JobRecord::of(check, JobState::new()), Instant::now());
        assert_eq!(lanes.release(id(10), now), Released::Ready(REPOSITORY));
        pauses.set(target, Some(pause));
        let member = vec![(id(7), id(10))];
        assert_eq!(lanes.move_members(REPOSITORY, now).away, member);
        assert_eq!((lanes.release(id(10), now), granted(&mut lanes)), (Released::Away, vec![]));
        assert!(matches!(obstacle(&mut lanes, 10), Some(Obstacle::Paused(_))));
        let unlock = of_operation(11, Kind::Unlock);
        lanes.add_held(&unlock, now);
        lanes.committed(JobRecord::of(unlock, JobState::new()), Instant::now());
        assert_eq!(lanes.release(id(11), now), Released::Ready(REPOSITORY), "a person asks for those");
        pauses.set(target, None);
        assert_eq!(lanes.move_members(REPOSITORY, now).back, member);
        assert_eq!(lanes.release(id(10), now), Released::Ready(REPOSITORY));
        assert_eq!(granted(&mut lanes), [10, 11]);
        lanes.remove(id(10));
        lanes.remove(id(11));
    }
}

#[test]
fn an_init_goes_before_what_waits_and_an_unwritten_job_keeps_its_turn() {
    let mut lanes = lanes();
    lanes.host_ready(id(1), Instant::now());
    add(&mut lanes, &job(10, 1, Kind::Check));
    let unwritten = job(11, 1, Kind::Prune);
    assert!(!lanes.add_new(&unwritten, Instant::now()));
    add(&mut lanes, &job(12, 1, Kind::Backup));
    add(&mut lanes, &job(13, 1, Kind::Init));
    assert!(lanes.has_init(id(1), REPOSITORY) && !lanes.has_init(id(2), REPOSITORY));
    lanes.remove(id(10));
    assert_eq!(granted(&mut lanes), [13]);
    lanes.remove(id(13));
    assert_eq!(granted(&mut lanes), [0_u128; 0], "the backup does not overtake the prune");
    lanes.committed(JobRecord::of(unwritten, JobState::new()), Instant::now());
    assert_eq!(granted(&mut lanes), [11]);
    assert_eq!(lanes.force_out(id(12)).map(|granted| granted.new.id), Some(id(12)));
    assert_eq!(lanes.out_of(id(1)).len(), 2);
}

#[test]
fn a_place_in_the_fleet_goes_to_whoever_has_waited_longest() {
    let leases = Leases {
        drain_after: Duration::from_secs(60),
        backups_per_repository: NonZeroU32::new(2),
        backups_at_once: NonZeroU32::new(3),
    };
    let other = id(98);
    let mut lanes = Lanes::new(leases, HashMap::from([(other, 1)]), Arc::default());
    lanes.host_ready(id(1), Instant::now());
    let in_other = |number| NewJob { repository_id: other, ..job(number, 1, Kind::Backup) };
    assert!(add(&mut lanes, &job(10, 1, Kind::Backup)) && add(&mut lanes, &job(11, 1, Kind::Backup)));
    assert!(!add(&mut lanes, &job(12, 1, Kind::Backup)));
    assert_eq!(obstacle(&mut lanes, 12), Some(Obstacle::RepositoryFull(2)));
    assert!(add(&mut lanes, &in_other(20)));
    assert!(!add(&mut lanes, &in_other(21)));
    assert_eq!(obstacle(&mut lanes, 21), Some(Obstacle::RepositoryFull(1)));
    lanes.limit_backups(other, Some(9));
    assert_eq!(lanes.grant(other, Instant::now()).len(), 0);
    assert_eq!(obstacle(&mut lanes, 21), Some(Obstacle::FleetFull(3)));
    assert!(!add(&mut lanes, &in_other(22)));
    // The one in the full repository has waited longer, but could not go.
    let mut end = |job, repository| {
        lanes.remove(id(job));
        let gone: Vec<_> = lanes.grant(repository, Instant::now()).iter().map(|job| job.new.id.as_u128()).collect();
        gone
    };
    assert_eq!(end(20, other), [21]);
    assert_eq!(end(21, other), [22]);
    assert_eq!(end(11, REPOSITORY), [12]);
    assert_eq!(end(22, other), [0_u128; 0]);
    assert_eq!((lanes.backups_out, lanes.heads.len()), (2, 0));
}

#[test]
fn what_has_waited_before_a_start_lets_nobody_overtake_it_again() {
    let leases = Leases { drain_after: Duration::from_secs(60), ..lanes().leases };
    let mut lanes = Lanes::new(leases, HashMap::new(), Arc::default());
    lanes.add_out(&job(10, 1, Kind::Backup));
    let old = JobRecord::of(job(11, 1, Kind::Prune), JobState::new());
    lanes.add_waiting(old, Duration::from_secs(61), Instant::now());
    lanes.host_ready(id(1), Instant::now());
    assert!(!add(&mut lanes, &job(12, 1, Kind::Backup)));
    lanes.remove(id(11));
    assert_eq!(granted(&mut lanes), [12]);
    assert!(!add(&mut lanes, &job(13, 1, Kind::Prune)));
    assert!(add(&mut lanes, &job(14, 1, Kind::Backup)), "this one has just begun to wait");
}

#[test]
fn waiting_counts_by_a_clock_that_nobody_sets_and_not_while_it_is_paused() {
    let mut lanes = lanes();
    let began = lanes.began;
    let at = |seconds: u64| began + Duration::from_secs(seconds);
    let seconds = Duration::from_secs;
    lanes.add_waiting(JobRecord::of(job(10, 1, Kind::Prune), JobState::new()), seconds(500), at(0));
    // Its row may say anything.
    let odd = NewJob { created_at: chrono::Utc::now() - chrono::TimeDelta::days(400), ..job(11, 1, Kind::Prune) };
    assert!(!lanes.add_new(&odd, at(10)));
    assert_eq!(lanes.waiting(at(20)).collect::<Vec<_>>(), [(id(10), seconds(520))], "the other is not written");
    lanes.committed(JobRecord::of(odd, JobState::new()), at(20));
    let waited =
        |lanes: &Lanes, now| lanes.waiting(now).map(|(job, waited)| (job.as_u128(), waited)).collect::<Vec<_>>();
    assert_eq!(waited(&lanes, at(30)), [(10, seconds(530)), (11, seconds(10))]);
    lanes.count_waiting(id(10), seconds(5), at(30));
    assert_eq!(waited(&lanes, at(30)), [(11, seconds(10)), (10, seconds(5))], "the oldest first");
    let pause = Pause { reason: "a move".to_owned(), by: "anna".to_owned(), since: chrono::Utc::now() };
    assert!(!lanes.is_paused(id(10)));
    lanes.pauses.set(Target::Repository(REPOSITORY), Some(pause));
    assert!(lanes.is_paused(id(10)) && !lanes.is_paused(id(99)));
    lanes.count_anew(REPOSITORY, at(90));
    assert_eq!(waited(&lanes, at(90)), [(10, Duration::ZERO), (11, Duration::ZERO)]);
    lanes.remove(id(10));
    lanes.count_anew(REPOSITORY, at(95));
    assert_eq!(waited(&lanes, at(96)), [(11, seconds(1))]);
}

#[test]
fn a_census_says_what_they_wait_for_and_since_when() {
    use crate::dispatcher::census::{REASONS, Reason};
    let mut lanes = lanes();
    let now = Instant::now();
    [1, 3].into_iter().for_each(|host| drop(lanes.host_ready(id(host), now)));
    let hour = Duration::from_secs(3_600);
    assert!(add(&mut lanes, &job(10, 1, Kind::Prune)));
    assert!(!add(&mut lanes, &job(11, 1, Kind::Backup)));
    lanes.count_waiting(id(11), hour, now);
    assert!(!add(&mut lanes, &job(12, 1, Kind::Backup)));
    assert!(!add(&mut lanes, &job(13, 2, Kind::Backup)), "its host is not there");
    let held = NewJob { operation_id: Some(id(7)), ..job(14, 1, Kind::Check) };
    lanes.add_held(&held, now);
    lanes.committed(JobRecord::of(held, JobState::new()), now);
    let pause = Pause { reason: String::new(), by: String::new(), since: chrono::Utc::now() };
    lanes.pauses.set(Target::Host(id(3)), Some(pause.clone()));
    lanes.host_ready(id(3), now);
    assert!(!add(&mut lanes, &job(15, 3, Kind::Backup)));
    let counts = |lanes: &Lanes| REASONS.map(|reason| lanes.census(now).of(reason).jobs);
    assert_eq!((lanes.census(now).out, counts(&lanes)), (1, [1, 1, 1, 2]));
    assert_eq!(lanes.census(now).of(Reason::Repository).longest, Some(hour));
    assert_eq!(lanes.census(now).of(Reason::Operation).longest, None, "that is its operation's affair");
    // An unlock needs no lease, and waits only for its host.
    assert!(!add(&mut lanes, &job(16, 2, Kind::Unlock)));
    lanes.pauses.set(Target::Fleet, Some(pause));
    assert_eq!((lanes.census(now).out, counts(&lanes)), (1, [1, 5, 0, 0]));
}
