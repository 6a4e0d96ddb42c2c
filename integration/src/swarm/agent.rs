//! One simulated agent: a task with a socket, small buffers and a conduct. It keeps no journal, but speaks as an agent
//! that has one: its durable envelopes are numbered, and it knows what was acknowledged.

use super::socket::{Frame, connect, first_frame, put_pong, put_text, upgrade};
use super::{Conduct, Event, Host, Loss, Order};
use crate::{Context, Failure};
use chrono::Utc;
use fleet_wire::{
    CAPABILITY_ACK, CommandResult, Decoded, Hello, JobFinished, JobId, JobStarted, Kind, PROTOCOL_VERSION, RawJson,
    Status, ToAgent, ToCoordinator, decode, encode,
};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// Bytes that are read and written at once.
const PIECE: usize = 16 * 1024;
/// The pause before the next try to connect.
const RECONNECT: Duration = Duration::from_millis(100);
/// What a finished job says of itself; about what restic's summary has.
pub(crate) const STATS: &str = r#"{"message_type":"summary","files_new":12,"files_changed":3,"files_unmodified":4711,"data_blobs":29,"data_added":1048576,"total_files_processed":4726,"total_bytes_processed":734003200,"total_duration":1.25,"snapshot_id":"40dc1520aa6a07b7b3ae561786770a01951245d2367241e71e9485f18ae8228c"}"#;

/// What a job's agent does once the last that it said of it is acknowledged.
#[derive(Clone, Copy)]
enum Next {
    Start,
    Finish,
    /// All is said.
    Rest,
}

/// A job that is under way, and the id whose acknowledgement it waits for.
struct Step {
    job_id: JobId,
    awaits: u64,
    next: Next,
}

/// See the module's text.
pub(super) struct Agent {
    index: usize,
    host: Host,
    version: String,
    conduct: Conduct,
    events: UnboundedSender<Event>,
    input: Vec<u8>,
    /// What is to be written, and how much of the first piece is.
    output: VecDeque<Arc<[u8]>>,
    written: usize,
    last_id: u64,
    steps: VecDeque<Step>,
}

impl Agent {
    /// One of `host`, that says hello as an agent of this version.
    pub(super) fn new(
        index: usize,
        host: Host,
        version: String,
        conduct: Conduct,
        events: UnboundedSender<Event>,
    ) -> Self {
        let (input, output, steps) = (Vec::new(), VecDeque::new(), VecDeque::new());
        Self { index, host, version, conduct, events, input, output, written: 0, last_id: 0, steps }
    }

    /// Connects when it is its turn, and runs until it is told to leave or the connection ends; and again, if it is one
    /// that returns.
    pub(super) async fn live(
        &mut self,
        address: SocketAddr,
        connecting: &Semaphore,
        mut orders: UnboundedReceiver<Order>,
        loss: Loss,
    ) {
        while let Err(why) = self.connection(address, connecting, &mut orders).await {
            let lost = Event::Lost { agent: self.index, why: why.to_string() };
            if self.events.send(lost).is_err() || loss == Loss::Final {
                return; // nobody watches the swarm any more, or it is gone
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn connection(
        &mut self,
        address: SocketAddr,
        connecting: &Semaphore,
        orders: &mut UnboundedReceiver<Order>,
    ) -> Result<(), Failure> {
        let turn = connecting.acquire().await;
        let mut stream = connect(address).await?;
        let path = if self.conduct == Conduct::Echo { "/echo" } else { "/v1/agent/connect" };
        self.input = upgrade(&mut stream, path, &self.host.token).await?;
        drop(turn);
        self.tell(Event::Upgraded)?;
        self.output.clear();
        self.written = 0;
        if self.conduct != Conduct::Echo {
            self.hello();
            self.repeat();
        }
        self.converse(stream, orders).await
    }

    /// Says hello as an agent with a journal.
    fn hello(&mut self) {
        self.say(
            &Hello {
                protocol_version: PROTOCOL_VERSION,
                agent_version: self.version.clone(),
                restic_version: "0.18.0".to_owned(),
                hostname: self.host.name.clone(),
                capabilities: vec![CAPABILITY_ACK.to_owned()],
                journal: Some(self.host.id.as_str().into()),
                ..Hello::default()
            }
            .into(),
        );
    }

    /// Says again all that was said of jobs whose last word is not acknowledged.
    fn repeat(&mut self) {
        for Step { job_id, next, .. } in std::mem::take(&mut self.steps) {
            let mut awaits = self.accept(job_id.clone());
            if matches!(next, Next::Finish | Next::Rest) {
                awaits = self.start(job_id.clone());
            }
            if matches!(next, Next::Rest) {
                awaits = self.finish(job_id.clone());
            }
            self.steps.push_back(Step { job_id, awaits, next });
        }
    }

    async fn converse(&mut self, stream: TcpStream, orders: &mut UnboundedReceiver<Order>) -> Result<(), Failure> {
        self.take_in()?;
        loop {
            self.write(&stream)?;
            let interest =
                if self.output.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            tokio::select! {
                ready = stream.ready(interest) => {
                    if ready?.is_readable() {
                        self.read(&stream)?;
                    }
                }
                order = orders.recv() => match order {
                    Some(Order::Write(bytes)) => self.output.push_back(bytes),
                    Some(Order::WriteNumbered { bytes, last_id }) => {
                        self.output.push_back(bytes);
                        self.last_id = last_id;
                    }
                    Some(Order::Finish(job_id)) => {
                        let awaits = self.finish(job_id.clone());
                        self.steps.push_back(Step { job_id, awaits, next: Next::Rest });
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    fn write(&mut self, stream: &TcpStream) -> Result<(), Failure> {
        while let Some(piece) = self.output.front() {
            let rest = &piece[self.written..];
            match stream.try_write(&rest[..rest.len().min(PIECE)]) {
                Ok(count) if count == rest.len() => {
                    self.output.pop_front();
                    self.written = 0;
                }
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("writing"),
            }
        }
        Ok(())
    }

    fn read(&mut self, stream: &TcpStream) -> Result<(), Failure> {
        let mut piece = [0; PIECE];
        loop {
            match stream.try_read(&mut piece) {
                Ok(0) => return Err(Failure::new("the connection has ended")),
                Ok(count) => {
                    self.input.extend_from_slice(&piece[..count]);
                    self.take_in()?;
                    if count < PIECE {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("reading"),
            }
        }
    }

    /// Acts on every whole frame of the input.
    fn take_in(&mut self) -> Result<(), Failure> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some((frame, length)) = first_frame(&input[at..])? {
            match frame {
                Frame::Text(text) => self.hear(text)?,
                Frame::Ping(payload) => {
                    let mut pong = Vec::new();
                    put_pong(&mut pong, payload);
                    self.output.push_back(pong.into());
                }
                Frame::Close(code) => return Err(Failure::new(format!("closed with {code}"))),
                Frame::Other => {}
            }
            at += length;
        }
        self.input = input;
        self.input.drain(..at);
        if self.input.is_empty() {
            self.input = Vec::new(); // nineteen thousand agents must not keep a buffer each
        }
        Ok(())
    }

    fn hear(&mut self, text: &str) -> Result<(), Failure> {
        if self.conduct == Conduct::Echo {
            return self.tell(Event::Echoed);
        }
        let Decoded::Known { message, .. } = decode::<ToAgent>(text).context("a message")? else { return Ok(()) };
        match message {
            ToAgent::ScheduleSet(_) => self.tell(Event::Ready { agent: self.index }),
            ToAgent::CommandRun(run) => self.take_up(run.job_id),
            ToAgent::Ack(ack) => self.acknowledged(ack.up_to.number().unwrap_or(0)),
            ToAgent::Error(error) => Err(Failure::new(format!("{}: {}", error.code, error.message))),
            ToAgent::ConfigUpdate(_) | ToAgent::CommandCancel(_) | ToAgent::AgentUpdateAvailable(_) => Ok(()),
        }
    }

    fn take_up(&mut self, job_id: JobId) -> Result<(), Failure> {
        self.tell(Event::Run { agent: self.index, job_id: job_id.clone(), at: Instant::now() })?;
        if self.conduct == Conduct::Silent {
            return Ok(());
        }
        let accepted = self.accept(job_id.clone());
        if self.conduct == Conduct::Stepwise {
            self.steps.push_back(Step { job_id, awaits: accepted, next: Next::Start });
            return Ok(());
        }
        self.start(job_id.clone());
        if self.conduct == Conduct::AtOnce {
            let awaits = self.finish(job_id.clone());
            self.steps.push_back(Step { job_id, awaits, next: Next::Rest });
        }
        Ok(())
    }

    /// Takes the next step of every job whose last one is durable.
    fn acknowledged(&mut self, up_to: u64) -> Result<(), Failure> {
        self.tell(Event::Acknowledged { agent: self.index, up_to })?;
        for Step { job_id, awaits, next } in std::mem::take(&mut self.steps) {
            let (awaits, next) = match next {
                _ if awaits > up_to => (awaits, next),
                Next::Start => (self.start(job_id.clone()), Next::Finish),
                Next::Finish => (self.finish(job_id.clone()), Next::Rest),
                Next::Rest => {
                    self.tell(Event::Settled { agent: self.index })?;
                    continue;
                }
            };
            self.steps.push_back(Step { job_id, awaits, next });
        }
        Ok(())
    }

    fn accept(&mut self, job_id: JobId) -> u64 {
        self.report(&CommandResult { job_id, accepted: true, error: None }.into())
    }

    fn start(&mut self, job_id: JobId) -> u64 {
        self.report(&JobStarted { job_id, kind: Kind::Backup.into(), started_at: Some(Utc::now()) }.into())
    }

    fn finish(&mut self, job_id: JobId) -> u64 {
        let stats = RawJson::new(STATS.to_owned()).ok();
        let (status, finished_at) = (Status::Succeeded, Some(Utc::now()));
        self.report(&JobFinished { job_id, status, exit_code: 0, finished_at, stats, error: None }.into())
    }

    /// Says something that is to be acknowledged; gives its id.
    fn report(&mut self, message: &ToCoordinator) -> u64 {
        self.last_id += 1;
        let mut frame = Vec::new();
        put_text(&mut frame, &encode(Some(&self.last_id.into()), message));
        self.output.push_back(frame.into());
        self.last_id
    }

    fn say(&mut self, message: &ToCoordinator) {
        let mut frame = Vec::new();
        put_text(&mut frame, &encode(None, message));
        self.output.push_back(frame.into());
    }

    fn tell(&self, event: Event) -> Result<(), Failure> {
        self.events.send(event).map_err(|_| Failure::new("nobody watches the swarm any more"))
    }
}
