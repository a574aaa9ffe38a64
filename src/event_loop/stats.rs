//! What a loop counts, and what it says about whom it refuses.
//!
//! The numbers are raised where things happen and read as they are: to ask for them costs the same with one connection
//! as with a million.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::connection::Traffic;
use crate::histogram::Histogram;
use crate::log_throttle::LogThrottle;

/// The server's state in numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// WebSockets that are open.
    pub open: usize,
    /// Connections in whatever state, HTTP and closing ones included.
    pub connections: usize,
    /// Those of them that came through a [control listener](crate::Server::listen_control).
    pub control: usize,
    /// The most connections at a time, besides those for control.
    pub connections_max: usize,
    /// The most control connections at a time.
    pub control_connections_max: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Clients' connections refused since the start because there was no room.
    pub refused: u64,
    /// Connections since the start for which accept(2) failed, for another reason than that the client was gone or that
    /// there was no descriptor or memory. A firewall or a security module does that.
    pub accept_errors: u64,
    /// Clients' requests refused since the start, by the HTTP status they got: those for which there was no room (503),
    /// what is no HTTP that is served here, upgrades that a rule or a handler refused. What
    /// [`on_request`](crate::Handler::on_request) answers is no refusal.
    pub refused_by_status: BTreeMap<u16, u64>,
    /// Control connections refused since the start because there was no room. `refused` does not count them.
    pub control_refused: u64,
    /// Requests of control connections refused since the start, by the HTTP status they got. `refused_by_status` does not
    /// count them.
    pub control_refused_by_status: BTreeMap<u16, u64>,
    /// Connections since the start that were closed because no trusted proxy made them, on listeners of the
    /// [PROXY protocol](crate::Server::proxy_protocol).
    pub untrusted_proxies: u64,
    /// Control connections since the start that were closed to make room for others: see
    /// [`Context::keep_control`](crate::Context::keep_control).
    pub control_evicted: u64,
    /// WebSockets opened since the start.
    pub opened: u64,
    /// WebSockets closed since the start: `opened == closed + open`.
    pub closed: u64,
    /// The same by [`Cause::as_str`](crate::Cause::as_str). A cause that never came is not there.
    pub closed_by_cause: BTreeMap<&'static str, u64>,
    /// uids with a connection.
    pub users: usize,
    /// Groups with a member.
    pub groups: usize,
    /// Memory of all queues, which hold what sockets have not taken, a shared frame counted once; HTTP responses too. What
    /// this turn pushed and no socket was offered yet is in no queue.
    pub queued_bytes: usize,
    /// Memory of unfinished messages, heads and bodies: at most `inbound_total_bytes_max`, and what one read brings.
    pub inbound_bytes: usize,
    /// Bytes and messages since the start, both ways; those of connections that are gone, too.
    pub traffic: Traffic,
    /// Messages since the start that a full queue did not take, each counted once a reader; responses too, where the
    /// connection was ended for want of room.
    pub dropped: u64,
    /// Those of them whose reader was closed: [`SlowReader::Close`](crate::SlowReader).
    pub dropped_by_close: u64,
    /// Messages that a full queue took in the place of an unsent older one: [`SlowReader::Conflate`](crate::SlowReader).
    pub conflated: u64,
    /// Messages not sent because they are longer than `queue_bytes_max`.
    pub too_large: u64,
    /// Pings that heartbeats sent.
    pub pings: u64,
    /// Heartbeats that nothing answered in time. Who missed too many is in `closed_by_cause`.
    pub missed_heartbeats: u64,
    /// Timers of [`after`](crate::Context::after) and [`every`](crate::Context::every) that there are.
    pub timers: usize,
    /// System calls that read from a connection, and that wrote to one.
    pub reads: u64,
    /// See `reads`.
    pub writes: u64,
    /// How long each turn of the loop took, the wait for events not counted. Its count is that of the turns.
    pub turn_time: Histogram,
    /// How long a connection's output waited until the socket had taken the last byte of it: once for each time that
    /// nothing was left. What left in the turn that made it counts with the whole turn's time, which is an upper bound;
    /// what a full socket had left over, by the loop's clock of milliseconds, from the moment it did.
    pub write_delay: Histogram,
    /// Since the start.
    pub uptime: Duration,
}

/// What the loop itself counts. What connections do is in `Env`.
#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: u64,
    pub accept_errors: u64,
    pub control_evicted: u64,
    pub untrusted_proxies: u64,
    pub untrusted: LogThrottle,
    pub evicted: LogThrottle,
    pub clients: Refusals,
    pub control: Refusals,
    pub opened: u64,
    pub closed: u64,
    pub closed_by_cause: BTreeMap<&'static str, u64>,
    pub open: usize,
    pub turn_time: Histogram,
    /// The duration of the turns whose output is not all written.
    pub waited: Duration,
    pub accept: LogThrottle,
    pub origin: LogThrottle,
}

/// The refusals of clients, or of control connections.
#[derive(Debug, Default)]
pub struct Refusals {
    /// RefusalReason because a limit was reached.
    pub full: u64,
    pub by_status: BTreeMap<u16, u64>,
    pub throttle: LogThrottle,
}

impl Counters {
    pub fn refusals(&mut self, is_control: bool) -> &mut Refusals {
        if is_control { &mut self.control } else { &mut self.clients }
    }
}
