//! The load generator: up to 19,000 simulated agents in this process, each a small task ([`agent`]). A benchmark tells
//! them what to do and learns from their events what happened when; a test has a [`Crowd`] that looks after itself.

mod agent;
mod crowd;
mod socket;

pub(crate) use agent::STATS;
pub use crowd::Crowd;
pub(crate) use socket::{connect, put_text};

use crate::{Context, Failure};
use agent::Agent;
use chrono::Utc;
use fleet_wire::{HEARTBEAT_INTERVAL, Heartbeat, JobId, encode};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// Connections that are being made at once: fewer than a listening socket queues, for what does not fit there comes
/// again after a second, and that second would be measured.
const CONNECTING: usize = 512;
/// Nothing that a swarm waits for may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A host that is enrolled.
#[derive(Clone, Debug)]
pub struct Host {
    /// The coordinator's id of it.
    pub id: String,
    /// Its host name.
    pub name: String,
    /// Its agent's token.
    pub token: String,
}

/// What an agent does when its connection ends, or can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It is gone; no benchmark wants that.
    Final,
    /// It connects again, and says again what was not acknowledged. There is no jitter: what a coordinator must bear at
    /// worst is that all come at once.
    Return,
}

/// What an agent does with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Nothing.
    Silent,
    /// Result, start and end in three messages one behind the other.
    AtOnce,
    /// The same, but each only once the one before it is acknowledged: four commits a job, with the one of the POST.
    Stepwise,
    /// Result and start; the end when it is told.
    Running,
    /// It is no agent: what comes back is counted and not read.
    Echo,
}

/// What an agent is told.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Writes frames.
    Write(Arc<[u8]>),
    /// The same, for frames with ids, of which the last is this.
    WriteNumbered { bytes: Arc<[u8]>, last_id: u64 },
    /// Reports the end of a job.
    Finish(JobId),
}

/// What an agent has seen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// It is connected; of the bare server nothing more is expected.
    Upgraded,
    /// It has its settings.
    Ready { agent: usize },
    /// A job has come.
    Run { agent: usize, job_id: JobId, at: Instant },
    /// Everything up to this id is durable.
    Acknowledged { agent: usize, up_to: u64 },
    /// All that it says of a job is durable.
    Settled { agent: usize },
    /// A message came back.
    Echoed,
    /// Its connection has ended, or could not be made.
    Lost { agent: usize, why: String },
}

/// See the module's text. The agents leave when it is dropped.
pub(crate) struct Swarm {
    orders: Vec<UnboundedSender<Order>>,
    tasks: Vec<JoinHandle<()>>,
    events: UnboundedReceiver<Event>,
    conduct: Conduct,
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Swarm {
    /// Lets all agents of `hosts` connect at once and say hello as `version`; does not wait for them.
    pub(crate) fn connect(address: SocketAddr, hosts: &[Host], version: &str, conduct: Conduct, loss: Loss) -> Self {
        let connecting = Arc::new(Semaphore::new(CONNECTING));
        let (sender, events) = unbounded_channel();
        let mut swarm = Self { orders: Vec::new(), tasks: Vec::new(), events, conduct };
        for (index, host) in hosts.iter().enumerate() {
            let (orders, receiver) = unbounded_channel();
            swarm.orders.push(orders);
            let mut agent = Agent::new(index, host.clone(), version.to_owned(), conduct, sender.clone());
            let connecting = Arc::clone(&connecting);
            swarm.tasks.push(tokio::spawn(async move { agent.live(address, &connecting, receiver, loss).await }));
        }
        swarm
    }

    /// The same, and waits until every agent has its settings (or, at the bare server, is connected).
    ///
    /// # Errors
    /// One of them does not come that far.
    pub(crate) async fn connected(
        address: SocketAddr,
        hosts: &[Host],
        version: &str,
        conduct: Conduct,
    ) -> Result<Self, Failure> {
        let mut swarm = Self::connect(address, hosts, version, conduct, Loss::Final);
        swarm.all_there(hosts.len()).await?;
        Ok(swarm)
    }

    /// Waits until `count` agents are there.
    ///
    /// # Errors
    /// One of them does not come that far.
    pub(crate) async fn all_there(&mut self, count: usize) -> Result<(), Failure> {
        let echo = self.conduct == Conduct::Echo;
        let there = |event: &Event| match event {
            Event::Upgraded => echo,
            Event::Ready { .. } => !echo,
            _ => false,
        };
        self.wait_for("agents that are there", count, there).await
    }

    /// Tells an agent what to do.
    pub(crate) fn tell(&self, agent: usize, order: Order) {
        let _ = self.orders[agent].send(order); // one that is lost has said so
    }

    /// The next event.
    ///
    /// # Errors
    /// An agent was lost, or nothing happens for too long.
    pub(crate) async fn next(&mut self) -> Result<Event, Failure> {
        let next = tokio::time::timeout(LIMIT, self.events.recv()).await;
        match next.map_err(|_| Failure::new(format!("nothing has happened for {LIMIT:?}")))? {
            Some(Event::Lost { agent, why }) => Err(Failure::new(format!("agent {agent} was lost: {why}"))),
            Some(event) => Ok(event),
            None => Err(Failure::new("all agents are gone")),
        }
    }

    /// Waits for `count` events of a kind; others are passed over.
    ///
    /// # Errors
    /// An agent was lost, or they do not come.
    pub(crate) async fn wait_for(
        &mut self,
        what: &str,
        count: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<(), Failure> {
        let mut seen = 0;
        while seen < count {
            let event = self.next().await.context(format!("{seen} of {count} {what}"))?;
            seen += usize::from(wanted(&event));
        }
        Ok(())
    }

    /// Sends a heartbeat of every agent, spread evenly over `interval`, as agents that started at any time do.
    pub(crate) async fn heartbeats(&self, interval: Duration) {
        beat(&self.orders, interval).await;
    }

    /// Goes on sending heartbeats, beside whatever else the agents are told, until the handle is aborted.
    pub(crate) fn heart(&self) -> JoinHandle<()> {
        let orders = self.orders.clone();
        tokio::spawn(async move {
            loop {
                beat(&orders, HEARTBEAT_INTERVAL).await;
            }
        })
    }
}

/// Lets this process, and those that it starts, have as many open files as it may: one for each agent.
///
/// # Errors
/// The system refuses.
pub(crate) fn raise_open_files() -> Result<(), Failure> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of open files")
}

async fn beat(agents: &[UnboundedSender<Order>], interval: Duration) {
    let began = Instant::now();
    for (index, orders) in agents.iter().enumerate() {
        let due = interval.mul_f64(index as f64 / agents.len() as f64);
        let early = due.saturating_sub(began.elapsed());
        // Timers are no finer than a millisecond.
        if early > Duration::from_millis(2) {
            tokio::time::sleep(early).await;
        }
        let _ = orders.send(Order::Write(heartbeat())); // one that is lost has said so
    }
    tokio::time::sleep(interval.saturating_sub(began.elapsed())).await;
}

/// The frame of a heartbeat.
fn heartbeat() -> Arc<[u8]> {
    let mut frame = Vec::new();
    put_text(&mut frame, &encode::<fleet_wire::ToCoordinator>(None, &Heartbeat { sent_at: Some(Utc::now()) }.into()));
    frame.into()
}
