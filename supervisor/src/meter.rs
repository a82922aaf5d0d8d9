//! What is measured of one worker's mailbox: depth, age of the oldest message, time per message type.
//!
//! Owned by the worker's address, so that it outlives restarts; written by `address` (in) and
//! `measured` (out); read by `live`. Refuses to know message contents.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The mailbox of a worker as it stands.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MailboxState {
    /// Messages that wait.
    pub depth: usize,
    /// How many may wait before more are refused.
    pub capacity: usize,
    /// How long the oldest has waited, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// Messages refused because the mailbox was full, since the process started.
    pub refused: u64,
    /// Messages that were waiting when an instance ended, and went with it.
    pub lost: u64,
    /// By message type.
    pub handled: BTreeMap<&'static str, Handled>,
}

/// How often messages of one type were handled, and how long it took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Handled {
    /// How many.
    pub count: u64,
    /// All of them together, in microseconds.
    pub total_us: u64,
    /// The slowest, in microseconds.
    pub max_us: u64,
}

/// The measuring device of one address.
#[derive(Debug)]
pub(crate) struct Meter {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// When each waiting message was sent, oldest first. A message that an actor sends to itself past
    /// its address has no entry; the error is gone as soon as the mailbox is empty.
    waiting: VecDeque<Instant>,
    refused: u64,
    lost: u64,
    handled: BTreeMap<&'static str, Handled>,
}

impl Meter {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, inner: Mutex::default() }
    }

    /// Sends under the lock, so that the order of entries is the order of messages. `None` when full.
    pub(crate) fn admit<R>(&self, send: impl FnOnce() -> Result<(), R>) -> Option<Result<(), R>> {
        let mut inner = self.lock();
        if inner.waiting.len() >= self.capacity {
            inner.refused += 1;
            return None;
        }
        let sent = send();
        if sent.is_ok() {
            inner.waiting.push_back(Instant::now());
        }
        Some(sent)
    }

    /// A message was taken out of the mailbox.
    pub(crate) fn taken(&self) {
        self.lock().waiting.pop_front();
    }

    /// A message was handled.
    pub(crate) fn handled(&self, name: &'static str, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut inner = self.lock();
        let handled = inner.handled.entry(name).or_default();
        handled.count += 1;
        handled.total_us = handled.total_us.saturating_add(took);
        handled.max_us = handled.max_us.max(took);
    }

    /// The instance ended: what waited is lost.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.lost += inner.waiting.len() as u64;
        inner.waiting.clear();
    }

    /// The mailbox as it stands.
    pub(crate) fn state(&self) -> MailboxState {
        let inner = self.lock();
        MailboxState {
            depth: inner.waiting.len(),
            capacity: self.capacity,
            oldest_ms: inner
                .waiting
                .front()
                .map(|sent| u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX)),
            refused: inner.refused,
            lost: inner.lost,
            handled: inner.handled.clone(),
        }
    }

    /// Nothing panics while the lock is held; a poisoned one holds numbers that are still right.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
