//! The metrics of each loop, on a server with several loops.
//!
//! The metrics in this module have the label `loop`. The value of the label is the number of the loop, from 0. All
//! other metrics are sums over all loops.

use std::time::Duration;

/// The values of the metrics of one loop.
#[derive(Clone, Default, Debug)]
pub struct LoopNumbers {
    pub connections: usize,
    pub open: usize,
    pub opens: u64,
    pub messages_in: u64,
    pub messages_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub queue_bytes: usize,
    pub drops: u64,
    pub forwards: u64,
    pub turns: u64,
    /// The total duration of the turns of the loop.
    pub turn_time: Duration,
}

/// A metric that has one value for each loop.
pub struct LoopMetric {
    pub name: &'static str,
    pub help: &'static str,
    /// Whether the metric is a counter, which never decreases.
    pub is_counter: bool,
    pub value: fn(&LoopNumbers) -> u64,
}

/// The metrics of each loop that have whole numbers as values. `fdpush_loop_turn_seconds` is not in the list, because
/// its values are fractions.
pub const LOOP_METRICS: [LoopMetric; 11] = [
    gauge("fdpush_loop_connections", "Connections of a loop, in any state", |numbers| numbers.connections as u64),
    gauge("fdpush_loop_open", "Open WebSockets of a loop", |numbers| numbers.open as u64),
    counter("fdpush_loop_opens", "WebSockets opened on a loop", |numbers| numbers.opens),
    counter("fdpush_loop_messages_in", "Messages that a loop received from clients", |numbers| numbers.messages_in),
    counter("fdpush_loop_messages_out", "Messages that a loop sent to clients", |numbers| numbers.messages_out),
    counter("fdpush_loop_bytes_in", "Bytes that a loop received", |numbers| numbers.bytes_in),
    counter("fdpush_loop_bytes_out", "Bytes that a loop sent", |numbers| numbers.bytes_out),
    gauge("fdpush_loop_queue_bytes", "Bytes in the send queues of a loop", |numbers| numbers.queue_bytes as u64),
    counter("fdpush_loop_drops", "Messages that a loop did not deliver to slow clients", |numbers| numbers.drops),
    counter("fdpush_loop_forwards", "Pushes that a loop sent to other loops", |numbers| numbers.forwards),
    counter("fdpush_loop_turns", "Turns of a loop", |numbers| numbers.turns),
];

const fn gauge(name: &'static str, help: &'static str, value: fn(&LoopNumbers) -> u64) -> LoopMetric {
    LoopMetric { name, help, is_counter: false, value }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&LoopNumbers) -> u64) -> LoopMetric {
    LoopMetric { name, help, is_counter: true, value }
}
