//! The fleet of the month: who has which schedule, and what happens to whom when.

use super::ledger::{Ledger, Retries};
use super::{Agent, DAYS, Event, GROUP, HOSTS, Month, REPOSITORIES, Scope, host, repository_of};
use crate::clock::Steady;
use crate::db::json::Json;
use crate::db::maintenance::Entry;
use crate::db::repositories::Repository;
use crate::db::schedules::Schedule;
use crate::timetable::Timetable;
use chrono::TimeDelta;
use fleet_wire::{Kind, Timestamp};
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const DAY: i64 = 24 * 3_600;
const CRONS: [&str; 5] = ["0 2 * * *", "30 2 * * 1-5", "15 */6 * * *", "0 1,13 * * *", "*/20 3 * * *"];
const ZONES: [&str; 4] = ["Europe/Berlin", "America/New_York", "UTC", "Australia/Lord_Howe"];

fn agent(number: u128, begin: Timestamp) -> Agent {
    let timezone = ZONES[number as usize / 3 % ZONES.len()];
    // Those of one repository are never all at rest.
    let busy = number % REPOSITORIES == 1;
    let cron = match busy {
        true => format!("{} * * * *", 6 * (number / REPOSITORIES)),
        false => CRONS[number as usize % CRONS.len()].to_owned(),
    };
    let backup_takes = if busy { (1_500, 1_200) } else { (300, 2_100) };
    let timetable = Timetable::parse(&cron, timezone).expect("a timetable");
    let schedule = Schedule {
        id: Uuid::from_u128(9_000 + number),
        host_id: host(number),
        cron,
        timezone: timezone.to_owned(),
        enabled: true,
        source_groups: Json(vec![GROUP.to_owned()]),
        catch_up_seconds: 3_600,
        bandwidth_up_kbps: None,
        bandwidth_down_kbps: None,
        interval_seconds: 86_400,
        version: 1,
        next_due_at: timetable.next_after(begin),
        created_at: begin,
        updated_at: begin,
        deleted_at: None,
        name: None,
    };
    let retries = Retries { most: (number % 4) as i64, backoff: 60 * (1 + number as i64 % 5) };
    let (seen, journal, last_fired) = (begin - TimeDelta::days(1), Vec::new(), None);
    Agent {
        schedule,
        timetable,
        retries,
        enabled: true,
        told: 0,
        connected: false,
        seen,
        journal,
        last_fired,
        backup_takes,
    }
}

/// Half of them have a runner, which is away now and then.
fn repository(number: u128) -> Repository {
    let runner_host_id = number.is_multiple_of(2).then(|| host(number));
    Repository { runner_host_id, ..Repository::sample(repository_of(number)) }
}

fn entry(number: u128, kind: Kind, cron: &str, begin: Timestamp) -> Entry {
    let timezone = ZONES[number as usize % ZONES.len()];
    let timetable = Timetable::parse(cron, timezone).expect("a timetable");
    Entry {
        repository_id: repository_of(number),
        kind: kind.as_str().to_owned(),
        cron: cron.to_owned(),
        timezone: timezone.to_owned(),
        enabled: true,
        subset: None,
        interval_seconds: timetable.interval_seconds(begin),
        next_due_at: timetable.next_after(begin),
        last_success_at: None,
        last_subset: None,
        overdue_at: None,
        created_at: begin,
        updated_at: begin,
    }
}

pub(super) fn month() -> Month {
    // Berlin's clocks go back on the 25th, New York's a week later.
    let begin: Timestamp = "2026-10-12T00:00:00Z".parse().expect("a time");
    let kinds = [(Kind::Forget, "0 3 * * *"), (Kind::Prune, "30 3 * * 0"), (Kind::Check, "30 5 * * *")];
    let entries = (0..REPOSITORIES).flat_map(|number| kinds.map(|(kind, cron)| entry(number, kind, cron, begin)));
    let mut month = Month {
        begin,
        now: begin,
        ahead: TimeDelta::zero(),
        clock: Steady::new(begin, Duration::ZERO),
        looked_at: None,
        instant: Instant::now(),
        random: 4_711,
        queue: BinaryHeap::new(),
        queued: 0,
        agents: (0..HOSTS).map(|number| agent(number, begin)).collect(),
        repositories: (0..REPOSITORIES).map(repository).collect(),
        entries: entries.collect(),
        pauses: Arc::default(),
        lanes: None,
        ledger: Ledger::default(),
        work: HashMap::new(),
        at_work: BTreeSet::new(),
        longest_wait: TimeDelta::zero(),
        adopted: 0,
        stops: Vec::new(),
        attempts: Vec::new(),
        away: Vec::new(),
    };
    month.after(0, Event::Start);
    month.after(60, Event::Look);
    for number in 0..HOSTS {
        month.await_firing(number);
    }
    for day in [3, 7, 13, 14, 22, 28] {
        let seconds = day * DAY + month.random(DAY);
        month.after(seconds, Event::Stop);
    }
    plan_pauses(&mut month);
    plan_clock(&mut month);
    month
}

/// Each repository twice, a host every other day, and the fleet twice.
fn plan_pauses(month: &mut Month) {
    let repositories = (0..2 * REPOSITORIES).map(|number| Scope::Repository(number % REPOSITORIES));
    let hosts = (0..15).map(|number| Scope::Host(number * 13));
    for scope in repositories.chain(hosts).chain([Scope::Fleet, Scope::Fleet]) {
        let seconds = DAY + month.random((DAYS - 5) * DAY);
        month.after(seconds, Event::Pause(scope));
    }
}

/// A year ahead for one look, three days behind for half an hour, two hours ahead for less than one. And twenty minutes ahead for
/// so long that it is believed: what that spoils is put right.
fn plan_clock(month: &mut Month) {
    let jumps =
        [(5 * DAY, 365 * DAY, 90), (9 * DAY, -3 * DAY, 1_800), (12 * DAY, 7_200, 2_400), (18 * DAY, 1_200, 5 * 3_600)];
    for (begins, ahead, lasts) in jumps {
        month.after(begins, Event::Clock(ahead));
        month.after(begins + lasts, Event::Clock(0));
    }
    // From when it is believed until the right time is.
    let believed = month.begin + TimeDelta::seconds(18 * DAY);
    month.away.push((believed, believed + TimeDelta::hours(7)));
}
