//! Writes output, at the end of a turn or earlier if there is much.
//!
//! One turn writes only a portion, so that a push to very many connections does not delay the others.

use std::time::{Duration, Instant};

use crate::connection::FlushResult;
use crate::event_loop::handler::Handler;
use crate::event_loop::{EventLoop, clock};
use crate::fd::Slot;

/// The time in a turn for writing to many connections. The next turn writes the rest.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(5);

/// Connections with replies and pushes to few that are written without reading the clock.
///
/// Even a turn that started late writes to this many.
const LISTED_MIN: usize = 1024;

/// Connections that are written to between two clock reads.
const CLOCK_EVERY: usize = 16;

/// Bytes that are written between two clock reads.
const CLOCK_EVERY_BYTES: u64 = 1 << 20;

/// The deadline of a portion. Its time starts at the first clock read, so that a short flush needs none.
struct Deadline {
    at: Option<Instant>,
    /// Connections that were written to since the last clock read.
    written: usize,
    /// The value of `bytes_out` at which the clock is read next.
    look_at: u64,
}

impl Deadline {
    fn new(bytes_out: u64) -> Deadline {
        Deadline { at: None, written: 0, look_at: bytes_out + CLOCK_EVERY_BYTES }
    }

    /// Counts one written connection, and returns whether the time is over.
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
    /// Flushes before the end of the turn if the journal is long.
    #[inline]
    pub(super) fn flush_early(&mut self) {
        if self.core.table().env().journal.is_long() {
            self.clear_journal();
        }
    }

    /// Writes replies, then for at most [`FLUSH_TIME_MAX`] the rest of a push to many.
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
    /// The rest of a push to many is moved to queues if that copies little. Many short messages to many connections would copy
    /// much, so their rest is written.
    #[cold]
    fn clear_journal(&mut self) {
        self.core.table_mut().begin_flush();
        self.flush_listed(false);
        if !self.core.table_mut().move_unwritten_to_queues() {
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
