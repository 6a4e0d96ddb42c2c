//! A schedule as the cron works with it, and what a firing of it is to run.

use super::due::Handled;
use chrono::TimeDelta;
use fleet_wire::crontab::{Expression, Zone};
use fleet_wire::{CommandRun, JobId, Kind, Schedule, ScheduleFire, ScheduleId, Timestamp};
use serde::{Deserialize, Serialize};

/// How late a missed firing is caught up where the schedule does not say.
const CATCH_UP: TimeDelta = TimeDelta::hours(24);

/// The longest time that a schedule can say.
const LONGEST_CATCH_UP: TimeDelta = TimeDelta::days(366);

/// A firing that is met within this time is on time: the agent is busy now and then, and timers are late.
const ON_TIME: TimeDelta = TimeDelta::seconds(60);

/// A schedule that fires.
#[derive(Clone, Debug)]
pub struct Entry {
    schedule: Schedule,
    pub(super) expression: Expression,
    pub(super) zone: Zone,
}

impl Entry {
    /// Reads a schedule; one without a time zone goes by that of the host.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn read(schedule: &Schedule, host: &Zone) -> Result<Self, String> {
        let wrong = |what: &str| format!("schedule {}: {what}", schedule.id);
        let expression = Expression::parse(&schedule.cron_expr)
            .map_err(|error| wrong(&format!("cron_expr {:?}: {error}", schedule.cron_expr)))?;
        let zone = match &schedule.timezone {
            Some(name) => name.parse().map_err(|error| wrong(&format!("timezone {name:?}: {error}")))?,
            None => host.clone(),
        };
        Ok(Self { schedule: schedule.clone(), expression, zone })
    }

    /// Its id.
    pub fn id(&self) -> &ScheduleId {
        &self.schedule.id
    }

    /// How old a firing may be that is still made.
    pub(super) fn window(&self) -> TimeDelta {
        let given = self.schedule.catch_up_seconds.map(|seconds| {
            TimeDelta::try_seconds(seconds.max(0)).map_or(LONGEST_CATCH_UP, |given| given.min(LONGEST_CATCH_UP))
        });
        given.unwrap_or(CATCH_UP).max(ON_TIME)
    }

    /// Whether `handled` counts the firings of just this expression in this zone.
    pub(super) fn is_counted_by(&self, handled: &Handled) -> bool {
        handled.expression == self.schedule.cron_expr && handled.zone == self.schedule.timezone
    }

    /// A record that says that all before `until` is dealt with.
    pub(super) fn handled(&self, until: Timestamp, fired: Vec<Timestamp>) -> Handled {
        let (expression, zone) = (self.schedule.cron_expr.clone(), self.schedule.timezone.clone());
        Handled { expression, zone, until, fired }
    }

    /// The firing of `scheduled_at`, with a new job for each source group. `reach` is how long the coordinator may be
    /// away before they are run without it.
    pub fn fire(&self, scheduled_at: Timestamp, now: Timestamp, reach: TimeDelta) -> Firing {
        let schedule = &self.schedule;
        let run = |group: &fleet_wire::ScheduledGroup| CommandRun {
            includes: group.includes.clone(),
            excludes: group.excludes.clone(),
            tag: Some(group.name.clone()),
            bandwidth_up_kbps: schedule.bandwidth_up_kbps,
            bandwidth_down_kbps: schedule.bandwidth_down_kbps,
            pre_hook: group.pre_hook.clone(),
            post_hook: group.post_hook.clone(),
            ..CommandRun::new(uuid::Uuid::now_v7().to_string().into(), Kind::Backup)
        };
        let runs: Vec<_> = schedule.source_groups.iter().map(run).collect();
        let job_ids = runs.iter().map(|run| run.job_id.clone()).collect();
        let late = self.window().checked_add(&reach).unwrap_or(LONGEST_CATCH_UP);
        let local_until = now.checked_add_signed(late).unwrap_or(now);
        let source_groups = schedule.source_groups.iter().map(|group| group.name.clone()).collect();
        Firing { schedule_id: schedule.id.clone(), scheduled_at, job_ids, source_groups, runs, local_until }
    }
}

/// A schedule has fired: what is said of it, and what is needed to run it without the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    /// The schedule.
    pub schedule_id: ScheduleId,
    /// The nominal instant.
    pub scheduled_at: Timestamp,
    /// One job for each source group, in their order.
    pub job_ids: Vec<JobId>,
    /// The names of these groups; none in the journal of an agent that did not tell them.
    #[serde(default)]
    pub source_groups: Vec<String>,
    /// Those of them that this agent may still start by itself.
    pub runs: Vec<CommandRun>,
    /// After this it does not start them any more.
    pub local_until: Timestamp,
}

impl Firing {
    /// What the coordinator is told.
    pub fn message(&self) -> ScheduleFire {
        ScheduleFire {
            schedule_id: self.schedule_id.clone(),
            scheduled_at: self.scheduled_at,
            job_ids: self.job_ids.clone(),
            source_groups: self.source_groups.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(fields: &str) -> Schedule {
        serde_json::from_str(&format!(r#"{{"id":"s","enabled":true,{fields}}}"#)).unwrap()
    }

    #[test]
    fn a_schedule_that_makes_no_sense_says_where_and_why() {
        let said = |fields: &str| Entry::read(&schedule(fields), &Zone::UTC).map(|_| ()).unwrap_err();
        let hour = said(r#""cron_expr":"0 25 * * *""#);
        assert!(hour.starts_with("schedule s: cron_expr \"0 25 * * *\": position 2 (hour)"), "{hour}");
        assert!(said(r#""cron_expr":"""#).contains("empty"));
        let zone = said(r#""cron_expr":"0 2 * * *","timezone":"Berlin""#);
        assert_eq!(zone, "schedule s: timezone \"Berlin\": no such time zone: is Europe/Berlin meant?");
    }

    #[test]
    fn the_time_to_catch_up_has_a_default_and_bounds() {
        let window = |fields: &str| {
            let schedule = schedule(&format!(r#""cron_expr":"@daily"{fields}"#));
            Entry::read(&schedule, &Zone::UTC).unwrap().window()
        };
        assert_eq!(window(""), CATCH_UP);
        assert_eq!(window(r#","catch_up_seconds":3600"#), TimeDelta::hours(1));
        for never in [0, -1, i64::MIN] {
            assert_eq!(window(&format!(r#","catch_up_seconds":{never}"#)), ON_TIME);
        }
        assert_eq!(window(&format!(r#","catch_up_seconds":{}"#, i64::MAX)), LONGEST_CATCH_UP);
    }

    #[test]
    fn a_firing_has_a_job_for_each_group_with_all_that_it_needs() {
        let schedule = schedule(
            r#""cron_expr":"@daily","bandwidth_up_kbps":0,"source_groups":[
               {"name":"etc","includes":["/etc"],"excludes":["*.tmp"],"pre_hook":"sync","post_hook":"true"},
               {"name":"srv","includes":["/srv"]}]"#,
        );
        let now = Timestamp::default();
        let entry = Entry::read(&schedule, &Zone::UTC).unwrap();
        let firing = entry.fire(now, now, TimeDelta::seconds(30));
        assert_eq!(firing.local_until, now + CATCH_UP + TimeDelta::seconds(30));
        let [etc, srv] = &firing.runs[..] else { panic!("{firing:?}") };
        assert_eq!(firing.job_ids, [etc.job_id.clone(), srv.job_id.clone()]);
        assert_ne!(etc.job_id, srv.job_id);
        assert_ne!(entry.fire(now, now, TimeDelta::zero()).job_ids, firing.job_ids);
        let expected = CommandRun {
            includes: vec!["/etc".into()],
            excludes: vec!["*.tmp".into()],
            tag: Some("etc".into()),
            bandwidth_up_kbps: fleet_wire::Cap::Unlimited,
            pre_hook: Some("sync".into()),
            post_hook: Some("true".into()),
            ..CommandRun::new(etc.job_id.clone(), Kind::Backup)
        };
        assert_eq!(*etc, expected);
        let told = firing.message();
        assert_eq!(
            (&told.job_ids, &told.source_groups[..]),
            (&firing.job_ids, &["etc".to_owned(), "srv".to_owned()][..])
        );
    }
}
