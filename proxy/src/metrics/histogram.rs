//! A histogram of durations with fixed bounds: three per decade, from half a millisecond to a minute.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds in microseconds.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Counts of durations; the last bucket holds what is above all bounds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts a duration. Only one thread may do so at a time.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        super::add(&self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)], 1);
        super::add(&self.sum_us, us);
    }
}

/// Histograms added up.
#[derive(Debug, Default)]
pub struct Sum {
    /// Per bucket, not cumulative.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// All durations, in microseconds.
    pub sum_us: u64,
}

impl Sum {
    /// Adds one.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Relaxed);
        }
        self.sum_us += histogram.sum_us.load(Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for us in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let mut sum = Sum::default();
        sum.add(&histogram);
        assert_eq!(sum.buckets[0], 2, "up to half a millisecond");
        assert_eq!(sum.buckets[1], 1);
        assert_eq!(sum.buckets[15], 1, "a minute");
        assert_eq!(sum.buckets[16], 1, "above");
        assert_eq!(sum.sum_us, 120_001_002);
    }
}
