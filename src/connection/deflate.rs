//! Deflated messages of a connection (RFC 7692), in both directions.
//!
//! A connection stores whether it negotiated permessage-deflate, the size of its client's window, and an
//! [`InflationPace`](super::inflation_pace::InflationPace). No compression context is kept from one message to the
//! next. The loop has one deflater and one inflater for all connections.

use crate::connection::{Connection, Env, Event, Outbound, Sent, Stage};
use crate::protocol::assembler::{Assembler, AssemblerError};
use crate::protocol::decoder::{DeflatedMessages, MessageRules};
use crate::protocol::extension::WINDOW_BITS_MAX;
use crate::protocol::inflation::InflatedCounts;
use crate::tick::Tick;

impl Connection {
    /// Returns whether permessage-deflate was negotiated.
    #[cfg(test)]
    pub fn deflates(&self) -> bool {
        matches!(self.stage, Stage::Open { deflates: true, .. } | Stage::Closing { deflates: true, .. })
    }

    /// Returns whether the client can inflate the deflated form of a message.
    ///
    /// If the client's window is smaller than the deflater's window, only a message that fits into the client's window
    /// is deflated. The client can inflate this message, because it refers to no earlier message.
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

    /// Returns the time until which the server holds back input of the client. Returns `None` if no input is held back.
    #[inline]
    pub fn held_until(&self) -> Option<Tick> {
        match &self.stage {
            Stage::Open { unfinished: Some(unfinished), .. } => unfinished.held_until(),
            _ => None,
        }
    }

    /// Puts `outbound` in the place of the unsent message that has the same key.
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
        // `queue_bytes_max` is compared with the length of the message before deflation, so a message is too large for
        // all clients or for none.
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

    /// Queues a message of a fan-out. Returns `false` if memory is exhausted.
    ///
    /// The message was counted, and its bounds were checked, when the fan-out began.
    pub(super) fn send_fanned_out(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> bool {
        debug_assert!(self.is_open(), "each receiver of a fan-out must be open");
        let encoded = match self.accepts_deflated(outbound) {
            true => outbound.deflated(&mut env.deflater, &mut env.counts.compression, &env.limits),
            false => outbound,
        };
        if !self.output.push(encoded, env) {
            return false;
        }
        self.traffic.messages_out += 1;
        env.counts.compression.messages_out += u64::from(encoded.is_deflated());
        true
    }
}
