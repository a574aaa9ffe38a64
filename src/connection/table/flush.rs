//! Writes output, at the end of a turn or earlier.
//!
//! A connection that may have new output is listed: it is in the list of connections for the next flush.

use std::io::IoSlice;

use crate::connection::table::{Entry, FEW_MAX, Observed, Position, Table, Transport};
use crate::connection::{Env, SocketAction, Written};
use crate::fd::Slot;
use crate::tick::Tick;

/// The maximum number of slices in one vectored write.
const SLICES_MAX: usize = 64;

/// The maximum number of writes to one connection in one flush. Further output waits for the next flush.
const WRITES_PER_TURN_MAX: usize = 16;

/// The maximum memory that a move of output from the journal to queues may take, in bytes.
///
/// If moving the output to queues would take more memory, the output stays in the journal.
const MOVED_BYTES_MAX: usize = 4 << 20;

/// The state of a connection after its flush.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FlushResult {
    /// The connection has not ended.
    Stays {
        /// Whether the caller resumes reading: the server had stopped reading because of unwritten output, and the
        /// flush has written enough of this output.
        may_resume: bool,
        /// The timeout of the connection. [`Tick::NEVER`] means that the flush did not change the timeout.
        timeout: Tick,
    },
    /// The connection has ended, and is removed at the end of the turn.
    Over,
    /// The transport is broken.
    ///
    /// The caller reports the end of the stream, and removes the connection at the end of the turn.
    Broken,
}

impl FlushResult {
    /// The result of a flush that requires no action of the caller. This is the common case.
    pub const NOTHING: FlushResult = FlushResult::Stays { may_resume: false, timeout: Tick::NEVER };
}

/// The result of [`Table::empty_journal`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum JournalResult {
    /// The output is in queues, and the journal is empty.
    Emptied,
    /// The queues would take too much memory, so the output stays in the journal. The journal may still grow.
    Kept,
    /// Output is left in the journal, and the journal must not grow. So the caller must write the output.
    Full,
}

/// The result of writing to a transport.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum WriteResult {
    /// All output is written, or the transport is full.
    Done,
    /// [`WRITES_PER_TURN_MAX`] writes were made, and more output is left.
    LimitReached,
    Broken,
}

impl<T: Transport> Table<T> {
    /// Returns whether a connection is in the list for the next flush, or a flush is unfinished.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.is_flushing()
    }

    /// Returns whether a flush is unfinished.
    #[inline]
    pub fn is_flushing(&self) -> bool {
        self.has_listed() || !self.unwritten.is_empty() || !self.fan_outs.is_empty()
    }

    /// Returns the end of the output, and the position up to which the output is written.
    ///
    /// After a flush, all output is written that was queued before, except for the output between these positions.
    pub fn output_positions(&self) -> (Position, Position) {
        (self.unwritten.end(self.fan_outs.begun()), self.unwritten.written(self.fan_outs.ended()))
    }

    /// Begins a flush of the connections listed since the last flush.
    pub fn begin_flush(&mut self) {
        self.listed.append(&mut self.dirty);
    }

    /// Writes to the next connection, and returns the state of this connection.
    ///
    /// Returns `None` if no connection is left. Connections that were listed since the last flush come first. Then come
    /// the connections that earlier flushes did not reach, and the receivers of fan-outs. An HTTP connection that was
    /// listed since the last flush is not written to yet: the call only moves it behind all these connections.
    // This function is always inlined, with the functions that it calls for a listed connection: without inlining,
    // their calls would take a quarter of the time of a flush.
    #[inline(always)]
    pub fn poll_flush(&mut self) -> Option<(Slot, FlushResult)> {
        let (slot, is_listed) = match self.listed.get(self.flushed) {
            Some(&slot) => {
                self.flushed += 1;
                (slot, true)
            }
            None => {
                self.defer_rest();
                (self.take_unwritten()?, false)
            }
        };
        Some((slot, self.flush(slot, is_listed)))
    }

    /// Writes to the next WebSocket that has output in the journal, after the listed connections.
    ///
    /// The receivers of fan-outs are left out, because their messages are not in the journal.
    pub fn poll_journaled(&mut self) -> Option<(Slot, FlushResult)> {
        let slot = self.unwritten.take_web_socket()?;
        Some((slot, self.flush(slot, false)))
    }

    /// Returns whether the flush must still reach connections that were listed when the flush began.
    #[inline]
    pub fn has_listed(&self) -> bool {
        self.flushed < self.listed.len()
    }

    /// Moves the connections that this flush has not reached to the end of the list of connections that earlier flushes
    /// have not reached.
    ///
    /// An HTTP response stays behind all messages that were queued before it.
    #[inline]
    pub fn defer_rest(&mut self) {
        if self.has_listed() {
            self.defer_listed_rest();
        }
        self.listed.clear();
        self.flushed = 0;
        if !self.answering.is_empty() {
            let begun = self.fan_outs.begun();
            self.answering.drain(..).for_each(|slot| self.unwritten.add_answer(slot, begun));
        }
    }

    #[cold]
    fn defer_listed_rest(&mut self) {
        for slot in self.listed.drain(self.flushed..) {
            let Some(entry) = self.entries.get_mut(slot.index()) else { continue };
            if entry.connection.is_http() {
                entry.connection.is_listed = false;
                self.answering.push(slot);
            } else {
                self.unwritten.add_web_socket(slot);
            }
        }
    }

    /// Moves unwritten output from the journal to queues, unless the queues would then take too much memory.
    pub fn empty_journal(&mut self) -> JournalResult {
        let mut moved = 0;
        for slot in self.unwritten.web_sockets() {
            moved += self.connection(slot).map_or(0, |connection| connection.moved_bytes(&self.env));
            if moved > MOVED_BYTES_MAX || self.env.is_over_total(moved) {
                let is_kept = self.env.journal.postpone_flush();
                return if is_kept { JournalResult::Kept } else { JournalResult::Full };
            }
        }
        let Table { unwritten, entries, env, .. } = self;
        for slot in unwritten.web_sockets() {
            if env.is_over_total(0) {
                break;
            }
            if let Some(entry) = entries.get_mut(slot.index())
                && entry.connection.journal_bytes() > 0
            {
                entry.connection.move_to_queue(env);
                entry.observe(Observed::MovedToQueue);
            }
        }
        if self.env.is_over_total(0) {
            self.enforce_queue_total(None);
            return JournalResult::Full;
        }
        self.clear_journal();
        JournalResult::Emptied
    }

    /// Ends a flush. If no WebSocket is left to write to, except receivers of fan-outs, the journal is cleared.
    #[inline]
    pub fn end_flush(&mut self) {
        self.defer_rest();
        if !self.unwritten.has_web_sockets() {
            self.clear_journal();
            if !self.is_flushing() {
                self.refused_bytes = self.env.queued.frames;
            }
        }
    }

    #[inline]
    fn clear_journal(&mut self) {
        self.env.end_turn();
        if !self.fan_outs.is_empty() {
            self.fan_outs.forget_places();
        }
    }

    /// Returns the number of listed connections, for [`defer_listed`](Table::defer_listed).
    #[inline]
    pub fn listed_len(&self) -> usize {
        self.dirty.len()
    }

    /// Moves the WebSockets that got output from one push, or from one close, behind all listed connections.
    ///
    /// These WebSockets are in the list at the index `from` and after it. If their number is at most [`FEW_MAX`], none
    /// of them is moved.
    #[inline]
    pub fn defer_listed(&mut self, from: usize) {
        if self.dirty.len().saturating_sub(from) > FEW_MAX {
            self.defer_many(from);
        }
    }

    /// Moves WebSockets that became writable behind all listed connections.
    ///
    /// These WebSockets are in the list at the index `from` and after it. If their number is at most [`FEW_MAX`], none
    /// of them is moved, unless a push to many connections is being written.
    #[inline]
    pub fn defer_writable(&mut self, from: usize) {
        let count = self.dirty.len().saturating_sub(from);
        let is_writing = !self.unwritten.is_empty() || !self.fan_outs.is_empty();
        if count > 0 && (is_writing || count > FEW_MAX) {
            self.defer_many(from);
        }
    }

    fn defer_many(&mut self, from: usize) {
        let Table { dirty, unwritten, entries, .. } = self;
        let mut index = 0;
        dirty.retain(|slot| {
            index += 1;
            let is_http = entries.get(slot.index()).is_some_and(|entry| entry.connection.is_http());
            let is_kept = index <= from || is_http;
            if !is_kept {
                unwritten.add_web_socket(*slot);
            }
            is_kept
        });
    }

    /// Writes to a connection before the flush.
    ///
    /// The caller must not call this method for an HTTP response to a push request whose messages are not written yet.
    pub fn write_at_once(&mut self, slot: Slot) {
        // A broken transport is not handled here, because the next flush handles it.
        self.write(slot);
    }

    /// Tries to write to a transport that was full, although no event says that it is writable again.
    pub fn retry_write(&mut self, slot: Slot) {
        if let Some((entry, _)) = self.entry_mut(slot)
            && entry.connection.handle_writable()
        {
            // A broken transport is not handled here, because the next flush handles it.
            self.mark_dirty(slot);
            self.write(slot);
        }
    }

    /// Writes the output of a connection, and then enforces the bound of all queues together.
    ///
    /// Returns `false` if the transport is broken.
    pub(super) fn write(&mut self, slot: Slot) -> bool {
        let is_whole = self.write_output(slot);
        self.enforce_queue_total(None);
        is_whole
    }

    /// Writes the output of a connection until no output is left, or the transport is full.
    ///
    /// The function also stops after [`WRITES_PER_TURN_MAX`] writes. Returns `false` if the transport is broken.
    pub(super) fn write_output(&mut self, slot: Slot) -> bool {
        let Table { entries, env, shared, .. } = self;
        let Some(entry) = entries.get_mut(slot.index()) else { return true };
        match entry.write_output(env, shared) {
            WriteResult::Done => true,
            WriteResult::LimitReached => {
                self.mark_dirty(slot);
                true
            }
            WriteResult::Broken => false,
        }
    }

    /// Returns the connections that wait for a flush, in order.
    ///
    /// An HTTP connection is not included after a flush has moved it behind the WebSockets.
    pub(super) fn unflushed(&self) -> impl Iterator<Item = Slot> + '_ {
        let listed = self.listed.get(self.flushed..).unwrap_or_default();
        listed.iter().copied().chain(self.unwritten.web_sockets()).chain(self.dirty.iter().copied())
    }

    /// Writes to a connection. `is_listed` means that the connection was listed since the last flush. The response of a
    /// listed HTTP connection is written later, after the output of the WebSockets.
    #[inline(always)]
    fn flush(&mut self, slot: Slot, is_listed: bool) -> FlushResult {
        let Table { entries, env, shared, .. } = self;
        let Some(entry) = entries.get_mut(slot.index()).filter(|entry| entry.transport.is_some()) else {
            return FlushResult::NOTHING;
        };
        entry.connection.is_listed = false;
        let is_http = entry.connection.is_http();
        if is_listed && is_http {
            self.answering.push(slot);
            return FlushResult::NOTHING;
        }
        let had_stopped_reading = is_http && !entry.connection.wants_read();
        let offered = entry.write_output(env, shared);
        if offered == WriteResult::Done && entry.connection.is_flushed() {
            return FlushResult::NOTHING;
        }
        self.finish_flush(slot, had_stopped_reading, offered)
    }

    /// Completes the flush of a connection. `flush` skips this call if it has written all output of an open WebSocket.
    ///
    /// `had_stopped_reading` means that the server did not read from an HTTP connection, because of its unwritten
    /// output.
    #[inline(never)]
    fn finish_flush(&mut self, slot: Slot, had_stopped_reading: bool, offered: WriteResult) -> FlushResult {
        let Table { entries, env, .. } = self;
        let Some(entry) = entries.get_mut(slot.index()) else { return FlushResult::NOTHING };
        match offered {
            WriteResult::Done if !env.is_over_total(0) => {}
            WriteResult::Broken => {
                // The unwritten output is dropped here, because its range in the journal becomes invalid at the end of
                // the turn.
                entry.connection.release(env);
                return FlushResult::Broken;
            }
            offered => self.end_write(slot, offered),
        }
        let Table { entries, env, shared, .. } = self;
        let Some(entry) = entries.get_mut(slot.index()) else { return FlushResult::NOTHING };
        match entry.connection.poll_next(env) {
            SocketAction::Stay => {}
            action @ (SocketAction::Drop | SocketAction::Reset) => {
                // The connection has ended, so its output is never written. The output is dropped now, so that it does
                // not cause the eviction of another connection.
                entry.connection.release(env);
                match &mut entry.transport {
                    Some(transport) if action == SocketAction::Reset => transport.reset(shared),
                    Some(transport) => transport.finish(shared),
                    None => {}
                }
                return FlushResult::Over;
            }
            SocketAction::Shut => {
                if let Some(transport) = &mut entry.transport {
                    transport.shutdown(shared);
                }
            }
        }
        let may_resume = had_stopped_reading && entry.connection.wants_read();
        let timeout = entry.poll_timeout(env, shared);
        if entry.connection.has_queue() {
            self.queued.insert(slot);
        }
        FlushResult::Stays { may_resume, timeout }
    }

    #[cold]
    fn end_write(&mut self, slot: Slot, offered: WriteResult) {
        if offered == WriteResult::LimitReached {
            self.mark_dirty(slot);
        }
        // The flush has removed this connection from its lists, but an eviction must still find its queue.
        self.queued.insert(slot);
        self.enforce_queue_total(None);
    }
}

impl<T: Transport> Entry<T> {
    #[inline(always)]
    fn write_output(&mut self, env: &mut Env, shared: &mut T::Shared) -> WriteResult {
        if !self.connection.can_write() {
            return WriteResult::Done;
        }
        // Nearly all output is one slice, which the transport accepts as a whole.
        let Some(slice) = self.connection.poll_slice(env) else { return self.write_rest(0, env, shared) };
        let Some(transport) = &mut self.transport else { return WriteResult::Done };
        let written = transport.write_vectored(shared, &[IoSlice::new(slice)]);
        if !self.handle_write(written, env) {
            return WriteResult::Broken;
        }
        if self.connection.can_write() { self.write_rest(1, env, shared) } else { WriteResult::Done }
    }

    /// Writes the output of a connection until no output is left, or the transport is full. `writes` is the number of
    /// earlier writes for this connection in this flush.
    #[inline(never)]
    fn write_rest(&mut self, writes: usize, env: &mut Env, shared: &mut T::Shared) -> WriteResult {
        for _ in writes..WRITES_PER_TURN_MAX {
            let Some(transport) = &mut self.transport else { return WriteResult::Done };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.connection.poll_slices(env, &mut slices);
            let written = transport.write_vectored(shared, &slices[..filled]);
            if !self.handle_write(written, env) {
                return WriteResult::Broken;
            }
            if !self.connection.can_write() {
                return WriteResult::Done;
            }
        }
        WriteResult::LimitReached
    }

    /// Reports the result of a write. Returns `false` if the transport is broken.
    #[inline]
    fn handle_write(&mut self, written: Option<Written>, env: &mut Env) -> bool {
        env.counts.writes += 1;
        let Some(written) = written else { return false };
        self.connection.handle_written(written, env);
        self.observe(Observed::Wrote(written));
        true
    }
}
