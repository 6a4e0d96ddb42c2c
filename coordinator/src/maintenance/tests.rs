//! Tests of the decisions about maintenance.

use super::*;
use crate::db::json::Json;
use crate::db::pauses::Target;
use crate::pauses::Pause;
use chrono::DateTime;
use fleet_wire::RetentionPolicy;

const REPOSITORY: Uuid = Uuid::from_u128(99);
const JITTER: TimeDelta = TimeDelta::minutes(10);

fn at(minutes: i64) -> Timestamp {
    DateTime::from_timestamp(1_790_000_000 + minutes * 60, 0).expect("a time")
}

fn repository(runner: Option<u128>) -> Repository {
    Repository { runner_host_id: runner.map(Uuid::from_u128), ..Repository::sample(REPOSITORY) }
}

fn entry(kind: Kind, interval_seconds: i64) -> Entry {
    Entry {
        repository_id: REPOSITORY,
        kind: kind.as_str().to_owned(),
        cron: "0 3 * * *".to_owned(),
        timezone: "UTC".to_owned(),
        enabled: true,
        subset: None,
        interval_seconds,
        next_due_at: None,
        last_success_at: None,
        last_subset: None,
        overdue_at: None,
        created_at: at(0),
        updated_at: at(0),
    }
}

fn due(kind: Kind, minutes: i64) -> Run {
    Run::of_maintenance(REPOSITORY, kind.as_str(), None, at(minutes), at(minutes))
}

fn running(kind: Kind, minutes: i64) -> Run {
    let run = due(kind, minutes);
    Run { outcome: Outcome::Running.as_str().to_owned(), job_id: Some(Uuid::from_u128(5)), ..run }
}

fn host(id: u128, ready: bool, guards: bool) -> Candidate {
    Candidate { host_id: Uuid::from_u128(id), ready, guards, expected_back: false }
}

fn decide_with(
    open: &[Run],
    repository: &Repository,
    entries: &[Entry],
    candidates: &[Candidate],
    pauses: &Pauses,
    now: Timestamp,
) -> Vec<Action> {
    decide(open, Situation { repository, entries, candidates, pauses, longest_jitter: JITTER, now })
}

/// What is decided in an hour, without jitter.
fn decided(open: &[Run], runner: Option<u128>, candidates: &[Candidate]) -> Vec<Action> {
    decide_with(open, &repository(runner), &KINDS.map(|kind| entry(kind, 0)), candidates, &Pauses::default(), at(60))
}

fn started(actions: &[Action]) -> Vec<(&str, u128)> {
    let start = |action: &Action| match action {
        Action::Start(run, host) => {
            Some((KINDS.iter().find(|kind| kind.as_str() == run.kind)?.as_str(), host.as_u128()))
        }
        Action::Split(_) | Action::Leave(_) => None,
    };
    actions.iter().filter_map(start).collect()
}

fn left(actions: &[Action]) -> Vec<(Timestamp, &str)> {
    let leave = |action: &Action| match action {
        Action::Leave(run) if run.outcome == Outcome::Missed.as_str() => Some((run.due_at, "missed")),
        Action::Leave(run) => Some((run.due_at, "skipped")),
        Action::Start(..) | Action::Split(_) => None,
    };
    actions.iter().filter_map(leave).collect()
}

#[test]
fn prune_follows_forget_and_check_waits_for_nobody_here() {
    let one = [host(1, true, true)];
    let all = [due(Kind::Check, 0), due(Kind::Forget, 0), due(Kind::Prune, 0)];
    assert_eq!(started(&decided(&all, None, &one)), [("forget", 1), ("check", 1)]);
    let forgetting = [due(Kind::Prune, 0), running(Kind::Forget, 0)];
    assert_eq!(started(&decided(&forgetting, None, &one)), []);
    assert_eq!(started(&decided(&[due(Kind::Prune, 0)], None, &one)), [("prune", 1)]);
}

#[test]
fn one_makes_up_for_all_that_nobody_did() {
    let open = [due(Kind::Check, 0), due(Kind::Check, 10), due(Kind::Check, 20)];
    let actions = decided(&open, None, &[host(1, true, true)]);
    assert_eq!(left(&actions), [(at(0), "missed"), (at(10), "missed")]);
    assert_eq!(started(&actions), [("check", 1)]);
}

#[test]
fn what_is_still_running_is_not_begun_again() {
    let actions = decided(&[running(Kind::Check, 0), due(Kind::Check, 30)], None, &[host(1, true, true)]);
    assert_eq!((left(&actions), started(&actions)), (vec![(at(30), "skipped")], vec![]));
}

#[test]
fn the_runner_does_it_or_nobody() {
    let hosts = [host(1, true, true), host(2, false, true), host(3, true, true)];
    assert_eq!(started(&decided(&[due(Kind::Prune, 0)], Some(3), &hosts)), [("prune", 3)]);
    assert_eq!(decided(&[due(Kind::Prune, 0)], Some(2), &hosts), [], "it waits for the runner");
    assert_eq!(decided(&[due(Kind::Prune, 0)], None, &[host(2, false, true)]), [], "nobody is there");
}

#[test]
fn runs_are_spread_over_hosts_and_each_stays_where_it_is() {
    let hosts: Vec<Candidate> = (1..=4).map(|id| host(id, true, true)).collect();
    let chosen = |minutes: i64| {
        let actions = decide_with(
            &[due(Kind::Check, minutes)],
            &repository(None),
            &[entry(Kind::Check, 0)],
            &hosts,
            &Pauses::default(),
            at(100_000),
        );
        started(&actions)[0].1
    };
    let of_each: Vec<usize> = (1..=4).map(|id| (0..400).filter(|run| chosen(*run) == id).count()).collect();
    assert!(of_each.iter().all(|count| (60..140).contains(count)), "{of_each:?}");
    assert_eq!(chosen(7), chosen(7));
}

#[test]
fn a_forget_for_all_needs_an_agent_that_can() {
    let forget = [due(Kind::Forget, 0)];
    assert_eq!(started(&decided(&forget, None, &[host(1, true, false), host(2, true, true)])), [("forget", 2)]);
    // One that could is away: it is waited for.
    assert_eq!(decided(&forget, None, &[host(1, true, false), host(2, false, true)]), []);
    assert!(matches!(decided(&forget, None, &[host(1, true, false)])[..], [Action::Split(_)]));
    // Its own part any host can do.
    let part = Run { host_id: Some(Uuid::from_u128(1)), ..due(Kind::Forget, 0) };
    assert_eq!(started(&decided(&[part], None, &[host(1, true, false), host(2, true, false)])), [("forget", 1)]);
}

#[test]
fn a_start_is_put_off_by_a_little_and_always_the_same() {
    let entries = [entry(Kind::Check, 86_400)];
    let one = [host(1, true, true)];
    let started_at = |seconds: i64| {
        let now = at(0) + TimeDelta::seconds(seconds);
        let actions = decide_with(&[due(Kind::Check, 0)], &repository(None), &entries, &one, &Pauses::default(), now);
        !actions.is_empty()
    };
    let first = (0..=600).find(|seconds| started_at(*seconds)).expect("within ten minutes");
    assert!((first..first + 50).all(started_at));
    // A short interval has a short jitter.
    let entries = [entry(Kind::Check, 60)];
    let actions = decide_with(
        &[due(Kind::Check, 0)],
        &repository(None),
        &entries,
        &one,
        &Pauses::default(),
        at(0) + TimeDelta::seconds(6),
    );
    assert_eq!(started(&actions), [("check", 1)]);
}

/// A pause of `target` from so many minutes on.
fn paused(target: Target, minutes: i64) -> Pauses {
    let pause = Pause { reason: "a move".to_owned(), by: "anna".to_owned(), since: at(minutes) };
    Pauses::new([(target, pause)])
}

/// What is decided under pauses in an hour, without jitter.
fn decided_under(pauses: &Pauses, open: &[Run], runner: Option<u128>) -> Vec<Action> {
    let entries = KINDS.map(|kind| entry(kind, 0));
    decide_with(open, &repository(runner), &entries, &[host(1, true, true), host(2, true, true)], pauses, at(60))
}

#[test]
fn what_comes_due_in_a_pause_is_skipped_and_what_was_due_before_waits_for_its_end() {
    let open = [due(Kind::Forget, 10), due(Kind::Forget, 20), due(Kind::Check, 10)];
    for target in [Target::Fleet, Target::Repository(REPOSITORY)] {
        let actions = decided_under(&paused(target, 15), &open, None);
        assert_eq!((left(&actions), started(&actions)), (vec![(at(20), "skipped")], vec![]), "{target:?}");
        let [Action::Leave(run)] = &actions[..] else { panic!("{actions:?}") };
        let why = run.reason.as_deref().expect("a reason");
        assert!(why.starts_with("paused: ") && why.ends_with("by anna: a move"), "{why}");
    }
    // What waits is done once it is over: what was skipped makes up for nothing.
    let waiting = [due(Kind::Forget, 10), due(Kind::Check, 10)];
    assert_eq!(started(&decided_under(&Pauses::default(), &waiting, None)).len(), 2);
    let other = paused(Target::Repository(Uuid::from_u128(98)), 0);
    assert_eq!(started(&decided_under(&other, &waiting, None)).len(), 2, "another repository");
    let rows = skipping(vec![due(Kind::Check, 10), due(Kind::Check, 20)], &paused(Target::Fleet, 15));
    assert_eq!(rows.iter().map(|run| run.outcome.as_str()).collect::<Vec<_>>(), ["expected", "skipped"]);
}

#[test]
fn what_only_a_host_may_do_stands_still_with_it() {
    let of_host = paused(Target::Host(Uuid::from_u128(1)), 15);
    let check = [due(Kind::Check, 20)];
    assert_eq!(left(&decided_under(&of_host, &check, Some(1))), [(at(20), "skipped")]);
    assert_eq!(left(&decided_under(&of_host, &check, Some(2))), []);
    let part = Run { host_id: Some(Uuid::from_u128(1)), ..due(Kind::Forget, 20) };
    assert_eq!(left(&decided_under(&of_host, &[part], None)), [(at(20), "skipped")]);
}

#[test]
fn a_week_of_checks_reads_everything() {
    let mut last = None;
    let mut read = Vec::new();
    for _ in 0..8 {
        last = part_of_check(Some("1/7"), last.as_deref());
        read.extend(last.clone());
    }
    assert_eq!(read, ["1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7", "1/7"]);
    assert_eq!(part_of_check(Some("1/4"), Some("6/7")).as_deref(), Some("1/4"), "of another division");
    assert_eq!(part_of_check(Some("5%"), Some("5%")).as_deref(), Some("5%"));
    assert_eq!(part_of_check(None, Some("2/7")), None);
}

#[test]
fn a_forget_judges_each_host_by_its_own_policy() {
    let group = |host: u128, name: &str, keep: Option<i64>| SourceGroup {
        host_id: Uuid::from_u128(host),
        name: name.to_owned(),
        includes: Json::default(),
        excludes: Json::default(),
        retention: keep.map(|keep| Json(RetentionPolicy { keep_last: Some(keep), ..RetentionPolicy::default() })),
        retry_max: 0,
        retry_backoff_seconds: 60,
        pre_hook: None,
        post_hook: None,
        created_at: at(0),
        updated_at: at(0),
        rpo_seconds: None,
    };
    let host = |id: u128, name: &str| Host { hostname: name.to_owned(), ..Host::sample(Uuid::from_u128(id)) };
    let (web, db) = (host(1, "web"), host(2, "db"));
    let of_web = [group(1, "docs", Some(3)), group(1, "tmp", None)];
    let of_db = [group(2, "docs", Some(9))];
    let groups = forget_groups([(&web, &of_web[..]), (&db, &of_db[..])]);
    let found: Vec<_> =
        groups.iter().map(|group| (group.host.as_deref(), group.tag.as_str(), group.policy.keep_last)).collect();
    assert_eq!(found, [(Some("web"), "docs", Some(3)), (Some("db"), "docs", Some(9))]);
}

#[test]
fn prune_waits_for_no_forget_that_can_not_start() {
    let open = [due(Kind::Forget, 0), due(Kind::Prune, 0)];
    // The only one that could forget for all is away; another can prune.
    let hosts = [host(1, true, false), host(2, false, true)];
    assert_eq!(started(&decided(&open, None, &hosts)), [("prune", 1)]);
    // The part of a host that is away.
    let part = Run { host_id: Some(Uuid::from_u128(2)), ..due(Kind::Forget, 0) };
    assert_eq!(started(&decided(&[part, due(Kind::Prune, 0)], None, &hosts)), [("prune", 1)]);
}

#[test]
fn what_is_no_longer_wanted_is_left() {
    let disabled = Entry { enabled: false, ..entry(Kind::Prune, 0) };
    let one = [host(1, true, true)];
    for entries in [&[disabled][..], &[]] {
        let actions = decide_with(&[due(Kind::Prune, 0)], &repository(None), entries, &one, &Pauses::default(), at(60));
        assert_eq!(left(&actions), [(at(0), "skipped")]);
    }
    let part = Run { host_id: Some(Uuid::from_u128(9)), ..due(Kind::Forget, 0) };
    assert_eq!(left(&decided(&[part], None, &one)), [(at(0), "skipped")], "its host is gone");
}

#[test]
fn a_runner_that_can_not_forget_for_others_does_not_leave_them_waiting() {
    let forget = [due(Kind::Forget, 0)];
    assert_eq!(left(&decided(&forget, Some(1), &[host(1, true, false), host(2, true, true)])), [(at(0), "skipped")]);
    assert!(matches!(decided(&forget, Some(1), &[host(1, true, false)])[..], [Action::Split(_)]));
}

#[test]
fn what_a_wrong_clock_made_due_in_the_future_makes_up_for_nothing() {
    let actions = decided(&[due(Kind::Check, 0), due(Kind::Check, 90_000)], None, &[host(1, true, true)]);
    assert_eq!((started(&actions), left(&actions)), (vec![("check", 1)], vec![]));
}

#[test]
fn nothing_starts_until_a_host_is_back_that_may_be_at_work() {
    let back = Candidate { expected_back: true, ..host(2, false, true) };
    assert_eq!(decided(&[due(Kind::Prune, 0)], None, &[host(1, true, true), back]), []);
}

#[test]
fn a_paused_host_starts_nothing_and_holds_up_nobody() {
    let online = Host { online: true, ..Host::sample(Uuid::from_u128(2)) };
    let paused = Candidate::of(&online, true, true);
    assert!(!paused.ready && !paused.expected_back);
    assert_eq!(started(&decided(&[due(Kind::Prune, 0)], None, &[host(1, true, true), paused])), [("prune", 1)]);
    assert!(Candidate::of(&online, false, false).expected_back);
}
