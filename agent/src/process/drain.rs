//! Reads what a child writes: both outputs at all times.

use super::frames::Origin;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio::time::sleep;

/// A child is over, but something it left behind holds its outputs open: how long they are waited for in all.
const SILENCE_AFTER_EXIT: Duration = Duration::from_secs(2);

/// How much of each output is still read then: more than a pipe can hold.
const BYTES_AFTER_EXIT: usize = 4 * 1024 * 1024;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Takes what is read.
pub(super) trait Tap {
    /// Takes what comes next of an output.
    fn take(&mut self, origin: Origin, bytes: &[u8]) -> impl Future<Output = ()>;
}

/// Reads both outputs until they are closed. After the child's end only what it left in the pipes is of interest:
/// something that lives on in the background and goes on writing does not keep the job up.
pub(super) async fn drain(
    (stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>),
    mut exited: watch::Receiver<bool>,
    tap: &mut impl Tap,
) {
    let (mut stdout, mut stderr) = (Output::new(stdout), Output::new(stderr));
    let (mut over, mut patience) = (false, SILENCE_AFTER_EXIT);
    while (stdout.is_open() || stderr.is_open()) && !patience.is_zero() {
        let since = Instant::now();
        // In no order: a flood on one output must not hold up the other.
        let (origin, length) = tokio::select! {
            _ = exited.wait_for(|exited| *exited), if !over => {
                over = true;
                continue;
            }
            length = stdout.read(), if stdout.is_open() => (Origin::Stdout, length),
            length = stderr.read(), if stderr.is_open() => (Origin::Stderr, length),
            () = sleep(patience), if over => break,
        };
        if over {
            patience = patience.saturating_sub(since.elapsed());
        }
        match origin {
            Origin::Stdout => stdout.hand_on(origin, length, over, tap).await,
            Origin::Stderr => stderr.hand_on(origin, length, over, tap).await,
        }
    }
}

/// One output: its pipe until it is closed.
struct Output<R> {
    pipe: Option<R>,
    buffer: Vec<u8>,
    /// How much is still taken once the child is over.
    allowance: usize,
}

impl<R: AsyncRead + Unpin> Output<R> {
    fn new(pipe: Option<R>) -> Self {
        Self { pipe, buffer: vec![0; READ_BYTES], allowance: BYTES_AFTER_EXIT }
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

    async fn hand_on(&mut self, origin: Origin, length: usize, over: bool, tap: &mut impl Tap) {
        if over {
            self.allowance = self.allowance.saturating_sub(length);
        }
        if length == 0 || self.allowance == 0 {
            self.pipe = None;
        } else {
            tap.take(origin, &self.buffer[..length]).await;
        }
    }
}
