//! Memory that connections share, and what the largest holders of queued bytes give up when it runs out.
//!
//! Over the bound, the largest pays, and again the largest, until a part of the bound is free: so the search among the
//! holders is paid for by the bytes that have to come before the next one. A bytes_min, which half the bound has room for
//! however many hold something, is taken from nobody.

use crate::fd::Slot;
use std::collections::BinaryHeap;

use crate::connection::{By, Cause, Closed, Connection, Env, Event, Stage};
use crate::limits::{Limits, SlowReader};
use crate::protocol::close::CloseCode;

/// The part of the bound that is made free when it is reached: one in so many.
const FREED_PART: usize = 16;

/// Half a message cannot be dropped. Its connection is closed once it holds so many times what any holder does of whom
/// messages can be dropped.
const UNDROPPABLE_FACTOR: usize = 2;

/// Charges that are read for each eviction, on average.
const CHARGES_PER_EVICTION: usize = 64;

/// The holders that pay while all queues are over their bound, and how much.
#[derive(Debug)]
pub struct Evictor {
    /// Of which more can be had.
    holders: BinaryHeap<Holder>,
    /// Of which no more can be dropped: what is left is half a message, or none.
    undroppable: BinaryHeap<Holder>,
    /// Slots of those that are charged no more than the bytes_min, or closed.
    exempt: Vec<Slot>,
    /// Whether those that are undroppable are closed: what could be dropped was not enough.
    closes_undroppable: bool,
    /// Demands until the charges are read anew.
    polls_left: usize,
    /// Demands between two readings.
    polls_per_read: usize,
    bytes_min: usize,
}

/// A connection with a queue.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Holder {
    /// Memory that it is charged.
    pub charge: usize,
    /// Its slot.
    pub slot: Slot,
}

/// The eviction on the largest holder.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Eviction {
    /// It is closed.
    Close(Holder),
    /// It drops its newest messages, until it is charged no more than `charge_max`.
    Drop {
        /// The largest holder.
        holder: Holder,
        /// The most that it may be charged then.
        charge_max: usize,
    },
}

impl Evictor {
    /// For these holders.
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

    /// Whether the part of the bound is free.
    pub fn is_enough(&self, env: &Env) -> bool {
        let max = env.limits.queue_total_bytes_max;
        env.queued.frames <= max - max / FREED_PART
    }

    /// Bytes that every holder keeps.
    pub fn bytes_min(&self) -> usize {
        self.bytes_min
    }

    /// The next eviction, until enough is free or no holder is left. `charge` reads what a slot is charged now: the share of a
    /// frame grows when others drop it.
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
                // Within the bound, the smaller holders pay nothing for what a much larger one cannot give.
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
                // The next holder may be nearly as large.
                let charge_max = (holder.charge / 2).max(holder.charge.saturating_sub(excess)).max(self.bytes_min);
                Eviction::Drop { holder, charge_max }
            }
        })
    }

    /// The holder has dropped so many messages, and is charged `charge` now.
    pub fn handle_dropped(&mut self, holder: Holder, dropped: usize, charge: usize) {
        let holder = Holder { charge, ..holder };
        if charge <= self.bytes_min {
            self.exempt.push(holder.slot);
            return;
        }
        if dropped > 0 { &mut self.holders } else { &mut self.undroppable }.push(holder);
    }

    /// A closed connection may keep the frame that is half written, whose share can grow.
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

    /// The holder's socket took something, and it is charged `charge` now.
    pub fn handle_written(&mut self, holder: Holder, charge: usize) {
        self.holders.push(Holder { charge, ..holder });
    }
}

impl Connection {
    /// The memory that its queue is charged of what all queues have.
    pub fn charge(&self) -> usize {
        self.output.charge()
    }

    /// Whether it has a queue.
    #[inline]
    pub fn has_queue(&self) -> bool {
        self.output.is_queued()
    }

    /// Drops its newest messages until it is charged no more than `charge_max`, or none is left that nothing was written
    /// of. Returns how many.
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

    /// Memory of what the client has not finished: a message, a head or a body.
    #[inline]
    pub fn inbound_bytes(&self) -> usize {
        match &self.stage {
            Stage::Open(Some(unfinished)) | Stage::Closing(Some(unfinished)) => unfinished.memory_bytes(),
            Stage::Http(http) => http.memory_bytes(),
            _ => 0,
        }
    }

    /// Ends a connection whose reader is too slow: what it has not begun to read is dropped, so that the close frame
    /// is next. If it is charged more than `kept_max` then, or all queues are over their bound, the rest is dropped too, and
    /// there is no close frame. One that was ending already has no more time.
    pub fn close_slow(&mut self, kept_max: usize, env: &mut Env) -> Option<Event<'static>> {
        if !self.is_open() {
            return self.abort(env);
        }
        match self.output.as_queue() {
            Some(queue) => queue.truncate_to_frame(&mut env.queued),
            None => self.output.clear(env),
        }
        if env.is_over_total(0) || self.charge() > kept_max {
            // There is no room for the frame that it is in the middle of, and a close frame cannot come before its end.
            self.release(env);
            return Some(self.end_abnormally(By::Server, Cause::SlowConsumer));
        }
        self.close(CloseCode::TRY_AGAIN_LATER, "reading too slowly", Cause::SlowConsumer, env)
    }

    /// Ends a connection whose unfinished message, head or body is among the largest while all are over their bound. Its
    /// memory is free at once.
    pub fn close_overload(&mut self, env: &mut Env) -> Option<Event<'static>> {
        match self.stage {
            Stage::Open(_) => Some(self.fail_overload("too many unfinished messages", env)),
            Stage::Http(_) => Some(self.refuse_overload(env)),
            Stage::Closing(_) | Stage::Lingering { .. } | Stage::Finished => {
                self.stage = Stage::Finished;
                None
            }
        }
    }

    /// Ends an open connection for want of memory. As the message is given up, nothing more is read from it.
    pub(super) fn fail_overload(&mut self, reason: &str, env: &mut Env) -> Event<'static> {
        self.push_close(CloseCode::TRY_AGAIN_LATER, reason, env);
        self.linger();
        Event::Closed(Closed::by_server(CloseCode::TRY_AGAIN_LATER, reason, Cause::InboundOverload))
    }
}
