//! What a loop counts, and what it says about whom it refuses.
//!
//! The numbers are raised where things happen and read as they are: to ask for them costs the same with one connection
//! as with a million.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::connection::{Refusal, Traffic};
use crate::event_loop::core::Core;
use crate::fd::Fd;
use crate::histogram::Histogram;
use crate::log_throttle::LogThrottle;
use crate::peer::Peer;

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
    untrusted: LogThrottle,
    evicted: LogThrottle,
    clients: Refusals,
    control: Refusals,
    pub opened: u64,
    pub closed: u64,
    pub closed_by_cause: BTreeMap<&'static str, u64>,
    pub open: usize,
    pub turn_time: Histogram,
    /// The duration of the turns whose output is not all written.
    waited: Duration,
    accept: LogThrottle,
    origin: LogThrottle,
}

/// The refusals of clients, or of control connections.
#[derive(Debug, Default)]
struct Refusals {
    /// For want of room.
    full: u64,
    by_status: BTreeMap<u16, u64>,
    throttle: LogThrottle,
}

impl Core {
    /// The server in numbers.
    pub fn stats(&self) -> Stats {
        let (counters, counts) = (&self.counters, &self.table.env.counts);
        Stats {
            open: counters.open,
            connections: self.table.len(),
            control: self.table.control_len(),
            connections_max: self.connections_max,
            control_connections_max: self.control_connections_max as usize,
            accepted: counters.accepted,
            refused: counters.clients.full,
            refused_by_status: counters.clients.by_status.clone(),
            control_refused: counters.control.full,
            control_refused_by_status: counters.control.by_status.clone(),
            accept_errors: counters.accept_errors,
            control_evicted: counters.control_evicted,
            untrusted_proxies: counters.untrusted_proxies,
            opened: counters.opened,
            closed: counters.closed,
            closed_by_cause: counters.closed_by_cause.clone(),
            users: self.registry.user_count(),
            groups: self.registry.group_count(),
            queued_bytes: self.table.env.queued.frames + self.table.env.queued.http,
            inbound_bytes: self.table.env.inbound.bytes(),
            traffic: counts.traffic,
            dropped: counts.dropped,
            dropped_by_close: counts.dropped_by_close,
            conflated: counts.conflated,
            too_large: counts.too_large,
            pings: counts.pings,
            missed_heartbeats: counts.missed,
            timers: self.timers.len(),
            reads: counts.reads,
            writes: counts.writes,
            turn_time: counters.turn_time.clone(),
            write_delay: counts.waits.clone(),
            uptime: Duration::from_millis(self.table.env.now.0),
        }
    }

    /// Bytes that wait to be written to a connection.
    pub fn queued_bytes(&self, fd: Fd) -> usize {
        let entry = self.table.slot_of(fd).and_then(|slot| self.table.get(slot));
        entry.map_or(0, |entry| entry.connection.queued_bytes())
    }

    /// A turn is over, and took so long.
    #[inline]
    pub fn end_turn(&mut self, took: Duration) {
        self.counters.turn_time.record(took, 1);
        self.counters.waited += took;
        if !self.table.unwritten.is_empty() {
            return;
        }
        let took = std::mem::take(&mut self.counters.waited);
        let counts = &mut self.table.env.counts;
        let sent = std::mem::take(&mut counts.sent);
        counts.waits.record(took, sent);
    }

    /// A request was refused: by a rule, a handler, or for a handler's fault.
    pub fn refuse(&mut self, fd: Fd, status: u16, why: impl fmt::Display) {
        let is_control = self.table.get(fd.slot()).is_some_and(|entry| entry.connection.is_control());
        *self.counters.refusals(is_control).by_status.entry(status).or_default() += 1;
        log::debug!("fd {fd}: refused with {status}: {why}");
    }

    /// A connection refused a request by one of its rules.
    pub fn count_refusal(&mut self, fd: Fd, refusal: &Refusal) {
        let Refusal::Origin(error) = refusal else { return self.refuse(fd, refusal.status(), refusal) };
        // It repeats what the client sent, with escapes for quotes and all that is not visible ASCII.
        self.refuse(fd, refusal.status(), format_args!("\"{error}\""));
        if let Some(count) = self.counters.origin.count(self.table.env.now) {
            log::warn!(
                "fd {fd}: refused with 403: \"{error}\" (refused over their origin since the last such line: {count})"
            );
        }
    }

    /// The system refused a client that waited at a listener.
    pub fn count_accept_error(&mut self, error: Errno) {
        self.counters.accept_errors += 1;
        let error = io::Error::from(error);
        log::debug!("cannot accept a connection: {error}");
        if let Some(count) = self.counters.accept.count(self.table.env.now) {
            log::warn!("cannot accept a connection: {error} (since the last such line: {count})");
        }
    }

    /// A connection that no trusted proxy made was closed, on a listener for those.
    pub fn count_untrusted_proxy(&mut self, peer: Peer) {
        self.counters.untrusted_proxies += 1;
        log::debug!("{peer} is no trusted proxy, and closed");
        if let Some(count) = self.counters.untrusted.count(self.table.env.now) {
            log::warn!("{peer} is no trusted proxy, and closed (since the last such line: {count})");
        }
    }

    /// A control connection was closed to make room for another.
    pub fn count_eviction(&mut self) {
        self.counters.control_evicted += 1;
        if let Some(count) = self.counters.evicted.count(self.table.env.now) {
            log::warn!(
                "API connections without a valid request were closed for others (since the last such line: {count})"
            );
        }
    }

    /// A control connection cannot be kept. The request on it is refused by its handler.
    pub fn count_control_full(&mut self) {
        let max = self.control_connections_max;
        let refusals = &mut self.counters.control;
        refusals.full += 1;
        if let Some(count) = refusals.throttle.count(self.table.env.now) {
            log::warn!("API connection limit reached ({max}): requests get 503 (since the last such line: {count})");
        }
    }

    /// A new connection got 503: `why` there is no room.
    pub fn count_full(&mut self, is_control: bool, why: impl fmt::Display) {
        let refusals = self.counters.refusals(is_control);
        refusals.full += 1;
        *refusals.by_status.entry(503).or_default() += 1;
        log::debug!("a new connection is refused with 503: {why}");
        if let Some(count) = refusals.throttle.count(self.table.env.now) {
            let refused = if is_control { "new API connections" } else { "new clients" };
            log::warn!("{why}: {refused} get 503 (since the last such line: {count})");
        }
    }
}

impl Counters {
    fn refusals(&mut self, is_control: bool) -> &mut Refusals {
        if is_control { &mut self.control } else { &mut self.clients }
    }
}
