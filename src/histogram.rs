//! Histograms of durations. Recording takes so little time that the loop records each of its turns.
//!
//! There is one bucket for each power of two of microseconds. One instruction finds the bucket of a duration. A
//! returned quantile is the upper bound of a bucket, so it is less than twice the true quantile, or 1 µs.

use std::time::Duration;

/// The number of buckets with an upper bound.
///
/// The upper bound of the last of these buckets is 2^23 µs, 8.4 s. One more bucket, without an upper bound, counts
/// longer durations.
const BOUNDED_BUCKETS: usize = 24;

/// A histogram of durations that were recorded since the start of the server.
///
/// The upper bounds of the buckets are powers of two of microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    buckets: [u64; BOUNDED_BUCKETS + 1],
    sum_micros: u64,
}

impl Histogram {
    /// Records one duration `times` times.
    #[inline]
    pub(crate) fn record(&mut self, duration: Duration, times: u64) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // The exponent of the smallest power of two that is not below `micros`.
        let bucket = (u64::BITS - micros.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(BOUNDED_BUCKETS)] += times;
        self.sum_micros = self.sum_micros.saturating_add(micros.saturating_mul(times));
    }

    /// Returns the number of recorded durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the sum of all durations, in whole microseconds.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// Returns the buckets in the form of Prometheus: each bucket includes the durations of the buckets before it.
    ///
    /// A bucket is an upper bound (1 µs, 2 µs, 4 µs … 8.4 s) and the number of durations up to this bound. Longer
    /// durations are counted only in [`count`](Histogram::count).
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.buckets.iter().take(BOUNDED_BUCKETS).enumerate().scan(0, |cumulative, (power, count)| {
            *cumulative += count;
            Some((Duration::from_micros(1 << power), *cumulative))
        })
    }

    /// Returns the upper bound of the bucket that holds a quantile.
    ///
    /// `share` is from 0 to 1: `quantile(0.99)` is a bound that 99 of 100 durations do not exceed. Returns `None` if
    /// nothing was recorded, or if the quantile exceeds the last upper bound.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        self.buckets().find(|(_, cumulative)| *cumulative >= rank).map(|(end, _)| end)
    }
}

impl std::ops::AddAssign<&Histogram> for Histogram {
    fn add_assign(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, count)| *sum += count);
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_smallest_bucket_that_holds_it() {
        for (micros, end) in [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (1000, 1024), (8_388_608, 8_388_608)] {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_micros(micros), 1);
            let first = histogram.buckets().find(|(_, cumulative)| *cumulative == 1).map(|(end, _)| end);
            assert_eq!(first, Some(Duration::from_micros(end)), "{micros} µs");
            assert_eq!(histogram.sum(), Duration::from_micros(micros));
        }
    }

    #[test]
    fn durations_beyond_the_last_bucket_are_counted() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX, 2);
        assert_eq!(histogram.count(), 2);
        assert!(histogram.buckets().all(|(_, cumulative)| cumulative == 0));
        assert_eq!(histogram.quantile(0.5), None);
    }

    #[test]
    fn a_quantile_is_the_upper_bound_of_its_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.record(Duration::from_micros(10), 99);
        histogram.record(Duration::from_millis(3), 1);
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_micros(16)));
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_micros(16)));
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_micros(4096)));
    }
}
