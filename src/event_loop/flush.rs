//! Writing, at the end of a turn and before it where there is much to write: in portions, so that a push to very many
//! connections keeps no other waiting.

use std::time::{Duration, Instant};

use crate::event_loop::handler::Handler;
use crate::event_loop::table::Flushed;
use crate::event_loop::{EventLoop, clock};
use crate::fd::Slot;

/// The time that a turn writes to many connections. The next turn writes to the rest.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(5);

/// Connections that are written to without a look at the clock, if replies and pushes to few listed them. A turn that the
/// machine held up writes them all the same.
const LISTED_MIN: usize = 1024;

/// Connections, or bytes, that are written to sockets before a look at the clock.
const CLOCK_EVERY: usize = 16;
const CLOCK_EVERY_BYTES: u64 = 1 << 20;

/// The end of a portion. Its time runs from the first look at the clock, so that a short turn has none.
struct Deadline {
    at: Option<Instant>,
    /// Connections that were written to since the last look.
    written: usize,
    /// The next look, by the bytes that all connections were ever sent.
    look_at: u64,
}

impl Deadline {
    fn new(bytes_out: u64) -> Deadline {
        Deadline { at: None, written: 0, look_at: bytes_out + CLOCK_EVERY_BYTES }
    }

    /// Counts one connection that was written to.
    #[inline]
    fn is_over(&mut self, bytes_out: u64) -> bool {
        self.written += 1;
        if self.written < CLOCK_EVERY && bytes_out < self.look_at {
            return false;
        }
        *self = Deadline { at: self.at, ..Deadline::new(bytes_out) };
        let now = clock::now();
        now >= *self.at.get_or_insert(now + FLUSH_TIME_MAX)
    }
}

impl<H: Handler> EventLoop<H> {
    /// Flushes before the turn is over, when it has much to send already.
    #[inline]
    pub(super) fn flush_long(&mut self) {
        if self.core.table.env.journal.is_long() {
            self.clear_journal();
            self.calls.begin();
        }
    }

    /// Writes what connections have: replies, and for at most [`FLUSH_TIME_MAX`] what a push to many left. The next turns write
    /// the rest.
    pub(super) fn flush(&mut self) {
        self.take_listed(true);
        if !self.core.table.unwritten.is_empty() {
            self.flush_unwritten(true);
        }
        self.end_flush();
    }

    /// Sees to it that the journal begins anew. What a push to many left is written only where moving it to queues would
    /// copy much: where it is many short messages to many connections.
    fn clear_journal(&mut self) {
        self.take_listed(false);
        if !self.core.table.unwritten.is_empty() && self.core.table.unload_unwritten() {
            self.core.table.env.end_turn();
        } else {
            self.flush_unwritten(false);
        }
        self.end_flush();
    }

    /// Writes to those that are listed. Those that there is no time for, and answers, are written to after what earlier
    /// flushes left.
    fn take_listed(&mut self, is_timed: bool) {
        let mut slots = std::mem::take(&mut self.flushing);
        let count = self.core.table.take_dirty(&mut slots);
        let (web_sockets, answers) = slots.split_at(count);
        let written = self.flush_listed(web_sockets, is_timed);
        for &slot in &web_sockets[written..] {
            self.core.table.unwritten.add_web_socket(slot);
        }
        for &slot in answers {
            self.core.table.unwritten.add_answer(slot);
        }
        slots.clear();
        self.flushing = slots;
    }

    fn end_flush(&mut self) {
        if self.core.table.unwritten.is_empty() {
            self.core.table.end_flush();
        }
        self.core.end_slow();
    }

    /// Writes what replies and pushes to few listed. Returns how many of them there was time for.
    ///
    /// They come before what earlier flushes left, so that they do not wait for a push to very many.
    fn flush_listed(&mut self, slots: &[Slot], is_timed: bool) -> usize {
        let mut deadline = Deadline::new(self.bytes_out());
        let mut written = 0;
        while let Some(&slot) = slots.get(written) {
            self.flush_slot(slot);
            written += 1;
            if is_timed && written >= LISTED_MIN && deadline.is_over(self.bytes_out()) {
                break;
            }
        }
        written
    }

    fn flush_unwritten(&mut self, is_timed: bool) {
        let mut deadline = Deadline::new(self.bytes_out());
        while let Some(slot) = self.core.table.unwritten.take() {
            self.flush_slot(slot);
            if is_timed && deadline.is_over(self.bytes_out()) {
                break;
            }
        }
    }

    fn bytes_out(&self) -> u64 {
        self.core.table.env.counts.traffic.bytes_out
    }

    fn flush_slot(&mut self, slot: Slot) {
        match self.core.table.flush(slot) {
            Flushed::Stays { may_resume } => {
                if may_resume {
                    self.core.make_ready(slot);
                }
                self.core.arm(slot);
            }
            Flushed::Over => self.over.push(slot),
            Flushed::Broken => {
                self.core.handle_end(slot, true);
                self.over.push(slot);
            }
        }
    }
}
