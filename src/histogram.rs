//! How long things took, counted into buckets: what a loop can afford to keep of every turn.
//!
//! The one idea: a bucket for each power of two of microseconds. To find it is one instruction, and quantiles over a
//! factor of two are what an operator looks at.

use std::time::Duration;

/// The last bucket with an upper end is for 2^23 µs, 8.4 s.
const BOUNDED: usize = 24;

/// Durations since the start of the server, in buckets that each end at a power of two of microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    buckets: [u64; BOUNDED + 1],
    sum_micros: u64,
}

impl Histogram {
    /// Counts one duration `times` times.
    #[inline]
    pub(crate) fn record(&mut self, duration: Duration, times: u64) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // The smallest power of two that is not below it.
        let bucket = (u64::BITS - micros.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(BOUNDED)] += times;
        self.sum_micros = self.sum_micros.saturating_add(micros.saturating_mul(times));
    }

    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// The buckets as Prometheus has them: an upper end, and how many were no longer than that; 1 µs, 2 µs, 4 µs … 8.4 s.
    /// Those that were longer still are only in [`count`](Histogram::count).
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.buckets.iter().take(BOUNDED).enumerate().scan(0, |so_far, (power, count)| {
            *so_far += count;
            Some((Duration::from_micros(1 << power), *so_far))
        })
    }

    /// The upper end of the bucket in which the quantile lies: `quantile(0.99)` was met by 99 of 100. `None`: nothing
    /// was counted, or it is beyond the last bucket.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        self.buckets().find(|(_, so_far)| *so_far >= rank).map(|(end, _)| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_that_ends_no_earlier() {
        for (micros, end) in [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (1000, 1024), (8_388_608, 8_388_608)] {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_micros(micros), 1);
            let first = histogram.buckets().find(|(_, so_far)| *so_far == 1).map(|(end, _)| end);
            assert_eq!(first, Some(Duration::from_micros(end)), "{micros} µs");
            assert_eq!(histogram.sum(), Duration::from_micros(micros));
        }
    }

    #[test]
    fn what_is_beyond_all_buckets_is_counted_all_the_same() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX, 2);
        assert_eq!(histogram.count(), 2);
        assert!(histogram.buckets().all(|(_, so_far)| so_far == 0));
        assert_eq!(histogram.quantile(0.5), None);
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.record(Duration::from_micros(10), 99);
        histogram.record(Duration::from_millis(3), 1);
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_micros(16)));
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_micros(16)));
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_micros(4096)));
    }
}
