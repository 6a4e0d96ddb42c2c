//! Stands between agent and restic: runs the real restic, and writes down what it runs, what that says, and how it ends,
//! before the agent can read it.
//!
//! The agent starts it through a script, as its `FLEET_RESTIC`. While a backup runs it adds lines of its own, numbered,
//! so that a lost or doubled line shows: restic alone says hardly anything.

use crate::{Context, Failure};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// The file with a line for each start and each end.
pub(super) const RUNS: &str = "runs.jsonl";

/// The time between two lines of its own.
const PACE: Duration = Duration::from_millis(4);

/// How many of them at most; more would be a flood, which is another test's.
const MOST: usize = 500;

/// Milliseconds since 1970, on this machine's clock.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One output: to the file first, then to the agent.
struct Tee<W> {
    file: File,
    agent: Option<W>,
}

impl<W: Write> Tee<W> {
    /// False once nobody listens any more.
    fn line(&mut self, line: &[u8]) -> bool {
        let whole = [line, b"\n"].concat();
        let written = self.file.write_all(&whole).is_ok();
        let heard =
            self.agent.as_mut().is_some_and(|agent| agent.write_all(&whole).and_then(|()| agent.flush()).is_ok());
        written && heard
    }
}

type Shared<W> = Arc<Mutex<Tee<W>>>;

/// Runs `restic` with `args` and records it in the folder `into`; gives the exit code.
///
/// # Errors
/// The record can't be written, or restic can't be started.
pub fn record(restic: &Path, into: &Path, args: &[String]) -> Result<u8, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(restic, into, args))
}

async fn run(restic: &Path, into: &Path, args: &[String]) -> Result<u8, Failure> {
    // Signals go to the whole group, and it is restic that ends by them.
    let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let id = format!("{}-{}", std::process::id(), now());
    let job = std::env::var("FLEET_JOB_ID").unwrap_or_default();
    note(into, &json!({"run": id, "job": job, "command": args.first(), "args": args, "started": now()}))?;
    let tee = |name: &str| File::create(into.join(format!("{id}.{name}"))).context(into.display());
    let out = Arc::new(Mutex::new(Tee { file: tee("out")?, agent: Some(std::io::stdout()) }));
    let err = Arc::new(Mutex::new(Tee { file: tee("err")?, agent: Some(std::io::stderr()) }));
    let mut child = Command::new(restic).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let readers = (tokio::spawn(copy(child.stdout.take(), out.clone())), tokio::spawn(copy(child.stderr.take(), err)));
    let chatter =
        (args.first().is_some_and(|command| command == "backup")).then(|| tokio::spawn(chat(out, id.clone())));
    let status = loop {
        let [interrupt, terminate] = &mut signals;
        tokio::select! {
            status = child.wait() => break status?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let _ = (readers.0.await, readers.1.await);
    if let Some(chatter) = chatter {
        chatter.abort();
        let _ = chatter.await;
    }
    note(into, &json!({"run": id, "code": status.code(), "ended": now()}))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

fn note(into: &Path, entry: &Value) -> Result<(), Failure> {
    let mut file = File::options().create(true).append(true).open(into.join(RUNS)).context(into.display())?;
    // One write: others append to it at the same time.
    Ok(file.write_all(format!("{entry}\n").as_bytes())?)
}

fn say<W: Write>(tee: &Shared<W>, line: &[u8]) -> bool {
    tee.lock().unwrap_or_else(PoisonError::into_inner).line(line)
}

/// Ends with the output, or when nobody listens: then restic meets a closed pipe, as it would without us.
async fn copy<W: Write>(output: Option<impl AsyncRead + Unpin>, tee: Shared<W>) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        if !say(&tee, &line) {
            return;
        }
    }
}

async fn chat<W: Write>(tee: Shared<W>, id: String) {
    for number in 0..MOST {
        if !say(&tee, format!("line {number} of run {id}").as_bytes()) {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}
