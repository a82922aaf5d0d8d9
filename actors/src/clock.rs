//! Owns: the monotonic time that leadership is counted in.
//! Called by the lease leader and by proofs of leadership.
//! Refuses to know: wall clocks, which jump.
//!
//! Linux does not count suspension (of a laptop, of a virtual machine) in CLOCK_MONOTONIC, which is what
//! `Instant` reads; it does in CLOCK_BOOTTIME. A leader that was suspended must know that its lease ran on.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// For how long this machine has been suspended since it was booted.
pub(crate) fn suspended() -> Duration {
    reading(ClockId::Boottime).saturating_sub(reading(ClockId::Monotonic))
}

fn reading(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A monotonic clock that counts suspension. Its rate differs from 1 only in simulation.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    suspended: Duration,
    rate: f64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::at_rate(1.0)
    }
}

impl Clock {
    /// A clock that starts now and runs `rate` times as fast as time.
    pub fn at_rate(rate: f64) -> Self {
        Self { origin: Instant::now(), suspended: suspended(), rate }
    }

    /// What it shows.
    pub fn now(&self) -> Duration {
        self.origin.elapsed().mul_f64(self.rate) + self.slept()
    }

    /// When it will show this, if the machine is not suspended until then.
    pub fn instant(&self, reading: Duration) -> Instant {
        self.origin + reading.saturating_sub(self.slept()).div_f64(self.rate)
    }

    /// How long a time on this clock really takes.
    pub fn real(&self, time: Duration) -> Duration {
        time.div_f64(self.rate)
    }

    fn slept(&self) -> Duration {
        suspended().saturating_sub(self.suspended)
    }
}
