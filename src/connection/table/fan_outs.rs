//! The pushes to very many connections that have not ended: see `fan_out.rs`.

use std::collections::VecDeque;

use crate::connection::KeptMessage;
use crate::connection::table::slots::SlotSet;
use crate::fd::Slot;

/// The maximum memory of all fan-outs that have not ended, in bytes. The memory is the frames and the bitmaps.
///
/// If a further fan-out would exceed this maximum, the oldest fan-outs end immediately: their messages are queued for
/// all their receivers. With a million connections, there may be 256 fan-outs.
pub const MEMORY_MAX: usize = 32 << 20;

// The doc of `Limits::queue_total_bytes_max` states this maximum.
const _: () = assert!(MEMORY_MAX == 32 << 20);

/// The fan-outs that have not ended, the oldest first.
#[derive(Debug, Default)]
pub struct FanOuts {
    pub pending: VecDeque<FanOut>,
    /// The number of fan-outs that ever began.
    pub begun: u64,
    /// Whether the next connection of a flush is a receiver of a fan-out, although others wait, too.
    pub is_next: bool,
}

/// A push whose message is not queued for all receivers yet.
#[derive(Debug)]
pub struct FanOut {
    /// The number of fan-outs that began before this one, plus 1.
    pub number: u64,
    pub message: KeptMessage,
    /// The receivers for which the message is not queued yet.
    pub receivers: SlotSet,
    /// The number of slots in `receivers`.
    pub left: usize,
    /// No receiver has a lower slot.
    pub first: Slot,
}

impl FanOuts {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns the number of the last fan-out that began.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Returns the number of the last fan-out that ended together with all earlier ones.
    pub fn ended(&self) -> u64 {
        self.pending.front().map_or(self.begun, |oldest| oldest.number - 1)
    }

    /// Returns the number and the length of the messages that are not queued yet for a connection.
    pub fn waiting(&self, slot: Slot) -> (u64, usize) {
        let waiting = self.pending.iter().filter(|fan_out| fan_out.receivers.contains(slot));
        waiting.fold((0, 0), |(count, bytes), fan_out| (count + 1, bytes + fan_out.message.bytes()))
    }

    /// Returns the next receiver of the oldest fan-out.
    pub fn first(&mut self) -> Option<Slot> {
        let oldest = self.pending.front_mut()?;
        let first = oldest.receivers.iter_from(oldest.first).next();
        oldest.first = first.unwrap_or(oldest.first);
        first
    }

    pub fn memory_bytes(&self) -> usize {
        self.pending.iter().map(|fan_out| fan_out.message.bytes() + fan_out.receivers.memory_bytes()).sum()
    }

    /// Forgets the ranges in the journal, because the journal was cleared.
    pub fn forget_places(&mut self) {
        self.pending.iter_mut().for_each(|fan_out| fan_out.message.forget_places());
    }
}
