//! Runs one child process to its end, and loses nothing of what it writes.
//!
//! A child is not the agent's own: a scribe starts it, reads both its outputs at all times and records them in a file
//! of the job's [`Spool`]. The agent reads the record while it grows and hands on its lines. So a killed agent
//! neither breaks the child's pipes nor takes with it what was read and not yet journalled: its next life [`replay`]s
//! the rest of the record.

mod drain;
mod frames;
mod lines;
mod record;
mod scribe;
mod spool;
mod supervise;

pub use frames::{Origin, Started};
pub(crate) use lines::char_boundary;
pub use lines::{Line, MAX_LINE_BYTES, Mark, Sink};
pub(crate) use scribe::SCRIBE_VARIABLE;
pub use scribe::{Assignment, run as run_scribe, signal_of};
pub use spool::{Record, Role, Spool};
pub use supervise::Ending;
pub(crate) use supervise::ticks;

use self::frames::{Event, Frame, Why};
use self::lines::Lines;
use self::record::{Places, Reader};
use crate::stop::{Stop, StopWatch};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdout, Command};
use tokio::sync::mpsc;

/// How long a killed child may take to be gone: one that hangs in the system may stay.
const KILL_TIME: Duration = Duration::from_secs(10);

/// How long a scribe may take to notice that its agent is gone and its child over.
pub(crate) const SCRIBE_TIME: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone)]
pub struct Program {
    /// The executable; a name without a slash is looked for in `PATH`.
    pub path: PathBuf,
    /// Its arguments. Never a secret: every user can read them.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secret.
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Program").field("path", &self.path).field("args", &self.args).field("env", &names).finish()
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it was signalled, if it was asked to stop.
    pub stop: Option<Stop>,
    /// It was signalled because it was over its time limit.
    pub over_time: bool,
}

/// Runs `program` to its end and hands what it writes to `sink`. Dropped before that, it ends the program.
///
/// # Errors
/// It could not be started.
pub async fn run(
    program: &Program,
    (spool, role): (&Spool, Role),
    mut stop: StopWatch,
    ending: Ending,
    sink: &mut impl Sink,
) -> io::Result<Ended> {
    let record = spool.next(role)?;
    let mut scribe = scribe_for(program, spool, &record, ending).spawn()?;
    let (Some(mut stdin), Some(wakes)) = (scribe.stdin.take(), scribe.stdout.take()) else {
        return Err(io::Error::other("the scribe has no pipes"));
    };
    // One for each full record, which waits for it, and one for the stop.
    let (commands, mut given) = mpsc::unbounded_channel::<Vec<u8>>();
    let mut told = None;
    let playing = play(&record, wakes, &commands, sink);
    tokio::pin!(playing);
    loop {
        tokio::select! {
            biased;
            ended = &mut playing => {
                let (ended, stopped) = ended?;
                return Ok(Ended { stop: told.filter(|_| stopped), ..ended });
            }
            why = stop.wait(), if told.is_none() => {
                told = Some(why);
                let _ = commands.send(vec![scribe::STOP]);
            }
            // A scribe that is over has said so in the record.
            Some(command) = given.recv() => drop(stdin.write_all(&command).await),
        }
    }
}

/// The command line of the scribe. Its memory and pipes aside it needs nothing of the agent: not even its program file,
/// which may have been replaced.
fn scribe_for(program: &Program, spool: &Spool, record: &Record, ending: Ending) -> Command {
    let mut scribe = std::process::Command::new(&spool.program);
    std::os::unix::process::CommandExt::arg0(&mut scribe, "fleet-agent");
    scribe.arg("scribe").arg("--record").arg(&record.path);
    scribe.arg(format!("--signal={}", ending.signal as i32)).arg(format!("--grace-ms={}", ending.grace.as_millis()));
    scribe.args(ending.limit.map(|limit| format!("--limit-ms={}", limit.as_millis())));
    scribe.arg("--").arg(&program.path).args(&program.args);
    scribe.env_clear().envs(program.env.iter().map(|(name, value)| (name, value))).env(SCRIBE_VARIABLE, "1");
    scribe.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut scribe = Command::from(scribe);
    scribe.process_group(0);
    scribe
}

/// Hands on what is recorded, as it is recorded, up to the child's end; true beside that if it was told to stop.
async fn play(
    record: &Record,
    mut wakes: ChildStdout,
    commands: &mpsc::UnboundedSender<Vec<u8>>,
    sink: &mut impl Sink,
) -> io::Result<(Ended, bool)> {
    let (mut reader, mut group) = (None, None);
    let mut lines = Lines::new(record.child, [0, 0]);
    let mut is_over = false;
    loop {
        if reader.is_none() && record.path.exists() {
            reader = Some(Reader::open(&record.path, [0, 0])?);
        }
        while let Some(frame) = reader.as_mut().map_or(Ok(None), Reader::next)? {
            match frame {
                Frame::Output(chunk) => lines.push(chunk, sink).await,
                Frame::Event(Event::Started(started)) => group = Some(started.group),
                Frame::Event(Event::Failed { errno, reason }) => {
                    return Err(errno.map_or_else(|| io::Error::other(reason), io::Error::from_raw_os_error));
                }
                Frame::Event(Event::Full) => {
                    sink.settle().await;
                    // A scribe that is gone needs no answer.
                    let _ = commands.send(settled(lines.done()));
                }
                Frame::Event(Event::Ended { code, signal, why }) => {
                    lines.finish(sink).await;
                    let ended = Ended { code, signal, stop: None, over_time: why == Why::OverTime };
                    return Ok((ended, why == Why::Stopped));
                }
            }
        }
        if is_over {
            lines.finish(sink).await;
            return Ok((killed(group).await?, false));
        }
        is_over = wakes.read(&mut [0; 256]).await.unwrap_or(0) == 0;
    }
}

fn settled(places: Places) -> Vec<u8> {
    let places = places.into_iter().flat_map(u64::to_le_bytes);
    std::iter::once(scribe::SETTLED).chain(places).collect()
}

/// The scribe is gone without having told of the child's end: nobody reads what the child writes.
async fn killed(group: Option<u32>) -> io::Result<Ended> {
    log::error!("the process that records a child was killed; the child is killed too");
    let group = group.ok_or_else(|| io::Error::other("the process that was to start it was killed"))?;
    supervise::signal_group(Some(group), Signal::SIGKILL);
    supervise::gone(Some(group), KILL_TIME).await;
    Ok(Ended { signal: Some(Signal::SIGKILL as i32), ..Ended::default() })
}

/// Hands on what a record holds behind `mark`, as far as it belongs to this child, when the child and its scribe are over.
///
/// # Errors
/// The record can't be read, or not to its end.
pub async fn replay(record: &Record, mark: Option<Mark>, sink: &mut impl Sink) -> io::Result<()> {
    let from = match mark {
        Some(mark) if mark.child > record.child => return Ok(()),
        Some(mark) if mark.child == record.child => mark.done,
        _ => [0, 0],
    };
    let mut reader = Reader::open(&record.path, from)?;
    let mut lines = Lines::new(record.child, from);
    while let Some(frame) = reader.next()? {
        if let Frame::Output(chunk) = frame {
            lines.push(chunk, sink).await;
        }
    }
    lines.finish(sink).await;
    Ok(())
}

/// The child of a record, if that does not tell of its end.
pub fn unfinished(record: &Record) -> Option<Started> {
    let mut reader = Reader::open(&record.path, [0, 0]).ok()?;
    let mut started = None;
    while let Ok(Some(frame)) = reader.next() {
        match frame {
            Frame::Event(Event::Started(child)) => started = Some(child),
            Frame::Event(Event::Ended { .. }) => return None,
            _ => {}
        }
    }
    started
}
