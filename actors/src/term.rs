//! Owns: the proof of leadership that everything that writes must hold.
//! Called by the lease leader, which publishes [`Leadership`], and by all that runs under `serve`.
//! Refuses to know: how leadership is won (`lease_leader.rs`).

use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::suspended;

/// What the lease leader publishes while it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The term: it rises with each acquisition, by whomever.
    pub term: u64,
    /// Until when nobody else can lead, counted from before the last renewal was sent.
    pub valid_until: Instant,
    /// How long the machine had been suspended by then: `Instant` does not count that.
    suspended: Duration,
}

impl Leadership {
    /// Leadership in this term until then.
    pub fn new(term: u64, valid_until: Instant) -> Self {
        Self { term, valid_until, suspended: suspended() }
    }

    /// Whether it will still hold when `needed` has passed.
    fn lasts(&self, needed: Duration) -> bool {
        let slept = suspended().saturating_sub(self.suspended);
        Instant::now() + slept + needed <= self.valid_until
    }
}

/// The proof that this process led in a term when it last looked; [`Term::check`] looks again.
#[derive(Clone, Debug)]
pub struct Term {
    number: u64,
    leadership: watch::Receiver<Option<Leadership>>,
}

/// This process leads no longer, or not for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("term {term} is over or ends too soon: nothing is written any more")]
pub struct Expired {
    /// The term that ends.
    pub term: u64,
}

impl Term {
    /// The proof of the present term; `None` where this process does not lead.
    pub fn current(leadership: &watch::Receiver<Option<Leadership>>) -> Option<Self> {
        let number = leadership.borrow().as_ref()?.term;
        Some(Self { number, leadership: leadership.clone() })
    }

    /// The number of the term.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Looks again: the term still runs, and for at least `needed`.
    ///
    /// # Errors
    /// Where it does not: the caller must not write.
    pub fn check(&self, needed: Duration) -> Result<(), Expired> {
        match *self.leadership.borrow() {
            Some(now) if now.term == self.number && now.lasts(needed) => Ok(()),
            _ => Err(Expired { term: self.number }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_proof_ends_with_its_time_and_with_its_term() {
        let valid_until = Instant::now() + Duration::from_secs(6);
        let (sender, receiver) = watch::channel(None);
        assert!(Term::current(&receiver).is_none());
        sender.send_replace(Some(Leadership::new(3, valid_until)));
        let proof = Term::current(&receiver).unwrap();
        assert_eq!(proof.check(Duration::from_secs(5)), Ok(()));
        assert_eq!(proof.check(Duration::from_secs(7)), Err(Expired { term: 3 }));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(proof.check(Duration::from_millis(1)), Err(Expired { term: 3 }));
        let valid_until = Instant::now() + Duration::from_secs(6);
        sender.send_replace(Some(Leadership::new(4, valid_until)));
        assert_eq!(proof.check(Duration::ZERO), Err(Expired { term: 3 }));
    }
}
