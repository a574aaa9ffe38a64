//! Writes output at the end of a turn, or earlier if the journal, the unsent output of pushes, is long.
//!
//! One turn writes only for a limited time, so that a push to very many connections does not delay other connections.

use crate::connection::{FlushResult, JournalResult};
use crate::event_loop::EventLoop;
use crate::event_loop::handler::Handler;
use crate::event_loop::portion::Portion;
use crate::fd::Slot;

/// The number of listed connections that a flush writes to before it reads the clock.
///
/// Listed connections have replies, or messages of pushes to few connections. Each flush writes to at least this number
/// of listed connections, even after a long turn.
const LISTED_MIN: usize = 1024;

/// The number of bytes that are written between two clock reads.
const CLOCK_EVERY_BYTES: u64 = 1 << 20;

/// A time limit for writes. The clock is also read after many written bytes, because one write of a long message takes
/// as long as many short writes.
struct Deadline {
    portion: Portion,
    /// The value of `bytes_out` at which the clock is read, even after few writes.
    read_clock_at: u64,
}

impl Deadline {
    fn new(bytes_out: u64) -> Deadline {
        Deadline { portion: Portion::new(), read_clock_at: bytes_out + CLOCK_EVERY_BYTES }
    }

    /// Counts one connection that was written to, and returns whether the time is over.
    #[inline]
    fn is_over(&mut self, bytes_out: u64) -> bool {
        if bytes_out < self.read_clock_at {
            return self.portion.is_over();
        }
        self.read_clock_at = bytes_out + CLOCK_EVERY_BYTES;
        self.portion.is_time_over()
    }
}

impl<H: Handler> EventLoop<H> {
    /// Flushes before the end of the turn if the journal is long.
    #[inline]
    pub(super) fn flush_early(&mut self) {
        if self.core.table().env().journal.is_long() {
            self.clear_journal();
        }
    }

    /// Writes replies, and then messages of pushes to many connections, within the time limit of a [`Portion`].
    pub(super) fn flush(&mut self) {
        self.core.table_mut().begin_flush();
        self.flush_listed(true);
        if self.core.table().is_flushing() {
            self.flush_unwritten(true);
        }
        self.end_flush();
    }

    /// Drops the values of [`drop_when_written`](crate::Context::drop_when_written) whose output has been written.
    #[inline]
    pub(super) fn drop_held(&mut self) {
        if !self.parts.held.is_empty() {
            self.drop_written();
        }
    }

    #[cold]
    fn drop_written(&mut self) {
        let (end, written) = self.core.table().output_positions();
        self.parts.held.set_position(end);
        while let Some(value) = self.parts.held.pop_written(written) {
            // The drop is code of the user's program, so it is called like a handler.
            self.call("dropping a value", None, |_, _| drop(value));
        }
    }

    /// Writes to each connection with output once, without a time limit.
    pub(super) fn flush_all(&mut self) {
        self.core.table_mut().begin_flush();
        self.flush_listed(false);
        self.flush_unwritten(false);
        self.end_flush();
    }

    /// Writes replies, and empties the journal.
    ///
    /// The unwritten output of a push to many connections is moved to queues if the queues would take little memory. If
    /// the queues would take much memory, the output stays in the journal until the journal is close to its maximum
    /// size. When the journal is close to its maximum size, the output is written.
    #[cold]
    fn clear_journal(&mut self) {
        self.core.table_mut().begin_flush();
        self.flush_listed(false);
        if self.core.table_mut().empty_journal() == JournalResult::Full {
            while let Some((slot, flushed)) = self.core.table_mut().poll_journaled() {
                self.handle_flushed(slot, flushed);
            }
        }
        self.end_flush();
        self.call_timer.begin();
    }

    /// Writes to connections with replies, or with messages of pushes to few connections.
    ///
    /// Listed connections come before the connections that earlier flushes did not reach, so that a reply does not wait
    /// behind a push to many connections.
    fn flush_listed(&mut self, is_timed: bool) {
        let mut written = 0;
        let mut deadline = None;
        while self.core.table().has_listed()
            && let Some((slot, flushed)) = self.core.table_mut().poll_flush()
        {
            self.handle_flushed(slot, flushed);
            written += 1;
            if is_timed && written >= LISTED_MIN {
                let bytes_out = self.bytes_out();
                if deadline.get_or_insert_with(|| Deadline::new(bytes_out)).is_over(bytes_out) {
                    break;
                }
            }
        }
        self.core.table_mut().defer_rest();
    }

    #[cold]
    fn flush_unwritten(&mut self, is_timed: bool) {
        let mut deadline = Deadline::new(self.bytes_out());
        while let Some((slot, flushed)) = self.core.table_mut().poll_flush() {
            self.handle_flushed(slot, flushed);
            if is_timed && deadline.is_over(self.bytes_out()) {
                break;
            }
        }
    }

    fn end_flush(&mut self) {
        self.core.table_mut().end_flush();
        self.core.record_slow_consumers();
    }

    fn bytes_out(&self) -> u64 {
        self.core.table().env().counts.traffic.bytes_out
    }

    #[inline]
    fn handle_flushed(&mut self, slot: Slot, flushed: FlushResult) {
        if flushed != FlushResult::NOTHING {
            self.handle_unfinished(slot, flushed);
        }
    }

    #[inline(never)]
    fn handle_unfinished(&mut self, slot: Slot, flushed: FlushResult) {
        match flushed {
            FlushResult::Stays { may_resume, timeout } => {
                if may_resume {
                    self.core.make_ready(slot);
                }
                self.core.arm_at(slot, timeout);
            }
            FlushResult::Over => self.finished.push(slot),
            FlushResult::Broken => {
                self.core.handle_end(slot, true);
                self.finished.push(slot);
            }
        }
    }
}
