//! Owns time on a worker: deadlines that cost a request no timer of the runtime.
//!
//! A connection has one [`Timer`]; it sets deadlines by storing a number. One task per worker looks at
//! all of them every [`TICK`], and wakes those whose time is over. Deadlines are late by up to two ticks,
//! never early. Called by the codecs; knows nothing of what is timed.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// How often deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(50);

/// No deadline.
const NEVER: u64 = u64::MAX;

/// What is timed. A connection has one deadline of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nothing has moved for too long.
    Idle,
    /// An attempt at the upstream.
    Attempt,
    /// The whole request.
    Request,
}

const LIMITS: [Limit; 3] = [Limit::Request, Limit::Attempt, Limit::Idle];

#[derive(Debug)]
struct Entry {
    deadlines: [Cell<u64>; LIMITS.len()],
    waker: RefCell<Option<Waker>>,
}

impl Entry {
    fn expired(&self, now: u64) -> Option<Limit> {
        LIMITS.into_iter().find(|limit| self.deadlines[*limit as usize].get() <= now)
    }

    fn wake(&self) {
        // Taken out first: waking may poll at once, and register again.
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The deadlines of a worker.
#[derive(Debug)]
pub struct Timers {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    epoch: Instant,
    /// Milliseconds since the epoch, as of the last tick.
    now: Cell<u64>,
    entries: RefCell<Vec<Weak<Entry>>>,
    is_ticking: Cell<bool>,
}

impl Inner {
    fn update(&self) -> u64 {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(NEVER - 1);
        self.now.set(now);
        now
    }
}

impl Default for Timers {
    fn default() -> Self {
        let (now, entries) = (Cell::new(0), RefCell::default());
        Self { inner: Rc::new(Inner { epoch: Instant::now(), now, entries, is_ticking: Cell::new(false) }) }
    }
}

impl Timers {
    /// A timer with no deadline. Must be called on the worker's `LocalSet`.
    pub fn timer(&self) -> Timer {
        let entry = Rc::new(Entry { deadlines: [const { Cell::new(NEVER) }; 3], waker: RefCell::default() });
        self.inner.entries.borrow_mut().push(Rc::downgrade(&entry));
        if !self.inner.is_ticking.replace(true) {
            self.inner.update();
            tokio::task::spawn_local(tick(Rc::downgrade(&self.inner)));
        }
        Timer { entry, inner: Rc::clone(&self.inner) }
    }

    /// Wakes everything that waits, so that it looks around: the worker drains.
    pub fn wake_all(&self) {
        let entries: Vec<Rc<Entry>> = self.inner.entries.borrow().iter().filter_map(Weak::upgrade).collect();
        entries.iter().for_each(|entry| entry.wake());
    }
}

/// Ends when there is nothing to time.
async fn tick(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(inner) = inner.upgrade() else { return };
        let now = inner.update();
        let mut due = Vec::new();
        inner.entries.borrow_mut().retain(|entry| {
            let Some(entry) = entry.upgrade() else { return false };
            if entry.expired(now).is_some() {
                due.push(entry);
            }
            true
        });
        due.iter().for_each(|entry| entry.wake());
        if inner.entries.borrow().is_empty() {
            inner.is_ticking.set(false);
            return;
        }
    }
}

/// The deadlines of one connection.
#[derive(Debug)]
pub struct Timer {
    entry: Rc<Entry>,
    inner: Rc<Inner>,
}

impl Timer {
    /// Sets a deadline from now on.
    pub fn set(&self, limit: Limit, after: Duration) {
        let after = u64::try_from((after + TICK).as_millis()).unwrap_or(NEVER);
        self.entry.deadlines[limit as usize].set(self.inner.now.get().saturating_add(after));
    }

    /// Takes a deadline away.
    pub fn clear(&self, limit: Limit) {
        self.entry.deadlines[limit as usize].set(NEVER);
    }

    /// What is over, if anything is; else the task is woken when something will be.
    pub fn poll_expired(&self, cx: &Context<'_>) -> Poll<Limit> {
        if let Some(limit) = self.entry.expired(self.inner.now.get()) {
            return Poll::Ready(limit);
        }
        let mut waker = self.entry.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::LocalSet;

    use super::*;

    async fn expired(timer: &Timer) -> Limit {
        poll_fn(|cx| timer.poll_expired(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_never_early_and_at_most_two_ticks_late() {
        let during = async {
            let timers = Timers::default();
            let timer = timers.timer();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let begun = Instant::now();
            timer.set(Limit::Idle, Duration::from_secs(1));
            timer.set(Limit::Request, Duration::from_secs(10));
            assert_eq!(expired(&timer).await, Limit::Idle);
            let waited = begun.elapsed();
            assert!(
                waited >= Duration::from_secs(1) && waited <= Duration::from_secs(1) + 2 * TICK,
                "{waited:?}"
            );
            timer.clear(Limit::Idle);
            assert_eq!(expired(&timer).await, Limit::Request);
        };
        LocalSet::new().run_until(during).await;
    }

    #[tokio::test(start_paused = true)]
    async fn ticking_ends_with_the_last_timer_and_begins_again() {
        let during = async {
            let timers = Timers::default();
            drop(timers.timer());
            tokio::time::sleep(3 * TICK).await;
            assert!(!timers.inner.is_ticking.get());
            tokio::time::sleep(Duration::from_secs(3600)).await;
            let timer = timers.timer();
            let begun = Instant::now();
            timer.set(Limit::Attempt, Duration::from_secs(1));
            assert_eq!(expired(&timer).await, Limit::Attempt);
            assert!(begun.elapsed() >= Duration::from_secs(1));
        };
        LocalSet::new().run_until(during).await;
    }
}
