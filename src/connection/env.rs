//! What all connections of a loop share, handed to each transition: the bounds, the time, and memory for reuse.

use crate::connection::counts::Counts;
use crate::connection::journal::Journal;
use crate::connection::queue::Queue;
use crate::connection::segment::Queued;
use crate::limits::{Heartbeat, Limits};
use crate::protocol::assembler;
use crate::protocol::memory::MemoryTotal;
use crate::protocol::origin::Origins;
use crate::tick::Tick;

/// How many empty queues are kept: as many as a turn of a busy server fills, and no more memory than is worth it.
const SPARE_QUEUES_MAX: usize = 1024;

/// The surroundings of a connection.
#[derive(Debug)]
pub struct Env {
    /// The bounds.
    pub limits: Limits,
    /// The heartbeat of every connection that has no other.
    pub heartbeat: Heartbeat,
    /// Where browsers may come from.
    pub origins: Origins,
    /// The time, as of this turn.
    pub now: Tick,
    /// The same for people: the `Date` of HTTP responses.
    pub date: String,
    /// Bytes in all queues. What lies in the journal is in none.
    pub queued: Queued,
    /// The longest queue, in bytes, that a frame was pushed to since this was last asked for.
    pub longest_queue: usize,
    /// Memory of unfinished messages, heads and bodies.
    pub inbound: MemoryTotal,
    /// What is counted.
    pub counts: Counts,
    /// What this turn has to send.
    pub journal: Journal,
    /// Assemblers for reuse.
    pub assemblers: assembler::AssemblerPool,
    #[expect(clippy::vec_box, reason = "a queue moves between connections by its box")]
    queues: Vec<Box<Queue>>,
}

impl Env {
    /// Surroundings at tick 0, with nothing in reserve.
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
            assemblers: assembler::AssemblerPool::counted_in(&inbound),
            inbound,
            queues: Vec::new(),
        }
    }

    /// Whether all queues together, and so many bytes more, are over their bound.
    #[inline]
    pub fn is_over_total(&self, more: usize) -> bool {
        self.queued.frames + more > self.limits.queue_total_bytes_max
    }

    /// Whether unfinished messages, heads and bodies are over their bound.
    #[inline]
    pub fn is_over_inbound(&self) -> bool {
        self.inbound.bytes() > self.limits.inbound_total_bytes_max
    }

    /// All that was touched has been flushed: the journal begins anew.
    pub fn end_turn(&mut self) {
        self.journal.clear();
    }

    /// An empty queue.
    pub fn take_queue(&mut self) -> Box<Queue> {
        self.queues.pop().unwrap_or_default()
    }

    /// Takes a queue back, emptied.
    pub fn give_queue(&mut self, mut queue: Box<Queue>) {
        queue.clear(&mut self.queued);
        if self.queues.len() < SPARE_QUEUES_MAX && queue.is_small() {
            self.queues.push(queue);
        }
    }
}
