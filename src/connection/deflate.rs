//! Deflated messages of a connection (RFC 7692), in both directions.
//!
//! A connection stores two settings and an [`InflationPace`]. No compression context is kept between messages. The loop
//! has one deflater and one inflater for all connections.

use crate::connection::{Connection, Env, Event, Outbound, Sent, Stage};
use crate::limits::Limits;
use crate::protocol::assembler::{Assembler, AssemblerError};
use crate::protocol::decoder::{DeflatedMessages, MessageRules};
use crate::protocol::extension::WINDOW_BITS_MAX;
use crate::protocol::inflation::{InflatedCounts, KEPT_BYTES_MAX};
use crate::tick::Tick;

/// The number of time units of an [`InflationPace`] in a millisecond.
const UNITS_PER_MS: u64 = 16;

/// Each message counts as at least this number of inflated bytes.
const CHARGE_BYTES_MIN: u64 = 1 << 10;

/// Each received byte counts as this number of inflated bytes, in addition to the bytes that it inflates to.
///
/// A payload may inflate to nothing and still take time. The slowest known payload consists of empty blocks with
/// separate Huffman codes, and takes 120 ns for each received byte. An ordinary payload takes 1 to 3 ns for each
/// inflated byte. `benches/protocol.rs` measures both payloads. So at the default of 16 MiB a second, a client can take
/// an eighth of the loop's time.
const CHARGE_FACTOR: u64 = 16;

/// The pace at which the messages of a client are inflated.
///
/// A few bytes can inflate to the longest message, and many bytes can inflate to nothing. So the inflated bytes of each
/// client plus [`CHARGE_FACTOR`] times the received bytes are limited to
/// [`inflated_bytes_per_second_max`](Limits::inflated_bytes_per_second_max), with bursts of
/// [`read_budget_bytes`](Limits::read_budget_bytes). The type is a leaky bucket. It stores only the time at which the
/// bucket becomes empty, in 16ths of a millisecond. The stored time wraps after 3 days. So a stored time that is later
/// than a full bucket allows is in the past.
#[derive(Copy, Clone, Debug, Default)]
pub struct InflationPace(u32);

impl InflationPace {
    /// Returns the time from which the next message may be inflated, or `None` if it may be inflated now.
    #[inline]
    fn wait_until(self, limits: &Limits, now: Tick) -> Option<Tick> {
        let over = self.ahead(limits, now).saturating_sub(cost(limits.read_budget_bytes as u64, limits));
        (over > 0).then(|| Tick(now.0 + u64::from(over).div_ceil(UNITS_PER_MS)))
    }

    /// Adds the cost of the bytes of one step to the bucket.
    fn charge(&mut self, counts: InflatedCounts, limits: &Limits, now: Tick) {
        let bytes = counts.inflated_bytes.saturating_add(counts.deflated_bytes.saturating_mul(CHARGE_FACTOR));
        let ahead = self.ahead(limits, now).saturating_add(cost(bytes.max(CHARGE_BYTES_MIN), limits));
        self.0 = units(now).wrapping_add(ahead.min(full(limits)));
    }

    /// Returns the time until the bucket is empty, in the units of the bucket.
    fn ahead(self, limits: &Limits, now: Tick) -> u32 {
        Some(self.0.wrapping_sub(units(now))).filter(|ahead| *ahead <= full(limits)).unwrap_or(0)
    }
}

/// Returns the largest content of the bucket, in units: the burst plus the cost of one step.
///
/// A step inflates at most one message, from the stored part of the message and the bytes of one read.
fn full(limits: &Limits) -> u32 {
    let received = (KEPT_BYTES_MAX + limits.read_budget_bytes) as u64;
    let inflated = (limits.read_budget_bytes + limits.message_bytes_max) as u64;
    cost(inflated + CHARGE_BYTES_MIN + received * CHARGE_FACTOR, limits)
}

/// Converts a time to units, and keeps the low 32 bits.
fn units(time: Tick) -> u32 {
    time.0.wrapping_mul(UNITS_PER_MS) as u32
}

/// Returns the time for `bytes` at the maximum rate, in units.
fn cost(bytes: u64, limits: &Limits) -> u32 {
    let per_second = u128::from(limits.inflated_bytes_per_second_max.max(1) as u64);
    let units = (u128::from(bytes) * u128::from(1000 * UNITS_PER_MS)).div_ceil(per_second);
    u32::try_from(units).unwrap_or(u32::MAX).min(i32::MAX as u32)
}

impl Connection {
    /// Returns whether permessage-deflate was negotiated.
    #[cfg(test)]
    pub fn deflates(&self) -> bool {
        matches!(self.stage, Stage::Open { deflates: true, .. } | Stage::Closing { deflates: true, .. })
    }

    /// Returns whether a message may be sent to the client in its deflated form.
    ///
    /// The client's window may be smaller than the deflater's window. A message refers to no earlier message, so a
    /// message that fits into the client's window can be inflated. A longer message is sent without deflation.
    pub(super) fn accepts_deflated(&self, outbound: &Outbound<'_>) -> bool {
        match self.stage {
            Stage::Open { deflates: true, window_bits, .. } => {
                outbound.payload_bytes() <= 1 << window_bits || window_bits == WINDOW_BITS_MAX
            }
            _ => false,
        }
    }

    /// Reads input of a WebSocket that negotiated permessage-deflate.
    pub(super) fn handle_bytes_deflated<'a>(&mut self, input: &mut &'a mut [u8], env: &mut Env) -> Option<Event<'a>> {
        let Stage::Open { unfinished, pace, .. } = &mut self.stage else { return None };
        let held_until = unfinished.as_ref().and_then(|unfinished| unfinished.held_until());
        if input.is_empty() && held_until.is_none_or(|until| until > env.now) {
            return None;
        }
        let wait_until = pace.wait_until(&env.limits, env.now).or(held_until.filter(|until| *until > env.now));
        let is_held = held_until.is_some();
        if wait_until.is_some() || (is_held && !input.is_empty()) {
            env.counts.compression.holds += u64::from(!is_held);
            let until = wait_until.unwrap_or(env.now);
            if let Err(error) = Assembler::hold(unfinished, input, (env.now, until), &mut env.assemblers) {
                return Some(self.fail_assembly(error, env));
            }
            if wait_until.is_some() {
                return None;
            }
        }
        let rules =
            MessageRules { bytes_max: env.limits.message_bytes_max as u64, deflated: DeflatedMessages::Inflated };
        let item = if is_held {
            Assembler::next_held(unfinished, rules, env.now, &mut env.assemblers)
        } else {
            Assembler::next(unfinished, input, rules, env.now, &mut env.assemblers)
        };
        let counts = env.assemblers.inflaters.take_counts();
        if counts != InflatedCounts::default() {
            pace.charge(counts, &env.limits, env.now);
            env.counts.compression.add(counts);
        }
        match item {
            Ok(item) => self.handle_item(item?, env),
            Err(error) => Some(self.fail_assembly(error, env)),
        }
    }

    pub(super) fn fail_assembly(&mut self, error: AssemblerError, env: &mut Env) -> Event<'static> {
        match error {
            AssemblerError::Protocol(error) => self.fail(error, env),
            AssemblerError::OutOfMemory => self.fail_overload("out of memory", env),
        }
    }

    /// Returns the time until which input is held back. Returns `None` if no input is held back.
    #[inline]
    pub fn held_until(&self) -> Option<Tick> {
        match &self.stage {
            Stage::Open { unfinished: Some(unfinished), .. } => unfinished.held_until(),
            _ => None,
        }
    }

    /// Replaces the unsent message that has the same key.
    ///
    /// Returns `false` if no unsent message has the key, or if the replacement failed.
    pub fn conflate(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> bool {
        if !self.is_open() {
            return false;
        }
        let deflates = self.accepts_deflated(outbound);
        let Env { limits, queued, deflater, counts, .. } = env;
        let outbound = if deflates { outbound.deflated(deflater, &mut counts.compression, limits) } else { outbound };
        self.output.as_queue().is_some_and(|output| output.conflate(outbound, limits, queued))
    }

    /// Queues a message for a client that negotiated permessage-deflate.
    #[inline(never)]
    pub(super) fn send_deflated(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> Sent {
        // The bound applies to the message before deflation, so that the result is the same for each client.
        if outbound.bytes() > env.limits.queue_bytes_max {
            return Sent::TooLarge;
        }
        let encoded = match self.accepts_deflated(outbound) {
            true => outbound.deflated(&mut env.deflater, &mut env.counts.compression, &env.limits),
            false => outbound,
        };
        let sent = self.send_encoded(encoded, env);
        if sent == Sent::Queued && encoded.is_deflated() {
            env.counts.compression.messages_out += 1;
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(deflated_bytes: u64, inflated_bytes: u64) -> InflatedCounts {
        InflatedCounts { deflated_bytes, inflated_bytes, ..InflatedCounts::default() }
    }

    #[test]
    fn messages_are_inflated_at_the_pace_of_the_limit() {
        let limits = Limits { inflated_bytes_per_second_max: 1 << 20, ..Limits::default() };
        let mut pace = InflationPace::default();
        // The stored time wraps in the middle of the test.
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
            assert!(charged <= allowed + 20_000, "{charged} charged bytes exceed the limit of {allowed}");
        }
        let allowed = (now.0 - start) * (1 << 20) / 1000;
        assert!(charged > allowed / 100 * 98, "the pace must reach the limit");
        assert!(now.0 - start > 60_000);
    }

    #[test]
    fn an_old_time_does_not_delay_a_message() {
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
    fn the_largest_step_is_not_taken_for_an_old_time() {
        let limits = Limits { inflated_bytes_per_second_max: 1 << 20, ..Limits::default() };
        let mut pace = InflationPace::default();
        pace.charge(counts(0, limits.read_budget_bytes as u64), &limits, Tick(0));
        assert_eq!(pace.wait_until(&limits, Tick(0)), None);
        let received = (KEPT_BYTES_MAX + limits.read_budget_bytes) as u64;
        pace.charge(counts(received, limits.message_bytes_max as u64), &limits, Tick(0));
        assert_eq!(
            pace.wait_until(&limits, Tick(0)),
            Some(Tick(3000)),
            "1 MiB inflated plus 16 times 128 KiB received take 3 seconds"
        );
        // No caller charges more than the largest content of the bucket. Such a charge must delay the next message,
        // too.
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
