//! Leader election on a Lease, pure: what to do next, from what was observed and when.
//!
//! Owns the decisions: when to read, when to write what, whether this process leads and until when.
//! Called by the lease leader, which does the requests and owns the clock: every moment here is a
//! reading of one monotonic clock of this process, and every write is a compare-and-swap on the
//! resourceVersion that was read. Refuses to trust wall clocks: a holder is dead when its record has not
//! changed for the whole lease on our own clock, counted from after the answer that showed it arrived;
//! we lead from before the request was sent that won or renewed the Lease. Rates up to 10 % apart do no harm.
//!
//! Every acquisition takes a new **term**, kept in an annotation of the Lease and written by the same
//! compare-and-swap. It is above all that this process has seen, on Leases or in refusals of proxies, so a
//! Lease that was deleted or restored cannot strand the fleet.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

pub mod record;

use record::{Claim, Record};

/// A reading of the monotonic clock of this process.
pub type Moment = Duration;

/// Terms that are claimed this far above our own are not believed: a faulty proxy could exhaust the numbers.
pub const CREDIBLE: u64 = 1_000_000;

/// A record may ask for at most this many times our own lease: a nonsense duration must not strand the fleet.
const LONGEST: u32 = 10;

/// The times of an election. Defaults: design.md section 4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// How long a record must stand unchanged before another may take the Lease.
    pub lease: Duration,
    /// A leader that has not renewed for this long stops leading.
    pub renew_deadline: Duration,
    /// Between two attempts, less up to a fifth.
    pub retry: Duration,
    /// For one request.
    pub request_timeout: Duration,
    /// For all that only a leader runs to stop in.
    pub stop: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(6_000),
            renew_deadline: Duration::from_millis(3_500),
            retry: Duration::from_millis(1_000),
            request_timeout: Duration::from_millis(1_000),
            stop: Duration::from_millis(1_500),
        }
    }
}

/// Times under which two could lead at once, or none for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A leader could still be stopping when another starts.
    #[error("renew deadline and stop time together must be less than the lease divided by 1.1")]
    Overlap,
    /// One lost answer would depose a live leader.
    #[error("two retries and a request must fit into the renew deadline")]
    Impatient,
}

impl Timing {
    /// Checks that the times fit each other.
    ///
    /// # Errors
    /// [`TimingError`] names the rule that does not hold.
    pub fn check(&self) -> Result<(), TimingError> {
        if self.validity() >= self.lease.div_f64(1.1) {
            return Err(TimingError::Overlap);
        }
        if self.retry * 2 + self.request_timeout > self.renew_deadline {
            return Err(TimingError::Impatient);
        }
        Ok(())
    }

    /// For how long after it was sent a renewal keeps everybody else from leading.
    #[must_use]
    pub fn validity(&self) -> Duration {
        self.renew_deadline + self.stop
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing before this moment.
    Wait(Moment),
    /// Read the Lease.
    Read,
    /// Write the Lease: create it where `base` is `None`, else replace the one with its resourceVersion.
    Write {
        /// What was read.
        base: Option<Box<Lease>>,
        /// What is claimed.
        claim: Claim,
    },
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The Lease as the API server has it, after a read or a write.
    Lease(Box<Lease>),
    /// There is none.
    Absent,
    /// Somebody else has written since.
    Conflict,
    /// Anything else, a time-out too: it may have been carried out.
    Unknown,
}

/// The leadership of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    /// The term.
    pub term: u64,
    /// From here on it acts no longer, unless it has renewed.
    pub acts_until: Moment,
    /// Before this moment nobody else leads.
    pub valid_until: Moment,
}

#[derive(Clone, Debug, PartialEq)]
enum Known {
    /// Never read.
    Nothing,
    /// Read as absent, first at this moment.
    Absent { since: Moment },
    /// As it was last read or written; unchanged since this moment.
    Lease { lease: Box<Lease>, record: Record, since: Moment },
}

/// One candidate.
#[derive(Clone, Debug)]
pub struct Elector {
    identity: String,
    timing: Timing,
    known: Known,
    /// Something may have been written since `known` was learned: read before the next write.
    stale: bool,
    /// This process may take an absent Lease at once.
    may_create: bool,
    /// Term and moment of the last renewal, from before it was sent.
    reign: Option<(u64, Moment)>,
    /// The highest term seen on a Lease.
    highest: u64,
    /// The highest term in which a proxy was told what we are not to change, if credible.
    claimed: u64,
    next: Moment,
}

impl Elector {
    /// A candidate of this identity, which no other process ever has.
    #[must_use]
    pub fn new(identity: impl Into<String>, timing: Timing) -> Self {
        Self {
            identity: identity.into(),
            timing,
            known: Known::Nothing,
            stale: true,
            may_create: true,
            reign: None,
            highest: 0,
            claimed: 0,
            next: Moment::ZERO,
        }
    }

    /// Whether and how this process leads.
    #[must_use]
    pub fn reign(&self, now: Moment) -> Option<Reign> {
        let (term, renewed) = self.reign?;
        let reign = Reign {
            term,
            acts_until: renewed + self.timing.renew_deadline,
            valid_until: renewed + self.timing.validity(),
        };
        (now < reign.acts_until).then_some(reign)
    }

    /// Whom the Lease named when it was last read.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        match &self.known {
            Known::Lease { record, .. } => record.holder.as_deref(),
            Known::Nothing | Known::Absent { .. } => None,
        }
    }

    /// The highest term seen on a Lease.
    #[must_use]
    pub fn highest_term(&self) -> u64 {
        self.highest
    }

    /// What to do now. Asked again after each answer and at each awaited moment.
    pub fn step(&mut self, now: Moment) -> Action {
        if self.reign.is_some() && self.reign(now).is_none() {
            self.depose();
        }
        let lapse = self.reign(now).map(|reign| reign.acts_until);
        if now < self.next {
            return Action::Wait(lapse.map_or(self.next, |lapse| lapse.min(self.next)));
        }
        let base = match &self.known {
            _ if self.stale => return Action::Read,
            Known::Lease { lease, record, .. } if self.reign.is_some() || self.takeable(now) => {
                Some((lease.clone(), self.claim(Some(record))))
            }
            Known::Absent { .. } if self.takeable(now) => None,
            _ => return Action::Read,
        };
        self.stale = true;
        match base {
            Some((lease, claim)) => Action::Write { base: Some(lease), claim },
            None => Action::Write { base: None, claim: self.claim(None) },
        }
    }

    /// What a request brought that was sent at `sent` and answered `now`. `sample` in `[0, 1)` spreads retries.
    pub fn answered(&mut self, answer: Answer, sent: Moment, now: Moment, sample: f64) {
        let soon = self.timing.retry.mul_f64(1.0 - 0.2 * sample);
        match answer {
            Answer::Lease(lease) => self.learn(lease, now, soon),
            Answer::Absent => {
                if self.reign.is_some() {
                    // Nobody else takes an absent Lease before it has been absent for a whole lease.
                    self.depose();
                    self.may_create = true;
                }
                self.stale = false;
                if !matches!(self.known, Known::Absent { .. }) {
                    self.known = Known::Absent { since: now };
                }
                self.next = self.turn(now, soon);
            }
            Answer::Conflict => {
                self.stale = true;
                self.next = now + if self.reign.is_some() { Duration::ZERO } else { soon / 10 };
            }
            Answer::Unknown => {
                self.stale = true;
                self.next = now.max(sent + soon);
            }
        }
    }

    /// A write that was sent at `sent` was confirmed.
    pub fn confirmed(&mut self, lease: Box<Lease>, sent: Moment, now: Moment, sample: f64) {
        let record = Record::of(&lease);
        let soon = self.timing.retry.mul_f64(1.0 - 0.2 * sample);
        let ours = record.holder.as_deref() == Some(&*self.identity);
        self.learn(lease, now, soon);
        if let (true, Some(term)) = (ours, record.term) {
            self.reign = Some((term, sent));
            self.next = now.max(sent + soon);
        }
    }

    /// A proxy refuses our pushes because of what it was told in this term. Where that is our own term somebody else has
    /// had it before: the Lease was deleted, and begins anew.
    pub fn refused(&mut self, term: u64, now: Moment) {
        let own = self.highest.max(self.claimed);
        if term <= self.claimed || term < own || term - own > CREDIBLE {
            return;
        }
        self.claimed = term;
        if self.reign.is_some() {
            self.stale = true;
            self.next = now;
        }
    }

    /// What frees the Lease for the next leader at once; `None` where we do not hold it.
    #[must_use]
    pub fn release(&mut self) -> Option<Action> {
        let held = self.reign.take().is_some();
        let Known::Lease { lease, record, .. } = &self.known else {
            return None;
        };
        let ours = record.holder.as_deref() == Some(&*self.identity);
        (held && ours).then(|| Action::Write { base: Some(lease.clone()), claim: Claim::release(record) })
    }

    fn learn(&mut self, lease: Box<Lease>, now: Moment, soon: Duration) {
        let record = Record::of(&lease);
        self.stale = false;
        self.may_create = false;
        self.highest = self.highest.max(record.term.unwrap_or(0)).max(record.transitions);
        let unchanged = match &self.known {
            Known::Lease { record: before, since, .. } if *before == record => Some(*since),
            _ => None,
        };
        let ours = record.holder.as_deref() == Some(&*self.identity);
        self.known = Known::Lease { lease, record, since: unchanged.unwrap_or(now) };
        if self.reign.is_some() && !ours {
            self.depose();
        }
        self.next = self.turn(now, soon);
    }

    /// When it is our turn again: at once if there is something to write, at the expiry, or at the next poll.
    fn turn(&self, now: Moment, soon: Duration) -> Moment {
        if self.reign.is_some() || self.takeable(now) {
            return now;
        }
        self.expiry().map_or(now + soon, |expiry| expiry.min(now + soon))
    }

    /// When the Lease as we know it may be taken although nobody gave it up.
    fn expiry(&self) -> Option<Moment> {
        match &self.known {
            Known::Nothing => None,
            Known::Absent { since } => Some(*since + self.timing.lease),
            Known::Lease { record, since, .. } => {
                let asked = record.duration.unwrap_or_default();
                Some(*since + asked.clamp(self.timing.lease, self.timing.lease * LONGEST))
            }
        }
    }

    fn expired(&self, now: Moment) -> bool {
        self.reign.is_none() && self.expiry().is_some_and(|expiry| expiry <= now)
    }

    /// Whether the Lease, as last read, may be taken now.
    fn takeable(&self, now: Moment) -> bool {
        if self.expired(now) {
            return true;
        }
        match &self.known {
            Known::Nothing => false,
            Known::Absent { .. } => self.may_create,
            Known::Lease { record, .. } => {
                record.holder.as_deref().is_none_or(|holder| holder.is_empty() || holder == self.identity)
            }
        }
    }

    fn claim(&self, record: Option<&Record>) -> Claim {
        let above = self.highest.max(self.claimed).saturating_add(1);
        let transitions = record.map_or(0, |record| record.transitions);
        let ours = record.is_some_and(|record| record.holder.as_deref() == Some(&*self.identity));
        let held = self.reign.map(|(term, _)| term).filter(|&term| term > self.claimed);
        Claim {
            holder: Some(self.identity.clone()),
            duration: self.timing.lease,
            term: held.unwrap_or(above),
            transitions: if ours { transitions } else { transitions.saturating_add(1) },
            acquires: self.reign.is_none(),
        }
    }

    fn depose(&mut self) {
        self.reign = None;
        self.stale = true;
    }
}

#[cfg(test)]
mod tests;
