//! A session after `hello`: what each message asks for, and what is gathered until it can be handed on. No I/O.

use super::refusal::Refusal;
use crate::job::transitions::Event;
use crate::metrics::{Dropped, Messages};
use fleet_wire::{
    Decoded, EnvelopeId, JobId, JobProgress, LogLine, RepoStats, ScheduleAck, ScheduleFire, SnapshotsReport,
    ToCoordinator, decode,
};
use std::collections::HashMap;
use std::sync::Arc;

/// A session that has this much to hand on stops reading.
const INBOX_BYTES: usize = 512 * 1024;
/// The same in messages.
const INBOX_MESSAGES: usize = 4_096;
/// At most this much is handed on at once.
const ROUND_MESSAGES: usize = 2_048;

/// News about a job.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JobNews {
    State(Event),
    Progress(JobProgress),
    Line(LogLine),
}

/// News about the host, rather than about a job.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum HostNews {
    Snapshots(SnapshotsReport),
    Stats(RepoStats),
    ScheduleApplied(ScheduleAck),
    ScheduleFired(ScheduleFire),
}

/// Something to hand on.
#[derive(Clone, Debug, PartialEq)]
enum News {
    Job(JobId, JobNews),
    Host(HostNews),
}

/// One thing to hand on, under the id that its envelope had.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item<T> {
    pub(super) id: Option<EnvelopeId>,
    pub(super) news: T,
}

/// What is handed on together. Order matters within a job only, and for a firing, which is handed on alone: whether the
/// last job of its group is over depends on what was said before.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Round {
    pub(super) jobs: HashMap<JobId, Vec<Item<JobNews>>>,
    pub(super) host: Vec<Item<HostNews>>,
    /// The highest id that is settled once all of this is.
    pub(super) up_to: Option<EnvelopeId>,
}

/// The state of a session after `hello`.
#[derive(Debug, Default)]
pub(super) struct Protocol {
    inbox: Vec<Item<News>>,
    bytes: usize,
    /// The latest numbered envelope that was received.
    last: Option<EnvelopeId>,
    messages: Arc<Messages>,
}

impl Protocol {
    /// Nothing was said yet. What comes is counted in `messages`.
    pub(super) fn new(messages: Arc<Messages>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// Takes in one message.
    ///
    /// # Errors
    /// It is malformed, or a second hello.
    pub(super) fn receive(&mut self, text: &str) -> Result<(), Refusal> {
        let (id, message) = match decode::<ToCoordinator>(text) {
            Ok(Decoded::Known { id, message }) => (id, message),
            Ok(Decoded::Unknown { id, type_name }) => {
                self.messages.unknown(text.len());
                log::debug!("a message of the unknown type {type_name:?} is ignored");
                self.settle_after(id);
                return Ok(());
            }
            Err(error) => return Err(Refusal::malformed(error.to_string())),
        };
        self.messages.received(&message, text.len());
        match message {
            ToCoordinator::Hello(_) => return Err(Refusal::malformed("a second hello".to_owned())),
            ToCoordinator::Heartbeat(_) => {}
            ToCoordinator::Error(error) => log::warn!("the agent complains: {}: {}", error.code, error.message),
            ToCoordinator::CommandResult(m) => {
                self.job(id.clone(), m.job_id.clone(), JobNews::State(Event::Answered(m)), text)
            }
            ToCoordinator::JobStarted(m) => {
                self.job(id.clone(), m.job_id.clone(), JobNews::State(Event::Started(m)), text)
            }
            ToCoordinator::JobProgress(m) => self.job(id.clone(), m.job_id.clone(), JobNews::Progress(m), text),
            ToCoordinator::JobFinished(m) => {
                self.job(id.clone(), m.job_id.clone(), JobNews::State(Event::Finished(m)), text)
            }
            ToCoordinator::LogLine(m) => self.job(id.clone(), m.job_id.clone(), JobNews::Line(m), text),
            ToCoordinator::SnapshotsReport(m) => self.host(id.clone(), HostNews::Snapshots(m), text),
            ToCoordinator::RepoStats(m) => self.host(id.clone(), HostNews::Stats(m), text),
            ToCoordinator::ScheduleAck(m) => self.host(id.clone(), HostNews::ScheduleApplied(m), text),
            ToCoordinator::ScheduleFire(m) => self.host(id.clone(), HostNews::ScheduleFired(m), text),
        }
        self.settle_after(id);
        Ok(())
    }

    fn job(&mut self, id: Option<EnvelopeId>, job_id: JobId, event: JobNews, text: &str) {
        // Only the latest progress counts: a torrent of it takes no room.
        if let (JobNews::Progress(_), Some(Item { news: News::Job(last_job, last), .. })) =
            (&event, self.inbox.last_mut())
            && *last_job == job_id
            && matches!(last, JobNews::Progress(_))
        {
            *last = event;
            self.messages.dropped(Dropped::Superseded);
            return;
        }
        self.push(id, News::Job(job_id, event), text);
    }

    fn host(&mut self, id: Option<EnvelopeId>, news: HostNews, text: &str) {
        self.push(id, News::Host(news), text);
    }

    fn push(&mut self, id: Option<EnvelopeId>, news: News, text: &str) {
        self.bytes += text.len();
        self.inbox.push(Item { id, news });
    }

    fn settle_after(&mut self, id: Option<EnvelopeId>) {
        if let Some(id) = id.filter(|id| id.number().is_some()) {
            self.last = Some(id);
        }
    }

    /// Whether there is so much to hand on that reading should stop.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= INBOX_BYTES || self.inbox.len() >= INBOX_MESSAGES
    }

    fn round_messages(&self) -> usize {
        let fires = |item: &Item<News>| matches!(item.news, News::Host(HostNews::ScheduleFired(_)));
        let most = self.inbox.len().min(ROUND_MESSAGES);
        match self.inbox[..most].iter().position(fires) {
            None => most,
            Some(before) => before.max(1),
        }
    }

    /// What to hand on next; `None` if there is nothing to do.
    pub(super) fn next_round(&mut self) -> Option<Round> {
        if self.inbox.is_empty() && self.last.is_none() {
            return None;
        }
        let later = self.inbox.split_off(self.round_messages());
        let now = std::mem::replace(&mut self.inbox, later);
        let mut round = Round::default();
        if self.inbox.is_empty() {
            self.bytes = 0;
            round.up_to = self.last.take();
        } else {
            round.up_to = now.iter().rev().find_map(|item| item.id.clone().filter(|id| id.number().is_some()));
        }
        for Item { id, news } in now {
            match news {
                News::Job(job_id, event) => round.jobs.entry(job_id).or_default().push(Item { id, news: event }),
                News::Host(news) => round.host.push(Item { id, news }),
            }
        }
        Some(round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::{JobProgress, LogLine, LogStream, encode};

    fn line(job: &str, seq: i64) -> ToCoordinator {
        let payload = format!("line {seq}");
        LogLine { job_id: job.into(), seq, ts: None, stream: LogStream::Stdout, payload }.into()
    }

    fn receive(protocol: &mut Protocol, id: u64, message: &ToCoordinator) {
        protocol.receive(&encode(Some(&id.into()), message)).expect("well-formed");
    }

    #[test]
    fn a_round_keeps_the_order_within_a_job_and_knows_what_it_settles() {
        let mut protocol = Protocol::default();
        for (id, (job, seq)) in (10..).zip([("a", 0), ("b", 0), ("a", 1)]) {
            receive(&mut protocol, id, &line(job, seq));
        }
        let round = protocol.next_round().expect("a round");
        let seqs: Vec<_> =
            round.jobs[&"a".into()].iter().map(|item| item.id.as_ref().map(EnvelopeId::as_str)).collect();
        assert_eq!(seqs, [Some("10"), Some("12")]);
        assert_eq!(round.up_to, Some(12.into()));
        assert_eq!(protocol.next_round(), None);
    }

    #[test]
    fn what_is_ignored_is_settled_too() {
        let mut protocol = Protocol::default();
        protocol.receive(r#"{"type":"of.tomorrow","id":"7","payload":{"x":1}}"#).expect("ignored");
        assert_eq!(protocol.next_round().expect("a round").up_to, Some(7.into()));
    }

    #[test]
    fn a_round_that_leaves_some_behind_settles_only_what_it_holds() {
        let mut protocol = Protocol::default();
        for id in 0..=ROUND_MESSAGES as u64 {
            receive(&mut protocol, id + 1, &line("a", id.cast_signed()));
        }
        assert_eq!(protocol.next_round().expect("first").up_to, Some((ROUND_MESSAGES as u64).into()));
        assert_eq!(protocol.next_round().expect("second").up_to, Some((ROUND_MESSAGES as u64 + 1).into()));
    }

    #[test]
    fn a_firing_is_handed_on_alone() {
        let mut protocol = Protocol::default();
        let fire = ScheduleFire {
            schedule_id: "s".into(),
            scheduled_at: chrono::Utc::now(),
            job_ids: Vec::new(),
            source_groups: Vec::new(),
        };
        receive(&mut protocol, 1, &line("a", 0));
        receive(&mut protocol, 2, &fire.clone().into());
        receive(&mut protocol, 3, &fire.into());
        receive(&mut protocol, 4, &line("a", 1));
        let rounds: Vec<Round> = std::iter::from_fn(|| protocol.next_round()).collect();
        let held: Vec<_> = rounds.iter().map(|round| (round.jobs.len(), round.host.len())).collect();
        assert_eq!(held, [(1, 0), (0, 1), (0, 1), (1, 0)]);
        let settled: Vec<_> = rounds.into_iter().map(|round| round.up_to).collect();
        assert_eq!(settled, [1, 2, 3, 4].map(|id: u64| Some(id.into())));
    }

    #[test]
    fn a_torrent_of_progress_takes_the_room_of_one() {
        let mut protocol = Protocol::default();
        let mut progress = JobProgress {
            job_id: "a".into(),
            percent_done: 0.0,
            files_done: 0,
            total_files: 0,
            bytes_done: 0,
            total_bytes: 0,
            eta_seconds: 0,
            throughput_bps: 0,
        };
        for files in 0..10_000 {
            progress.files_done = files;
            protocol.receive(&encode(None, &ToCoordinator::from(progress.clone()))).expect("well-formed");
        }
        assert!(!protocol.is_full());
        let round = protocol.next_round().expect("a round");
        assert_eq!(round.jobs[&"a".into()], [Item { id: None, news: JobNews::Progress(progress) }]);
    }

    #[test]
    fn it_is_full_by_bytes_and_by_messages() {
        let mut protocol = Protocol::default();
        let payload = "x".repeat(INBOX_BYTES);
        let large = LogLine { job_id: "a".into(), seq: 0, ts: None, stream: LogStream::Stdout, payload };
        receive(&mut protocol, 1, &large.into());
        assert!(protocol.is_full());
        protocol.next_round();
        assert!(!protocol.is_full());
    }
}
