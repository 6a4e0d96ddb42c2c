//! Cuts what a child writes into lines, and knows which of it is dealt with.

use super::frames::{Chunk, Origin};
use super::record::Places;
use fleet_wire::Timestamp;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// A longer line is cut into pieces of at most this many bytes.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// How far the output of a job's children is dealt with: all of the children before this one, and so many bytes of each
/// stream of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Counts the children of the job.
    pub child: u32,
    /// Bytes of standard output and standard error.
    pub done: [u64; 2],
}

/// A line, or a piece of one that is too long.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Where it came from.
    pub origin: Origin,
    /// When its end was read.
    pub ts: Timestamp,
    /// It, without its end.
    pub bytes: Vec<u8>,
    /// False for a piece that is not the last of its line.
    pub ends: bool,
    /// What is dealt with once this line is.
    pub mark: Mark,
}

/// Takes what a child writes.
pub trait Sink: Send {
    /// Takes a line.
    fn line(&mut self, line: Line) -> impl Future<Output = ()> + Send;

    /// Returns when all lines before are where nothing can lose them.
    fn settle(&mut self) -> impl Future<Output = ()> + Send;

    /// How many bytes beyond [`MAX_LINE_BYTES`] must be known to find the place for a cut.
    fn overlap(&self) -> usize {
        0
    }

    /// Where to cut `line`, which is too long: at most `wanted`.
    fn cut(&self, line: &[u8], wanted: usize) -> usize {
        char_boundary(line, wanted)
    }
}

/// Both outputs of a child.
#[derive(Debug)]
pub(super) struct Lines {
    child: u32,
    done: Places,
    /// The beginning of a line whose end has not come, for each output, and when it came.
    held: [Vec<u8>; 2],
    ts: [Timestamp; 2],
}

impl Lines {
    /// The outputs of this child behind these places.
    pub(super) fn new(child: u32, done: Places) -> Self {
        Self { child, done, held: [Vec::new(), Vec::new()], ts: [Timestamp::default(); 2] }
    }

    /// How much of each output was handed on.
    pub(super) fn done(&self) -> Places {
        self.done
    }

    /// Takes in what comes next of an output, and hands on the lines that end in it.
    pub(super) async fn push(&mut self, chunk: Chunk, sink: &mut impl Sink) {
        let Chunk { origin, ts, bytes, .. } = chunk;
        self.ts[origin.index()] = ts;
        let mut bytes = bytes.as_slice();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.held[origin.index()].extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.cut_long(origin, sink).await;
            let line = std::mem::take(&mut self.held[origin.index()]);
            self.hand_on(origin, line, true, 1, sink).await;
        }
        self.held[origin.index()].extend_from_slice(bytes);
        self.cut_long(origin, sink).await;
    }

    /// Hands on pieces of a line that is too long, ended or not.
    async fn cut_long(&mut self, origin: Origin, sink: &mut impl Sink) {
        while self.held[origin.index()].len() > MAX_LINE_BYTES + sink.overlap() {
            let held = &mut self.held[origin.index()];
            let cut = sink.cut(held, MAX_LINE_BYTES).clamp(1, MAX_LINE_BYTES);
            let rest = held.split_off(cut);
            let piece = std::mem::replace(held, rest);
            self.hand_on(origin, piece, false, 0, sink).await;
        }
    }

    /// Hands on what is held: nothing comes any more.
    pub(super) async fn finish(&mut self, sink: &mut impl Sink) {
        for origin in Origin::BOTH {
            let last = std::mem::take(&mut self.held[origin.index()]);
            if !last.is_empty() {
                self.hand_on(origin, last, true, 0, sink).await;
            }
        }
    }

    /// `more`: the bytes of its end, which are not handed on.
    async fn hand_on(&mut self, origin: Origin, bytes: Vec<u8>, ends: bool, more: u64, sink: &mut impl Sink) {
        self.done[origin.index()] += bytes.len() as u64 + more;
        let mark = Mark { child: self.child, done: self.done };
        sink.line(Line { origin, ts: self.ts[origin.index()], bytes, ends, mark }).await;
    }
}

/// The last place at or before `wanted` that is not inside a UTF-8 character.
pub(crate) fn char_boundary(bytes: &[u8], wanted: usize) -> usize {
    let is_continuation = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    (wanted.saturating_sub(3)..=wanted).rev().find(|at| !is_continuation(*at)).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Vec<Line>);

    impl Sink for Heard {
        async fn line(&mut self, line: Line) {
            self.0.push(line);
        }

        async fn settle(&mut self) {}
    }

    fn chunk(origin: Origin, bytes: &[u8]) -> Chunk {
        Chunk { origin, ts: Timestamp::default(), start: 0, bytes: bytes.to_vec() }
    }

    #[tokio::test]
    async fn long_lines_are_cut_between_characters() {
        let mut heard = Heard::default();
        let mut lines = Lines::new(0, [0, 0]);
        let line = "x".to_owned() + &"é".repeat(MAX_LINE_BYTES);
        lines.push(chunk(Origin::Stdout, line.as_bytes()), &mut heard).await;
        lines.push(chunk(Origin::Stdout, b"\nnext\n"), &mut heard).await;
        let pieces: Vec<_> = heard.0.iter().map(|line| (line.bytes.len(), line.ends)).collect();
        assert_eq!(pieces, [(MAX_LINE_BYTES - 1, false), (MAX_LINE_BYTES, false), (2, true), (4, true)]);
        assert!(heard.0.iter().all(|line| std::str::from_utf8(&line.bytes).is_ok()));
        assert_eq!(lines.done(), [2 * MAX_LINE_BYTES as u64 + 1 + 6, 0]);
    }

    #[tokio::test]
    async fn a_mark_counts_what_was_handed_on_and_not_what_is_held() {
        let mut heard = Heard::default();
        let mut lines = Lines::new(3, [100, 0]);
        lines.push(chunk(Origin::Stdout, b"one\nhe"), &mut heard).await;
        lines.push(chunk(Origin::Stderr, b"two\n"), &mut heard).await;
        lines.push(chunk(Origin::Stdout, b"ld"), &mut heard).await;
        assert_eq!(lines.done(), [104, 4]);
        lines.finish(&mut heard).await;
        let told: Vec<_> = heard.0.iter().map(|line| (line.bytes.as_slice(), line.mark.done)).collect();
        assert_eq!(told, [(&b"one"[..], [104, 0]), (b"two", [104, 4]), (b"held", [108, 4])]);
        assert!(heard.0.iter().all(|line| line.mark.child == 3));
    }
}
