//! Back-pressure towards one agent: while the gate is shut nothing is read from the socket, so TCP slows the agent down,
//! and its journal keeps the rest.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
struct State {
    shut: bool,
    waiting: Option<Waker>,
}

/// A handle on the gate: the session shuts and opens it, [`super::frames::Frames`] waits before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Rc<RefCell<State>>);

impl Gate {
    /// Stops reading.
    pub(super) fn shut(&self) {
        self.0.borrow_mut().shut = true;
    }

    /// Reads on.
    pub(super) fn open(&self) {
        let waiting = {
            let mut state = self.0.borrow_mut();
            state.shut = false;
            state.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Whether it is we who do not read.
    pub(super) fn is_shut(&self) -> bool {
        self.0.borrow().shut
    }

    /// Ready while it is open.
    pub(super) fn poll_open(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if state.shut {
            state.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
