//! The fleet of the month: who has which schedule, and what happens to whom when.

use super::{Agent, Event, GROUP, HOSTS, Month, REPOSITORIES, host, repository_of};
use crate::db::json::Json;
use crate::db::maintenance::Entry;
use crate::db::repositories::Repository;
use crate::db::schedules::Schedule;
use crate::timetable::Timetable;
use chrono::TimeDelta;
use fleet_wire::{Kind, Timestamp};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Instant;
use uuid::Uuid;

const CRONS: [&str; 5] = ["0 2 * * *", "30 2 * * 1-5", "15 */6 * * *", "0 1,13 * * *", "*/20 3 * * *"];
const ZONES: [&str; 4] = ["Europe/Berlin", "America/New_York", "UTC", "Australia/Lord_Howe"];

fn agent(number: u128, begin: Timestamp) -> Agent {
    let (cron, timezone) = (CRONS[number as usize % CRONS.len()], ZONES[number as usize / 3 % ZONES.len()]);
    let timetable = Timetable::parse(cron, timezone).expect("a timetable");
    let schedule = Schedule {
        id: Uuid::from_u128(9_000 + number),
        host_id: host(number),
        cron: cron.to_owned(),
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
    };
    Agent { schedule, timetable, connected: false, seen: begin - TimeDelta::days(1), journal: Vec::new() }
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
        instant: Instant::now(),
        random: 4_711,
        queue: BinaryHeap::new(),
        queued: 0,
        agents: (0..HOSTS).map(|number| agent(number, begin)).collect(),
        repositories: (0..REPOSITORIES).map(|number| Repository::sample(repository_of(number))).collect(),
        entries: entries.collect(),
        lanes: None,
        ledger: BTreeMap::new(),
        open: BTreeSet::new(),
        work: HashMap::new(),
        at_work: BTreeSet::new(),
        longest_wait: TimeDelta::zero(),
        adopted: 0,
    };
    month.after(0, Event::Start);
    month.after(60, Event::Look);
    for number in 0..HOSTS {
        let first = month.agents[number as usize].schedule.next_due_at.expect("a firing");
        month.at(first, Event::Fire(number));
    }
    for day in [3, 7, 13, 14, 22, 28] {
        let seconds = day * 24 * 3600 + month.random(24 * 3600);
        month.after(seconds, Event::Stop);
    }
    month
}
