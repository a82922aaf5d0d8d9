//! Owns the decision whether a request is sent again because its rule says so.
//!
//! Pure but for the budget of the backend and the jitter. Asked by [`attempts`](super::attempts) after each; what
//! certainly reached no backend is sent again without it, as [`exchange`](super::exchange) says.
//! Source: GEP-1731, GEP-3388.

use std::time::{Duration, Instant};

use proxy_config::resilience::Retry as RetryUnit;

use super::exchange::Failure;
use crate::table::route::Routed;
use crate::upstream::balance::Backend;
use crate::upstream::retries::{Constraint, RetryBudget};

/// The least time between two attempts where the rule does not say.
const BACKOFF: Duration = Duration::from_millis(25);

/// No pause is longer than so many times the first, without its jitter.
const MAX_GROWTH: u32 = 10;

/// When a request is sent again, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    codes: Box<[u16]>,
    attempts: u32,
    backoff: Duration,
}

impl Retry {
    /// Compiles the policy of a rule.
    pub fn compile(unit: &RetryUnit) -> Self {
        Self {
            codes: unit.codes.as_slice().into(),
            attempts: unit.attempts,
            backoff: unit.backoff.map_or(BACKOFF, Duration::from_millis),
        }
    }

    /// The pause before the attempt that follows `made` others: doubled each time, up to a bound, then
    /// lengthened by up to a half, so that clients which failed together do not come back together.
    fn pause(&self, made: u32, jitter: f64) -> Duration {
        let growth = 1_u32.checked_shl(made.saturating_sub(1)).unwrap_or(MAX_GROWTH).clamp(1, MAX_GROWTH);
        (self.backoff * growth).mul_f64(1.0 + jitter / 2.0)
    }
}

/// What becomes of a request that is worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is sent again after this pause.
    After(Duration),
    /// The policy of its backend allows no more retries for now: it is answered by 503.
    Refused,
}

/// The retries of one request; none where its rule has no policy.
#[derive(Debug)]
pub struct Retries<'a> {
    policy: Option<(&'a Retry, &'a RetryBudget)>,
    /// What the backend's policy allows; `None`: it has none.
    constraint: Option<Constraint>,
    made: u32,
}

impl<'a> Retries<'a> {
    /// The retries of a request that goes to this backend.
    #[inline]
    pub fn new(routed: &'a Routed, backend: &'a Backend) -> Self {
        let policies = routed.rule().policies.as_deref();
        let retry = policies.and_then(|policies| policies.retry.as_ref()).filter(|retry| retry.attempts > 0);
        let policy = retry.map(|retry| (retry, backend.state.retries()));
        let constraint = backend.traffic.as_ref().and_then(|traffic| traffic.retries);
        if let Some((_, budget)) = policy {
            budget.deposit(Instant::now(), &constraint.unwrap_or_default());
        }
        Self { policy, constraint, made: 0 }
    }

    /// Whether there may be any: what is sent must be kept.
    pub fn are_possible(&self) -> bool {
        self.policy.is_some()
    }

    /// After a response with a status: whether there is to be another attempt.
    #[inline]
    pub fn after_status(&mut self, status: u16, replayable: bool) -> Option<Again> {
        let (retry, _) = self.policy?;
        if replayable && retry.codes.contains(&status) { self.again() } else { None }
    }

    /// After an attempt that came to no response: whether there is to be another one.
    pub fn after_failure(&mut self, failure: Failure, replayable: bool) -> Option<Again> {
        let is_worth_it = matches!(
            failure,
            Failure::Connect | Failure::Tls | Failure::Reset | Failure::Unprocessed | Failure::AttemptTimeout
        );
        if is_worth_it && replayable { self.again() } else { None }
    }

    fn again(&mut self) -> Option<Again> {
        let (retry, budget) = self.policy?;
        if self.made >= retry.attempts {
            return None;
        }
        if !budget.withdraw(Instant::now(), &self.constraint.unwrap_or_default()) {
            // What nobody has asked for shows nobody another answer than the backend's.
            return self.constraint.map(|_| Again::Refused);
        }
        self.made += 1;
        Some(Again::After(retry.pause(self.made, rand::random())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_are_never_shorter_than_the_backoff() {
        let retry = Retry::compile(&RetryUnit { codes: vec![503], attempts: 9, backoff: Some(100) });
        let pauses = |jitter| [1, 2, 3, 4, 5, 40].map(|made| retry.pause(made, jitter).as_millis());
        assert_eq!(pauses(0.0), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pauses(1.0), [150, 300, 600, 1200, 1500, 1500]);
    }
}
