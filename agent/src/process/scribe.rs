//! The scribe: a process of its own that runs one child and records what it writes, so that a killed agent takes no line
//! with it and breaks no pipe.
//!
//! The agent starts it as `fleet-agent scribe` with the child's command line and environment. It records everything
//! in a file, tells the agent over its standard output that there is more, and takes two commands over its standard
//! input: end the child, and go on with a full record of which so much is settled. When the agent is gone (its end of
//! the pipe is closed), it ends the child, records the rest, and ends. While the disk is full it waits, and so does the
//! child, which finds its pipe full.

use super::Program;
use super::drain::{Tap, drain};
use super::frames::{Event, Frame, Origin};
use super::record::{Places, Writer, output};
use super::supervise::{Ending, identity, spawn, supervise};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

/// In a scribe's environment, and not in its child's.
pub(crate) const SCRIBE_VARIABLE: &str = "FLEET_SCRIBE";

/// The command to end the child.
pub(super) const STOP: u8 = b's';
/// The command to go on: two places of eight bytes each follow, little-endian.
pub(super) const SETTLED: u8 = b'a';

/// A longer record is rolled.
const FULL_BYTES: u64 = 2 * 1024 * 1024;
/// How soon a write is tried again after the disk refused it.
const RETRY: Duration = Duration::from_millis(200);

/// What a scribe is started with.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The file that it makes.
    pub record: PathBuf,
    /// How the child is ended.
    pub ending: Ending,
    /// The child's command line.
    pub command: Vec<OsString>,
}

/// What the agent wants.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    stop: bool,
    /// How often it said how much is settled: once for every record that was full.
    times: u64,
    settled: Places,
    /// It wants nothing any more.
    gone: bool,
}

/// Runs a child to its end.
///
/// # Errors
/// There is no child to be run, or no record to be made.
pub fn run(assignment: &Assignment) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(record(assignment))
}

async fn record(assignment: &Assignment) -> io::Result<()> {
    // A signal to everything that the agent has started is for the child, whose end the scribe waits for.
    let _deaf = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let (say, wanted) = watch::channel(Wanted::default());
    let commands = pipe::Receiver::from_owned_fd(owned(io::stdin())?)?;
    tokio::spawn(listen(commands, say));
    let (exited, child_exited) = watch::channel(false);
    let wakes = pipe::Sender::from_owned_fd(owned(io::stdout())?)?;
    let writer = Writer::create(&assignment.record)?;
    let (wanted_by_pen, exited_for_pen) = (wanted.clone(), child_exited.clone());
    let mut pen = Pen { writer, wakes, wanted: wanted_by_pen, exited: exited_for_pen, places: [0, 0], rolls: 0 };

    let mut child = match spawn(&program(assignment)?) {
        Ok(child) => child,
        Err(error) => {
            let (errno, reason) = (error.raw_os_error(), error.to_string());
            pen.event(Event::Failed { errno, reason }).await;
            return Ok(());
        }
    };
    pen.event(Event::Started(identity(&child))).await;
    let outputs = (child.stdout.take(), child.stderr.take());
    let supervised = async {
        let ended = supervise(&mut child, stop(wanted), assignment.ending).await;
        exited.send_replace(true);
        ended
    };
    let (ended, ()) = tokio::join!(supervised, drain(outputs, child_exited, &mut pen));
    pen.event(ended?).await;
    Ok(())
}

fn owned(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

fn program(assignment: &Assignment) -> io::Result<Program> {
    let (path, args) = assignment.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let env = std::env::vars_os().filter(|(name, _)| name != SCRIBE_VARIABLE).collect();
    Ok(Program { path: path.into(), args: args.to_vec(), env })
}

/// Takes the agent's commands until it is gone.
async fn listen(mut commands: pipe::Receiver, say: watch::Sender<Wanted>) {
    while let Ok(command) = commands.read_u8().await {
        match command {
            SETTLED => {
                let (Ok(stdout), Ok(stderr)) = (commands.read_u64_le().await, commands.read_u64_le().await) else {
                    break;
                };
                say.send_modify(|wanted| {
                    wanted.times += 1;
                    wanted.settled = [stdout, stderr];
                });
            }
            STOP => say.send_modify(|wanted| wanted.stop = true),
            _ => {}
        }
    }
    say.send_modify(|wanted| (wanted.stop, wanted.gone) = (true, true));
}

/// Returns when the child is to stop.
async fn stop(mut wanted: watch::Receiver<Wanted>) {
    let _ = wanted.wait_for(|wanted| wanted.stop).await; // who says it lives as long as this process
}

/// Writes the record.
struct Pen {
    writer: Writer,
    wakes: pipe::Sender,
    wanted: watch::Receiver<Wanted>,
    exited: watch::Receiver<bool>,
    places: Places,
    /// How often the record was full.
    rolls: u64,
}

impl Tap for Pen {
    async fn take(&mut self, origin: Origin, bytes: &[u8]) {
        if self.writer.length() >= FULL_BYTES {
            self.make_room().await;
        }
        let place = &mut self.places[origin.index()];
        let frame = output(origin, *place, bytes);
        *place += bytes.len() as u64;
        self.append(&frame).await;
    }
}

impl Pen {
    async fn event(&mut self, event: Event) {
        self.append(&Frame::Event(event)).await;
    }

    /// Adds to the record, however long the disk refuses.
    async fn append(&mut self, frame: &Frame) {
        while self.writer.append(frame).is_err() {
            sleep(RETRY).await;
        }
        // A full pipe holds wakes enough, and an agent that is gone needs none.
        let _ = self.wakes.try_write(b".");
    }

    /// Waits until the agent has dealt with the record, and drops what is settled. If it is gone the child is being
    /// ended: what is left in its pipes then has room in any case.
    async fn make_room(&mut self) {
        if self.wanted.borrow().gone {
            let _ = self.exited.wait_for(|exited| *exited).await;
            return;
        }
        self.event(Event::Full).await;
        self.rolls += 1;
        let rolls = self.rolls;
        let settled = match self.wanted.wait_for(|wanted| wanted.times >= rolls || wanted.gone).await {
            Ok(wanted) if wanted.times >= rolls => wanted.settled,
            _ => return,
        };
        while self.writer.roll(settled).is_err() {
            sleep(RETRY).await;
        }
        let _ = self.wakes.try_write(b".");
    }
}

/// A signal by its number, as the scribe is told it.
///
/// # Errors
/// It is none.
pub fn signal_of(number: &str) -> Result<Signal, String> {
    let number: i32 = number.parse().map_err(|_| format!("{number:?} is no number of a signal"))?;
    Signal::try_from(number).map_err(|error| error.to_string())
}
