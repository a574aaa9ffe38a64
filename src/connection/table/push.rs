//! Queues messages, and applies the policy for slow readers.

use crate::connection::table::{Observed, Table, Transport};
use crate::connection::{Outbound, Sent};
use crate::fd::Slot;
use crate::limits::SlowReader;
use crate::message::Outcome;

/// The maximum length, in bytes, of a frame to one connection that is not written immediately.
///
/// A longer frame is written immediately, so that the client receives it while the next frames are created. A frame to
/// many connections is shared, and is written at the end of the turn.
const EAGER_BYTES: usize = 64 << 10;

impl<T: Transport> Table<T> {
    /// Queues a frame for the connection at `slot`.
    ///
    /// If the queue of the connection is full, the table writes to the transport before it applies `slow_reader`.
    // This function is always inlined: a push to many connections calls it in a loop.
    #[inline(always)]
    pub fn push(&mut self, slot: Slot, outbound: &mut Outbound<'_>) -> Outcome {
        self.settle(slot);
        let Some(entry) = self.entries.get_mut(slot.index()).filter(|entry| entry.transport.is_some()) else {
            return Outcome::Gone;
        };
        let sent = entry.connection.send(outbound, &mut self.env);
        entry.observe(Observed::Sent(sent));
        if sent != Sent::Queued {
            return self.handle_unsent(slot, outbound, sent);
        }
        if !entry.connection.is_listed {
            entry.connection.is_listed = true;
            self.dirty.push(slot);
        }
        // `is_over` means that the queues together exceed their bound if the transport does not accept the frame.
        let is_over = self.env.is_over_total(entry.connection.journal_bytes());
        if is_over || (outbound.bytes() > EAGER_BYTES && !outbound.to_many) {
            return self.write_pushed(slot, is_over);
        }
        Outcome::Queued
    }

    /// Handles a frame that [`Connection::send`](crate::connection::Connection::send) did not queue.
    #[cold]
    fn handle_unsent(&mut self, slot: Slot, outbound: &mut Outbound<'_>, sent: Sent) -> Outcome {
        match sent {
            Sent::Queued => Outcome::Queued,
            Sent::NotOpen if self.has_ended() => self.push_to_closed(slot),
            Sent::NotOpen => Outcome::Gone,
            Sent::TooLarge => {
                self.env.counts.too_large += 1;
                Outcome::TooLarge
            }
            Sent::Full => self.push_to_full(slot, outbound),
        }
    }

    /// Queues a ping. If the queue is full, the table first writes the queue to the transport.
    pub fn ping(&mut self, slot: Slot, payload: &[u8]) -> Outcome {
        self.settle(slot);
        for may_retry in [true, false] {
            let Some((entry, env)) = self.entry_mut(slot) else { return Outcome::Gone };
            let sent = entry.connection.ping(payload, env);
            entry.observe(Observed::Pinged(sent));
            match sent {
                Sent::Queued => {
                    self.mark_dirty(slot);
                    if self.env.is_over_total(0) {
                        self.write(slot);
                    }
                    return Outcome::Queued;
                }
                Sent::Full if may_retry => _ = self.write(slot),
                Sent::Full | Sent::TooLarge => break,
                Sent::NotOpen => return Outcome::Gone,
            }
        }
        self.env.counts.dropped += 1;
        Outcome::Dropped
    }

    /// Queues a piece of an HTTP response.
    ///
    /// If the queue is still full after a write, the client is disconnected, and so sees that the response is
    /// incomplete.
    pub fn push_piece(&mut self, slot: Slot, piece: &[u8]) -> Outcome {
        for may_retry in [true, false] {
            match self.step(slot, |connection, env| connection.write_response(piece, env)) {
                Some(Sent::Queued) if self.keep_http_bound(slot) => return Outcome::Queued,
                Some(Sent::Full) if may_retry => _ = self.write(slot),
                Some(Sent::Queued | Sent::Full) => break,
                Some(Sent::NotOpen | Sent::TooLarge) | None => return Outcome::Gone,
            }
        }
        self.drop_response(slot);
        Outcome::Dropped
    }

    /// Enforces the bound of all HTTP queues after a response to the connection at `slot`.
    ///
    /// If the bound is exceeded, the response is written now. Returns `false` if the transport did not accept the whole
    /// response. The caller must then drop the response with [`drop_response`](Table::drop_response).
    pub fn keep_http_bound(&mut self, slot: Slot) -> bool {
        let is_over = |table: &Table<T>| table.env.queued.http > table.env.limits.queue_total_bytes_max;
        if is_over(self) {
            self.write(slot);
        }
        !is_over(self) || self.connection(slot).is_none_or(|connection| connection.queued_bytes() == 0)
    }

    /// Ends an HTTP connection, and drops the part of its response that is not written yet.
    pub fn drop_response(&mut self, slot: Slot) {
        if let Some((entry, env)) = self.entry_mut(slot) {
            // The connection is not a WebSocket, so it returns no `Event::Closed`.
            let _ = entry.connection.abort(env);
            env.counts.dropped += 1;
            entry.observe(Observed::ResponseDropped);
            self.mark_dirty(slot);
        }
    }

    /// Pushes to a connection whose queue is full.
    ///
    /// The table writes to the transport before it applies `slow_reader`.
    #[cold]
    fn push_to_full(&mut self, slot: Slot, outbound: &mut Outbound<'_>) -> Outcome {
        if !self.write(slot) {
            // The transport is broken. The next flush ends the connection.
            self.mark_dirty(slot);
            self.env.counts.dropped += 1;
            return Outcome::Dropped;
        }
        let Some((entry, env)) = self.entry_mut(slot) else { return Outcome::Gone };
        let sent = entry.connection.send(outbound, env);
        entry.observe(Observed::Sent(sent));
        match sent {
            Sent::Queued => {
                self.mark_dirty(slot);
                return self.enforce_after_push(slot);
            }
            Sent::Full | Sent::TooLarge => match env.limits.slow_reader {
                SlowReader::Close => {
                    self.close_slow(slot, usize::MAX, None);
                    return self.count_closed();
                }
                SlowReader::DropNewest => {}
                SlowReader::Conflate => {
                    let is_done = entry.connection.conflate(outbound, env);
                    entry.observe(Observed::Conflated { is_done });
                    if is_done {
                        env.counts.conflated += 1;
                        return self.enforce_after_push(slot);
                    }
                }
            },
            // The write evicted this connection, to enforce the bound of all queues.
            Sent::NotOpen => return self.count_closed(),
        }
        self.env.counts.dropped += 1;
        Outcome::Dropped
    }

    /// Enforces the bound of all queues together after a message was queued or conflated.
    fn enforce_after_push(&mut self, slot: Slot) -> Outcome {
        let fresh = self.connection(slot).map_or(0, |connection| connection.journal_bytes());
        if self.env.is_over_total(fresh) { self.write_pushed(slot, true) } else { Outcome::Queued }
    }

    /// Writes a queued message, and then enforces the bound of all queues together.
    ///
    /// `is_over` means that the queues together exceed their bound if the transport does not accept the message. In
    /// this case, all queues are written. If the bound is still exceeded, the connections with the largest queues are
    /// evicted. The receiver of the message may be one of these connections.
    #[cold]
    fn write_pushed(&mut self, slot: Slot, is_over: bool) -> Outcome {
        if is_over {
            self.write_all();
        }
        // A broken transport is not handled here, because the next flush handles it.
        self.write_output(slot);
        let was_open = self.connection(slot).is_some_and(|connection| connection.is_open());
        let has_dropped = self.enforce_queue_total(Some(slot));
        match self.connection(slot) {
            Some(connection) if was_open && !connection.is_open() => self.count_closed(),
            // The eviction has dropped the new message, and has already counted it as dropped.
            _ if has_dropped => Outcome::Dropped,
            _ => Outcome::Queued,
        }
    }

    /// Pushes to a connection that is not open.
    ///
    /// The message counts as dropped if the table closed the connection as a slow consumer, and the caller has not yet
    /// received the event of its end.
    #[cold]
    fn push_to_closed(&mut self, slot: Slot) -> Outcome {
        match self.ended.iter().any(|(ended, _)| *ended == slot) {
            true => self.count_closed(),
            false => Outcome::Gone,
        }
    }

    fn count_closed(&mut self) -> Outcome {
        self.env.counts.dropped += 1;
        self.env.counts.dropped_by_close += 1;
        Outcome::Dropped
    }
}
