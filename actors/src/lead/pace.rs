//! Owns: how fast statuses are written. Pure but for the time that it is told.
//! Called by the status writer. Refuses to know what is written.

use std::collections::BTreeMap;
use std::time::Duration;

use actors_core::snapshot::meta::ObjectRef;
use tokio::time::Instant;

/// Writes a second, while the API server is well.
const FASTEST: f64 = 100.0;
/// Writes a second, however unwell it is.
const SLOWEST: f64 = 1.0;
/// Writes that may go out at once after a pause.
const BURST: f64 = 20.0;
/// How much faster it gets with each write that succeeds.
const STEP: f64 = 1.0;
/// The least time between two writes of one object.
const PER_OBJECT: Duration = Duration::from_secs(1);
/// The longest wait before a status is tried again that the API server does not take.
const LONGEST: Duration = Duration::from_secs(60);

/// When the next write may go out.
#[derive(Debug)]
pub struct Pace {
    rate: f64,
    tokens: f64,
    filled: Instant,
    written: BTreeMap<ObjectRef, Instant>,
    /// Objects whose last status was refused, and how long was waited then.
    refused: BTreeMap<ObjectRef, Duration>,
}

impl Pace {
    /// Nothing has been written.
    pub fn new(now: Instant) -> Self {
        Self { rate: FASTEST, tokens: BURST, filled: now, written: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// When this object may be written again, if that is not now.
    pub fn not_before(&self, object: &ObjectRef, now: Instant) -> Option<Instant> {
        self.written.get(object).map(|last| *last + PER_OBJECT).filter(|at| *at > now)
    }

    /// Takes leave to write an object now, or says when to ask again.
    ///
    /// # Errors
    /// The time from which there is leave.
    pub fn take(&mut self, object: &ObjectRef, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        if self.tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.rate);
            return Err(now + wait.max(Duration::from_millis(1)));
        }
        self.tokens -= 1.0;
        self.written.retain(|_, last| *last + PER_OBJECT > now);
        self.written.insert(object.clone(), now);
        Ok(())
    }

    /// A write succeeded: a little faster.
    pub fn succeeded(&mut self) {
        self.rate = (self.rate + STEP).min(FASTEST);
    }

    /// The API server is overloaded or unwell: half as fast.
    pub fn slow_down(&mut self, now: Instant) {
        self.fill(now);
        self.rate = (self.rate / 2.0).max(SLOWEST);
        self.tokens = self.tokens.min(1.0);
    }

    /// The API server does not take the status of this object: when to try again, later each time. Others
    /// are as fast as before.
    pub fn refused(&mut self, object: &ObjectRef, now: Instant) -> Instant {
        let wait = self.refused.get(object).map_or(PER_OBJECT, |last| (*last * 2).min(LONGEST));
        self.refused.insert(object.clone(), wait);
        now + wait
    }

    /// The status of this object is as it should be, or it is gone.
    pub fn settled(&mut self, object: &ObjectRef) {
        self.refused.remove(object);
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(BURST);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use actors_core::snapshot::meta::Kind;
    use proxy_config::name::ObjectName;

    use super::*;

    fn object(name: usize) -> ObjectRef {
        ObjectRef::new(Kind::HttpRoute, ObjectName::new("ns", name.to_string()))
    }

    /// How many of many objects are written in ten seconds.
    fn written(pace: &mut Pace, from: Instant) -> usize {
        let steps = (0..1000).map(|step| from + Duration::from_millis(step * 10));
        let mut count = 0;
        for now in steps {
            while pace.take(&object(count), now).is_ok() {
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_hundred_a_second_and_fewer_while_the_server_is_unwell() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!((990..=1030).contains(&written(&mut pace, start)));
        let later = start + Duration::from_secs(60);
        pace.slow_down(later);
        pace.slow_down(later);
        assert!((240..=280).contains(&written(&mut pace, later)));
        (0..100).for_each(|_| pace.succeeded());
        let last = later + Duration::from_secs(60);
        assert!((990..=1030).contains(&written(&mut pace, last)));
    }

    #[test]
    fn one_object_is_written_once_a_second_after_the_first() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.not_before(&object(1), start), None);
        pace.take(&object(1), start).unwrap();
        assert_eq!(pace.not_before(&object(1), start), Some(start + PER_OBJECT));
        assert_eq!(pace.not_before(&object(1), start + PER_OBJECT), None);
        assert_eq!(pace.not_before(&object(2), start), None);
    }

    #[test]
    fn what_is_refused_waits_longer_each_time_and_slows_nothing_else_down() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let waits: Vec<_> = (0..8).map(|_| (pace.refused(&object(1), start) - start).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pace.refused(&object(2), start), start + PER_OBJECT);
        pace.settled(&object(1));
        assert_eq!(pace.refused(&object(1), start), start + PER_OBJECT);
        assert!((990..=1030).contains(&written(&mut pace, start)));
    }
}
