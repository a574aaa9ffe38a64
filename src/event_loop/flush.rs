//! Writes output, at the end of a turn or earlier if there is much.
//!
//! One turn writes only a portion, so that a push to very many connections does not delay the others.

use crate::connection::{FlushResult, JournalResult};
use crate::event_loop::EventLoop;
use crate::event_loop::handler::Handler;
use crate::event_loop::portion::Portion;
use crate::fd::Slot;

/// Connections with replies and pushes to few that are written without reading the clock.
///
/// Even a turn that started late writes to this many.
const LISTED_MIN: usize = 1024;

/// Bytes that are written between two clock reads.
const CLOCK_EVERY_BYTES: u64 = 1 << 20;

/// A portion of writes, which the written bytes end as well: one write of a long message takes as long as many short ones.
struct Deadline {
    portion: Portion,
    /// The value of `bytes_out` at which the clock is read, after however few writes.
    look_at: u64,
}

impl Deadline {
    fn new(bytes_out: u64) -> Deadline {
        Deadline { portion: Portion::new(), look_at: bytes_out + CLOCK_EVERY_BYTES }
    }

    /// Counts one written connection, and returns whether the time is over.
    #[inline]
    fn is_over(&mut self, bytes_out: u64) -> bool {
        if bytes_out < self.look_at {
            return self.portion.is_over();
        }
        self.look_at = bytes_out + CLOCK_EVERY_BYTES;
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

    /// Writes replies, then for a [`Portion`] the rest of a push to many.
    pub(super) fn flush(&mut self) {
        self.core.table_mut().begin_flush();
        self.flush_listed(true);
        if self.core.table().is_flushing() {
            self.flush_unwritten(true);
        }
        self.end_flush();
    }

    /// Writes all output once, however long it takes.
    pub(super) fn flush_all(&mut self) {
        self.core.table_mut().begin_flush();
        self.flush_listed(false);
        self.flush_unwritten(false);
        self.end_flush();
    }

    /// Writes replies, and empties the journal.
    ///
    /// The rest of a push to many is moved to queues if they take little memory. If they would take much, the rest stays in the
    /// journal. It is written only if the journal is close to its maximum size.
    #[cold]
    fn clear_journal(&mut self) {
        self.core.table_mut().begin_flush();
        self.flush_listed(false);
        if self.core.table_mut().empty_journal() == JournalResult::Full {
            self.flush_unwritten(false);
        }
        self.end_flush();
        self.call_timer.begin();
    }

    /// Writes to the connections that got replies and pushes to few in this turn.
    ///
    /// They come before the connections that earlier flushes left, so that they do not wait behind a push to very many.
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
