//! Owns the watch over the threads of the process: one of its own, outside of every runtime, that sees
//! which of the others has not come round for too long.
//!
//! Made beside the tree. Each watched thread beats a [`Heart`] from its event loop; who asks (the status
//! port, metrics) is told which ones are stalled, and the log is told once each time. It ends nothing: a
//! thread can't be ended from outside, so whoever probes the process decides. Refuses to know what the
//! threads do.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tracing::{error, info};

/// How often watched threads beat.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A thread that has not beaten for this long is stalled: nothing that an event loop does may take as long.
pub const STALLED_AFTER: Duration = Duration::from_secs(10);

/// Nobody beats this heart, so nobody misses it.
const STILL: u64 = 0;

/// One watched thread.
#[derive(Debug)]
struct Pulse {
    name: Box<str>,
    /// Milliseconds since the start of the watch, plus one.
    last: AtomicU64,
    is_stalled: AtomicBool,
}

/// The watch over a fixed set of threads.
#[derive(Debug)]
pub struct Watchdog {
    epoch: Instant,
    limit: Duration,
    pulses: Box<[Pulse]>,
}

impl Watchdog {
    /// Starts watching; `limit` is how long a thread may not beat. The watch ends with this value.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(names: impl IntoIterator<Item = String>, limit: Duration) -> io::Result<Arc<Self>> {
        let pulse = |name: String| Pulse {
            name: name.into(),
            last: AtomicU64::new(STILL),
            is_stalled: AtomicBool::new(false),
        };
        let pulses = names.into_iter().map(pulse).collect();
        let watchdog = Arc::new(Self { epoch: Instant::now(), limit, pulses });
        let watched = Arc::downgrade(&watchdog);
        std::thread::Builder::new().name("watchdog".into()).spawn(move || watch(&watched, limit / 4))?;
        Ok(watchdog)
    }

    /// The heart of a thread, by its name; it is missed when it does not beat, until it is dropped.
    ///
    /// # Panics
    /// Where no thread of that name is watched.
    pub fn heart(self: &Arc<Self>, name: &str) -> Heart {
        let place = self.pulses.iter().position(|pulse| &*pulse.name == name);
        let place = place.expect("a thread is watched under its name");
        let heart = Heart { watchdog: Arc::clone(self), place };
        heart.beat();
        heart
    }

    /// Every watched thread by name, and whether it is stalled.
    pub fn threads(&self) -> impl Iterator<Item = (&str, bool)> {
        self.pulses.iter().map(|pulse| (&*pulse.name, pulse.is_stalled.load(Relaxed)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Looks at every thread once.
    fn check(&self) {
        let (now, limit) = (self.now(), u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX));
        for pulse in &self.pulses {
            let last = pulse.last.load(Relaxed);
            let silent = now.saturating_sub(last);
            let is_stalled = last != STILL && silent > limit;
            let was_stalled = pulse.is_stalled.swap(is_stalled, Relaxed);
            if is_stalled && !was_stalled {
                error!(thread = %pulse.name, silent_ms = silent, "a thread is stalled: what it serves waits");
            } else if was_stalled && !is_stalled {
                info!(thread = %pulse.name, "the thread goes on");
            }
        }
    }
}

/// The life of the watching thread.
fn watch(watchdog: &Weak<Watchdog>, every: Duration) {
    loop {
        let begun = Instant::now();
        std::thread::sleep(every);
        // Where the whole process was stopped meanwhile, the others have had no chance to beat yet.
        let overslept = begun.elapsed() > every * 2;
        let Some(watchdog) = watchdog.upgrade() else { return };
        if !overslept {
            watchdog.check();
        }
    }
}

/// Beaten by a watched thread from its event loop; once it is dropped, nobody misses it.
#[derive(Debug)]
pub struct Heart {
    watchdog: Arc<Watchdog>,
    place: usize,
}

impl Heart {
    /// The thread has come round.
    pub fn beat(&self) {
        self.watchdog.pulses[self.place].last.store(self.watchdog.now(), Relaxed);
    }

    /// Beats for as long as it is polled, from the runtime on which that happens.
    pub async fn beat_on(self) {
        let mut beats = tokio::time::interval(BEAT_EVERY);
        loop {
            beats.tick().await;
            self.beat();
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.watchdog.pulses[self.place].last.store(STILL, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    fn stalled(watchdog: &Watchdog) -> Vec<&str> {
        watchdog.threads().filter(|(_, is_stalled)| *is_stalled).map(|(name, _)| name).collect()
    }

    fn wait_until(watchdog: &Watchdog, want: &[&str], meanwhile: impl Fn()) {
        let begun = Instant::now();
        while stalled(watchdog) != want {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", stalled(watchdog));
            meanwhile();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_thread_that_does_not_come_round_is_named_until_it_does_or_ends() {
        let names = ["control", "worker-0", "worker-1"].map(str::to_owned);
        let watchdog = Watchdog::start(names, LIMIT).unwrap();
        let (alive, stuck) = (watchdog.heart("control"), watchdog.heart("worker-0"));
        let beating = std::thread::spawn(move || {
            while Arc::strong_count(&alive.watchdog) > 1 {
                alive.beat();
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        wait_until(&watchdog, &["worker-0"], || ());
        // Again and again: whoever looks may be held up for longer than the limit.
        wait_until(&watchdog, &[], || stuck.beat());
        wait_until(&watchdog, &["worker-0"], || ());
        drop(stuck);
        wait_until(&watchdog, &[], || ());
        drop(watchdog);
        beating.join().unwrap();
    }
}
