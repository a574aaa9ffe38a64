//! The counters of a loop.
//!
//! Each counter is updated where its event happens. The time to read the counters does not depend on the number of
//! connections.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::connection::{Compression, Traffic};
use crate::histogram::Histogram;
use crate::log_throttle::LogThrottle;
use crate::tls::TlsCounts;

/// The counters of a server: see [`Remote::stats`](crate::Remote::stats) and [`Context::stats`](crate::Context::stats).
///
/// With several [loops](crate::Server::loops), `Remote::stats` returns the sums of all loops, and `Context::stats`
/// returns the counters of one loop. The limits of connections apply to the whole server.
///
/// A field of type `u64` counts since the start and never decreases. A field of type `usize` is the present number, or
/// a limit. All counters of one loop are from the same moment.
///
/// ```
/// # use fdpush::Context;
/// fn report(ctx: &Context<'_>) -> String {
///     let stats = ctx.stats();
///     let late = stats.turn_time.quantile(0.99);
///     format!("{} open, {} dropped, turns up to {late:?}", stats.open, stats.dropped)
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Open WebSockets.
    pub open: usize,
    /// Connections in any state, including HTTP connections and closing connections.
    pub connections: usize,
    /// Connections of [control listeners](crate::Server::listen_control). `connections` includes control connections.
    pub control: usize,
    /// The limit of connections, not counting control connections.
    pub connections_max: usize,
    /// The limit of control connections.
    pub control_connections_max: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Client connections refused since the start because a limit was reached.
    pub refused: u64,
    /// Failed calls of accept(2) since the start.
    ///
    /// A firewall or a security module causes these errors. A client that disconnected before accept(2) does not count.
    /// A lack of descriptors or memory does not count, either.
    pub accept_errors: u64,
    /// Client requests refused since the start, by HTTP status.
    ///
    /// The numbers include new connections over a limit (503), requests with invalid HTTP, and upgrades that a rule or
    /// a handler refused. A response of [`on_request`](crate::Handler::on_request) does not count.
    pub refused_by_status: BTreeMap<u16, u64>,
    /// Control connections refused since the start because a limit was reached. `refused` does not count these
    /// connections.
    pub control_refused: u64,
    /// Requests of control connections refused since the start, by HTTP status. `refused_by_status` does not count
    /// these requests.
    pub control_refused_by_status: BTreeMap<u16, u64>,
    /// Connections closed since the start because they did not come from a trusted proxy.
    ///
    /// Only listeners with the [PROXY protocol](crate::Server::proxy_protocol) close such connections.
    pub untrusted_proxies: u64,
    /// Control connections closed since the start in favor of new connections.
    ///
    /// See [`Context::keep_control`](crate::Context::keep_control).
    pub control_evicted: u64,
    /// WebSockets opened since the start.
    pub opened: u64,
    /// WebSockets closed since the start: `opened == closed + open`.
    pub closed: u64,
    /// Closed WebSockets by [`Cause::as_str`](crate::Cause::as_str). The map has no entry for a cause that never
    /// occurred.
    pub closed_by_cause: BTreeMap<&'static str, u64>,
    /// Users (uids) with at least one connection.
    pub users: usize,
    /// Groups with at least one member.
    pub groups: usize,
    /// The memory of all queues, in bytes: messages and HTTP responses that sockets have not accepted yet.
    ///
    /// A shared frame counts once. Messages of the current turn that the loop has not tried to write are not in a queue
    /// yet.
    pub queued_bytes: usize,
    /// The memory of unfinished messages, heads and bodies of clients, in bytes.
    ///
    /// The maximum is `inbound_total_bytes_max` plus the bytes of one read.
    pub inbound_bytes: usize,
    /// Bytes and messages since the start in both directions, including those of closed connections.
    pub traffic: Traffic,
    /// The counters of messages compressed with permessage-deflate, in both directions: see
    /// [`Limits::compression`](crate::Limits::compression).
    pub compression: Compression,
    /// Messages dropped since the start because a queue was full, counted per receiver.
    ///
    /// An HTTP response counts, too, if its connection was closed because a queue was full.
    pub dropped: u64,
    /// Dropped messages whose receiver was closed under [`SlowReader::Close`](crate::SlowReader).
    pub dropped_by_close: u64,
    /// Messages that replaced an unsent message in a full queue under [`SlowReader::Conflate`](crate::SlowReader).
    pub conflated: u64,
    /// Messages refused because they are longer than `queue_bytes_max`.
    pub too_large: u64,
    /// Pings sent by heartbeats.
    pub pings: u64,
    /// Heartbeats that a client did not answer in time. `closed_by_cause` counts the connections that were closed for
    /// missed heartbeats.
    pub missed_heartbeats: u64,
    /// Pushes sent to other [loops](crate::Server::loops) since the start, counted per receiving loop.
    pub forwarded: u64,
    /// Running timers of handlers, such as the timers of [`after`](crate::Context::after).
    pub timers: usize,
    /// System calls that read from a connection.
    pub reads: u64,
    /// System calls that wrote to a connection.
    pub writes: u64,
    /// The duration of the turns of the loop, without the wait for events.
    pub turn_time: Histogram,
    /// The time from a push until the socket has accepted the last byte of the output.
    ///
    /// A duration is recorded each time that all output of a connection is written. For output that is written in the
    /// turn of its push, the recorded duration is the duration of the whole turn, which is an upper bound. For output
    /// that a full socket did not accept, the duration is counted from the failed write, in milliseconds.
    pub write_delay: Histogram,
    /// TLS handshakes by outcome.
    pub tls: TlsCounts,
    /// The time since the server started.
    pub uptime: Duration,
}

impl Stats {
    /// Returns the sums of the counters of several loops of a server. There must be at least one loop.
    ///
    /// The result has the numbers of uids and of groups of the first of `parts`, because a sum would count a uid on
    /// several loops more than once. [`Context::user_count`](crate::Context::user_count) and
    /// [`Context::group_count`](crate::Context::group_count) return the numbers of all loops.
    ///
    /// # Panics
    /// Panics if `parts` is empty.
    pub fn sum(parts: Vec<Stats>) -> Stats {
        let add = |mut sum: Stats, other| {
            sum.add(other);
            sum
        };
        parts.into_iter().reduce(add).unwrap_or_else(|| unreachable!("a server has a loop"))
    }

    /// Adds the counters of another loop of the same server.
    ///
    /// The numbers of uids and groups are not added, because several loops can have the same uid. The limits are the same
    /// for all loops.
    fn add(&mut self, other: Stats) {
        self.open += other.open;
        self.connections += other.connections;
        self.control += other.control;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.accept_errors += other.accept_errors;
        add_by_key(&mut self.refused_by_status, other.refused_by_status);
        self.control_refused += other.control_refused;
        add_by_key(&mut self.control_refused_by_status, other.control_refused_by_status);
        self.untrusted_proxies += other.untrusted_proxies;
        self.control_evicted += other.control_evicted;
        self.opened += other.opened;
        self.closed += other.closed;
        add_by_key(&mut self.closed_by_cause, other.closed_by_cause);
        self.queued_bytes += other.queued_bytes;
        self.inbound_bytes += other.inbound_bytes;
        self.traffic += other.traffic;
        self.compression += other.compression;
        self.dropped += other.dropped;
        self.dropped_by_close += other.dropped_by_close;
        self.conflated += other.conflated;
        self.too_large += other.too_large;
        self.pings += other.pings;
        self.missed_heartbeats += other.missed_heartbeats;
        self.forwarded += other.forwarded;
        self.timers += other.timers;
        self.reads += other.reads;
        self.writes += other.writes;
        self.turn_time += &other.turn_time;
        self.write_delay += &other.write_delay;
        self.tls += other.tls;
        self.uptime = self.uptime.max(other.uptime);
    }
}

fn add_by_key<K: Ord>(sums: &mut BTreeMap<K, u64>, others: BTreeMap<K, u64>) {
    for (key, count) in others {
        *sums.entry(key).or_default() += count;
    }
}

/// The counters of the loop itself. `Env` has the counters of connections.
#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: u64,
    pub accept_errors: u64,
    pub control_evicted: u64,
    pub untrusted_proxies: u64,
    /// Connections to listeners without TLS that sent a TLS hello.
    pub tls_on_plain: u64,
    pub tls_hello: LogThrottle,
    pub untrusted: LogThrottle,
    pub evicted: LogThrottle,
    pub clients: Refusals,
    pub control: Refusals,
    pub opened: u64,
    pub closed: u64,
    pub closed_by_cause: BTreeMap<&'static str, u64>,
    pub open: usize,
    pub turn_time: Histogram,
    /// The total duration of the latest turns that ended with unwritten output. A turn that has written all output
    /// resets the value.
    pub waited: Duration,
    pub accept: LogThrottle,
    pub origin: LogThrottle,
}

/// The counters of refused clients or refused control connections.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Connections refused because a limit was reached.
    pub full: u64,
    pub by_status: BTreeMap<u16, u64>,
    pub throttle: LogThrottle,
}

impl Counters {
    pub fn refusals(&mut self, is_control: bool) -> &mut Refusals {
        if is_control { &mut self.control } else { &mut self.clients }
    }
}
