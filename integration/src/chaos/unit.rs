//! A process that is to run, whatever happens to it: struck, it is started again when it may be; what ends by itself is
//! started again as a service manager would.

use super::schedule::Blow;
use crate::{Failure, Process, postmaster};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// The time between two starts, as `RestartSec=` has it.
const RESTART: Duration = Duration::from_millis(300);

type Start = Box<dyn Fn() -> Result<Process, Failure>>;

/// Something that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Surprise {
    /// What it is.
    pub(super) text: String,
    /// No service may do that, whatever happens around it: a crash, or an agent that gives up.
    pub(super) is_wrong: bool,
}

/// The process, and how it is started.
pub(super) struct Unit {
    name: String,
    start: Start,
    process: Option<Process>,
    /// It is to run now: no fault keeps it down.
    wanted: bool,
    /// It was told to end.
    struck: bool,
    is_postgres: bool,
    paused: bool,
    started: Instant,
    /// What nobody asked for, and how often.
    surprises: BTreeMap<Surprise, usize>,
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit").field("name", &self.name).field("process", &self.process).finish_non_exhaustive()
    }
}

impl Unit {
    pub(super) fn start(name: &str, is_postgres: bool, start: Start) -> Result<Self, Failure> {
        let process = Some(start()?);
        let started = Instant::now();
        let (name, surprises) = (name.to_owned(), BTreeMap::new());
        let (wanted, struck, paused) = (true, false, false);
        Ok(Self { name, start, process, wanted, struck, is_postgres, paused, started, surprises })
    }

    /// Strikes or mends it.
    pub(super) fn apply(&mut self, blow: Blow) {
        match blow {
            Blow::Kill => self.end(if self.is_postgres { Signal::SIGQUIT } else { Signal::SIGKILL }),
            Blow::Term => self.end(if self.is_postgres { Signal::SIGINT } else { Signal::SIGTERM }),
            Blow::Pause => {
                self.paused = true;
                self.signal(Signal::SIGSTOP);
            }
            Blow::Mend => {
                if std::mem::take(&mut self.paused) {
                    self.signal(Signal::SIGCONT);
                }
                self.wanted = true;
            }
            Blow::Cut | Blow::Refuse => {}
        }
    }

    fn end(&mut self, signal: Signal) {
        (self.wanted, self.struck) = (false, true);
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }

    fn signal(&mut self, signal: Signal) {
        let Some(process) = &mut self.process else { return };
        if self.is_postgres {
            postmaster::signal_all(process, signal);
        } else {
            process.signal(signal);
        }
    }

    /// Starts it if it is down and shall not be.
    pub(super) fn look_after(&mut self) {
        let ended = match &mut self.process {
            Some(process) => process.ended(),
            None => None,
        };
        if let (Some(status), false) = (ended, self.struck) {
            let words = self.process.as_ref().map(|process| process.tail(1)).unwrap_or_default();
            // A coordinator and a PostgreSQL may refuse to start: the service manager tries again.
            let is_wrong = status.code() != Some(1) || self.name.starts_with("agent");
            self.surprise(format!("{} ended by itself ({status}): {words}", self.name), is_wrong);
        }
        if ended.is_some() {
            (self.process, self.struck) = (None, false);
        }
        if self.process.is_none() && self.wanted && self.started.elapsed() > RESTART {
            self.started = Instant::now();
            match (self.start)() {
                Ok(process) => self.process = Some(process),
                Err(failure) => self.surprise(format!("{} did not start: {failure}", self.name), true),
            }
        }
    }

    fn surprise(&mut self, text: String, is_wrong: bool) {
        *self.surprises.entry(Surprise { text, is_wrong }).or_default() += 1;
    }

    /// What came as a surprise so far, and how often; each is told once.
    pub(super) fn surprises(&mut self) -> BTreeMap<Surprise, usize> {
        std::mem::take(&mut self.surprises)
    }

    /// Whether it runs.
    pub(super) fn is_up(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.apply(Blow::Mend);
        if let (Some(process), true) = (&mut self.process, self.is_postgres) {
            // SIGTERM, which comes with the handle, would wait for every connection.
            process.signal(Signal::SIGINT);
        }
    }
}
