//! Reads what a child writes: both outputs at all times, cut into lines.

use std::future::Future;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// A longer line is cut into pieces of at most this many bytes.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// A child is over, but something it left behind holds its outputs open: how long they are waited for in all.
const SILENCE_AFTER_EXIT: Duration = Duration::from_secs(2);

/// How much is still read then: more than two pipes can hold.
const BYTES_AFTER_EXIT: usize = 4 * 1024 * 1024;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Which output a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes what a child writes.
pub trait Sink: Send {
    /// Takes a line without its end, or a piece of one that is too long (`ends` is false until its last piece).
    fn line(&mut self, origin: Origin, piece: Vec<u8>, ends: bool) -> impl Future<Output = ()> + Send;

    /// How many bytes beyond [`MAX_LINE_BYTES`] must be known to find the place for a cut.
    fn overlap(&self) -> usize {
        0
    }

    /// Where to cut `line`, which is too long: at most `wanted`.
    fn cut(&self, line: &[u8], wanted: usize) -> usize {
        char_boundary(line, wanted)
    }
}

/// Reads both outputs until they are closed. After the child's end only what it left in the pipes is of interest:
/// something that lives on in the background and goes on writing does not keep the job up.
pub(super) async fn drain(
    (stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>),
    mut exited: oneshot::Receiver<()>,
    sink: &mut impl Sink,
) {
    let (mut stdout, mut stderr) = (Output::new(stdout, Origin::Stdout), Output::new(stderr, Origin::Stderr));
    let (mut over, mut patience, mut allowance) = (false, SILENCE_AFTER_EXIT, BYTES_AFTER_EXIT);
    while (stdout.is_open() || stderr.is_open()) && !patience.is_zero() && allowance > 0 {
        let since = Instant::now();
        let next = tokio::select! {
            biased;
            _ = &mut exited, if !over => Next::Exited,
            length = stdout.read(), if stdout.is_open() => Next::Stdout(length),
            length = stderr.read(), if stderr.is_open() => Next::Stderr(length),
            () = sleep(patience), if over => Next::Silence,
        };
        if over {
            patience = patience.saturating_sub(since.elapsed());
        }
        match next {
            Next::Exited => over = true,
            Next::Silence => break,
            Next::Stdout(length) | Next::Stderr(length) if over && length > allowance => break,
            Next::Stdout(length) => {
                allowance -= if over { length } else { 0 };
                stdout.take(length, sink).await;
            }
            Next::Stderr(length) => {
                allowance -= if over { length } else { 0 };
                stderr.take(length, sink).await;
            }
        }
    }
    stdout.lines.finish(sink).await;
    stderr.lines.finish(sink).await;
}

/// What [`drain`] meets next; lengths are in bytes, 0 at the end of an output.
enum Next {
    Exited,
    Stdout(usize),
    Stderr(usize),
    Silence,
}

/// One output: its pipe until it is closed, and what is held of its current line.
struct Output<R> {
    pipe: Option<R>,
    buffer: Vec<u8>,
    lines: Lines,
}

impl<R: AsyncRead + Unpin> Output<R> {
    fn new(pipe: Option<R>, origin: Origin) -> Self {
        Self { pipe, buffer: vec![0; READ_BYTES], lines: Lines::new(origin) }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Fills the buffer. Nothing is lost when this is dropped before it returns.
    async fn read(&mut self) -> usize {
        match &mut self.pipe {
            Some(pipe) => pipe.read(&mut self.buffer).await.unwrap_or(0),
            None => 0,
        }
    }

    async fn take(&mut self, length: usize, sink: &mut impl Sink) {
        if length == 0 {
            self.pipe = None;
        } else {
            self.lines.push(&self.buffer[..length], sink).await;
        }
    }
}

/// Cuts an output into lines.
struct Lines {
    origin: Origin,
    held: Vec<u8>,
}

impl Lines {
    fn new(origin: Origin) -> Self {
        Self { origin, held: Vec::new() }
    }

    async fn push(&mut self, mut bytes: &[u8], sink: &mut impl Sink) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.held.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.cut_long(sink).await;
            let line = std::mem::take(&mut self.held);
            sink.line(self.origin, line, true).await;
        }
        self.held.extend_from_slice(bytes);
        self.cut_long(sink).await;
    }

    /// Hands on pieces of a line that is too long, ended or not.
    async fn cut_long(&mut self, sink: &mut impl Sink) {
        while self.held.len() > MAX_LINE_BYTES + sink.overlap() {
            let cut = sink.cut(&self.held, MAX_LINE_BYTES).clamp(1, MAX_LINE_BYTES);
            let rest = self.held.split_off(cut);
            let piece = std::mem::replace(&mut self.held, rest);
            sink.line(self.origin, piece, false).await;
        }
    }

    async fn finish(self, sink: &mut impl Sink) {
        if !self.held.is_empty() {
            sink.line(self.origin, self.held, true).await;
        }
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
    struct Heard(Vec<(Origin, Vec<u8>, bool)>);

    impl Sink for Heard {
        async fn line(&mut self, origin: Origin, piece: Vec<u8>, ends: bool) {
            self.0.push((origin, piece, ends));
        }
    }

    #[tokio::test]
    async fn long_lines_are_cut_between_characters() {
        let mut heard = Heard::default();
        let mut lines = Lines::new(Origin::Stdout);
        let line = "x".to_owned() + &"é".repeat(MAX_LINE_BYTES);
        lines.push(line.as_bytes(), &mut heard).await;
        lines.push(b"\nnext\n", &mut heard).await;
        let pieces: Vec<_> = heard.0.iter().map(|(_, piece, ends)| (piece.len(), *ends)).collect();
        assert_eq!(pieces, [(MAX_LINE_BYTES - 1, false), (MAX_LINE_BYTES, false), (2, true), (4, true)]);
        assert!(heard.0.iter().all(|(_, piece, _)| std::str::from_utf8(piece).is_ok()));
    }
}
