//! An agent's cron has fired: each source group's backup becomes a job, or a row of the ledger that says why not.

use super::{Dispatcher, Submit};
use crate::clock;
use crate::db::jobs::{NewJob, Origin, REQUESTED_BY_AGENT};
use crate::db::planning::Planning;
use crate::db::runs::{Claim, NoteRuns, Outcome, Run};
use crate::db::schedules::Schedule;
use crate::firing::{self, Verdict, judge, parts};
use crate::job::NotWritten;
use crate::job::plan::{Cause, Wish, plan, said};
use crate::persistence::{Patience, Save, SaveJob, WriteError};
use crate::timetable::Timetable;
use actix::{Context, Handler, Message, ResponseFuture};
use fleet_wire::{Cap, Kind, Timestamp};
use futures_util::future::{LocalBoxFuture, join_all};
use std::sync::Arc;
use uuid::Uuid;

/// Who asks for what a schedule wants.
const REQUESTED_BY_SCHEDULE: &str = "schedule";

/// A schedule has fired. Answered when what comes of it is in the ledger; a repetition changes nothing.
#[derive(Message)]
#[rtype(result = "Result<(), NotWritten>")]
pub struct Fire {
    /// The schedule, of the host whose agent says so.
    pub schedule: Arc<Schedule>,
    /// What its jobs are planned with; absent if the host is gone.
    pub planning: Option<Arc<Planning>>,
    /// For when, as the agent says.
    pub scheduled_at: Timestamp,
    /// The ids of the jobs, no two of them equal, if the agent makes them.
    pub job_ids: Vec<Uuid>,
    /// The groups whose jobs these are, if it says so: one for each, no two of them equal.
    pub source_groups: Vec<String>,
}

type Written = LocalBoxFuture<'static, Result<(), WriteError>>;

impl Handler<Fire> for Dispatcher {
    type Result = ResponseFuture<Result<(), NotWritten>>;

    fn handle(&mut self, fire: Fire, context: &mut Self::Context) -> Self::Result {
        let (now, due_at) = (clock::nearest(fire.scheduled_at), nominal(&fire.schedule, fire.scheduled_at));
        let mut left = Vec::new();
        let mut writes: Vec<Written> = Vec::new();
        for part in parts(&fire.schedule.source_groups.0, &fire.source_groups, &fire.job_ids) {
            let run = Run::of_schedule(fire.schedule.id, fire.schedule.host_id, &part.group, due_at, now);
            let run = Run { job_id: part.job_id, ..run };
            match self.start_run(&fire, &part, run, now, context) {
                Ok(write) => writes.push(write),
                Err(run) => left.push(*run),
            }
        }
        if !left.is_empty() {
            let note = Save { write: NoteRuns(left), patience: Patience::Endless };
            let note = self.services.persistence.send(note);
            writes.push(Box::pin(async move { note.await.unwrap_or(Err(WriteError::Unknown)) }));
        }
        Box::pin(async move {
            for outcome in join_all(writes).await {
                match outcome {
                    // Another job has the run already, or the host is gone since it was looked up.
                    Ok(()) | Err(WriteError::Rejected(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }
}

impl Dispatcher {
    /// Makes a run's job, or gives the run with the reason why not.
    fn start_run(
        &mut self,
        fire: &Fire,
        part: &firing::Part,
        run: Run,
        now: Timestamp,
        context: &mut Context<Self>,
    ) -> Result<Written, Box<Run>> {
        let host_id = fire.schedule.host_id;
        let left = |run: Run, outcome, why: String| Err(Box::new(run.with(outcome, why)));
        let known = run.job_id.and_then(|id| self.lanes.host_of(id));
        if known.is_some_and(|host| host != host_id) {
            let run = Run { job_id: None, ..run };
            return left(
                run,
                Outcome::Missed,
                "the id that its agent made for the job is another host's job".to_owned(),
            );
        }
        if !part.scheduled {
            // With its id: if its agent has run it, it is adopted.
            return left(run, Outcome::Skipped, "the schedule no longer has this group".to_owned());
        }
        let repeated = known.is_some();
        let open = self.open_backup(host_id, &part.group).filter(|_| !repeated);
        let repository = fire.planning.as_ref().and_then(|planning| planning.repository_id());
        // What was due before a pause, and is told in it, waits for its end.
        let paused = self.pauses.why_at(Some(host_id), repository, run.due_at);
        match judge(&fire.schedule, run.due_at, open, paused.as_deref(), now) {
            _ if repeated => {}
            Verdict::Run => {}
            Verdict::Skip(why) => return left(run, Outcome::Skipped, why),
            Verdict::Miss(why) => return left(run, Outcome::Missed, why),
        }
        let planning = fire.planning.as_deref();
        let new = match planned(&fire.schedule, planning, &run, Origin::Schedule, now) {
            Ok(new) => new,
            Err(why) => return left(run, Outcome::Missed, why),
        };
        let claim = Claim { run: Run { job_id: None, ..run }, previous: None };
        Ok(if repeated { self.wait_for(new, claim) } else { self.submit(new, claim, context) })
    }

    fn submit(&mut self, new: NewJob, claim: Claim, context: &mut Context<Self>) -> Written {
        let submit = Submit { new, claim: Some(claim), request: None, patience: Patience::Endless };
        let submitted = self.handle(submit, context);
        Box::pin(async move { submitted.await.map(drop) })
    }

    /// Waits until a job is in the ledger that is known here: written once more behind the first time, it changes nothing.
    fn wait_for(&self, new: NewJob, claim: Claim) -> Written {
        let save = SaveJob {
            job_id: new.id,
            new: Some(Arc::new(new.as_stored())),
            claim: Some(Arc::new(claim)),
            ending: None,
            state: None,
            chunks: Vec::new(),
            requests: Vec::new(),
            patience: Patience::Endless,
        };
        let write = self.services.persistence.send(save);
        Box::pin(async move { write.await.unwrap_or(Err(WriteError::Unknown)) })
    }

    /// A backup of this group that is not over; not one that its operation lets others go before.
    pub(super) fn open_backup(&self, host_id: Uuid, group: &str) -> Option<Uuid> {
        // A lost one is over, although it keeps its lease.
        let is_over = |id: &Uuid| {
            let record =
                self.services.live.read(*id).or_else(|| self.without_actor.get(id).map(|(job, _)| job.clone()));
            record.is_some_and(|job| job.state.status.is_terminal())
        };
        self.lanes.backups_of(host_id, group).find(|id| !is_over(id) && !self.lanes.is_held(*id))
    }
}

/// What a firing is for: agents that keep no journal say when they fired.
fn nominal(schedule: &Schedule, scheduled_at: Timestamp) -> Timestamp {
    let timetable = Timetable::parse(&schedule.cron, &schedule.timezone).ok();
    // With an older version of the schedule it fires at other times.
    timetable.and_then(|timetable| timetable.due_in_minute_to(scheduled_at)).unwrap_or(scheduled_at)
}

/// The job of a run.
pub(super) fn planned(
    schedule: &Schedule,
    planning: Option<&Planning>,
    run: &Run,
    origin: Origin,
    now: Timestamp,
) -> Result<NewJob, String> {
    let Planning { host, repository, groups } =
        planning.ok_or_else(|| "the host was taken out of service".to_owned())?;
    let repository = repository.as_ref().ok_or_else(|| "the host has no repository".to_owned())?;
    let cap = |limit: Option<i64>| limit.map_or(Cap::Unchanged, Cap::present);
    let wish = Wish {
        source_group: run.source_group.clone(),
        bandwidth_up_kbps: cap(schedule.bandwidth_up_kbps),
        bandwidth_down_kbps: cap(schedule.bandwidth_down_kbps),
        ..Wish::default()
    };
    let cause = Cause { origin, requested_by: REQUESTED_BY_SCHEDULE.to_owned(), at: now };
    let new = plan(Kind::Backup, &wish, host, repository, groups, cause).map_err(|wrong| said(&wrong))?;
    let new = NewJob { schedule_id: Some(schedule.id), scheduled_at: Some(run.due_at), run_id: Some(run.id), ..new };
    Ok(match run.job_id {
        Some(id) => NewJob { requested_by: Some(REQUESTED_BY_AGENT.to_owned()), ..new.with_id(id) },
        None => new,
    })
}
