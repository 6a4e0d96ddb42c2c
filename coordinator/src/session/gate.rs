//! Back-pressure towards one agent: a stream that can be held shut. While it is, nothing is read from the socket, so
//! TCP slows the agent down, and its journal keeps the rest. What passes is held to the [`FrameLimit`].
//!
//! It also waits for the session to have handled what passed: a stream of messages hands on sixteen of them at a time and
//! would go on reading into its buffer as fast as the agent writes.

use super::frame_limit::FrameLimit;
use actix_web::web::Bytes;
use futures_util::Stream;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// No more is read while this many frames wait to be handled.
const FRAMES_WAITING: u64 = 16;

#[derive(Debug, Default)]
struct State {
    shut: bool,
    limit: FrameLimit,
    /// Frames that the session has handled.
    handled: u64,
    waiting: Option<Waker>,
}

impl State {
    fn is_passable(&self) -> bool {
        !self.shut && self.limit.frames().saturating_sub(self.handled) < FRAMES_WAITING
    }
}

/// The session's handle on the gate.
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

    /// The session has handled a frame.
    pub(super) fn handled(&self) {
        let waiting = {
            let mut state = self.0.borrow_mut();
            state.handled += 1;
            if state.is_passable() { state.waiting.take() } else { None }
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Whether it is we who do not read.
    pub(super) fn is_shut(&self) -> bool {
        self.0.borrow().shut
    }

    /// Whether a message was too large to pass.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.borrow().limit.is_exceeded()
    }

    /// `stream`, behind this gate.
    pub(super) fn guard<S>(&self, stream: S) -> Gated<S> {
        Gated { stream: Box::pin(stream), gate: self.clone() }
    }
}

/// A stream behind a [`Gate`].
pub(super) struct Gated<S> {
    stream: Pin<Box<S>>,
    gate: Gate,
}

impl<S, E> Stream for Gated<S>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    type Item = Result<Bytes, E>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        {
            let mut state = this.gate.0.borrow_mut();
            if !state.is_passable() {
                state.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        // A connection that breaks is one that ends: an error would overtake what came before and waits to be decoded.
        let chunk = std::task::ready!(this.stream.as_mut().poll_next(context)).and_then(Result::ok);
        Poll::Ready(chunk.map(|bytes| Ok(this.gate.0.borrow_mut().limit.pass(&bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, StreamExt, stream};

    #[test]
    fn no_more_is_read_than_is_handled() {
        let gate = Gate::default();
        let frames = Bytes::from(b"\x81\x01a".repeat(20));
        let mut gated = gate.guard(stream::iter([Ok::<_, ()>(frames.clone()), Ok(frames.clone())]));
        assert_eq!(gated.next().now_or_never(), Some(Some(Ok(frames.clone()))));
        for _ in 0..4 {
            assert_eq!(gated.next().now_or_never(), None);
            gate.handled();
        }
        assert_eq!(gated.next().now_or_never(), None, "sixteen are left");
        gate.handled();
        assert_eq!(gated.next().now_or_never(), Some(Some(Ok(frames))));
    }

    #[test]
    fn nothing_passes_a_shut_gate_and_everything_an_open_one() {
        let gate = Gate::default();
        let (first, second) = (Bytes::from_static(b"\x81\x01a"), Bytes::from_static(b"\x81\x01b"));
        let mut gated = gate.guard(stream::iter([Ok::<_, ()>(first.clone()), Ok(second.clone())]));
        assert_eq!(gated.next().now_or_never(), Some(Some(Ok(first))));
        gate.shut();
        assert_eq!(gated.next().now_or_never(), None);
        gate.open();
        assert_eq!(gated.next().now_or_never(), Some(Some(Ok(second))));
    }
}
