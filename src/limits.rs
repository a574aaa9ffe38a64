//! Every bound of the server in one place: what a peer, or a day with too many of them, can take at most.

use std::net::IpAddr;
use std::time::Duration;

use crate::fd::Fd;
use crate::protocol::frame::SERVER_HEADER_BYTES_MAX;

/// The largest `control_connections_max`.
const CONTROL_CONNECTIONS_MAX: u32 = 65_536;

/// The bounds. Build one from the defaults: `Limits { message_bytes_max: 1 << 24, ..Limits::default() }`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at a time, HTTP ones included; over it, a new one gets 503. `None`: derived from the process's
    /// descriptor limit, which the server raises as far as it may: see
    /// [`derived_connections_max`](Limits::derived_connections_max). At most [`Fd::CONNECTIONS_MAX`].
    pub connections_max: Option<u32>,

    /// Connections of [control listeners](crate::Server::listen_control) that are
    /// [kept](crate::Context::keep_control) at a time. 16 more have a place: when all places are taken, a new connection
    /// takes that of the oldest one that is not kept. They are not counted in `connections_max`. Fixed when the server starts: as many descriptors are reserved. From 1 to
    /// 65,536. Default 256.
    pub control_connections_max: u32,

    /// Connections let in in a second, and as many at once after a quiet one; over it, 503 with `Retry-After`, before any
    /// work was put into them. Default none.
    pub accepts_per_second_max: Option<u32>,

    /// Leading bits of an IPv6 address that name one client, from 1 to 128. A network of one customer is a /64 or shorter, so
    /// a client can choose among 2^64 addresses. The server itself bounds nothing by address;
    /// [`counted_address`](Limits::counted_address) is for handlers that do. Default 64.
    pub address_ipv6_prefix: u8,

    /// Bytes of an HTTP head, request line and blank line included; over it, 431. Default 8 KiB.
    pub head_bytes_max: usize,
    /// Header fields of a head, at most 256; over it, 431. Default 64.
    pub headers_max: usize,
    /// From a connection's first moment, or a kept-alive one's next byte, to the end of the head; over it, 408.
    /// Default 10 s.
    pub head_time_max: Duration,
    /// Bytes of an HTTP request's body; over it, 413. Default 1 MiB.
    pub body_bytes_max: usize,
    /// From the end of the head to the end of the body; in pieces, from each to the next; over it, 408. Default 30 s.
    pub body_time_max: Duration,
    /// How long a handler may let an upgrade or a request wait that it answers later; over it, 503. Default 10 s.
    pub answer_time_max: Duration,
    /// How long an HTTP connection is kept alive without a request. Default 60 s.
    pub keep_alive_max: Duration,

    /// Payload bytes of a client's message, in all its fragments; over it, close code 1009. Default 1 MiB.
    pub message_bytes_max: usize,
    /// From a message's first byte to its last; over it, close code 1008. Default 60 s.
    pub message_time_max: Duration,
    /// Memory of unfinished messages, HTTP heads and bodies of all connections together: what buffers have room for, which
    /// can be twice what came. Over it, the connections that hold the most are closed, with close code 1013 or status 503
    /// and cause [`InboundOverload`](crate::Cause::InboundOverload), until an eighth of it is free. At least twice
    /// `message_bytes_max`, `body_bytes_max` and `head_bytes_max`, so that one client alone is never over it. Default
    /// 64 MiB.
    pub inbound_total_bytes_max: usize,
    /// How long a close handshake waits for the client's part, once all that was queued and the server's close frame are
    /// sent; until then `write_time_max` holds. Default 5 s.
    pub close_wait_max: Duration,

    /// Bytes in one connection's queue; over it, [`slow_reader`](Limits::slow_reader) says what happens, and a frame that
    /// is longer is [`TooLarge`](crate::Outcome::TooLarge) for anyone. At least 10 more than `message_bytes_max`, which is
    /// what a frame's header adds, so that whatever came in can be pushed on. Default 4 MiB: a few of the largest messages
    /// in a burst, which the reader of one that was no larger than a single message would not survive.
    ///
    /// A message that is not copied into the queue (a long one to many, or one with a key) counts with the memory that its
    /// place and its key take up.
    ///
    /// It bounds what one turn of the loop pushes to a connection, too, less what its socket takes at once: a reader has
    /// no time to read within a turn.
    pub queue_bytes_max: usize,
    /// Memory of the queues of all WebSockets, a shared frame counted once. A queue holds what its socket did not take: what a turn of the loop pushes costs no more than
    /// the loop's journal (at most 512 KiB) before it is offered to the sockets at the turn's end, or as soon as there would
    /// be no room for it.
    ///
    /// Over it the largest holders pay, whoever was pushed to, until a 16th of it is free: under
    /// [`Close`](SlowReader::Close) they are closed; under the others their newest messages are dropped, also those that
    /// were said to be queued. A message that is half written cannot be dropped: where it is too much, its connection is
    /// closed under any policy, and a close frame that there is no room for is not sent. `queue_bytes_min` is taken from
    /// nobody.
    ///
    /// HTTP responses have as much again, and a connection is ended whose response is over it and cannot be sent at once.
    /// Default 64 MiB.
    pub queue_total_bytes_max: usize,
    /// Bytes of a queue that others cannot take from it when all are over `queue_total_bytes_max`. Where there are so many
    /// queues that these would be more than half the bound, it is their equal share of that half. Default 64 KiB.
    pub queue_bytes_min: usize,
    /// How long a connection's output may make no progress before it counts as dead. Default 30 s.
    pub write_time_max: Duration,
    /// What a connection gets whose queue is full.
    pub slow_reader: SlowReader,

    /// Groups that one connection is in. Over it, a join is [`Full`](crate::Change::Full). Default 1,000.
    pub connection_groups_max: usize,
    /// Memberships of all connections in all groups; likewise. One takes up to 300 bytes: 60 in a group that many share, and
    /// the rest where the group, with a name of up to 128 bytes, has no other member. Default 1,000,000.
    pub memberships_max: usize,

    /// Bytes read from one connection in one turn of the loop, so that a loud one cannot starve the rest. Default 64 KiB.
    pub read_budget_bytes: usize,
    /// Commands from other threads that may wait for the loop. Default 65,536.
    pub inbox_max: usize,
    /// How long a drain takes to tell its clients, evenly, so that they do not all come back elsewhere in one moment. At
    /// most `drain_time_max`. Default zero: all are told at once.
    pub drain_for: Duration,
    /// How long a drain waits for its clients before it ends all the same. Default 10 s.
    pub drain_time_max: Duration,
}

/// What a push does to a connection whose queue is full even after its socket took all that it would.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum SlowReader {
    /// The connection is closed with 1013, cause [`SlowConsumer`](crate::Cause::SlowConsumer).
    #[default]
    Close,
    /// The message is dropped; those already queued stay, but for the newest of the longest queues when all queues are full.
    DropNewest,
    /// As `DropNewest`, but a message with a [key](crate::Push::key) replaces the unsent older one of the same key.
    Conflate,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: None,
            control_connections_max: 256,
            accepts_per_second_max: None,
            address_ipv6_prefix: 64,
            head_bytes_max: 8 << 10,
            headers_max: 64,
            head_time_max: Duration::from_secs(10),
            body_bytes_max: 1 << 20,
            body_time_max: Duration::from_secs(30),
            answer_time_max: Duration::from_secs(10),
            keep_alive_max: Duration::from_secs(60),
            message_bytes_max: 1 << 20,
            message_time_max: Duration::from_secs(60),
            inbound_total_bytes_max: 64 << 20,
            close_wait_max: Duration::from_secs(5),
            queue_bytes_max: 4 << 20,
            queue_total_bytes_max: 64 << 20,
            queue_bytes_min: 64 << 10,
            write_time_max: Duration::from_secs(30),
            slow_reader: SlowReader::Close,
            connection_groups_max: 1000,
            memberships_max: 1_000_000,
            read_budget_bytes: 64 << 10,
            inbox_max: 65_536,
            drain_for: Duration::ZERO,
            drain_time_max: Duration::from_secs(10),
        }
    }
}

/// The first 96 bits of an IPv6 address that stands for an IPv4 address behind a translator (RFC 6052 section 2.1).
const NAT64: u128 = 0x64_ff9b << 64;

impl Limits {
    /// Bytes of a queue that no other queue takes from it, while there are so many queues.
    pub(crate) fn queue_floor(&self, queues: usize) -> usize {
        self.queue_bytes_min.min(self.queue_total_bytes_max / 2 / queues.max(1))
    }

    /// Descriptors that no connection gets: for listeners, epoll, timers, standard streams, and for files and sockets
    /// that handlers open. 64.
    pub const DESCRIPTORS_RESERVED: u32 = 64;

    /// The descriptors that clients do not get: [`DESCRIPTORS_RESERVED`](Limits::DESCRIPTORS_RESERVED), and
    /// `control_connections_max` if the server has a control listener.
    pub fn descriptors_reserved(&self, has_control: bool) -> u32 {
        Limits::DESCRIPTORS_RESERVED + if has_control { self.control_connections_max } else { 0 }
    }

    /// The `connections_max` of a server with a descriptor limit of `descriptors`, where none is set: the limit less
    /// [`descriptors_reserved`](Limits::descriptors_reserved), at least 1 and at most [`Fd::CONNECTIONS_MAX`].
    pub fn derived_connections_max(&self, descriptors: Option<u64>, has_control: bool) -> u32 {
        let Some(descriptors) = descriptors else { return Fd::CONNECTIONS_MAX };
        let left = descriptors.saturating_sub(self.descriptors_reserved(has_control).into());
        u32::try_from(left).unwrap_or(Fd::CONNECTIONS_MAX).clamp(1, Fd::CONNECTIONS_MAX)
    }

    /// Says which bound cannot be, and why.
    pub fn check(&self) -> Result<(), String> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// All bounds that cannot be, and why. Each text begins with the name of the bound.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let counts = [
            ("connections_max", self.connections_max.map_or(1, |max| max as usize), Fd::CONNECTIONS_MAX as usize),
            ("control_connections_max", self.control_connections_max as usize, CONTROL_CONNECTIONS_MAX as usize),
            ("accepts_per_second_max", self.accepts_per_second_max.map_or(1, |max| max as usize), u32::MAX as usize),
            ("address_ipv6_prefix", usize::from(self.address_ipv6_prefix), 128),
            ("head_bytes_max", self.head_bytes_max, 1 << 20),
            ("headers_max", self.headers_max, 256),
            ("message_bytes_max", self.message_bytes_max, 1 << 40),
            ("inbound_total_bytes_max", self.inbound_total_bytes_max, 1 << 50),
            ("queue_bytes_max", self.queue_bytes_max, 1 << 40),
            ("queue_total_bytes_max", self.queue_total_bytes_max, 1 << 50),
            ("queue_bytes_min", self.queue_bytes_min, 1 << 40),
            ("connection_groups_max", self.connection_groups_max, 1 << 30),
            ("memberships_max", self.memberships_max, 1 << 30),
            ("inbox_max", self.inbox_max, 1 << 30),
        ];
        for (name, value, max) in counts {
            if !(1..=max).contains(&value) {
                faults.push(format!("{name} is {value}: it must be from 1 to {max}"));
            }
        }
        let least = self.message_bytes_max.saturating_add(SERVER_HEADER_BYTES_MAX);
        if self.queue_bytes_max < least {
            faults.push(format!(
                "queue_bytes_max is {}: with a message_bytes_max of {} it must be at least {least}, or the largest \
                 messages could be received and never pushed on",
                self.queue_bytes_max, self.message_bytes_max
            ));
        }
        let largest = self.message_bytes_max.max(self.body_bytes_max).max(self.head_bytes_max);
        if self.inbound_total_bytes_max < largest.saturating_mul(2) {
            faults.push(format!(
                "inbound_total_bytes_max is {}: it must be at least {}, twice the largest of message_bytes_max, \
                 body_bytes_max and head_bytes_max",
                self.inbound_total_bytes_max,
                largest.saturating_mul(2)
            ));
        }
        if !(1 << 10..=1 << 26).contains(&self.read_budget_bytes) {
            faults.push(format!("read_budget_bytes is {}: it must be from 1 KiB to 64 MiB", self.read_budget_bytes));
        }
        if self.drain_for > self.drain_time_max {
            let (wanted, max) = (self.drain_for, self.drain_time_max);
            faults.push(format!("drain_for is {wanted:?}: it must be at most drain_time_max, {max:?}"));
        }
        let times = [
            ("head_time_max", self.head_time_max),
            ("body_time_max", self.body_time_max),
            ("answer_time_max", self.answer_time_max),
            ("keep_alive_max", self.keep_alive_max),
            ("message_time_max", self.message_time_max),
            ("close_wait_max", self.close_wait_max),
            ("write_time_max", self.write_time_max),
        ];
        for (name, value) in times {
            if value.is_zero() {
                faults.push(format!("{name} is zero: it must be longer"));
            }
        }
        faults
    }
}

impl Limits {
    /// The address that `ip` counts as where something is bounded by address.
    ///
    /// It is an IPv4 address itself, also one that an IPv6 address stands for (IPv4-mapped, or translated with the prefix
    /// `64:ff9b::/96` of RFC 6052), and the network of any other IPv6 address: its first
    /// [`address_ipv6_prefix`](Limits::address_ipv6_prefix) bits.
    pub fn counted_address(&self, ip: IpAddr) -> IpAddr {
        match ip.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) if v6.to_bits() >> 32 == NAT64 => IpAddr::V4((v6.to_bits() as u32).into()),
            IpAddr::V6(v6) => {
                let host_bits = 128u32.saturating_sub(self.address_ipv6_prefix.into());
                let network = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & network).into())
            }
        }
    }
}

/// How a connection's life is told from its death. Each connection starts with the server's way and may get its own.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Heartbeat {
    /// Not at all: what Swoole calls protected.
    Off,
    /// The client reports: dead when nothing came for `idle_max` (Swoole's `heartbeat_idle_time`).
    Client {
        /// The longest silence.
        idle_max: Duration,
    },
    /// The server asks and the client answers: a ping every `every`; any byte counts as an answer; dead after
    /// `missed_max` pings in a row without one.
    Ping {
        /// From ping to ping. The first comes after half of it to all of it, so that a storm of clients spreads out.
        every: Duration,
        /// Unanswered pings in a row; at least 1. None is counted while the socket takes, bit by bit, what the ping lies
        /// behind: a slow link is not a dead one.
        missed_max: u32,
    },
    /// The server asks, and forgives a client that is too proud to answer: a ping every `every`, and a peer that no
    /// longer acknowledges at TCP level is closed by `TCP_USER_TIMEOUT` (which is `write_time_max`) or by the loop's own
    /// write deadline.
    Push {
        /// From ping to ping.
        every: Duration,
    },
}

/// A ping every 25 s, dead after two in a row without an answer.
impl Default for Heartbeat {
    fn default() -> Heartbeat {
        Heartbeat::Ping { every: Duration::from_secs(25), missed_max: 2 }
    }
}

impl Heartbeat {
    /// Says which period cannot be, and why.
    pub fn check(&self) -> Result<(), String> {
        match *self {
            Heartbeat::Client { idle_max } if idle_max.is_zero() => Err("heartbeat: idle_max is zero".to_owned()),
            Heartbeat::Ping { every, .. } | Heartbeat::Push { every } if every < Duration::from_millis(10) => {
                Err(format!("heartbeat: every is {every:?}: it must be at least 10 ms"))
            }
            Heartbeat::Ping { missed_max: 0, .. } => {
                Err("heartbeat: missed_max is 0: it must be at least 1".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(Limits::default().check(), Ok(()));
        assert_eq!(Heartbeat::default().check(), Ok(()));
    }

    #[test]
    fn the_connections_of_a_descriptor_limit() {
        let limits = Limits { control_connections_max: 100, ..Limits::default() };
        for (descriptors, has_control, most) in [
            (Some(1024), false, 1024 - 64),
            (Some(1024), true, 1024 - 64 - 100),
            (Some(64), true, 1),
            (Some(0), false, 1),
            (Some(u64::MAX), true, Fd::CONNECTIONS_MAX),
            (None, true, Fd::CONNECTIONS_MAX),
        ] {
            assert_eq!(limits.derived_connections_max(descriptors, has_control), most, "{descriptors:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let limits = Limits { queue_bytes_max: 0, ..Limits::default() };
        assert!(limits.check().is_err_and(|why| why.starts_with("queue_bytes_max")));
        let limits = Limits { message_bytes_max: 1000, queue_bytes_max: 1009, ..Limits::default() };
        assert!(limits.check().is_err_and(|why| why.contains("at least 1010")));
        assert_eq!(Limits { queue_bytes_max: 1010, ..limits }.check(), Ok(()));
        let limits = Limits { message_bytes_max: 1 << 20, inbound_total_bytes_max: (1 << 21) - 1, ..Limits::default() };
        assert!(limits.check().is_err_and(|why| why.starts_with("inbound_total_bytes_max")));
        let limits = Limits { head_time_max: Duration::ZERO, ..Limits::default() };
        assert!(limits.check().is_err_and(|why| why.starts_with("head_time_max")));
        for control_connections_max in [0, 65_537] {
            let limits = Limits { control_connections_max, ..Limits::default() };
            assert!(limits.check().is_err_and(|why| why.starts_with("control_connections_max is")));
        }
        let limits = Limits { connections_max: Some(u32::MAX), ..Limits::default() };
        assert!(limits.check().is_err_and(|why| why.starts_with("connections_max")));
        for address_ipv6_prefix in [0, 129] {
            let limits = Limits { address_ipv6_prefix, ..Limits::default() };
            assert!(limits.check().is_err_and(|why| why.starts_with("address_ipv6_prefix")));
        }
        let heartbeat = Heartbeat::Ping { every: Duration::from_secs(1), missed_max: 0 };
        assert!(heartbeat.check().is_err_and(|why| why.contains("missed_max")));
    }

    #[test]
    fn ipv6_counts_by_network_and_ipv4_by_address() {
        let table = [
            (64, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            (64, "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
            (64, "2001:db8:1:3::1", "2001:db8:1:3::"),
            (56, "2001:db8:1:2ff::1", "2001:db8:1:200::"),
            (48, "2001:db8:1:2::1", "2001:db8:1::"),
            (63, "2001:db8:1:3::1", "2001:db8:1:2::"),
            (1, "ffff::1", "8000::"),
            (128, "2001:db8::1", "2001:db8::1"),
            (127, "2001:db8::1", "2001:db8::"),
            (64, "::1", "::"),
            (64, "203.0.113.9", "203.0.113.9"),
            (1, "203.0.113.9", "203.0.113.9"),
            (64, "::ffff:203.0.113.9", "203.0.113.9"),
            (64, "::ffff:203.0.113.10", "203.0.113.10"),
            (64, "64:ff9b::203.0.113.9", "203.0.113.9"),
            (64, "64:ff9b::1:203.0.113.9", "64:ff9b::"),
        ];
        for (address_ipv6_prefix, ip, counted) in table {
            let limits = Limits { address_ipv6_prefix, ..Limits::default() };
            let found = limits.counted_address(ip.parse().expect("an address"));
            assert_eq!(found.to_string(), counted, "{ip} by /{address_ipv6_prefix}");
        }
        let limits = Limits { address_ipv6_prefix: 0, ..Limits::default() };
        assert_eq!(limits.counted_address("2001:db8::1".parse().expect("an address")).to_string(), "::");
    }
}
