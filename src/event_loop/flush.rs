//! Writing, at the end of a turn and before it where there is much to write: in portions, so that a push to very many
//! connections keeps no other waiting.

use crate::fd::Slot;
use std::time::Duration;

use crate::event_loop::handler::Handler;
use crate::event_loop::table::Flushed;
use crate::event_loop::unwritten::FEW_MAX;
use crate::event_loop::{EventLoop, clock};

/// The time that a turn writes to many connections. The next turn writes to the rest.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(5);

/// Connections that are written to before a look at the clock.
const CLOCK_EVERY: usize = 16;

impl<H: Handler> EventLoop<H> {
    /// Flushes before the turn is over, when it has much to send already.
    #[inline]
    pub(super) fn flush_long(&mut self) {
        if self.core.table.env.journal.is_long() {
            self.flush(true);
            self.calls.begin();
        }
    }

    /// Writes what connections have, unless it `is_whole` for at most [`FLUSH_TIME_MAX`]. The next turns write the rest.
    pub(super) fn flush(&mut self, is_whole: bool) {
        let mut slots = std::mem::take(&mut self.flushing);
        let count = self.core.table.take_dirty(&mut slots);
        let (web_sockets, answers) = slots.split_at(count);
        let is_few = count <= FEW_MAX;
        if !is_few {
            web_sockets.iter().for_each(|slot| self.core.table.unwritten.add_web_socket(*slot));
        }
        for &slot in answers {
            self.core.table.unwritten.add_answer(slot);
        }
        if is_few {
            for &slot in web_sockets {
                self.flush_slot(slot);
            }
        }
        slots.clear();
        self.flushing = slots;
        if !self.core.table.unwritten.is_empty() {
            self.flush_unwritten(is_whole);
        }
        if self.core.table.unwritten.is_empty() {
            self.core.table.end_flush();
        }
        self.core.end_slow();
    }

    fn flush_unwritten(&mut self, is_whole: bool) {
        let mut until = None;
        let mut count = 0;
        while let Some(slot) = self.core.table.unwritten.take() {
            self.flush_slot(slot);
            count += 1;
            if count % CLOCK_EVERY == 0 && !is_whole {
                let now = clock::now();
                if now >= *until.get_or_insert(now + FLUSH_TIME_MAX) {
                    break;
                }
            }
        }
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
