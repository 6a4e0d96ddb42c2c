//! Hands one round on: each job's news to its actor, the host's to the persistence actor, all at once; then says what
//! is settled.

use super::firing;
use super::ledger::{SaveScheduleAck, SaveSnapshots, SaveStats};
use super::packing::pack_lines;
use super::protocol::{HostNews, Item, JobNews, Round};
use crate::dispatcher::{FindJob, NoJob};
use crate::job::{Handover, Job, News, NotWritten, Report};
use crate::persistence::{Patience, Save, Write, WriteError};
use crate::services::Services;
use actix::Addr;
use chrono::Utc;
use fleet_wire::{EnvelopeId, ErrorMessage, JobId};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The pause before a job is looked up again in a ledger that can't be read.
pub(super) const LOOK_UP_PAUSE: Duration = Duration::from_secs(1);

/// What became of a round: all of it is committed or refused for good.
pub(super) struct Settled {
    pub(super) jobs: HashMap<JobId, Addr<Job>>,
    pub(super) refused: Vec<(Option<EnvelopeId>, ErrorMessage)>,
    pub(super) up_to: Option<EnvelopeId>,
}

/// One part of the round has no outcome: the coordinator stops.
pub(super) struct Stopping;

type Refused = Vec<(Option<EnvelopeId>, ErrorMessage)>;

/// Hands on. `None` if the coordinator stops: nothing may be acknowledged then.
pub(super) async fn hand_on(
    round: Round,
    host_id: Uuid,
    services: Arc<Services>,
    known: HashMap<JobId, Addr<Job>>,
) -> Option<Settled> {
    let Round { jobs, host, up_to } = round;
    let job_parts = join_all(jobs.into_iter().map(|(job_id, items)| {
        let known = known.get(&job_id).cloned();
        tell_job(job_id, items, known, host_id, &services)
    }));
    let host_parts = join_all(host.into_iter().map(|item| tell_ledger(item, host_id, &services)));
    let (job_parts, host_parts) = futures_util::future::join(job_parts, host_parts).await;

    let mut settled = Settled { jobs: known, refused: Vec::new(), up_to };
    settled.jobs.retain(|_, actor| actor.connected());
    for part in job_parts {
        let (job_id, actor, refused) = part.ok()?;
        settled.jobs.extend(actor.map(|actor| (job_id, actor)));
        settled.refused.extend(refused);
    }
    for part in host_parts {
        settled.refused.extend(part.ok()?);
    }
    Some(settled)
}

async fn tell_job(
    job_id: JobId,
    items: Vec<Item<JobNews>>,
    known: Option<Addr<Job>>,
    host_id: Uuid,
    services: &Services,
) -> Result<(JobId, Option<Addr<Job>>, Refused), Stopping> {
    let refuse = |ids: &[Option<EnvelopeId>], error: &ErrorMessage| {
        ids.iter().map(|id| (id.clone(), error.clone())).collect::<Refused>()
    };
    let (ids, news): (Vec<_>, Vec<_>) = items.into_iter().map(|item| (item.id, item.news)).unzip();
    let handover = match gathered(&job_id, news).await? {
        Ok(news) => Handover::of(news),
        Err(error) => return Ok((job_id, None, refuse(&ids, &error))),
    };
    let mut known = known.filter(Addr::connected);
    // An actor may stop between look-up and message; then it is looked up once more.
    for _ in 0..3 {
        let actor = match known.take() {
            Some(actor) => actor,
            None => match find(&job_id, host_id, services).await {
                Ok(actor) => actor,
                Err(refusal) => return refusal.map(|error| (job_id, None, refuse(&ids, &error))),
            },
        };
        match actor.send(Report(handover.clone())).await {
            Ok(Ok(())) => return Ok((job_id, Some(actor), Vec::new())),
            Ok(Err(NotWritten::Refused(error))) => {
                let error = ErrorMessage::new("refused", format!("job {job_id}: {error}"));
                return Ok((job_id, None, refuse(&ids, &error)));
            }
            Ok(Err(NotWritten::Stopping)) => return Err(Stopping),
            Err(_) => {}
        }
    }
    Err(Stopping)
}

/// A job's news with its lines packed; the inner error is for the agent.
async fn gathered(job_id: &JobId, items: Vec<JobNews>) -> Result<Result<News, ErrorMessage>, Stopping> {
    let (mut news, mut lines) = (News::default(), Vec::new());
    for item in items {
        match item {
            JobNews::State(event) => news.events.push(event),
            JobNews::Progress(progress) => news.progress = Some(progress),
            JobNews::Line(line) => lines.push(line),
        }
    }
    if !lines.is_empty() {
        let Ok(id) = job_id.as_str().parse::<Uuid>() else {
            return Ok(Err(ErrorMessage::new("unknown_job", format!("job {job_id}: {}", NoJob::Unknown))));
        };
        match pack_lines(id, lines).await? {
            Ok(packed) => news.lines = packed,
            Err(error) => return Ok(Err(ErrorMessage::new("refused", format!("job {job_id}: {error}")))),
        }
    }
    Ok(Ok(news))
}

/// The job's actor, or the refusal of what was said about it.
async fn find(job_id: &JobId, host_id: Uuid, services: &Services) -> Result<Addr<Job>, Result<ErrorMessage, Stopping>> {
    if let Some((actor, of_host)) = job_id.as_str().parse().ok().and_then(|id| services.live.actor(id))
        && of_host == host_id
    {
        return Ok(actor);
    }
    loop {
        let found = services.dispatcher.send(FindJob { job_id: job_id.clone(), host_id }).await;
        match found {
            Ok(Ok(actor)) => return Ok(actor),
            Ok(Err(NoJob::Database(error))) => {
                log::warn!(host:% = host_id; "a job can't be looked up yet: {error}");
                actix::clock::sleep(LOOK_UP_PAUSE).await;
            }
            Ok(Err(refusal)) => {
                let code = match refusal {
                    NoJob::OtherHost => "not_your_job",
                    _ => "unknown_job",
                };
                log::warn!(host:% = host_id; "a message about job {job_id} is refused: {refusal}");
                return Err(Ok(ErrorMessage::new(code, format!("job {job_id}: {refusal}"))));
            }
            Err(_) => return Err(Err(Stopping)),
        }
    }
}

async fn tell_ledger(item: Item<HostNews>, host_id: Uuid, services: &Services) -> Result<Refused, Stopping> {
    let received_at = Utc::now();
    let refusal = match item.news {
        HostNews::Snapshots(report) => {
            write(SaveSnapshots { host_id, report, received_at }, services).await?.map(|()| None)
        }
        HostNews::Stats(stats) => {
            let stored = write(SaveStats { host_id, stats, received_at }, services).await?;
            let none = ErrorMessage::new("no_repository", "this host has no repository");
            stored.map(|stored| (!stored).then_some(none))
        }
        HostNews::ScheduleApplied(ack) => write(SaveScheduleAck { host_id, ack }, services).await?.map(|()| None),
        HostNews::ScheduleFired(fire) => Ok(firing::tell(fire, host_id, services).await?),
    };
    Ok(refusal.unwrap_or_else(Some).map(|error| (item.id, error)).into_iter().collect())
}

/// Writes; the inner error is the database's refusal.
async fn write<W: Write>(write: W, services: &Services) -> Result<Result<W::Output, ErrorMessage>, Stopping> {
    match services.persistence.send(Save { write, patience: Patience::Endless }).await {
        Ok(Ok(output)) => Ok(Ok(output)),
        Ok(Err(WriteError::Rejected(error))) => Ok(Err(ErrorMessage::new("refused", error.to_string()))),
        Ok(Err(_)) | Err(_) => Err(Stopping),
    }
}
