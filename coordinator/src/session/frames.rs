//! From the bytes of the socket to frames.
//!
//! No more is read while there is a whole frame that was not handed out, and nothing while the [`Gate`] is shut. What was
//! read is let go of when it is handed out, so that a connection that rests holds nothing, however much came before.

use super::frame_limit::FrameLimit;
use super::gate::Gate;
use actix_codec::Decoder;
use actix_http::ws::{Codec, Frame, Message, ProtocolError};
use actix_web::web::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// See the module's text.
pub(super) struct Frames<S> {
    stream: S,
    gate: Gate,
    limit: FrameLimit,
    codec: Codec,
    buffer: BytesMut,
    /// It was said that a message is too large.
    complained: bool,
}

impl<S> Frames<S> {
    /// The frames in `stream`, as the gate lets them through and `codec` reads them.
    pub(super) fn new(stream: S, gate: Gate, codec: Codec) -> Self {
        let (limit, buffer) = (FrameLimit::default(), BytesMut::new());
        Self { stream, gate, limit, codec, buffer, complained: false }
    }

    /// The next frame that is whole.
    fn next_whole(&mut self) -> Option<Result<Message, ProtocolError>> {
        match self.codec.decode(&mut self.buffer) {
            Ok(Some(frame)) => return Some(message(frame)),
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        // Everything before it has its turn first.
        let complain = self.limit.is_exceeded() && !self.complained;
        self.complained |= complain;
        complain.then_some(Err(ProtocolError::Overflow))
    }
}

fn message(frame: Frame) -> Result<Message, ProtocolError> {
    Ok(match frame {
        Frame::Text(text) => {
            Message::Text(text.try_into().map_err(|error| ProtocolError::Io(io::Error::other(error)))?)
        }
        Frame::Binary(bytes) => Message::Binary(bytes),
        Frame::Continuation(item) => Message::Continuation(item),
        Frame::Ping(bytes) => Message::Ping(bytes),
        Frame::Pong(bytes) => Message::Pong(bytes),
        Frame::Close(reason) => Message::Close(reason),
    })
}

impl<S, E> Stream for Frames<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    type Item = Result<Message, ProtocolError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            ready!(this.gate.poll_open(context));
            if let Some(next) = this.next_whole() {
                return Poll::Ready(Some(next));
            }
            // A connection that breaks is one that ends.
            match ready!(this.stream.poll_next_unpin(context)) {
                Some(Ok(bytes)) => this.limit.pass(&bytes, &mut this.buffer),
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::MAX_MESSAGE_BYTES;
    use futures_util::{FutureExt, stream};
    use std::cell::Cell;
    use std::rc::Rc;

    const TEXT: &[u8] = b"\x81\x81\0\0\0\0a";

    fn frames(pieces: Vec<Bytes>, gate: &Gate) -> Frames<impl Stream<Item = Result<Bytes, ()>> + Unpin + use<>> {
        let codec = Codec::new().max_size(MAX_MESSAGE_BYTES);
        Frames::new(stream::iter(pieces.into_iter().map(Ok)), gate.clone(), codec)
    }

    fn is_text(item: Option<Option<Result<Message, ProtocolError>>>) -> bool {
        matches!(item, Some(Some(Ok(Message::Text(text)))) if text == "a")
    }

    #[test]
    fn no_more_is_read_than_is_handed_out() {
        let read = Rc::new(Cell::new(0));
        let pieces = {
            let read = Rc::clone(&read);
            stream::repeat(Bytes::from(TEXT.repeat(3))).map(Ok::<_, ()>).inspect(move |_| read.set(read.get() + 1))
        };
        let mut frames = Frames::new(pieces, Gate::default(), Codec::new());
        for count in 0..9 {
            assert!(is_text(frames.next().now_or_never()));
            assert_eq!(read.get(), count / 3 + 1);
        }
    }

    #[test]
    fn nothing_passes_a_shut_gate_and_everything_an_open_one() {
        let gate = Gate::default();
        let mut frames = frames(vec![TEXT.repeat(2).into()], &gate);
        assert!(is_text(frames.next().now_or_never()));
        gate.shut();
        assert!(frames.next().now_or_never().is_none());
        gate.open();
        assert!(is_text(frames.next().now_or_never()));
        assert!(matches!(frames.next().now_or_never(), Some(None)));
    }

    #[test]
    fn a_connection_that_rests_holds_nothing() {
        let mut frames = frames(
            vec![TEXT.repeat(9_000).into(), TEXT[..3].to_vec().into(), TEXT[3..].to_vec().into()],
            &Gate::default(),
        );
        for _ in 0..9_001 {
            assert!(is_text(frames.next().now_or_never()));
        }
        assert!(matches!(frames.next().now_or_never(), Some(None)));
        assert_eq!(frames.buffer.capacity(), 0);
    }

    #[test]
    fn a_message_that_is_too_large_is_said_in_its_turn_and_once() {
        let too_large = b"\x81\xff\0\0\0\0\xff\0\0\0\0\0\0\0".to_vec();
        let mut frames = frames(vec![TEXT.repeat(2).into(), too_large.into(), TEXT.to_vec().into()], &Gate::default());
        assert!(is_text(frames.next().now_or_never()));
        assert!(is_text(frames.next().now_or_never()));
        assert!(matches!(frames.next().now_or_never(), Some(Some(Err(ProtocolError::Overflow)))));
        assert!(matches!(frames.next().now_or_never(), Some(None)));
    }
}
