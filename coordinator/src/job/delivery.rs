//! Whether `command.run` is out, may be out, or has still to go. No I/O.

use super::{Entry, HostReturned};
use crate::registry::Undelivered;

#[derive(Debug)]
enum Sent {
    /// Its dispatch is not in the ledger yet: it must not go.
    NotNoted,
    /// It is handed to a session; the host may connect anew meanwhile.
    UnderWay(Option<HostReturned>),
    /// No agent has it.
    No,
    /// The agent may have it.
    Maybe,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Delivery {
    sent: Sent,
    /// Its agent has made it, and may be at work on it whatever was sent.
    of_agent: bool,
}

impl Delivery {
    pub(super) fn new(entry: Entry, of_agent: bool) -> Self {
        let sent = match entry {
            Entry::Dispatch => Sent::NotNoted,
            Entry::Send => Sent::No,
            Entry::Resume => Sent::Maybe,
        };
        Self { sent, of_agent }
    }

    /// It is being handed to a session.
    pub(super) fn begin(&mut self) {
        self.sent = Sent::UnderWay(None);
    }

    /// It goes to whoever connects next.
    pub(super) fn put_off(&mut self) {
        self.sent = Sent::No;
    }

    /// The session has taken it, or not. Returns a return of the host that is still to be dealt with.
    pub(super) fn end(&mut self, outcome: Result<(), Undelivered>) -> Option<HostReturned> {
        let next = match outcome {
            // A session that is stuck may still write it.
            Ok(()) | Err(Undelivered::Stuck) => Sent::Maybe,
            Err(Undelivered::NotConnected) => Sent::No,
        };
        match std::mem::replace(&mut self.sent, next) {
            Sent::UnderWay(returned) => returned,
            _ => None,
        }
    }

    /// The host has connected: returned, if that is to be dealt with now. Before the dispatch is noted there is nothing
    /// to do, for it is sent to whoever is connected then.
    pub(super) fn host_returned(&mut self, returned: HostReturned) -> Option<HostReturned> {
        match &mut self.sent {
            Sent::NotNoted => None,
            Sent::UnderWay(latest) => {
                *latest = Some(returned);
                None
            }
            Sent::No | Sent::Maybe => Some(returned),
        }
    }

    /// Whether it is in the ledger that it goes out.
    pub(super) fn is_noted(&self) -> bool {
        !matches!(self.sent, Sent::NotNoted)
    }

    /// Whether the agent may have it.
    pub(super) fn may_have_arrived(&self) -> bool {
        self.of_agent || matches!(self.sent, Sent::UnderWay(_) | Sent::Maybe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returned() -> HostReturned {
        HostReturned { ack: false, listed: false, journal: None, cloned: false }
    }

    #[test]
    fn nothing_goes_before_the_dispatch_is_noted() {
        let mut delivery = Delivery::new(Entry::Dispatch, false);
        assert!(delivery.host_returned(returned()).is_none());
        assert!(!delivery.is_noted() && !delivery.may_have_arrived());
    }

    #[test]
    fn a_host_that_returns_while_it_is_under_way_is_dealt_with_after_it() {
        let mut delivery = Delivery::new(Entry::Send, false);
        delivery.begin();
        assert!(delivery.host_returned(returned()).is_none());
        assert!(delivery.end(Err(Undelivered::NotConnected)).is_some());
        assert!(!delivery.may_have_arrived());
    }

    #[test]
    fn a_job_that_its_agent_has_made_may_be_there_before_it_is_sent() {
        let mut delivery = Delivery::new(Entry::Send, true);
        assert!(delivery.may_have_arrived());
        delivery.begin();
        assert!(delivery.end(Err(Undelivered::NotConnected)).is_none());
        assert!(delivery.may_have_arrived());
    }

    #[test]
    fn what_a_stuck_session_took_may_arrive() {
        let mut delivery = Delivery::new(Entry::Send, false);
        delivery.begin();
        assert!(delivery.end(Err(Undelivered::Stuck)).is_none());
        assert!(delivery.may_have_arrived());
    }
}
