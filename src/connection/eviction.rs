//! Selects the connections whose messages are dropped, or which are closed, when the queues together exceed their
//! bound.
//!
//! A holder is a connection with a queue. An eviction frees memory of the holder with the largest queue: it drops
//! messages of this holder, or closes its connection. Evictions repeat until 1/16 of the bound is free. Then many bytes
//! can be queued before the next search, so searches are rare. A holder is not evicted while its counted memory is at
//! most a minimum, [`Evictor::bytes_min`]. The minimums of all holders together are at most half of the bound.
//!
//! The counted memory of a holder is its part of the memory of all queues. If several queues share a frame, each queue
//! has an equal part of the memory of this frame.

use crate::fd::Slot;
use std::collections::BinaryHeap;

use crate::connection::{By, Cause, Closed, Connection, Env, Event, Stage};
use crate::limits::{Limits, SlowReader};
use crate::protocol::close::CloseCode;

/// Evictions stop when 1/16 of the bound on all queues is free.
const FREED_PART: usize = 16;

/// An undroppable holder is closed if it has at least this many times the memory of the largest holder with messages
/// that can be dropped.
///
/// The only message of an undroppable holder is partly written, so it cannot be dropped. No undroppable holder is
/// closed if the dropped messages were enough to bring all queues together within their bound: the evictions then stop,
/// also if less than 1/16 of the bound is free.
const UNDROPPABLE_FACTOR: usize = 2;

/// The average number of queues whose memory the evictor reads for each eviction.
const CHARGES_PER_EVICTION: usize = 64;

/// The search for the holders that free memory while the queues together exceed their bound.
///
/// The [`Table`](crate::connection::Table) creates an evictor when [`Env::is_over_total`] is true, and drops the
/// evictor after the last eviction:
///
/// 1. [`Evictor::new`] takes all connections that have a queue.
/// 2. [`poll`](Evictor::poll) returns the next eviction, or `None` if enough memory is free or no more memory can be
///    freed.
/// 3. The caller carries out the eviction before the next poll. After an [`Eviction::Drop`], the caller reports the
///    result with [`handle_dropped`](Evictor::handle_dropped). If the caller wrote to the socket instead of dropping
///    messages, the caller calls [`handle_written`](Evictor::handle_written).
///
/// The evictor does not access connections. The evictor works on a snapshot of the memory of all queues. The snapshot
/// can become outdated: if one queue drops a shared frame, the counted memory of the other queues grows. With `n`
/// holders, the snapshot is at most `n / 64` polls old. With fewer than 64 holders, each poll makes a snapshot and
/// returns the largest holder that can free memory. With 64 or more holders, the returned holder may not be the
/// largest, but only because of shared frames.
#[derive(Debug)]
pub struct Evictor {
    /// Holders that may have messages to drop.
    holders: BinaryHeap<Holder>,
    /// Holders without a message that can be dropped.
    undroppable: BinaryHeap<Holder>,
    /// Slots that are not evicted before the next snapshot.
    ///
    /// These are slots with at most `bytes_min` of counted memory, and slots of closed connections.
    exempt: Vec<Slot>,
    /// Whether undroppable holders are closed, because dropping messages did not free enough memory.
    closes_undroppable: bool,
    /// The number of polls until the next snapshot of the queues' memory.
    polls_left: usize,
    /// The number of polls between two snapshots of the queues' memory.
    polls_per_read: usize,
    bytes_min: usize,
}

/// A connection with a queue.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Holder {
    /// The memory of the connection that counts against `queue_total_bytes_max`, the bound of all queues together.
    pub charge: usize,
    /// The slot of the connection.
    pub slot: Slot,
}

/// An action of the caller to free memory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Eviction {
    /// Close the connection.
    Close(Holder),
    /// Drop the newest messages of the connection, until its counted memory is at most `charge_max`.
    Drop {
        /// The largest holder.
        holder: Holder,
        /// The maximum of the connection's counted memory after the drop.
        charge_max: usize,
    },
}

impl Evictor {
    /// Creates an evictor for these holders.
    pub fn new(holders: Vec<Holder>, limits: &Limits) -> Evictor {
        let bytes_min = limits.queue_share_min(holders.len());
        let polls_per_read = holders.len() / CHARGES_PER_EVICTION;
        Evictor {
            holders: holders.into(),
            undroppable: BinaryHeap::new(),
            exempt: Vec::new(),
            closes_undroppable: false,
            polls_left: polls_per_read,
            polls_per_read,
            bytes_min,
        }
    }

    /// Returns whether 1/16 of `queue_total_bytes_max` is free, so that no more evictions are needed.
    pub fn is_enough(&self, env: &Env) -> bool {
        let max = env.limits.queue_total_bytes_max;
        env.queued.frames <= max - max / FREED_PART
    }

    /// Returns the number of bytes that every holder may keep.
    pub fn bytes_min(&self) -> usize {
        self.bytes_min
    }

    /// Returns the next eviction.
    ///
    /// Returns `None` if enough memory is free, or if no more memory can be freed.
    ///
    /// `charge` returns the counted memory of a slot.
    pub fn poll(&mut self, env: &Env, charge: impl Fn(Slot) -> usize) -> Option<Eviction> {
        match self.polls_left.checked_sub(1) {
            Some(polls_left) => self.polls_left = polls_left,
            None => self.read_charges(charge),
        }
        let max = env.limits.queue_total_bytes_max;
        let excess = env.queued.frames.checked_sub(max - max / FREED_PART).filter(|excess| *excess > 0)?;
        let largest = self.holders.pop().filter(|holder| holder.charge > self.bytes_min);
        let other = largest.map_or(0, |holder| holder.charge);
        if self.undroppable.peek().is_some_and(|undroppable| undroppable.charge / UNDROPPABLE_FACTOR >= other) {
            if !self.closes_undroppable && env.queued.frames <= max {
                // The queues together are within their bound, and the largest holder is undroppable. So the evictions
                // stop: every other holder has at most half of its memory.
                return None;
            }
            self.closes_undroppable = true;
            self.holders.extend(largest);
            let undroppable = self.undroppable.pop()?;
            return Some(self.close(undroppable));
        }
        let holder = largest?;
        Some(match env.limits.slow_reader {
            SlowReader::Close => self.close(holder),
            SlowReader::DropNewest | SlowReader::Conflate => {
                // At most half of the holder's memory is dropped in one step, because the next holder may be nearly as
                // large.
                let charge_max = (holder.charge / 2).max(holder.charge.saturating_sub(excess)).max(self.bytes_min);
                Eviction::Drop { holder, charge_max }
            }
        })
    }

    /// Reports how many messages a connection dropped, and its remaining counted memory.
    pub fn handle_dropped(&mut self, holder: Holder, dropped: usize, charge: usize) {
        let holder = Holder { charge, ..holder };
        if charge <= self.bytes_min {
            self.exempt.push(holder.slot);
            return;
        }
        if dropped > 0 { &mut self.holders } else { &mut self.undroppable }.push(holder);
    }

    /// Returns the eviction that closes a holder.
    ///
    /// The next snapshot includes the holder again, because the closed connection may keep a partly written shared
    /// frame. The counted memory of this frame grows when other queues drop the frame.
    fn close(&mut self, holder: Holder) -> Eviction {
        self.exempt.push(holder.slot);
        Eviction::Close(holder)
    }

    fn read_charges(&mut self, charge: impl Fn(Slot) -> usize) {
        self.polls_left = self.polls_per_read;
        let read = |holder: Holder| Holder { charge: charge(holder.slot), ..holder };
        let exempt = self.exempt.drain(..).map(|slot| Holder { charge: 0, slot });
        self.holders = self.holders.drain().chain(exempt).map(read).collect();
        self.undroppable = self.undroppable.drain().map(read).collect();
    }

    /// Reports that the holder's socket accepted output, and the holder's remaining counted memory.
    pub fn handle_written(&mut self, holder: Holder, charge: usize) {
        self.holders.push(Holder { charge, ..holder });
    }
}

impl Connection {
    /// Returns the memory of the connection that counts against `queue_total_bytes_max`.
    pub fn charge(&self) -> usize {
        self.output.charge()
    }

    /// Returns whether the connection has a queue.
    #[inline]
    pub fn has_queue(&self) -> bool {
        self.output.is_queued()
    }

    /// Drops the newest messages of the queue until the counted memory of the connection is at most `charge_max`.
    ///
    /// A partly written message is not dropped. Returns the number of dropped messages.
    pub fn drop_newest(&mut self, charge_max: usize, env: &mut Env) -> usize {
        if !self.is_open() {
            return 0;
        }
        let Some(queue) = self.output.as_queue() else { return 0 };
        let dropped = queue.drop_newest(charge_max, &mut env.queued);
        if queue.is_empty() {
            self.output.clear(env);
        }
        self.traffic.messages_out -= dropped as u64;
        env.counts.traffic.messages_out -= dropped as u64;
        dropped
    }

    /// Returns the memory of the client's unfinished message, head or body.
    #[inline]
    pub fn inbound_bytes(&self) -> usize {
        match &self.stage {
            Stage::Open { unfinished: Some(unfinished), .. } | Stage::Closing { unfinished: Some(unfinished), .. } => {
                unfinished.memory_bytes()
            }
            Stage::Http(http) => http.memory_bytes(),
            _ => 0,
        }
    }

    /// Ends a connection that reads too slowly.
    ///
    /// All output except a partly written frame is dropped, so that the close frame is next. If the counted memory
    /// still exceeds `kept_max`, or the queues together exceed their bound, the partly written frame is dropped, too,
    /// and no close frame is sent. A connection that is not an open WebSocket is aborted.
    pub fn close_slow(&mut self, kept_max: usize, env: &mut Env) -> Option<Event<'static>> {
        if !self.is_open() {
            return self.abort(env);
        }
        match self.output.as_queue() {
            Some(queue) => queue.truncate_to_frame(&mut env.queued),
            None => self.output.clear(env),
        }
        if env.is_over_total(0) || self.charge() > kept_max {
            // A close frame can follow only after the whole partly written frame, and too little memory is free to keep
            // this frame.
            self.release(env);
            return Some(self.end_abnormally(By::Server, Cause::SlowConsumer));
        }
        self.close(CloseCode::TRY_AGAIN_LATER, "reading too slowly", Cause::SlowConsumer, env)
    }

    /// Ends a connection whose unfinished input is among the largest of the loop.
    ///
    /// The caller calls this method when unfinished messages, heads and bodies together exceed their bound. The memory
    /// of the input is freed immediately.
    pub fn close_overload(&mut self, env: &mut Env) -> Option<Event<'static>> {
        match self.stage {
            Stage::Open { .. } => Some(self.fail_overload("too many unfinished messages", env)),
            Stage::Http(_) => Some(self.refuse_overload(env)),
            Stage::Closing { .. } | Stage::Lingering { .. } | Stage::Finished { .. } => {
                self.finish();
                None
            }
        }
    }

    /// Ends an open WebSocket because there is too little memory for its unfinished message.
    ///
    /// No more input of the client is read.
    pub(super) fn fail_overload(&mut self, reason: &str, env: &mut Env) -> Event<'static> {
        self.push_close(CloseCode::TRY_AGAIN_LATER, reason, env);
        self.linger();
        Event::Closed(Closed::by_server(CloseCode::TRY_AGAIN_LATER, reason, Cause::InboundOverload))
    }
}
