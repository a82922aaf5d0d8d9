//! Owns how fast the content of a request must come.
//!
//! Used by the codecs of both protocols while content of a request is outstanding. A client that trickles
//! keeps a connection, and mostly one to an endpoint too, for as long as it likes; so each byte earns it a
//! little time, and it never has more than the grace in hand. Time in which the upstream takes nothing is not
//! the client's. Knows nothing of what is sent.

use std::time::Duration;

use super::timers::{Limit, Timer};
use crate::limits::Limits;

/// The pace of one request's content.
#[derive(Debug, Default)]
pub struct Pace {
    /// What had moved when the client was last waited for; `None`: it is not waited for.
    waiting_since: Option<u64>,
}

impl Pace {
    /// The client is waited for. `moved` is what has moved by now, in bytes.
    pub fn wait(&mut self, moved: u64, timer: &Timer, limits: &Limits) {
        match self.waiting_since.replace(moved) {
            None => timer.set(Limit::Body, limits.body_grace),
            Some(before) => {
                let earned = (moved - before).saturating_mul(1000) / u64::from(limits.body_rate.max(1));
                timer.extend(Limit::Body, Duration::from_millis(earned), limits.body_grace);
            }
        }
    }

    /// The client is not waited for: all has come, or it is not the client's turn.
    pub fn stop(&mut self, timer: &Timer) {
        if self.waiting_since.take().is_some() {
            timer.clear(Limit::Body);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;
    use crate::http::timers::{TICK, Timers};

    const LIMITS: Limits = Limits { body_grace: Duration::from_secs(10), body_rate: 500, ..Limits::new(100) };

    /// How long a client goes on that sends so many bytes every second, and is waited for in between.
    async fn lasts(bytes: u64, seconds: u64) -> Option<Duration> {
        let during = async {
            let timers = Timers::default();
            let (timer, mut pace, begun) = (timers.timer(), Pace::default(), Instant::now());
            for second in 0..seconds {
                pace.wait(second * bytes, &timer, &LIMITS);
                let over = poll_fn(|cx| timer.poll_expired(cx));
                if tokio::time::timeout(Duration::from_secs(1), over).await.is_ok() {
                    return Some(begun.elapsed());
                }
            }
            None
        };
        LocalSet::new().run_until(during).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slower_than_the_rate_is_cut_after_the_grace_and_nobody_else() {
        let elapsed = lasts(1, 100).await.unwrap();
        assert!(
            elapsed >= Duration::from_secs(10) && elapsed <= Duration::from_secs(10) + 4 * TICK,
            "{elapsed:?}"
        );
        // It falls behind by a tenth of a second each second.
        assert!(lasts(450, 60).await.is_none());
        assert!(lasts(450, 120).await.is_some());
        assert!(lasts(520, 1000).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_fast_at_first_is_no_excuse_for_long() {
        let during = async {
            let timers = Timers::default();
            let (timer, mut pace) = (timers.timer(), Pace::default());
            pace.wait(0, &timer, &LIMITS);
            pace.wait(1 << 30, &timer, &LIMITS);
            let begun = Instant::now();
            assert_eq!(poll_fn(|cx| timer.poll_expired(cx)).await, Limit::Body);
            assert!(begun.elapsed() <= Duration::from_secs(10) + 2 * TICK);
        };
        LocalSet::new().run_until(during).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_not_waited_for_has_all_the_time() {
        let during = async {
            let timers = Timers::default();
            let (timer, mut pace) = (timers.timer(), Pace::default());
            pace.wait(0, &timer, &LIMITS);
            pace.stop(&timer);
            let over = poll_fn(|cx| timer.poll_expired(cx));
            assert!(tokio::time::timeout(Duration::from_secs(3600), over).await.is_err());
        };
        LocalSet::new().run_until(during).await;
    }
}
