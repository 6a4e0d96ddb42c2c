//! A swarm that looks after itself, for tests: its agents send heartbeats, end each job at once with success, and connect
//! again whenever their connection ends.

use super::{Conduct, Event, Host, Loss, Swarm, raise_open_files};
use crate::{Context, Failure};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Runtime;

/// What all of them did so far.
#[derive(Debug, Default)]
struct Counts {
    greeted: HashSet<usize>,
    greetings: usize,
    jobs: usize,
}

/// The agents; they end with the handle.
#[derive(Debug)]
pub struct Crowd {
    _runtime: Runtime,
    counts: Arc<Mutex<Counts>>,
}

impl Crowd {
    /// Starts an agent for each of `hosts`, which connect to the coordinator at `address` (host and port).
    ///
    /// # Errors
    /// The address is none, or this process may not open a file for each.
    pub fn start(address: &str, hosts: Vec<Host>) -> Result<Self, Failure> {
        raise_open_files()?;
        let address = address.parse().context(address)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let counts = Arc::new(Mutex::new(Counts::default()));
        runtime.spawn(watch(Arc::clone(&counts), move || {
            Swarm::connect(address, &hosts, "0.0.1", Conduct::AtOnce, Loss::Return)
        }));
        Ok(Self { _runtime: runtime, counts })
    }

    /// How many are connected and have their settings.
    pub fn greeted(&self) -> usize {
        lock(&self.counts).greeted.len()
    }

    /// How often one got its settings after it had connected.
    pub fn greetings(&self) -> usize {
        lock(&self.counts).greetings
    }

    /// How many jobs they were sent; one that is sent twice counts twice.
    pub fn jobs(&self) -> usize {
        lock(&self.counts).jobs
    }
}

/// Counts what happens, for ever.
async fn watch(counts: Arc<Mutex<Counts>>, connect: impl FnOnce() -> Swarm) {
    let mut swarm = connect();
    swarm.heart();
    while let Some(event) = swarm.events.recv().await {
        let mut counts = lock(&counts);
        match event {
            Event::Ready { agent } => counts.greetings += usize::from(counts.greeted.insert(agent)),
            Event::Lost { agent, .. } => drop(counts.greeted.remove(&agent)),
            Event::Run { .. } => counts.jobs += 1,
            _ => {}
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
