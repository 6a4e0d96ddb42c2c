//! Firings in the journal: stored once, started once, and by one side only.

use super::record::{Verdict, Write};
use super::store::Store;
use super::tests::{LARGE, accept, finish, messages, place, started};
use crate::cron::{Early, Entry, Firing, Handled, MOST_EARLY, Step, decide};
use chrono::{TimeDelta, Utc};
use fleet_wire::crontab::Zone;
use fleet_wire::{CommandRun, JobId, Kind, Schedule, ToCoordinator};

/// A firing of a schedule with the groups `etc` and `srv` so many minutes after its last one, as the cron makes it.
fn firing(handled: Option<&Handled>, minutes: i64) -> (Firing, Handled) {
    let schedule: Schedule = serde_json::from_str(
        r#"{"id":"s","enabled":true,"cron_expr":"* * * * *","source_groups":[
            {"name":"etc","includes":["/etc"]},{"name":"srv","includes":["/srv"]}]}"#,
    )
    .unwrap();
    let entry = Entry::read(&schedule, &Zone::UTC).unwrap();
    let now = Utc::now() + TimeDelta::minutes(minutes);
    let counted = match decide(&entry, None, now - TimeDelta::minutes(1)) {
        Some(Step::Count { handled, .. }) => handled,
        other => panic!("{other:?}"),
    };
    match decide(&entry, handled.or(Some(&counted)), now) {
        Some(Step::Fire { at, handled }) => (entry.fire(at, now, TimeDelta::zero()), handled),
        other => panic!("{other:?}"),
    }
}

fn fire(firing: &(Firing, Handled)) -> Write {
    Write::Fire { firing: Box::new(firing.0.clone()), handled: firing.1.clone() }
}

fn start(store: &Store, job_id: &JobId) -> Write {
    let firing = store.startable().last().map_or(0, |(id, _)| *id);
    Write::StartLocally { firing, job_id: job_id.clone(), refusal: None }
}

fn backup(id: &JobId, tag: &str) -> CommandRun {
    CommandRun { tag: Some(tag.into()), ..CommandRun::new(id.clone(), Kind::Backup) }
}

/// A store whose coordinator acknowledges.
fn store() -> (tempfile::TempDir, std::path::PathBuf, Store) {
    let (dir, path) = place();
    let mut store = Store::open(&path, LARGE).unwrap();
    store.commit(&[accept("first"), finish("first")]).unwrap();
    store.commit(&[Write::Ack { up_to: store.head() }]).unwrap();
    (dir, path, store)
}

fn jobs_left(store: &Store) -> Vec<JobId> {
    store.startable().into_iter().flat_map(|(_, firing)| firing.runs).map(|run| run.job_id).collect()
}

#[test]
fn a_firing_is_there_after_a_crash_with_all_that_it_needs() {
    let (_dir, path, mut store) = store();
    let made = firing(None, 0);
    assert_eq!(store.commit(&[fire(&made)]).unwrap(), [Verdict::New]);
    let image = std::fs::read(&path).unwrap();
    drop(store);
    std::fs::write(&path, image).unwrap();
    let mut store = Store::open(&path, LARGE).unwrap();
    assert_eq!(store.handled().get(&"s".into()), Some(&made.1));
    let [(id, stored)] = &store.startable()[..] else { panic!("{:?}", store.startable()) };
    assert_eq!((*id, stored), (store.head(), &made.0));
    let last = messages(&mut store, 0).pop().map(|(_, message)| message);
    assert_eq!(last, Some(ToCoordinator::ScheduleFire(made.0.message())));
    assert!(made.0.job_ids.len() == 2 && store.open_jobs().is_empty());
    // The same again, after a commit that was in doubt.
    let head = store.head();
    assert_eq!(store.commit(&[fire(&made)]).unwrap(), [Verdict::Known]);
    assert_eq!(store.head(), head);
}

#[test]
fn its_jobs_are_started_once_and_then_are_jobs_like_any_other() {
    let (_dir, path, mut store) = store();
    let made = firing(None, 0);
    store.commit(&[fire(&made)]).unwrap();
    let [etc, srv] = &made.0.job_ids[..] else { panic!() };
    let (first, second) = (start(&store, etc), start(&store, srv));
    assert_eq!(store.commit(&[first.clone(), first.clone()]).unwrap(), [Verdict::New, Verdict::Left]);
    assert_eq!(jobs_left(&store).iter().collect::<Vec<_>>(), [srv]);
    drop(store);
    let mut store = Store::open(&path, LARGE).unwrap();
    assert_eq!(store.commit(&[first, second.clone()]).unwrap(), [Verdict::Left, Verdict::New]);
    assert_eq!(jobs_left(&store), []);
    let left: Vec<_> = store.leftovers().unwrap().into_iter().map(|left| (left.job_id, left.run)).collect();
    assert_eq!(left, made.0.runs.iter().map(|run| (run.job_id.clone(), Some(run.clone()))).collect::<Vec<_>>());
    // The coordinator sends it after all: it is answered.
    let sent = Write::Accept { run: Box::new(backup(etc, "etc")), refusal: None };
    assert_eq!(store.commit(&[sent]).unwrap(), [Verdict::Known]);
    let kinds: Vec<_> = messages(&mut store, 0).into_iter().map(|(_, message)| message).collect();
    let accepted = |message: &ToCoordinator| matches!(message, ToCoordinator::CommandResult(result) if result.accepted);
    assert!(matches!(kinds[0], ToCoordinator::ScheduleFire(_)), "the firing is told first: {kinds:?}");
    assert_eq!(kinds.iter().filter(|message| accepted(message)).count(), 3);
}

#[test]
fn what_is_acknowledged_is_never_started_here() {
    let (_dir, path, mut store) = store();
    let made = firing(None, 0);
    store.commit(&[fire(&made)]).unwrap();
    let (head, first) = (store.head(), start(&store, &made.0.job_ids[0]));
    // In one transaction, too.
    assert_eq!(store.commit(&[Write::Ack { up_to: head }, first.clone()]).unwrap(), [Verdict::Left]);
    drop(store);
    let mut store = Store::open(&path, LARGE).unwrap();
    assert_eq!(jobs_left(&store), []);
    assert_eq!(store.commit(&[first]).unwrap(), [Verdict::Left]);
    assert_eq!(store.open_jobs(), []);
}

#[test]
fn a_job_that_the_coordinator_has_sent_is_not_started_here() {
    let (_dir, _path, mut store) = store();
    let made = firing(None, 0);
    store.commit(&[fire(&made)]).unwrap();
    let etc = &made.0.job_ids[0];
    let first = start(&store, etc);
    let sent = Write::Accept { run: Box::new(backup(etc, "etc")), refusal: None };
    assert_eq!(store.commit(&[sent, first.clone()]).unwrap(), [Verdict::New, Verdict::Left]);
    store.commit(&[started(etc.as_str()), finish(etc.as_str())]).unwrap();
    assert_eq!(store.commit(&[first]).unwrap(), [Verdict::Left]);
}

#[test]
fn a_group_whose_last_backup_is_not_over_is_left_to_the_coordinator() {
    let (_dir, _path, mut store) = store();
    let sent = |id: &str, run: CommandRun| Write::Accept {
        run: Box::new(CommandRun { job_id: id.into(), ..run }),
        refusal: None,
    };
    let check = CommandRun { tag: Some("srv".into()), ..CommandRun::new("c".into(), Kind::Check) };
    store.commit(&[sent("b", backup(&"b".into(), "etc")), sent("c", check)]).unwrap();
    // When it fires.
    let made = firing(None, 0);
    store.commit(&[fire(&made)]).unwrap();
    assert_eq!(jobs_left(&store), made.0.job_ids[1..], "a check is no backup");
    // And when it is to be started; not even once that one is over.
    let srv = &made.0.job_ids[1];
    store.commit(&[sent("d", backup(&"d".into(), "srv"))]).unwrap();
    let late = start(&store, srv);
    assert_eq!(store.commit(&[late.clone(), finish("d"), late]).unwrap(), [Verdict::Left, Verdict::Left]);
    // The next firing is free.
    store.commit(&[finish("b")]).unwrap();
    let next = firing(Some(&made.1), 1);
    store.commit(&[fire(&next)]).unwrap();
    assert_eq!(jobs_left(&store), next.0.job_ids);
}

#[test]
fn only_the_latest_firing_of_a_schedule_is_started_here() {
    let (_dir, _path, mut store) = store();
    let first = firing(None, 0);
    let second = firing(Some(&first.1), 1);
    store.commit(&[fire(&first), fire(&second)]).unwrap();
    assert_eq!(jobs_left(&store), second.0.job_ids);
    let fires =
        messages(&mut store, 0).into_iter().filter(|(_, message)| matches!(message, ToCoordinator::ScheduleFire(_)));
    assert_eq!(fires.count(), 2, "the coordinator is told of both");
}

#[test]
fn nothing_is_started_here_for_a_coordinator_that_never_acknowledged_anything() {
    let (_dir, path) = place();
    let mut store = Store::open(&path, LARGE).unwrap();
    store.commit(&[fire(&firing(None, 0))]).unwrap();
    assert_eq!(store.startable(), []);
}

#[test]
fn a_schedule_that_is_no_more_is_forgotten() {
    let (_dir, path, mut store) = store();
    let made = firing(None, 0);
    store.commit(&[Write::Handled { schedule: "s".into(), handled: Some(made.1.clone()) }]).unwrap();
    assert_eq!(store.handled().len(), 1);
    assert_eq!(store.commit(&[Write::Handled { schedule: "s".into(), handled: None }]).unwrap(), [Verdict::New]);
    drop(store);
    assert!(Store::open(&path, LARGE).unwrap().handled().is_empty());
}

fn take_back(firing: &Firing) -> Write {
    let which = (firing.schedule_id.clone(), firing.scheduled_at);
    Write::TakeBack { which, early: Early::told(7_200, Utc::now()) }
}

#[test]
fn a_firing_before_its_time_fires_again_once_also_after_a_crash() {
    let (_dir, path, mut store) = store();
    let made = firing(None, 120);
    store.commit(&[fire(&made)]).unwrap();
    let head = store.head();
    // The coordinator says that it was early, and then that it has it.
    assert_eq!(store.commit(&[take_back(&made.0), Write::Ack { up_to: head }]).unwrap(), [Verdict::New]);
    let image = std::fs::read(&path).unwrap();
    drop(store);
    std::fs::write(&path, image).unwrap();
    let mut store = Store::open(&path, LARGE).unwrap();
    let which = (made.0.schedule_id.clone(), made.0.scheduled_at);
    assert_eq!(store.early().into_keys().collect::<Vec<_>>(), [which]);
    assert_eq!(store.commit(&[fire(&made), fire(&made)]).unwrap(), [Verdict::New, Verdict::Known]);
    assert_eq!(messages(&mut store, head).len(), 1);
    drop(store);
    assert!(Store::open(&path, LARGE).unwrap().early().is_empty());
}

#[test]
fn what_came_before_its_time_goes_with_its_schedule_and_is_not_endless() {
    let (_dir, path, mut store) = store();
    let made = firing(None, 120);
    assert_eq!(store.commit(&[take_back(&made.0)]).unwrap(), [Verdict::Left], "there is no such schedule");
    store.commit(&[fire(&made)]).unwrap();
    let many = (0..=MOST_EARLY as i64).map(|minutes| {
        let which = (made.0.schedule_id.clone(), made.0.scheduled_at + TimeDelta::minutes(minutes));
        Write::TakeBack { which, early: Early::told(9_000 - minutes, Utc::now()) }
    });
    store.commit(&many.collect::<Vec<_>>()).unwrap();
    let first = (made.0.schedule_id.clone(), made.0.scheduled_at);
    assert!(store.early().len() == MOST_EARLY && !store.early().contains_key(&first), "this one comes last");
    store.commit(&[Write::Handled { schedule: "s".into(), handled: None }]).unwrap();
    drop(store);
    assert!(Store::open(&path, LARGE).unwrap().early().is_empty());
}
