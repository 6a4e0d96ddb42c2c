//! REST clients that share their work: a few keep-alive connections that post what comes, one after the other.

use super::http::{Client, Request};
use crate::Failure;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A job that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) job_id: String,
    /// When the first byte of the request went out.
    pub(super) began: Instant,
    /// How long the answer took.
    pub(super) answered_in: Duration,
}

/// See the module's text.
pub(super) struct Pool {
    requests: UnboundedSender<Request>,
    answers: UnboundedReceiver<Result<Submitted, Failure>>,
}

impl Pool {
    /// Opens `clients` connections.
    ///
    /// # Errors
    /// One of them is refused.
    pub(super) async fn connect(address: SocketAddr, clients: usize) -> Result<Self, Failure> {
        let (requests, waiting) = unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let (answered, answers) = unbounded_channel();
        for _ in 0..clients {
            let client = Client::connect(address).await?;
            tokio::spawn(work(client, Arc::clone(&waiting), answered.clone()));
        }
        Ok(Self { requests, answers })
    }

    /// Has a job asked for as soon as a connection is free.
    pub(super) fn submit(&self, request: Request) {
        let _ = self.requests.send(request); // clients that have failed say so in their answers
    }

    /// Waits until all is answered, and gives the answers.
    ///
    /// # Errors
    /// One of the requests failed.
    pub(super) async fn all(self) -> Result<Vec<Submitted>, Failure> {
        let Self { requests, mut answers } = self;
        drop(requests);
        let mut all = Vec::new();
        while let Some(answer) = answers.recv().await {
            all.push(answer?);
        }
        Ok(all)
    }
}

async fn work(
    mut client: Client,
    waiting: Arc<Mutex<UnboundedReceiver<Request>>>,
    answered: UnboundedSender<Result<Submitted, Failure>>,
) {
    loop {
        let Some(request) = waiting.lock().await.recv().await else { return };
        let began = Instant::now();
        let answer = client.submit(&request).await;
        let answer = answer.map(|job_id| Submitted { job_id, began, answered_in: began.elapsed() });
        let failed = answer.is_err();
        if answered.send(answer).is_err() || failed {
            return;
        }
    }
}
