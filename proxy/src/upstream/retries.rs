//! Owns the retry budget of a backend: retries never multiply an outage.
//!
//! Shared by all workers; a swap does not reset it. Knows nothing of why something is retried.
//! Source: GEP-3388 (the defaults of its `retryConstraint`).

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What each request adds, in hundredths of a retry: a fifth of the requests may be retries.
const DEPOSIT: u32 = 20;
/// What a retry costs.
const COST: u32 = 100;
/// Retries per second that are always allowed; as many may come at once.
const RESERVE_PER_SECOND: u32 = 10;
/// The most that requests can save up.
const MAX_SAVED: u32 = 100 * COST;

/// A retry budget.
#[derive(Debug, Default)]
pub struct RetryBudget(Mutex<Tokens>);

#[derive(Debug, Default)]
struct Tokens {
    saved: u32,
    /// What is taken of the reserve, in hundredths of a retry, at `since`.
    borrowed: u32,
    since: Option<Instant>,
}

impl RetryBudget {
    /// A request is sent for the first time.
    pub fn deposit(&self) {
        self.change(|tokens| tokens.saved = (tokens.saved + DEPOSIT).min(MAX_SAVED));
    }

    /// Takes one retry; whether there was one.
    pub fn withdraw(&self, now: Instant) -> bool {
        self.change(|tokens| {
            if tokens.saved >= COST {
                tokens.saved -= COST;
                return true;
            }
            let elapsed = tokens.since.map_or(0, |since| now.saturating_duration_since(since).as_millis());
            // 10 retries a second are one hundredth of a retry a millisecond.
            let given_back =
                u32::try_from(elapsed).unwrap_or(u32::MAX).saturating_mul(RESERVE_PER_SECOND * COST / 1000);
            tokens.borrowed = tokens.borrowed.saturating_sub(given_back);
            tokens.since = Some(now);
            let has_room = tokens.borrowed + COST <= RESERVE_PER_SECOND * COST;
            if has_room {
                tokens.borrowed += COST;
            }
            has_room
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tokens) -> T) -> T {
        // The counts are whole after every step, so a panic elsewhere does not make them unusable.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spent(budget: &RetryBudget, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second_may_be_retries() {
        let budget = RetryBudget::default();
        let start = Instant::now();
        assert_eq!(spent(&budget, start), 10);
        assert_eq!(spent(&budget, start), 0);
        assert_eq!(spent(&budget, start + Duration::from_millis(300)), 3);
        assert_eq!(spent(&budget, start + Duration::from_secs(100)), 10);
        (0..50).for_each(|_| budget.deposit());
        assert_eq!(spent(&budget, start + Duration::from_secs(100)), 10);
        (0..100_000).for_each(|_| budget.deposit());
        assert_eq!(spent(&budget, start + Duration::from_secs(100)), 100);
    }
}
