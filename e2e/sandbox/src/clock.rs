//! The API server's own clock.
//!
//! Owns: the instant at which the sandbox was made and the wall time it stood for. Called by everything that stamps an object.
//! It runs on tokio's clock, so paused time moves it; it refuses to know the clocks of clients.

use jiff::Timestamp;
use tokio::time::Instant;

/// A wall clock that advances with tokio's time.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    epoch: Timestamp,
    started: Instant,
}

impl Clock {
    pub(crate) fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.epoch.checked_add(self.started.elapsed()).unwrap_or(Timestamp::MAX)
    }

    /// `metav1.Time`: whole seconds in UTC.
    pub(crate) fn stamp(&self) -> String {
        let now = self.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn stamps_follow_paused_time_in_whole_seconds() {
        let epoch = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(epoch);
        tokio::time::advance(Duration::from_millis(61_900)).await;
        assert_eq!(clock.stamp(), "2026-01-01T00:01:01Z");
    }
}
