//! Judges messages by the length that their frames declare, before anything of them is buffered: the WebSocket codec
//! itself looks at a frame's length only when all of the frame is there.
//!
//! It stands between socket and codec and reads nothing but frame headers (RFC 6455, section 5.2). A frame that is too
//! large, alone or as the next fragment of its message, does not pass, and nothing that follows it.

use actix_web::web::BytesMut;
use fleet_wire::MAX_MESSAGE_BYTES;

/// The longest header: two bytes, eight of length, four of mask.
const LONGEST_HEADER: usize = 14;
/// Opcodes from here on are those of control frames, which may stand between the fragments of a message.
const FIRST_CONTROL_OPCODE: u8 = 8;

/// What the frames of one connection have declared so far.
#[derive(Debug, Default)]
pub(super) struct FrameLimit {
    /// The part of a header that has come, and how much that is.
    header: [u8; LONGEST_HEADER],
    come: usize,
    /// Bytes of payload that are still to pass.
    payload: u64,
    /// Bytes of the message that is under way in fragments.
    message: u64,
    exceeded: bool,
}

impl FrameLimit {
    /// Whether a message was too large. Nothing passes any more.
    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Adds to `passed` what of `bytes` may pass.
    pub(super) fn pass(&mut self, mut bytes: &[u8], passed: &mut BytesMut) {
        if !self.exceeded {
            passed.reserve(bytes.len() + LONGEST_HEADER);
        }
        while !bytes.is_empty() && !self.exceeded {
            if self.payload > 0 {
                let count = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                passed.extend_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                self.payload -= count as u64;
                continue;
            }
            let (&byte, rest) = bytes.split_first().unwrap_or((&0, &[]));
            bytes = rest;
            self.header[self.come] = byte;
            self.come += 1;
            let header = &self.header[..self.come];
            if let Some(length) = declared_length(header) {
                let first = header[0];
                self.exceeded = self.judge(first, length);
                self.payload = length;
                if !self.exceeded {
                    passed.extend_from_slice(&self.header[..self.come]);
                }
                self.come = 0;
            }
        }
    }

    /// True if a frame of this first byte and length makes its message too large.
    fn judge(&mut self, first: u8, length: u64) -> bool {
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let limit = MAX_MESSAGE_BYTES as u64;
        if opcode >= FIRST_CONTROL_OPCODE {
            return length > limit;
        }
        let before = if opcode == 0 { self.message } else { 0 };
        let sum = before.saturating_add(length);
        self.message = if last { 0 } else { sum };
        sum > limit
    }
}

/// The length of the payload, once the header is whole.
fn declared_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if header.len() < 2 + extended + mask {
        return None;
    }
    let length = &header[2..2 + extended];
    match extended {
        0 => Some(u64::from(second & 0x7f)),
        _ => Some(length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame's header.
    fn header(first: u8, length: u64) -> Vec<u8> {
        let mut header = vec![first];
        match length {
            0..126 => header.push(0x80 | length as u8),
            126..65536 => {
                header.push(0x80 | 126);
                header.extend((length as u16).to_be_bytes());
            }
            _ => {
                header.push(0x80 | 127);
                header.extend(length.to_be_bytes());
            }
        }
        header.extend([1, 2, 3, 4]);
        header
    }

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = header(first, length as u64);
        frame.resize(frame.len() + length, b'x');
        frame
    }

    const MAX: usize = MAX_MESSAGE_BYTES;

    fn passed(limit: &mut FrameLimit, bytes: &[u8]) -> Vec<u8> {
        let mut passed = BytesMut::new();
        limit.pass(bytes, &mut passed);
        passed.to_vec()
    }

    #[test]
    fn what_is_in_bounds_passes_unchanged_however_it_is_cut() {
        let stream = [frame(0x01, 300), frame(0x89, 5), frame(0x80, 0), frame(0x81, 70_000), frame(0x81, 125)].concat();
        for size in [1, 3, 7, 4096, stream.len()] {
            let mut limit = FrameLimit::default();
            let all: Vec<u8> = stream.chunks(size).flat_map(|chunk| passed(&mut limit, chunk)).collect();
            assert!(all == stream, "in pieces of {size}");
        }
    }

    #[test]
    fn the_largest_message_passes_and_the_next_may_be_as_large() {
        let mut limit = FrameLimit::default();
        for _ in 0..2 {
            let largest = frame(0x81, MAX);
            assert_eq!(passed(&mut limit, &largest).len(), largest.len());
        }
    }

    #[test]
    fn a_frame_that_declares_too_much_is_refused_by_its_header_alone() {
        for length in [MAX as u64 + 1, 1 << 40, u64::MAX] {
            for first in [0x81, 0x82, 0x89, 0x00] {
                let mut limit = FrameLimit::default();
                let before = frame(0x81, 10);
                let all = passed(&mut limit, &[before.clone(), header(first, length)].concat());
                assert_eq!(all, before, "{length} after {first:x}");
                assert!(limit.is_exceeded() && passed(&mut limit, b"more").is_empty());
            }
        }
    }

    #[test]
    fn fragments_count_together_and_a_ping_between_them_does_not() {
        let mut limit = FrameLimit::default();
        passed(&mut limit, &frame(0x01, MAX / 2));
        passed(&mut limit, &frame(0x89, 125));
        let rest = header(0x80, (MAX - MAX / 2) as u64);
        assert_eq!(passed(&mut limit, &rest), rest, "as much as a message may have");
        let mut limit = FrameLimit::default();
        passed(&mut limit, &frame(0x01, MAX / 2));
        assert!(passed(&mut limit, &header(0x00, (MAX / 2 + 1) as u64)).is_empty() && limit.is_exceeded());
    }
}
