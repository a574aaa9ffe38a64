//! Pushes to very many connections.
//!
//! To queue a message for a million connections takes a tenth of a second, because the call visits each connection. So
//! a push to very many connections is a fan-out: the table keeps the message once, with a bitmap of the receivers. The
//! flush then queues and writes the message, for a few milliseconds in each turn. The message counts as queued
//! immediately.
//!
//! A receiver of a fan-out has no output and is not listed for the flush, so the bounds of its queue need no check.
//! Before a call changes the output of such a connection, the call queues the connection's part of all fan-outs:
//! [`Table::settle`]. So each connection gets all messages in the order of the pushes, and a close frame after them.

use crate::connection::KeptMessage;
use crate::connection::table::fan_outs::{FanOut, FanOuts, MEMORY_MAX};
use crate::connection::table::slots::SlotSet;
use crate::connection::table::{Observed, Table, Transport};
use crate::fd::Slot;

impl<T: Transport> Table<T> {
    /// Begins a fan-out, and returns the connections to which the caller must push the message immediately.
    ///
    /// These are the receivers that have output or are listed for the flush. They are removed from `receivers`, and the
    /// caller passes the other receivers to [`add_fan_out`](Table::add_fan_out). All receivers must be open WebSockets.
    ///
    /// If the fan-outs that have not ended leave no room for another one, the oldest of them end: their messages are
    /// queued for all their receivers.
    pub fn begin_fan_out(&mut self, receivers: &mut SlotSet, message: &KeptMessage) -> Vec<Slot> {
        if message.bytes() > self.env.limits.queue_bytes_max {
            // The frame is too large for all receivers.
            return std::mem::take(receivers).iter().collect();
        }
        while let Some(oldest) = self.fan_outs.pending.front().map(|oldest| oldest.number)
            && !self.has_room(receivers, message)
        {
            while self.fan_outs.ended() < oldest
                && let Some(slot) = self.take_receiver()
            {
                self.unwritten.add_web_socket(slot);
                self.set_listed(slot);
            }
        }
        let mut at_once = Vec::new();
        let entries = &self.entries;
        self.queued.retain(|slot| {
            let has_queue = entries.get(slot.index()).is_some_and(|entry| entry.connection.has_queue());
            if has_queue && receivers.remove(slot) {
                at_once.push(slot);
            }
            has_queue
        });
        at_once.extend(self.unflushed().filter(|slot| receivers.remove(*slot)));
        at_once
    }

    /// Adds the receivers of a fan-out that have no output, and returns their number.
    ///
    /// No call may come between [`begin_fan_out`](Table::begin_fan_out) and this call, except the pushes.
    pub fn add_fan_out(&mut self, receivers: SlotSet, message: KeptMessage) -> usize {
        let left = receivers.count();
        if left > 0 {
            let FanOuts { pending, begun, .. } = &mut self.fan_outs;
            *begun += 1;
            pending.push_back(FanOut { number: *begun, message, receivers, left, first: Slot(0) });
            self.env.counts.traffic.messages_out += left as u64;
        }
        left
    }

    /// Returns the number and the length of the messages of fan-outs that are not queued yet for a connection.
    ///
    /// These messages count as queued, but the counters of the connection do not include them.
    pub fn waiting_fan_outs(&self, slot: Slot) -> (u64, usize) {
        self.fan_outs.waiting(slot)
    }

    /// Queues the messages of all fan-outs for a connection, and lists the connection for the flush.
    ///
    /// The connection comes first in the flush, so that it is written before each response that follows a fan-out.
    #[inline]
    pub(super) fn settle(&mut self, slot: Slot) {
        if !self.fan_outs.is_empty() {
            self.settle_pending(slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn settle_pending(&mut self, slot: Slot) {
        if self.queue_fan_outs(slot) {
            self.unwritten.add_first(slot);
            self.set_listed(slot);
        }
    }

    fn set_listed(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot.index()) {
            entry.connection.is_listed = true;
        }
    }

    /// Returns whether the bounds allow another fan-out besides those that have not ended.
    ///
    /// The messages of all fan-outs must fit into a queue, because one connection may be a receiver of all of them.
    fn has_room(&self, receivers: &SlotSet, message: &KeptMessage) -> bool {
        let queued: usize = self.fan_outs.pending.iter().map(|fan_out| fan_out.message.bytes()).sum();
        let memory = self.fan_outs.memory_bytes() + message.bytes() + receivers.memory_bytes();
        queued + message.bytes() + message.overhead() <= self.env.limits.queue_bytes_max && memory <= MEMORY_MAX
    }

    /// Removes and returns the next connection that the flush writes to, after the listed connections.
    ///
    /// If both fan-outs and other WebSockets wait, they take turns.
    pub(super) fn take_unwritten(&mut self) -> Option<Slot> {
        let is_next = std::mem::replace(&mut self.fan_outs.is_next, false);
        if is_next && let Some(slot) = self.take_receiver() {
            return Some(slot);
        }
        self.fan_outs.is_next = !self.fan_outs.is_empty();
        let ended = self.fan_outs.ended();
        self.unwritten.take(ended).or_else(|| self.take_receiver())
    }

    /// Queues the messages of all fan-outs for the next receiver, and returns its slot.
    fn take_receiver(&mut self) -> Option<Slot> {
        let slot = self.fan_outs.first()?;
        self.queue_fan_outs(slot);
        Some(slot)
    }

    /// Queues the messages of all fan-outs for a connection. Returns `false` if the connection receives none.
    fn queue_fan_outs(&mut self, slot: Slot) -> bool {
        let Table { fan_outs, entries, env, .. } = self;
        let (mut is_receiver, mut has_ended) = (false, false);
        for FanOut { message, receivers, left, .. } in &mut fan_outs.pending {
            if !receivers.remove(slot) {
                continue;
            }
            is_receiver = true;
            *left -= 1;
            has_ended |= *left == 0;
            let is_queued = entries.get_mut(slot.index()).is_some_and(|entry| {
                let is_queued = message.lend(|outbound| entry.connection.send_fanned_out(outbound, env));
                entry.observe(Observed::FannedOut { is_queued });
                is_queued
            });
            if !is_queued {
                // The process has no memory for a queue.
                env.counts.traffic.messages_out -= 1;
                env.counts.dropped += 1;
            }
        }
        if has_ended {
            fan_outs.pending.retain(|fan_out| fan_out.left > 0);
        }
        is_receiver
    }
}
