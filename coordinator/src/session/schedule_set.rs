//! The schedules of a host as its agent gets them, with all that it needs to keep them by itself. Pure.

use crate::db::hosts::Host;
use crate::db::schedules::Schedule;
use crate::db::source_groups::SourceGroup;
use fleet_wire::{Cap, RawJson, ScheduleSet, ScheduledGroup};

/// `schedule.set`, always the whole list. While the host is `paused` all of it is turned off, so that the agent does not keep
/// it by itself either while it can't reach the coordinator.
pub(super) fn schedule_set(host: &Host, schedules: &[Schedule], groups: &[SourceGroup], paused: bool) -> ScheduleSet {
    let schedules = schedules.iter().map(|schedule| fleet_wire::Schedule {
        id: schedule.id.to_string().into(),
        cron_expr: schedule.cron.clone(),
        enabled: schedule.enabled && !paused,
        source_groups: named(schedule, groups).map(|group| scheduled(host, group)).collect(),
        timezone: Some(schedule.timezone.clone()),
        catch_up_seconds: Some(schedule.catch_up_seconds),
        bandwidth_up_kbps: cap(schedule.bandwidth_up_kbps),
        bandwidth_down_kbps: cap(schedule.bandwidth_down_kbps),
    });
    ScheduleSet { version: host.schedule_version, schedules: schedules.collect() }
}

/// A schedule's groups, in its order: the agent makes job ids in the same.
fn named<'a>(schedule: &'a Schedule, groups: &'a [SourceGroup]) -> impl Iterator<Item = &'a SourceGroup> {
    // A group that a schedule has can't be deleted.
    schedule.source_groups.0.iter().filter_map(|name| groups.iter().find(|group| group.name == *name))
}

fn scheduled(host: &Host, group: &SourceGroup) -> ScheduledGroup {
    ScheduledGroup {
        name: group.name.clone(),
        includes: group.includes.0.clone(),
        excludes: group.excludes.0.clone(),
        retention_policy: group.retention.as_ref().and_then(|policy| RawJson::of(&policy.0).ok()),
        retry_max: Some(group.retry_max),
        retry_backoff_seconds: Some(group.retry_backoff_seconds),
        pre_hook: group.pre_hook.clone().or_else(|| host.pre_hook.clone()),
        post_hook: group.post_hook.clone().or_else(|| host.post_hook.clone()),
    }
}

/// A cap of the schedule's jobs; without one the host's counts.
fn cap(limit: Option<i64>) -> Cap {
    limit.map_or(Cap::Unchanged, Cap::present)
}
