//! Owns time on a worker: deadlines that cost a request no timer of the runtime.
//!
//! A connection has one [`Timer`]; it sets deadlines by storing a number. One task per worker looks at
//! all of them every [`TICK`], and wakes those whose time is over. Deadlines are late by up to two ticks,
//! and never early; only those beyond [`SHORT`] may be, by what the worker was busy for when they were set. Called by the codecs; knows nothing of what is timed.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// How often deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(50);

/// Deadlines below this are counted from the clock, others from the last tick: a worker may have been busy for much
/// longer than a tick since then.
const SHORT: Duration = Duration::from_secs(5);

/// No deadline.
const NEVER: u64 = u64::MAX;

/// What is timed. A connection has one deadline of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// What is going on was taken away by a configuration.
    Withdrawn,
    /// The whole request.
    Request,
    /// An attempt at the upstream.
    Attempt,
    /// The content of a request comes too slowly.
    Body,
    /// Nothing has moved for too long.
    Idle,
    /// Nothing has been heard of the other side.
    Silence,
    /// The life of a connection.
    Age,
}

/// Of several that are over, the first one counts.
const LIMITS: [Limit; 7] =
    [Limit::Withdrawn, Limit::Request, Limit::Attempt, Limit::Body, Limit::Idle, Limit::Silence, Limit::Age];

#[derive(Debug)]
struct Entry {
    deadlines: [Cell<u64>; LIMITS.len()],
    /// None of the deadlines is earlier; most looks at an entry end here.
    earliest: Cell<u64>,
    /// A configuration has taken something away since the owner last looked whether it was its own.
    is_asked: Cell<bool>,
    /// The owner wants to be woken at the next tick, whatever is over.
    wants_tick: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Entry {
    fn new() -> Self {
        Self {
            deadlines: [const { Cell::new(NEVER) }; LIMITS.len()],
            earliest: Cell::new(NEVER),
            is_asked: Cell::new(false),
            wants_tick: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    fn set(&self, limit: Limit, deadline: u64) {
        self.deadlines[limit as usize].set(deadline);
        self.earliest.set(self.earliest.get().min(deadline));
    }

    fn deadline(&self, limit: Limit) -> u64 {
        self.deadlines[limit as usize].get()
    }

    fn expired(&self, now: u64) -> Option<Limit> {
        if self.earliest.get() > now {
            return None;
        }
        let deadlines = LIMITS.map(|limit| self.deadline(limit));
        self.earliest.set(deadlines.into_iter().fold(NEVER, u64::min));
        LIMITS.into_iter().find(|limit| self.deadline(*limit) <= now)
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
        let entry = Rc::new(Entry::new());
        self.inner.entries.borrow_mut().push(Rc::downgrade(&entry));
        if !self.inner.is_ticking.replace(true) {
            self.inner.update();
            tokio::task::spawn_local(tick(Rc::downgrade(&self.inner)));
        }
        Timer { entry, inner: Rc::clone(&self.inner) }
    }

    /// The time as of the last tick: it costs nothing, and is late by up to a tick while anything is timed.
    pub fn now(&self) -> std::time::Instant {
        self.inner.epoch.into_std() + Duration::from_millis(self.inner.now.get())
    }

    /// Wakes everything that waits, so that it looks around: the worker drains.
    pub fn wake_all(&self) {
        self.entries().iter().for_each(|entry| entry.wake());
    }

    /// Asks everything that is timed to look whether it may go on: see [`Timer::poll_over`].
    pub fn ask_all(&self) {
        let entries = self.entries();
        entries.iter().for_each(|entry| entry.is_asked.set(true));
        entries.iter().for_each(|entry| entry.wake());
    }

    fn entries(&self) -> Vec<Rc<Entry>> {
        self.inner.entries.borrow().iter().filter_map(Weak::upgrade).collect()
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
            if entry.wants_tick.take() || entry.expired(now).is_some() {
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
        let now = if after < SHORT { self.inner.update() } else { self.inner.now.get() };
        let after = u64::try_from((after + TICK).as_millis()).unwrap_or(NEVER);
        self.entry.set(limit, now.saturating_add(after));
    }

    /// Puts a deadline off, to no more than so much from now on.
    pub fn extend(&self, limit: Limit, by: Duration, most: Duration) {
        let before = self.entry.deadline(limit);
        self.set(limit, most);
        let by = u64::try_from(by.as_millis()).unwrap_or(NEVER);
        self.entry.set(limit, self.entry.deadline(limit).min(before.saturating_add(by)));
    }

    /// Makes it as it was made, for something else to be timed.
    pub fn reset(&self) {
        self.entry.deadlines.iter().for_each(|deadline| deadline.set(NEVER));
        self.entry.earliest.set(NEVER);
        self.entry.is_asked.set(false);
        self.entry.wants_tick.set(false);
        self.entry.waker.take();
    }

    /// Takes a deadline away.
    pub fn clear(&self, limit: Limit) {
        self.entry.deadlines[limit as usize].set(NEVER);
    }

    /// Asks whether what is timed may go on, for something that begins while it might be taken away.
    pub fn ask(&self) {
        self.entry.is_asked.set(true);
    }

    /// Whether what is timed is to end because it was taken away.
    pub fn is_withdrawn(&self) -> bool {
        self.entry.deadline(Limit::Withdrawn) != NEVER
    }

    /// As [`Self::poll_expired`]; where it was asked, looks first for how long what is timed may go on.
    pub fn poll_over(&self, cx: &Context<'_>, time_left: impl FnOnce() -> Option<Duration>) -> Poll<Limit> {
        if self.entry.is_asked.take()
            && let Some(left) = time_left()
        {
            let before = self.entry.deadline(Limit::Withdrawn);
            self.set(Limit::Withdrawn, left);
            // It never gets more time than it was given first.
            let earlier = before.min(self.entry.deadline(Limit::Withdrawn));
            self.entry.set(Limit::Withdrawn, earlier);
        }
        self.poll_expired(cx)
    }

    /// Whether to wake the task that waits at the next tick too: for what is not worth its price while
    /// things go fast.
    pub fn want_tick(&self, wants: bool) {
        self.entry.wants_tick.set(wants);
    }

    /// What is over, if anything is; else the task is woken when something will be.
    #[inline]
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

    use futures_util::FutureExt;
    use tokio::task::LocalSet;

    use super::*;

    async fn expired(timer: &Timer) -> Limit {
        poll_fn(|cx| timer.poll_expired(cx)).await
    }

    #[track_caller]
    fn check_elapsed(since: Instant, want: Duration) {
        let elapsed = since.elapsed();
        assert!(elapsed >= want && elapsed <= want + 2 * TICK, "{elapsed:?}");
    }

    /// In real time: the runtime's own can't be stopped while its clock goes on.
    #[tokio::test]
    async fn a_short_deadline_is_not_early_where_the_worker_was_busy_before() {
        let test = async {
            let timers = Timers::default();
            let timer = timers.timer();
            std::thread::sleep(4 * TICK);
            let begun = std::time::Instant::now();
            timer.set(Limit::Attempt, 2 * TICK);
            assert_eq!(expired(&timer).await, Limit::Attempt);
            assert!(begun.elapsed() >= 2 * TICK, "{:?}", begun.elapsed());
        };
        LocalSet::new().run_until(test).await;
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
            check_elapsed(begun, Duration::from_secs(1));
            timer.clear(Limit::Idle);
            assert_eq!(expired(&timer).await, Limit::Request);
        };
        LocalSet::new().run_until(during).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_looks_once_and_never_gets_more_time() {
        let during = async {
            let timers = Timers::default();
            let timer = timers.timer();
            let begun = Instant::now();
            let left = |seconds| {
                poll_fn(|cx| Poll::Ready(timer.poll_over(cx, || Some(Duration::from_secs(seconds)))))
                    .now_or_never()
            };
            assert_eq!(left(1), Some(Poll::Pending));
            assert!(!timer.is_withdrawn(), "nobody asked");
            timers.ask_all();
            assert_eq!(left(5), Some(Poll::Pending));
            assert!(timer.is_withdrawn());
            timers.ask_all();
            assert_eq!(left(60), Some(Poll::Pending));
            timer.set(Limit::Idle, Duration::from_secs(1));
            timer.clear(Limit::Idle);
            assert_eq!(expired(&timer).await, Limit::Withdrawn);
            check_elapsed(begun, Duration::from_secs(5));
        };
        LocalSet::new().run_until(during).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_a_tick_is_woken_by_the_next_one_alone() {
        let during = async {
            let timers = Timers::default();
            let timer = timers.timer();
            timer.set(Limit::Idle, Duration::from_secs(1));
            timer.want_tick(true);
            let begun = Instant::now();
            let mut wakes = Vec::new();
            // A task of its own: what the set runs itself is polled at every turn.
            let waiting = tokio::task::spawn_local(async move {
                let limit = poll_fn(|cx| {
                    wakes.push(begun.elapsed());
                    timer.poll_expired(cx)
                });
                (limit.await, wakes)
            });
            let (limit, wakes) = waiting.await.unwrap();
            assert_eq!(limit, Limit::Idle);
            assert_eq!(wakes.len(), 3, "{wakes:?}");
            assert!(wakes[1] <= 2 * TICK && wakes[2] >= Duration::from_secs(1), "{wakes:?}");
        };
        LocalSet::new().run_until(during).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_reset_knows_nothing_of_what_it_timed() {
        let during = async {
            let timers = Timers::default();
            let timer = timers.timer();
            timer.set(Limit::Request, Duration::from_secs(1));
            timers.ask_all();
            assert!(poll_fn(|cx| Poll::Ready(timer.poll_expired(cx))).await.is_pending());
            timer.reset();
            assert!(timer.entry.waker.borrow().is_none());
            timer.set(Limit::Idle, Duration::from_secs(10));
            let over = poll_fn(|cx| timer.poll_over(cx, || Some(Duration::ZERO)));
            assert_eq!(over.await, Limit::Idle);
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
