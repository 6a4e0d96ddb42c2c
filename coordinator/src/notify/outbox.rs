//! What anybody wants to be told, in memory: where nobody wants anything, nothing is written and nothing is asked for. And the
//! bell, which tells the notifier that there is something to do.

use super::event::{Event, Events};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::{Mutex, MutexGuard, Notify};

/// See the module's text. It follows the ledger: a channel that was just made is told of what ends after it was answered.
#[derive(Debug, Default)]
pub struct Outbox {
    wanted: AtomicU32,
    bell: Notify,
    /// Held by whoever changes a channel until memory is as the ledger: so they change in the same order.
    changing: Mutex<()>,
}

impl Outbox {
    /// One that wants what the ledger's channels do.
    pub fn new(wanted: Events) -> Self {
        let outbox = Self::default();
        outbox.set_wanted(wanted);
        outbox
    }

    /// What all channels together want from now on.
    pub fn set_wanted(&self, wanted: Events) {
        self.wanted.store(wanted.bits(), Ordering::Release);
    }

    /// Whether any channel may want it.
    pub fn wants(&self, event: Event) -> bool {
        Events::from_bits(self.wanted.load(Ordering::Acquire)).contains(event)
    }

    /// Whether there is any channel that is told anything.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) != 0
    }

    /// Waits until nobody else changes a channel.
    pub async fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// There may be something to deliver.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits for that.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }
}
