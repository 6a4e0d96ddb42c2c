//! What the record of a child consists of: frames, one after the other.
//!
//! A frame is a tag (one byte), the length of what follows (four bytes, little-endian), and that: for output the time in
//! microseconds since 1970, the place of its first byte in its stream (eight bytes each, little-endian) and the bytes;
//! for anything else JSON.

use chrono::DateTime;
use fleet_wire::Timestamp;
use serde::{Deserialize, Serialize};
use std::io;

/// Tag and length.
pub(super) const HEAD: usize = 5;
/// Time and place.
const STAMP: usize = 16;
/// No frame is longer: a scribe reads less at once.
const LONGEST: usize = 1024 * 1024;

/// Which output something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Origin {
    /// Both, in the order in which pairs of things are kept.
    pub(super) const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Its place in a pair.
    pub(super) fn index(self) -> usize {
        usize::from(self == Self::Stderr)
    }
}

/// A piece of a child's output.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chunk {
    pub(super) origin: Origin,
    /// When it was read.
    pub(super) ts: Timestamp,
    /// How many bytes of its stream came before it.
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

impl Chunk {
    /// Without what comes before the place `from` of its stream; nothing if that is all of it.
    pub(super) fn behind(mut self, from: u64) -> Option<Self> {
        let skip = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX);
        if skip >= self.bytes.len() {
            return None;
        }
        self.bytes.drain(..skip);
        self.start = self.start.max(from);
        Some(self)
    }
}

/// What else is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// The child runs.
    Started(Started),
    /// It could not be started.
    Failed { errno: Option<i32>, reason: String },
    /// The record is as long as it may be: it goes on when its reader has said how much of it is settled.
    Full,
    /// The child is over, and all that it wrote stands before this.
    Ended { code: Option<i32>, signal: Option<i32>, why: Why },
}

/// Which process a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its process id, which is that of its group, too.
    pub group: u32,
    /// When it began, in clock ticks after the system's start: another process of that id began at another time.
    pub ticks: Option<u64>,
}

/// What brought a child's end about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// Nothing of ours.
    ByItself,
    /// It was told to stop.
    Stopped,
    /// It was over its time limit.
    OverTime,
}

/// One entry of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Frame {
    Output(Chunk),
    Event(Event),
}

impl Frame {
    /// As it stands in the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut frame = vec![0; HEAD];
        frame[0] = match self {
            Self::Output(chunk) => {
                frame.extend(chunk.ts.timestamp_micros().to_le_bytes());
                frame.extend(chunk.start.to_le_bytes());
                frame.extend(&chunk.bytes);
                if chunk.origin == Origin::Stdout { b'o' } else { b'e' }
            }
            Self::Event(event) => {
                frame.extend(serde_json::to_vec(event).unwrap_or_default());
                b'j'
            }
        };
        let length = u32::try_from(frame.len() - HEAD).unwrap_or(u32::MAX);
        frame[1..HEAD].copy_from_slice(&length.to_le_bytes());
        frame
    }

    /// The length of the body that follows this head.
    ///
    /// # Errors
    /// It is longer than any that is written.
    pub(super) fn body_length(head: [u8; HEAD]) -> io::Result<usize> {
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > LONGEST { Err(damaged()) } else { Ok(length) }
    }

    /// The frame with this tag and body.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn decode(tag: u8, body: &[u8]) -> io::Result<Self> {
        let origin = match tag {
            b'o' => Origin::Stdout,
            b'e' => Origin::Stderr,
            b'j' => return serde_json::from_slice(body).map(Self::Event).map_err(|_| damaged()),
            _ => return Err(damaged()),
        };
        let (stamp, bytes) = body.split_at_checked(STAMP).ok_or_else(damaged)?;
        let number = |at: usize| stamp[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| damaged());
        let ts = DateTime::from_timestamp_micros(number(0)?.cast_signed()).ok_or_else(damaged)?;
        Ok(Self::Output(Chunk { origin, ts, start: number(8)?, bytes: bytes.to_vec() }))
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the record of a child is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(start: u64, bytes: &[u8]) -> Chunk {
        let ts = DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap();
        Chunk { origin: Origin::Stderr, ts, start, bytes: bytes.to_vec() }
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let ended = Event::Ended { code: None, signal: Some(9), why: Why::OverTime };
        for frame in [Frame::Output(chunk(7, b"a\0\xff\n")), Frame::Event(ended), Frame::Event(Event::Full)] {
            let bytes = frame.encode();
            let head = bytes[..HEAD].try_into().unwrap();
            assert_eq!(Frame::body_length(head).unwrap(), bytes.len() - HEAD);
            assert_eq!(Frame::decode(bytes[0], &bytes[HEAD..]).unwrap(), frame);
        }
    }

    #[test]
    fn damage_is_an_error() {
        assert!(Frame::body_length([b'o', 255, 255, 255, 255]).is_err());
        for (tag, body) in [(b'o', &b"short"[..]), (b'j', b"{"), (b'?', b""), (b'e', &[127; 20])] {
            assert!(Frame::decode(tag, body).is_err());
        }
    }

    #[test]
    fn what_was_read_before_is_left_out() {
        assert_eq!(chunk(10, b"abc").behind(5), Some(chunk(10, b"abc")));
        assert_eq!(chunk(10, b"abc").behind(12), Some(chunk(12, b"c")));
        assert_eq!(chunk(10, b"abc").behind(13), None);
    }
}
