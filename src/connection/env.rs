//! The state that all connections of a loop share.

use crate::connection::counts::Counts;
use crate::connection::journal::Journal;
use crate::connection::queue::Queue;
use crate::connection::segment::Queued;
use crate::limits::{Heartbeat, Limits};
use crate::protocol::assembler;
use crate::protocol::deflate::Deflater;
use crate::protocol::memory::MemoryTotal;
use crate::protocol::origin::Origins;
use crate::tick::Tick;

/// The maximum number of empty queues that are kept for reuse.
///
/// In a busy turn, about this many connections need a queue.
const SPARE_QUEUES_MAX: usize = 1024;

/// The state that all connections of a loop share.
///
/// This state holds the limits, the time, the totals and reusable memory. The calls on a connection take this state as
/// an argument.
#[derive(Debug)]
pub struct Env {
    /// The limits.
    pub limits: Limits,
    /// The default heartbeat of a connection.
    pub heartbeat: Heartbeat,
    /// The origins that browsers may connect from.
    pub origins: Origins,
    /// The time of this turn.
    pub now: Tick,
    /// The `Date` line of HTTP responses, with the time of this turn.
    pub date: String,
    /// The memory of all queues, in bytes.
    ///
    /// Bytes in the journal are not counted.
    pub queued: Queued,
    /// The greatest length that any queue had since the last reset, in bytes.
    ///
    /// The value is updated when a frame is pushed to a queue.
    pub longest_queue: usize,
    /// The memory of input that is not complete: unfinished messages, and unfinished heads and bodies of HTTP requests.
    pub inbound: MemoryTotal,
    /// The counters of all connections.
    pub counts: Counts,
    /// The frames that the connections send in this turn.
    pub journal: Journal,
    /// The deflater of all messages that the loop sends.
    pub deflater: Deflater,
    /// Reusable assemblers.
    pub assemblers: assembler::AssemblerPool,
    #[expect(clippy::vec_box, reason = "an output stores its queue as a box, so that a queue is moved without a copy")]
    queues: Vec<Box<Queue>>,
}

impl Env {
    /// Creates the state at tick 0.
    pub fn new(limits: Limits, heartbeat: Heartbeat, origins: Origins) -> Env {
        let inbound = MemoryTotal::default();
        Env {
            limits,
            heartbeat,
            origins,
            now: Tick(0),
            date: String::new(),
            queued: Queued::default(),
            longest_queue: 0,
            counts: Counts::default(),
            journal: Journal::default(),
            deflater: Deflater::default(),
            assemblers: assembler::AssemblerPool::counted_in(&inbound),
            inbound,
            queues: Vec::new(),
        }
    }

    /// Returns whether the bytes of all queues plus `more` exceed `queue_total_bytes_max`.
    #[inline]
    pub fn is_over_total(&self, more: usize) -> bool {
        self.queued.frames + more > self.limits.queue_total_bytes_max
    }

    /// Returns whether the memory of unfinished messages, request heads and request bodies exceeds
    /// `inbound_total_bytes_max`.
    #[inline]
    pub fn is_over_inbound(&self) -> bool {
        self.inbound.bytes() > self.limits.inbound_total_bytes_max
    }

    /// Ends the turn and clears the journal.
    ///
    /// Before this call, the caller writes the output of the turn or moves it to queues.
    pub fn end_turn(&mut self) {
        self.journal.clear();
    }

    /// Returns an empty queue.
    pub fn take_queue(&mut self) -> Box<Queue> {
        self.queues.pop().unwrap_or_default()
    }

    /// Empties a queue, and keeps it for another connection.
    ///
    /// The queue is dropped if it is large, or if the maximum number of empty queues is kept already.
    pub fn give_queue(&mut self, mut queue: Box<Queue>) {
        queue.clear(&mut self.queued);
        if self.queues.len() < SPARE_QUEUES_MAX && queue.is_small() {
            self.queues.push(queue);
        }
    }
}
