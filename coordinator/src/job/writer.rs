//! The writes of one job, one at a time: while one is under way, what comes is gathered for the next. So a job's
//! states reach the ledger in their order, and whoever reports something that is known but not yet written waits for
//! the same commit.

use crate::db::logs::LogChunk;
use crate::persistence::WriteError;
use crate::request::Request;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::oneshot;

/// Why what was said about a job is not in the ledger.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotWritten {
    /// The database refuses it, whenever it is asked.
    #[error("the database refuses it: {0}")]
    Refused(String),
    /// The coordinator stops; it may or may not be written.
    #[error("the coordinator stops")]
    Stopping,
}

impl From<WriteError> for NotWritten {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Rejected(error) => Self::Refused(error.to_string()),
            WriteError::NotDone(_) | WriteError::Unknown => Self::Stopping,
        }
    }
}

/// How a write ended, for everyone who waits for it.
pub(super) type Outcome = Result<(), NotWritten>;

/// What goes into one write.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The state has changed.
    pub(super) state: bool,
    /// New log lines.
    pub(super) chunks: Vec<LogChunk>,
    /// The requests that asked for it.
    pub(super) requests: Vec<Arc<Request>>,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

impl Draft {
    fn is_empty(&self) -> bool {
        !self.state && self.chunks.is_empty()
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Writer {
    next: Draft,
    /// Who waits for the write that is under way; absent while there is none.
    under_way: Option<Vec<oneshot::Sender<Outcome>>>,
}

impl Writer {
    /// Adds to what is to be written. The receiver learns when this, and all before it, is in the ledger.
    pub(super) fn add(&mut self, state: bool, chunks: Vec<LogChunk>) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.next.state |= state;
        self.next.chunks.extend(chunks);
        match &mut self.under_way {
            // Nothing new: what is known already is in the write that is under way, or before it.
            Some(waiting) if self.next.is_empty() => waiting.push(sender),
            None if self.next.is_empty() => drop(sender.send(Ok(()))),
            _ => self.next.waiting.push(sender),
        }
        receiver
    }

    /// Has a request recorded with what is added next, which it `changed`.
    pub(super) fn record(&mut self, request: Option<Arc<Request>>, changed: bool) {
        match request {
            Some(request) if changed => self.next.requests.push(request),
            Some(request) => request.settled(false),
            None => {}
        }
    }

    /// Begins the next write, unless one is under way or there is nothing to write.
    pub(super) fn begin(&mut self) -> Option<Draft> {
        if self.under_way.is_some() || self.next.is_empty() {
            return None;
        }
        let mut draft = std::mem::take(&mut self.next);
        self.under_way = Some(std::mem::take(&mut draft.waiting));
        Some(draft)
    }

    /// The write that was under way has ended.
    pub(super) fn end(&mut self, outcome: &Outcome) {
        for asker in self.under_way.take().into_iter().flatten() {
            let _ = asker.send(outcome.clone()); // it may have stopped waiting
        }
    }

    /// Whether everything is written.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.next.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::error::TryRecvError;

    #[test]
    fn a_repetition_waits_for_the_write_that_has_the_original() {
        let mut writer = Writer::default();
        let mut first = writer.add(true, Vec::new());
        assert!(writer.begin().is_some());
        let mut repeated = writer.add(false, Vec::new());
        assert_eq!(repeated.try_recv().unwrap_err(), TryRecvError::Empty);
        writer.end(&Ok(()));
        assert!(first.try_recv().is_ok() && repeated.try_recv().is_ok());
        assert!(writer.is_idle());
    }

    #[test]
    fn what_comes_during_a_write_makes_one_more() {
        let mut writer = Writer::default();
        let _first = writer.add(true, Vec::new());
        assert!(writer.begin().is_some());
        let (mut second, mut third) = (writer.add(true, Vec::new()), writer.add(false, Vec::new()));
        assert!(writer.begin().is_none(), "one at a time");
        writer.end(&Ok(()));
        assert!(second.try_recv().is_err());
        assert!(writer.begin().is_some());
        writer.end(&Ok(()));
        assert!(second.try_recv().is_ok() && third.try_recv().is_ok());
    }

    #[test]
    fn nothing_new_when_nothing_is_under_way_is_settled_at_once() {
        let mut writer = Writer::default();
        assert!(writer.add(false, Vec::new()).try_recv().is_ok());
        assert!(writer.begin().is_none());
    }
}
