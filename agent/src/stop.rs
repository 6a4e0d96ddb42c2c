//! How a job is told to end early.

use tokio::sync::watch;

/// Why a job is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nobody asked.
    No,
    /// `command.cancel`: the outcome is `cancelled`, unless restic was done already.
    Cancel,
    /// The agent is told to stop: the outcome is `failed: agent stopped`.
    AgentStops,
}

/// Tells a job that it is to stop, as seen by one step of it.
#[derive(Clone, Debug)]
pub struct StopWatch {
    receiver: watch::Receiver<Stop>,
    known: Stop,
}

impl StopWatch {
    /// Heeds every stop.
    pub fn new(receiver: watch::Receiver<Stop>) -> Self {
        Self { receiver, known: Stop::No }
    }

    /// Heeds only what comes on top of what is known now: for work that must be done after a stop.
    pub fn from_now(&self) -> Self {
        Self { receiver: self.receiver.clone(), known: *self.receiver.borrow() }
    }

    /// The stop that is to be heeded now.
    pub fn now(&self) -> Option<Stop> {
        let stop = *self.receiver.borrow();
        (stop != Stop::No && stop != self.known).then_some(stop)
    }

    /// Returns when there is a stop to heed; never, when nobody can ask for one any more.
    pub async fn wait(&mut self) -> Stop {
        loop {
            if let Some(stop) = self.now() {
                return stop;
            }
            if self.receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_that_was_known_is_heeded_once() {
        let (stop, receiver) = watch::channel(Stop::Cancel);
        let mut later = StopWatch::new(receiver).from_now();
        assert_eq!(later.now(), None);
        stop.send(Stop::AgentStops).unwrap();
        assert_eq!(later.wait().await, Stop::AgentStops);
    }
}
