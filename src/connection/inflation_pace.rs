//! The pace at which the deflated messages of a client are inflated.

use crate::limits::Limits;
use crate::protocol::inflation::{InflatedCounts, KEPT_BYTES_MAX};
use crate::tick::Tick;

/// The number of time units of an [`InflationPace`] in a millisecond.
const UNITS_PER_MS: u64 = 16;

/// Each message counts as at least this number of inflated bytes.
const CHARGE_BYTES_MIN: u64 = 1 << 10;

/// Each received byte counts as this number of inflated bytes, in addition to the bytes that it inflates to.
///
/// The inflation of a payload takes time even if the payload inflates to no bytes. The slowest known payload consists
/// of empty blocks with separate Huffman codes, and takes 120 ns for each received byte. An ordinary payload takes 1 to
/// 3 ns for each inflated byte. `benches/protocol.rs` measures both payloads. So at the default
/// `inflated_bytes_per_second_max` of 16 MiB, one client can use at most about an eighth of the time of the loop.
const CHARGE_FACTOR: u64 = 16;

/// The pace at which the messages of a client are inflated.
///
/// A few received bytes can inflate to the longest message, and many received bytes can inflate to no bytes. So the
/// inflated bytes of each client plus [`CHARGE_FACTOR`] times the received bytes are limited to
/// [`inflated_bytes_per_second_max`](Limits::inflated_bytes_per_second_max), with bursts of
/// [`read_budget_bytes`](Limits::read_budget_bytes). The type is a leaky bucket. The bucket stores only the time at
/// which it becomes empty, in 16ths of a millisecond. The stored time wraps after 3 days. So a stored time that seems
/// to be further in the future than a full bucket allows is a past time: the bucket is then empty.
#[derive(Copy, Clone, Debug, Default)]
pub struct InflationPace(u32);

impl InflationPace {
    /// Returns the time from which the next message may be inflated, or `None` if it may be inflated now.
    #[inline]
    pub fn wait_until(self, limits: &Limits, now: Tick) -> Option<Tick> {
        let over = self.ahead(limits, now).saturating_sub(cost(limits.read_budget_bytes as u64, limits));
        (over > 0).then(|| Tick(now.0 + u64::from(over).div_ceil(UNITS_PER_MS)))
    }

    /// Adds the cost of one inflation to the bucket. `counts` has the received and the inflated bytes of this
    /// inflation.
    pub fn charge(&mut self, counts: InflatedCounts, limits: &Limits, now: Tick) {
        let bytes = counts.inflated_bytes.saturating_add(counts.deflated_bytes.saturating_mul(CHARGE_FACTOR));
        let ahead = self.ahead(limits, now).saturating_add(cost(bytes.max(CHARGE_BYTES_MIN), limits));
        self.0 = units(now).wrapping_add(ahead.min(full(limits)));
    }

    /// Returns the time until the bucket is empty, in 16ths of a millisecond.
    fn ahead(self, limits: &Limits, now: Tick) -> u32 {
        Some(self.0.wrapping_sub(units(now))).filter(|ahead| *ahead <= full(limits)).unwrap_or(0)
    }
}

/// Returns the largest content of the bucket, in time units: the burst plus the cost of one inflation.
///
/// One inflation returns at most one message. It reads the stored part of this message and the bytes of one read.
fn full(limits: &Limits) -> u32 {
    let received = (KEPT_BYTES_MAX + limits.read_budget_bytes) as u64;
    let inflated = (limits.read_budget_bytes + limits.message_bytes_max) as u64;
    cost(inflated + CHARGE_BYTES_MIN + received * CHARGE_FACTOR, limits)
}

/// Converts a time to 16ths of a millisecond, and keeps the low 32 bits.
fn units(time: Tick) -> u32 {
    time.0.wrapping_mul(UNITS_PER_MS) as u32
}

/// Returns the time that `bytes` take at the maximum rate, in 16ths of a millisecond.
fn cost(bytes: u64, limits: &Limits) -> u32 {
    let per_second = u128::from(limits.inflated_bytes_per_second_max.max(1) as u64);
    let units = (u128::from(bytes) * u128::from(1000 * UNITS_PER_MS)).div_ceil(per_second);
    u32::try_from(units).unwrap_or(u32::MAX).min(i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(deflated_bytes: u64, inflated_bytes: u64) -> InflatedCounts {
        InflatedCounts { deflated_bytes, inflated_bytes, ..InflatedCounts::default() }
    }

    #[test]
    fn messages_are_inflated_at_inflated_bytes_per_second_max() {
        let limits = Limits { inflated_bytes_per_second_max: 1 << 20, ..Limits::default() };
        let mut pace = InflationPace::default();
        // The stored 32-bit time overflows in the middle of the test.
        let start = (1 << 28) - 2_000;
        let (mut now, mut charged) = (Tick(start), 0);
        for step in 0..20_000 {
            match pace.wait_until(&limits, now) {
                Some(until) => now = until,
                None => {
                    let (received, bytes) = [(1, 100), (1000, 1 << 20), (5_000, 0), (10, 70_000)][step % 4];
                    pace.charge(counts(received, bytes), &limits, now);
                    charged += (bytes + received * CHARGE_FACTOR).max(CHARGE_BYTES_MIN);
                }
            }
            let allowed = (now.0 - start) * (1 << 20) / 1000 + (64 << 10) + (1 << 20);
            assert!(charged <= allowed + 20_000, "at most about {allowed} bytes must be charged, not {charged} bytes");
        }
        let allowed = (now.0 - start) * (1 << 20) / 1000;
        assert!(charged > allowed / 100 * 98, "at least 98 % of the allowed bytes must be charged");
        assert!(now.0 - start > 60_000);
    }

    #[test]
    fn a_stored_time_in_the_past_does_not_delay_a_message() {
        let limits = Limits::default();
        let mut pace = InflationPace::default();
        pace.charge(counts(1, 1 << 20), &limits, Tick(1000));
        assert_eq!(pace.wait_until(&limits, Tick(1000)), Some(Tick(1059)));
        assert_eq!(pace.wait_until(&limits, Tick(1058)), Some(Tick(1059)));
        for later in [1059, 2000, 1 << 20, 1 << 27, (1 << 27) + 5000, 1 << 28] {
            assert_eq!(pace.wait_until(&limits, Tick(later)), None, "{later}");
        }
    }

    #[test]
    fn the_largest_charge_is_not_read_as_a_time_in_the_past() {
        let limits = Limits { inflated_bytes_per_second_max: 1 << 20, ..Limits::default() };
        let mut pace = InflationPace::default();
        pace.charge(counts(0, limits.read_budget_bytes as u64), &limits, Tick(0));
        assert_eq!(pace.wait_until(&limits, Tick(0)), None);
        let received = (KEPT_BYTES_MAX + limits.read_budget_bytes) as u64;
        pace.charge(counts(received, limits.message_bytes_max as u64), &limits, Tick(0));
        assert_eq!(
            pace.wait_until(&limits, Tick(0)),
            Some(Tick(3000)),
            "1 MiB inflated plus 16 times 128 KiB received must take 3 seconds"
        );
        // A charge that is larger than a full bucket must delay the next message, too, although no caller makes such a
        // charge.
        pace.charge(counts(1 << 40, 0), &limits, Tick(0));
        assert!(pace.wait_until(&limits, Tick(0)).is_some());
    }

    #[test]
    fn a_few_small_messages_are_not_delayed() {
        let limits = Limits::default();
        let mut pace = InflationPace::default();
        for _ in 0..64 {
            assert_eq!(pace.wait_until(&limits, Tick(5)), None);
            pace.charge(counts(1, 10), &limits, Tick(5));
        }
        pace.charge(counts(1, 10), &limits, Tick(5));
        assert_eq!(pace.wait_until(&limits, Tick(5)), Some(Tick(6)));
    }
}
