//! Owns the retry budget of a backend: retries never multiply an outage.
//!
//! Shared by all workers; a swap does not reset it. Knows nothing of why something is retried.
//! Source: GEP-3388.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use proxy_config::resilience::RetryConstraint;

/// Into so many parts the time is cut over which requests count: what is older goes part by part.
const PARTS: usize = 10;

/// How many of the requests to a backend may be retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// Retries for a hundred requests.
    percent: u32,
    /// The time over which requests count.
    interval: Duration,
    /// One of the retries that are always allowed is there again after so long.
    pause: Duration,
    /// The time in which all of them are.
    pauses: Duration,
}

impl Constraint {
    /// As a policy says.
    pub fn compile(unit: RetryConstraint) -> Self {
        // Intervals and counts of nothing, which no policy can have, are taken for the least there can be.
        let millis = |millis: u64| Duration::from_millis(millis.max(1));
        let pauses = millis(unit.min_interval);
        let pause = pauses / unit.min_count.max(1);
        Self { percent: unit.percent, interval: millis(unit.interval), pause, pauses }
    }
}

/// The defaults of GEP-3388: a fifth of the requests of ten seconds, and ten a second.
impl Default for Constraint {
    fn default() -> Self {
        Self::compile(RetryConstraint { percent: 20, interval: 10_000, min_count: 10, min_interval: 1000 })
    }
}

/// A retry budget.
#[derive(Debug, Default)]
pub struct RetryBudget(Mutex<Option<Account>>);

#[derive(Debug)]
struct Account {
    begun: Instant,
    /// How long a part is.
    part: Duration,
    /// The part of this moment, counted since `begun`.
    current: u128,
    /// Requests and retries of each part.
    parts: [(u32, u32); PARTS],
    /// When all retries will be there again that are always allowed.
    rested: Instant,
}

impl RetryBudget {
    /// A request is sent for the first time.
    pub fn deposit(&self, now: Instant, constraint: &Constraint) {
        self.change(now, constraint, |account| account.part_of_now().0 += 1);
    }

    /// Takes one retry; whether there was one.
    pub fn withdraw(&self, now: Instant, constraint: &Constraint) -> bool {
        self.change(now, constraint, |account| {
            let granted = account.is_within_percentage(constraint.percent)
                || account.takes_of_the_minimum(now, constraint);
            account.part_of_now().1 += u32::from(granted);
            granted
        })
    }

    fn change<T>(&self, now: Instant, constraint: &Constraint, change: impl FnOnce(&mut Account) -> T) -> T {
        // The counts are whole after every step, so a panic elsewhere does not make them unusable.
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = constraint.interval / PARTS as u32;
        let account = match &mut *held {
            Some(account) if account.part == part => account,
            // Counts of another interval say nothing of this one.
            other => other.insert(Account::new(now, part)),
        };
        account.forget_until(now);
        change(account)
    }
}

impl Account {
    fn new(now: Instant, part: Duration) -> Self {
        Self { begun: now, part, current: 0, parts: [(0, 0); PARTS], rested: now }
    }

    /// Lets go of the parts that are too old at this moment.
    fn forget_until(&mut self, now: Instant) {
        let part = now.saturating_duration_since(self.begun).as_nanos() / self.part.as_nanos().max(1);
        for _ in 0..part.saturating_sub(self.current).min(PARTS as u128) {
            self.current += 1;
            *self.part_of_now() = (0, 0);
        }
        self.current = self.current.max(part);
    }

    fn part_of_now(&mut self) -> &mut (u32, u32) {
        &mut self.parts[(self.current % PARTS as u128) as usize]
    }

    fn is_within_percentage(&self, percent: u32) -> bool {
        let sum = |count: fn(&(u32, u32)) -> u32| self.parts.iter().map(|part| u64::from(count(part))).sum();
        let (requests, retries): (u64, u64) = (sum(|part| part.0), sum(|part| part.1));
        (retries + 1) * 100 <= requests * u64::from(percent)
    }

    fn takes_of_the_minimum(&mut self, now: Instant, constraint: &Constraint) -> bool {
        let rested = self.rested.max(now) + constraint.pause;
        let has_one = rested - now <= constraint.pauses;
        if has_one {
            self.rested = rested;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &RetryBudget, now: Instant, constraint: &Constraint) -> usize {
        (0..100_000).take_while(|_| budget.withdraw(now, constraint)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_or_ten_a_second_may_be_retries() {
        let (budget, default) = (RetryBudget::default(), Constraint::default());
        let start = Instant::now();
        let spent = |after| spent(&budget, start + Duration::from_millis(after), &default);
        assert_eq!(spent(0), 10);
        assert_eq!(spent(0), 0);
        assert_eq!(spent(300), 3);
        assert_eq!(spent(100_000), 10);
        let deposit = |count| {
            (0..count).for_each(|_| budget.deposit(start + Duration::from_millis(100_000), &default));
        };
        deposit(50);
        assert_eq!(spent(100_000), 0, "the ten were a fifth of the fifty");
        deposit(950);
        assert_eq!(spent(100_000), 190);
        // What was counted is forgotten after the interval.
        assert_eq!(spent(111_000), 10);
    }

    #[test]
    fn a_policy_says_how_many_and_over_which_time() {
        let unit = RetryConstraint { percent: 50, interval: 2000, min_count: 2, min_interval: 60_000 };
        let (budget, constraint) = (RetryBudget::default(), Constraint::compile(unit));
        let start = Instant::now();
        let at = |after| start + Duration::from_millis(after);
        (0..10).for_each(|_| budget.deposit(at(0), &constraint));
        assert_eq!(spent(&budget, at(1500), &constraint), 5 + 2);
        assert_eq!(spent(&budget, at(2500), &constraint), 0, "those of the first moment count no more");
        (0..100).for_each(|_| budget.deposit(at(2500), &constraint));
        assert_eq!(spent(&budget, at(2500), &constraint), 43);
        assert_eq!(spent(&budget, at(40_000), &constraint), 1, "one in half a minute");
        let none = Constraint::compile(RetryConstraint { percent: 0, ..unit });
        (0..100).for_each(|_| budget.deposit(at(40_000), &none));
        assert_eq!(spent(&budget, at(40_000), &none), 0);
        let default = Constraint::default();
        assert_eq!(spent(&budget, at(40_000), &default), 10, "another interval begins anew");
    }
}
