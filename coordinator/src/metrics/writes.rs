//! What the one writer does: how much goes into a transaction, how long that takes, and what waits.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Writes in one transaction: up to the most that a turn takes.
const SIZES: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0];
/// How long a transaction takes: up to when it is given up, in seconds.
const TIMES: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Writes {
    sizes: Histogram,
    times: Histogram,
    failures: Counter,
    waiting: Gauge,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            sizes: Histogram::new(SIZES),
            times: Histogram::new(TIMES),
            failures: Counter::default(),
            waiting: Gauge::default(),
        }
    }
}

impl Writes {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let writes = Self::default();
        registry.register("persistence_batch_writes", "Writes that were committed together", writes.sizes.clone());
        registry.register_with_unit(
            "persistence_commit",
            "How long transactions took that were committed",
            Unit::Seconds,
            writes.times.clone(),
        );
        registry.register(
            "persistence_failures",
            "Transactions that were not committed, and are tried again",
            writes.failures.clone(),
        );
        registry.register(
            "persistence_waiting_writes",
            "Writes that wait for the next transaction",
            writes.waiting.clone(),
        );
        writes
    }

    /// A transaction of so many writes is committed.
    #[allow(clippy::cast_precision_loss, reason = "a few thousand at most")]
    pub(crate) fn committed(&self, writes: usize, took: Duration) {
        self.sizes.observe(writes as f64);
        self.times.observe(took.as_secs_f64());
    }

    /// A transaction has failed.
    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    /// So many wait by now.
    pub(crate) fn waiting(&self, writes: usize) {
        self.waiting.set(i64::try_from(writes).unwrap_or(i64::MAX));
    }
}
