//! Keeps the embedded PostgreSQL running: when it ends by itself it is started again, with a growing pause as long as
//! it does not stay up. Ends when it is told to, or when nobody is left to tell it.

use super::server::{self, FAST_STOP_LIMIT, Server};
use super::{EmbeddedError, Setup};
use std::fs::File;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// The pause before the first new start.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The pause never gets longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A server that ran this long was well: the pauses begin anew.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// The supervision task.
pub(super) struct Supervisor {
    pub(super) setup: Setup,
    /// Holds the data folder until the server is gone.
    pub(super) lock: File,
    /// The stop, with the patience for a fast shutdown.
    pub(super) stopped: oneshot::Receiver<Duration>,
}

impl Supervisor {
    /// Watches over `server` until the stop.
    pub(super) async fn run(mut self, mut server: Server) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            tokio::select! {
                patience = &mut self.stopped => {
                    server.stop(patience.unwrap_or(FAST_STOP_LIMIT)).await;
                    break;
                }
                how = server.ended() => log::error!("the embedded PostgreSQL ended by itself ({how})"),
            }
            pause = next_pause(pause, started.elapsed());
            match self.again(&mut pause).await {
                Some(next) => server = next,
                None => break,
            }
        }
        self.setup.places.remove_socket_dir();
        drop(self.lock);
    }

    /// A new server, after as many tries as it takes; `None` if the stop comes first.
    async fn again(&mut self, pause: &mut Duration) -> Option<Server> {
        loop {
            let outcome = tokio::select! {
                outcome = attempt(&self.setup, *pause) => outcome,
                patience = &mut self.stopped => {
                    // A server that was just starting has been told to end; this waits for it.
                    server::end_running(&self.setup, patience.unwrap_or(FAST_STOP_LIMIT)).await;
                    return None;
                }
            };
            match outcome {
                Ok(server) => {
                    log::info!("the embedded PostgreSQL is up again");
                    return Some(server);
                }
                Err(error) => {
                    *pause = next_pause(*pause, Duration::ZERO);
                    log::error!("the embedded PostgreSQL can't be started again, next try in {pause:?}: {error}");
                }
            }
        }
    }
}

async fn attempt(setup: &Setup, pause: Duration) -> Result<Server, EmbeddedError> {
    sleep(pause).await;
    // Whatever took the server away may have taken the folder along.
    setup.places.make_socket_dir(&setup.account)?;
    server::bring_up(setup).await
}

fn next_pause(last: Duration, uptime: Duration) -> Duration {
    if uptime >= WELL_AFTER { FIRST_PAUSE } else { (last * 2).min(LONGEST_PAUSE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_good_run() {
        let pauses: Vec<u128> =
            std::iter::successors(Some(FIRST_PAUSE), |last| Some(next_pause(*last, Duration::ZERO)))
                .map(|pause| pause.as_millis())
                .take(9)
                .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(next_pause(LONGEST_PAUSE, WELL_AFTER), FIRST_PAUSE);
    }
}
