//! Reports: the counters of the server, the state of a connection, and refusals in the log.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::connection::{Connection, Refusal, Traffic};
use crate::event_loop::core::Core;
use crate::event_loop::info::Info;
use crate::event_loop::stats::Stats;
use crate::fd::Fd;
use crate::peer::Peer;
use crate::tls::TlsCounts;

impl Core {
    /// Returns the counters of this loop.
    pub fn stats(&self) -> Stats {
        let (counters, counts) = (&self.counters, &self.table.env().counts);
        Stats {
            open: counters.open,
            connections: self.table.count(),
            control: self.table.control_count(),
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
            queued_bytes: self.table.env().queued.frames + self.table.env().queued.http,
            inbound_bytes: self.table.env().inbound.bytes(),
            traffic: counts.traffic,
            compression: counts.compression,
            dropped: counts.dropped,
            dropped_by_close: counts.dropped_by_close,
            conflated: counts.conflated,
            too_large: counts.too_large,
            pings: counts.pings,
            missed_heartbeats: counts.missed,
            forwarded: self.siblings.as_ref().map_or(0, |siblings| siblings.forwarded),
            timers: self.timers.len(),
            reads: counts.reads,
            writes: counts.writes,
            turn_time: counters.turn_time.clone(),
            write_delay: counts.waits.clone(),
            tls: TlsCounts { on_plain: counters.tls_on_plain, ..self.table.shared().counts() },
            uptime: Duration::from_millis(self.table.env().now.0),
        }
    }

    /// Returns the number of open WebSockets of all loops.
    pub fn open_count(&self) -> usize {
        match &self.siblings {
            Some(siblings) => (0..siblings.loops()).map(|index| siblings.process().open(index)).sum(),
            None => self.counters.open,
        }
    }

    /// Returns the counters of this loop, but with the number of uids and groups of all loops.
    pub fn stats_for_sum(&self) -> Stats {
        let (users, groups) = self.name_counts();
        Stats { users, groups, ..self.stats() }
    }

    /// Returns the number of bytes in the queue of a connection.
    pub fn queued_bytes(&self, fd: Fd) -> usize {
        let Some(slot) = self.table.slot_of(fd) else { return 0 };
        let waiting = self.table.waiting_fan_outs(slot).1;
        self.table.connection(slot).map_or(0, |connection| connection.queued_bytes() + waiting)
    }

    /// Records the duration of a turn.
    #[inline]
    pub fn end_turn(&mut self, took: Duration) {
        self.counters.turn_time.record(took, 1);
        self.counters.waited += took;
        if self.table.is_flushing() {
            return;
        }
        let took = std::mem::take(&mut self.counters.waited);
        let counts = &mut self.table.env_mut().counts;
        let sent = std::mem::take(&mut counts.sent);
        counts.waits.record(took, sent);
    }

    /// Counts and logs a refused request.
    pub fn refuse(&mut self, fd: Fd, status: u16, reason: impl fmt::Display) {
        let is_control = self.connection(fd).is_some_and(Connection::is_control);
        *self.counters.refusals(is_control).by_status.entry(status).or_default() += 1;
        log::debug!("fd {fd}: refused with {status}: {reason}");
    }

    /// Counts a request that was refused without a call of the handler.
    pub fn count_refusal(&mut self, fd: Fd, refusal: &Refusal) {
        if *refusal == Refusal::TlsHello {
            self.counters.tls_on_plain += 1;
            if let Some(count) = self.counters.tls_hello.count(self.table.env().now) {
                log::warn!("fd {fd}: TLS hello on a listener without TLS ({count} since the last warning)");
            }
        }
        let Refusal::Origin(error) = refusal else { return self.refuse(fd, refusal.status(), refusal) };
        // The error contains text from the client. In this text, quotes and all bytes that are not visible ASCII are
        // escaped.
        self.refuse(fd, refusal.status(), format_args!("\"{error}\""));
        if let Some(count) = self.counters.origin.count(self.table.env().now) {
            log::warn!("fd {fd}: refused with 403: \"{error}\" ({count} refused by origin since the last warning)");
        }
    }

    /// Counts an accepted connection.
    pub fn count_accepted(&mut self) {
        self.counters.accepted += 1;
    }

    /// Counts a failed accept(2).
    pub fn count_accept_error(&mut self, error: Errno) {
        self.counters.accept_errors += 1;
        let error = io::Error::from(error);
        log::debug!("cannot accept a connection: {error}");
        if let Some(count) = self.counters.accept.count(self.table.env().now) {
            log::warn!("cannot accept a connection: {error} ({count} since the last warning)");
        }
    }

    /// Counts a connection that was closed because it did not come from a trusted proxy.
    pub fn count_untrusted_proxy(&mut self, peer: Peer) {
        self.counters.untrusted_proxies += 1;
        log::debug!("connection closed: {peer} is not a trusted proxy");
        if let Some(count) = self.counters.untrusted.count(self.table.env().now) {
            log::warn!("connection closed: {peer} is not a trusted proxy ({count} since the last warning)");
        }
    }

    /// Counts a control connection that was closed in favor of a new connection.
    pub fn count_eviction(&mut self) {
        self.counters.control_evicted += 1;
        if let Some(count) = self.counters.evicted.count(self.table.env().now) {
            log::warn!(
                "API connection limit reached: connections without a valid request are closed ({count} since the last warning)"
            );
        }
    }

    /// Counts a control connection that `keep_control` cannot keep. The handler refuses the request of this connection.
    pub fn count_control_full(&mut self) {
        let max = self.control_connections_max;
        let refusals = &mut self.counters.control;
        refusals.full += 1;
        if let Some(count) = refusals.throttle.count(self.table.env().now) {
            log::warn!("API connection limit reached ({max}): requests get 503 ({count} since the last warning)");
        }
    }

    /// Counts a new connection that was refused because a limit is reached.
    pub fn count_full(&mut self, is_control: bool, reason: impl fmt::Display) {
        let refusals = self.counters.refusals(is_control);
        refusals.full += 1;
        *refusals.by_status.entry(503).or_default() += 1;
        log::debug!("new connection refused with 503: {reason}");
        if let Some(count) = refusals.throttle.count(self.table.env().now) {
            let refused = if is_control { "new API connections" } else { "new clients" };
            log::warn!("{reason}: {refused} get 503 ({count} since the last warning)");
        }
    }

    /// Returns the state of a connection.
    pub fn info(&self, fd: Fd) -> Option<Info> {
        let env = self.table.env();
        let connection = self.connection(fd)?;
        let (messages, bytes) = self.table.waiting_fan_outs(self.table.own_slot(fd));
        let traffic = connection.traffic();
        let opened = Duration::from_millis(connection.opened().0);
        Some(Info {
            fd,
            state: connection.state(),
            uid: self.uid_of(fd).map(str::to_owned),
            groups: self.groups_of(fd).into_iter().map(str::to_owned).collect(),
            peer: connection.peer(),
            connected_at: self.started + opened,
            connected_for: env.now.since(connection.opened()),
            idle_for: env.now.since(connection.last_seen()),
            traffic: Traffic { messages_out: traffic.messages_out + messages, ..traffic },
            queued_bytes: connection.queued_bytes() + bytes,
            tls: self
                .table
                .transport(self.table.own_slot(fd))
                .filter(|socket| socket.is_tls())
                .and_then(|socket| self.table.shared().info(socket.as_raw_fd())),
        })
    }

    /// Returns the number of bytes in the queues of all WebSockets.
    pub fn total_queued_bytes(&self) -> usize {
        self.table.env().queued.frames
    }

    /// Returns the greatest length that any output queue had since the last call, in bytes.
    pub fn take_longest_queue(&mut self) -> usize {
        std::mem::take(&mut self.table.env_mut().longest_queue)
    }
}
