//! The limits of the server, and the heartbeat of connections.
//!
//! Every queue, every buffer and the work of one turn have a limit here. A limit that ends in `_max` is the largest
//! allowed value.

mod error;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

pub use self::error::LimitError;

use crate::fd::Fd;
use crate::protocol::frame::SERVER_HEADER_BYTES_MAX;

/// The memory, in bytes, that [`Limits::forward_bytes_max`] must allow for one forwarded message besides its payload:
/// the options of the push, and the names of the receivers.
const FORWARD_OVERHEAD: usize = 4 << 10;

/// The largest `control_connections_max`.
const CONTROL_CONNECTIONS_MAX: u32 = 65_536;

/// The limits of a server.
///
/// Start from the defaults and change single fields. [`check`](Limits::check) verifies the result, and so does
/// [`Server::run`](crate::Server::run).
///
/// ```
/// use fdpush::Limits;
///
/// let limits = Limits { message_bytes_max: 64 << 10, ..Limits::default() };
/// assert!(limits.check().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The maximum number of simultaneous client connections of all loops, plain HTTP included.
    ///
    /// A connection over the limit gets status 503, or the alert `internal_error` on a TLS listener. The value is at
    /// most [`Fd::CONNECTIONS_MAX`]. Default `None`: the server raises the descriptor limit of the process to the hard
    /// limit, and derives the maximum from the hard limit. See
    /// [`derived_connections_max`](Limits::derived_connections_max).
    pub connections_max: Option<u32>,

    /// The maximum number of control connections that are [kept](crate::Context::keep_control) at the same time.
    ///
    /// Connections of [control listeners](crate::Server::listen_control) are not counted in `connections_max`. The
    /// total number of open control connections, kept or not, is at most this number plus 16. At this total, a new
    /// control connection replaces the oldest control connection that is not kept. The value is fixed when the server
    /// starts, because the server reserves a descriptor for each control connection. The valid range is 1 to 65,536.
    /// Default 256.
    pub control_connections_max: u32,

    /// The maximum number of new connections per second.
    ///
    /// After a second without new connections, the server accepts this number of connections without delay. A
    /// connection over the limit gets status 503 with `Retry-After`, before its request is read. On a TLS listener, the
    /// connection gets the alert `internal_error` in place of a status, before its handshake. Default `None`: no limit.
    pub accepts_per_second_max: Option<u32>,

    /// The maximum number of TLS handshakes per second.
    ///
    /// After a second without handshakes, the server makes this number of handshakes without delay. A client over the
    /// limit waits for its handshake, at most [`head_time_max`](Limits::head_time_max). Connections of [control
    /// listeners](crate::Server::listen_control) wait in a queue of their own. While both queues have entries, the
    /// server takes connections from the two queues alternately. The loop also limits the handshakes of each turn, so
    /// that they do not delay the messages of other connections. Default `None`: no limit.
    pub handshakes_per_second_max: Option<u32>,

    /// The number of leading bits of an IPv6 address that identify one client.
    ///
    /// Providers assign each client a network with a prefix of at most 64 bits, so one client has at least 2^64
    /// addresses. The server itself has no limit per address. A handler with such a limit calls
    /// [`counted_address`](Limits::counted_address), which uses this value. The valid range is 1 to 128. Default 64.
    pub address_ipv6_prefix: u8,

    /// The maximum length of an HTTP head in bytes, with request line and blank line.
    ///
    /// A longer head gets status 431. The valid range is 1 byte to 1 MiB. Default 8 KiB.
    pub head_bytes_max: usize,

    /// The maximum number of header lines of an HTTP head.
    ///
    /// A head with more lines gets status 431. The valid range is 1 to 256. Default 64.
    pub headers_max: usize,

    /// The maximum time to receive an HTTP head.
    ///
    /// The time starts when the connection opens, or with the first byte of the next request on a kept-alive
    /// connection. A late head gets status 408. On a TLS listener, the time starts again when the server has answered
    /// the client hello. A connection whose handshake is not complete in time is closed without a status. Default 10 s.
    pub head_time_max: Duration,

    /// The maximum length of a collected HTTP request body, in bytes.
    ///
    /// A longer body gets status 413. A [streamed](crate::BodyMode::Stream) body has no limit. Default 1 MiB.
    pub body_bytes_max: usize,

    /// The maximum time to receive the body of an HTTP request.
    ///
    /// The time starts at the end of the head. For a [streamed](crate::BodyMode::Stream) body, the time starts again at
    /// each read. A body that is late gets status 408. Default 30 s.
    pub body_time_max: Duration,

    /// The maximum time that a client waits for a deferred answer: to an upgrade or to a plain request, from the return
    /// of the handler that deferred the answer.
    ///
    /// If the answer is late, the client gets status 503. See [`Context::defer_upgrade`](crate::Context::defer_upgrade)
    /// and [`Context::defer_response`](crate::Context::defer_response). For a response in pieces, the time starts again
    /// at each piece, and a late piece ends the connection. Default 10 s.
    pub answer_time_max: Duration,

    /// The maximum time that an HTTP connection stays open between two requests.
    ///
    /// Default 60 s.
    pub keep_alive_max: Duration,

    /// The maximum payload of a client's message, in all its fragments, in bytes.
    ///
    /// A longer message closes the connection with code 1009. The valid range is 1 byte to 1 TiB. Default 1 MiB.
    pub message_bytes_max: usize,

    /// Whether permessage-deflate is accepted (RFC 7692).
    ///
    /// A client that offers permessage-deflate receives deflated messages and may send them. No compression context is
    /// kept between two messages, in either direction. A message to many connections is deflated once. A message is
    /// deflated if it has `compress_bytes_min` bytes to 256 KiB and if deflating makes it shorter.
    ///
    /// The length of a deflated message reveals something about its content. Do not deflate a message that contains
    /// both a secret and text from an attacker, as in the CRIME and BREACH attacks on TLS: see
    /// [`Push::compress`](crate::Push::compress). Default `false`.
    pub compression: bool,

    /// The shortest payload that is deflated, in bytes.
    ///
    /// Default 512.
    pub compress_bytes_min: usize,

    /// The maximum number of inflated bytes per second of one client's messages.
    ///
    /// A few bytes can inflate to the longest message, so a limit on received bytes would not limit the work. The
    /// server stops reading from a client over the limit for a while, and TCP flow control slows the client down.
    /// Before a pause, at most [`read_budget_bytes`](Limits::read_budget_bytes) plus one message are inflated.
    ///
    /// Compressed bytes may inflate to nothing and still take time, so each received byte counts as 16 additional
    /// inflated bytes. A message counts as at least 1 KiB. With the default value, inflating the messages of one client
    /// takes at most about an eighth of the time of the loop, even for messages that take the most time per byte. The
    /// limit does not apply to the time of `on_message`. With `compression`, the value must be at least
    /// `message_bytes_max`. Default 16 MiB.
    pub inflated_bytes_per_second_max: usize,

    /// The maximum time to receive a message, from its first byte to its last.
    ///
    /// A slower message closes the connection with code 1008. Default 60 s.
    pub message_time_max: Duration,

    /// The maximum memory, in bytes, of all unfinished messages, HTTP heads and bodies together.
    ///
    /// The capacity of buffers is counted. This capacity may be twice the number of received bytes. Over the limit, the
    /// connections with the largest buffers are closed until one eighth of the limit is free. The clients of these
    /// connections get close code 1013 or status 503, and the cause is
    /// [`InboundOverload`](crate::Cause::InboundOverload). The limit must be at least twice the largest of
    /// `message_bytes_max`, `body_bytes_max` and `head_bytes_max`, so that no single client can exceed the limit. With
    /// several [loops](crate::Server::loops), each loop has an equal share of the limit. If this share is smaller than
    /// the lowest valid limit, the limit of each loop is the lowest valid limit. Default 64 MiB.
    pub inbound_total_bytes_max: usize,

    /// The maximum time that a close handshake waits for the client's close frame.
    ///
    /// The time starts when the server's close frame is written, after all queued messages. Until then `write_time_max`
    /// applies. Default 5 s.
    pub close_wait_max: Duration,

    /// The maximum number of bytes in the queue of one connection.
    ///
    /// If a message does not fit, [`slow_reader`](Limits::slow_reader) applies. A single frame over the limit is
    /// refused with [`TooLarge`](crate::Outcome::TooLarge). The limit also applies to the messages that one turn of
    /// the loop pushes to a connection. Bytes that the socket accepts immediately are not counted.
    ///
    /// Long messages to many connections and messages with a key are shared, not copied into the queue. In the queue of
    /// each receiver, a shared message counts as the number of its bytes plus the memory of its reference and its key.
    ///
    /// The value must be at least `message_bytes_max` plus 10 bytes, the longest frame header, so that every received
    /// message can be pushed. Default 4 MiB, four messages of the default `message_bytes_max`.
    pub queue_bytes_max: usize,

    /// The maximum memory of the queues of all WebSockets together, in bytes.
    ///
    /// A shared frame is counted once. A queue contains only bytes that its socket did not accept. Messages of the
    /// current turn are first stored in the journal, a buffer of the loop of at most 512 KiB, or 1 MiB with
    /// `compression`. The loop writes the journal at the end of the turn, or earlier if the journal is long. A push to
    /// 30,000 or more connections is stored once, with a bitmap of the receivers that have no other output. These pushes
    /// take at most 32 MiB, which do not count.
    ///
    /// Over the limit, the longest queues are shortened until one 16th of the limit is free, even if the last push was
    /// to another connection. Under [`Close`](SlowReader::Close) the connections of these queues are closed. Under the
    /// other policies the newest messages of these queues are dropped, including messages whose outcome was
    /// [`Queued`](crate::Outcome::Queued). A message that is partly written cannot be dropped: if such a message alone
    /// is too long, its connection is closed under any policy. A close frame that does not fit is not sent. No queue is
    /// shortened below [`queue_bytes_min`](Limits::queue_bytes_min).
    ///
    /// HTTP responses have a limit of their own with the same size. A connection is closed if its response exceeds that
    /// limit and cannot be written immediately. With several [loops](crate::Server::loops), each loop has an equal
    /// share of both limits. If this share is smaller than twice `queue_bytes_max`, each limit of a loop is twice
    /// `queue_bytes_max`. Default 64 MiB.
    pub queue_total_bytes_max: usize,

    /// The length below which no queue is shortened when all queues together exceed `queue_total_bytes_max`, in bytes.
    ///
    /// If this length times the number of queues exceeds half of `queue_total_bytes_max`, the length is that half
    /// divided by the number of queues. Default 64 KiB.
    pub queue_bytes_min: usize,

    /// The maximum time without progress in writing to a socket.
    ///
    /// A connection that exceeds this time is closed. The value is also the `TCP_USER_TIMEOUT` of TCP sockets. Default
    /// 30 s.
    pub write_time_max: Duration,

    /// The policy for a connection whose queue is full.
    ///
    /// Default [`Close`](SlowReader::Close).
    pub slow_reader: SlowReader,

    /// The maximum number of connections of one uid.
    ///
    /// The result of a bind over the limit is [`Full`](crate::Change::Full), and an upgrade gets status 429. The limit
    /// has an effect only with [`SecondLogin::Multi`](crate::SecondLogin::Multi), because the other policies permit one
    /// connection for each uid. Default `None`: no limit.
    pub uid_connections_max: Option<u32>,

    /// The maximum number of groups of one connection.
    ///
    /// The result of a join over the limit is [`Full`](crate::Change::Full). The valid range is 1 to 2^30. Default
    /// 1,000.
    pub connection_groups_max: usize,

    /// The maximum number of memberships of all connections in all groups.
    ///
    /// The result of a join over the limit is [`Full`](crate::Change::Full). A membership in a large group takes 60
    /// bytes of memory. A group with one member and a name of 128 bytes takes 300 bytes. The valid range is 1 to 2^30.
    /// Default 1,000,000.
    pub memberships_max: usize,

    /// The maximum number of bytes read from one connection in one turn.
    ///
    /// The limit keeps a fast sender from delaying the other connections. The valid range is 1 KiB to 64 MiB. Default
    /// 64 KiB.
    pub read_budget_bytes: usize,

    /// The maximum number of commands from other threads that wait until the loop executes them.
    ///
    /// A command over the limit is refused with [`Full`](crate::RemoteError::Full). With several
    /// [loops](crate::Server::loops), each loop has this limit. The valid range is 1 to 2^30. Default 65,536.
    pub inbox_max: usize,

    /// The maximum memory of the messages and commands that are on their way between two loops, in bytes.
    ///
    /// The limit applies to each pair of a sending and a receiving [loop](crate::Server::loops). A message over the
    /// limit is dropped, and [`Delivery`](crate::Delivery) counts its receivers as dropped. A single message that
    /// exceeds the limit, for instance because of a long list of receivers, is forwarded if nothing else is on the way
    /// between the two loops. With several loops, the value must be at least `message_bytes_max` plus 4 KiB. With one
    /// loop, the limit has no effect. The valid range is 1 byte to 1 GiB. Default 4 MiB.
    pub forward_bytes_max: usize,

    /// The period over which a drain (a graceful shutdown) distributes the close frames to the clients.
    ///
    /// If all close frames were sent at the same time, all clients would reconnect at the same moment. The value is at
    /// most `drain_time_max`. Default 0: all close frames are sent at the same time.
    pub drain_for: Duration,

    /// The maximum time of a drain.
    ///
    /// A drain ends when all clients have disconnected. After the maximum time, the server closes the remaining
    /// connections and ends. Default 10 s.
    pub drain_time_max: Duration,
}

/// The policy for a push to a connection whose queue is full.
///
/// Before the policy applies, the server tries once more to write the queue to the socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum SlowReader {
    /// Closes the connection with code 1013.
    ///
    /// The cause is [`SlowConsumer`](crate::Cause::SlowConsumer).
    #[default]
    Close,
    /// Drops the new message.
    ///
    /// Queued messages stay, unless all queues together exceed `queue_total_bytes_max`.
    DropNewest,
    /// Puts the new message in the place of the unsent message that has the same [key](crate::Push::key).
    ///
    /// The new message is dropped, as under `DropNewest`, if it has no key, or if no unsent message has its key.
    Conflate,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: None,
            control_connections_max: 256,
            accepts_per_second_max: None,
            handshakes_per_second_max: None,
            address_ipv6_prefix: 64,
            head_bytes_max: 8 << 10,
            headers_max: 64,
            head_time_max: Duration::from_secs(10),
            body_bytes_max: 1 << 20,
            body_time_max: Duration::from_secs(30),
            answer_time_max: Duration::from_secs(10),
            keep_alive_max: Duration::from_secs(60),
            message_bytes_max: 1 << 20,
            compression: false,
            compress_bytes_min: 512,
            inflated_bytes_per_second_max: 16 << 20,
            message_time_max: Duration::from_secs(60),
            inbound_total_bytes_max: 64 << 20,
            close_wait_max: Duration::from_secs(5),
            queue_bytes_max: 4 << 20,
            queue_total_bytes_max: 64 << 20,
            queue_bytes_min: 64 << 10,
            write_time_max: Duration::from_secs(30),
            slow_reader: SlowReader::Close,
            uid_connections_max: None,
            connection_groups_max: 1000,
            memberships_max: 1_000_000,
            read_budget_bytes: 64 << 10,
            inbox_max: 65_536,
            forward_bytes_max: 4 << 20,
            drain_for: Duration::ZERO,
            drain_time_max: Duration::from_secs(10),
        }
    }
}

/// The first 96 bits of an IPv6 address that contains an IPv4 address: the prefix `64:ff9b::/96`.
///
/// See RFC 6052 section 2.1.
const NAT64: u128 = 0x64_ff9b << 64;

impl Limits {
    /// Returns the length, in bytes, below which no queue is shortened if there are `queues` queues.
    pub(crate) fn queue_share_min(&self, queues: usize) -> usize {
        self.queue_bytes_min.min(self.queue_total_bytes_max / 2 / queues.max(1))
    }

    /// The number of file descriptors that are reserved for other uses than connections.
    ///
    /// Listeners, epoll, timers, standard streams, and the files and sockets of handlers use these descriptors.
    pub const DESCRIPTORS_RESERVED: u32 = 64;

    /// Returns the number of file descriptors that client connections cannot use.
    ///
    /// These are [`DESCRIPTORS_RESERVED`](Limits::DESCRIPTORS_RESERVED), and `control_connections_max` more if the
    /// server has a control listener.
    pub fn descriptors_reserved(&self, has_control: bool) -> u32 {
        Limits::DESCRIPTORS_RESERVED + if has_control { self.control_connections_max } else { 0 }
    }

    /// Returns the maximum number of client connections if `connections_max` is `None`.
    ///
    /// The result is `descriptors` minus [`descriptors_reserved`](Limits::descriptors_reserved), at least 1 and at most
    /// [`Fd::CONNECTIONS_MAX`]. `descriptors` is the descriptor limit of the process, or `None` if the process has no
    /// such limit.
    pub fn derived_connections_max(&self, descriptors: Option<u64>, has_control: bool) -> u32 {
        let Some(descriptors) = descriptors else { return Fd::CONNECTIONS_MAX };
        let left = descriptors.saturating_sub(self.descriptors_reserved(has_control).into());
        u32::try_from(left).unwrap_or(Fd::CONNECTIONS_MAX).clamp(1, Fd::CONNECTIONS_MAX)
    }

    /// Checks all limits.
    ///
    /// # Errors
    /// Returns an error if a limit is invalid: the first error of [`faults`](Limits::faults).
    pub fn check(&self) -> Result<(), LimitError> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns an error for each invalid limit.
    pub fn faults(&self) -> Vec<LimitError> {
        let mut faults = Vec::new();
        let of = |max: Option<u32>| max.map_or(1, |max| max as usize);
        let counts = [
            ("connections_max", of(self.connections_max), Fd::CONNECTIONS_MAX as usize),
            ("control_connections_max", self.control_connections_max as usize, CONTROL_CONNECTIONS_MAX as usize),
            ("accepts_per_second_max", of(self.accepts_per_second_max), u32::MAX as usize),
            ("handshakes_per_second_max", of(self.handshakes_per_second_max), u32::MAX as usize),
            ("address_ipv6_prefix", usize::from(self.address_ipv6_prefix), 128),
            ("head_bytes_max", self.head_bytes_max, 1 << 20),
            ("headers_max", self.headers_max, 256),
            ("message_bytes_max", self.message_bytes_max, 1 << 40),
            ("compress_bytes_min", self.compress_bytes_min, 1 << 40),
            ("inflated_bytes_per_second_max", self.inflated_bytes_per_second_max, 1 << 50),
            ("inbound_total_bytes_max", self.inbound_total_bytes_max, 1 << 50),
            ("queue_bytes_max", self.queue_bytes_max, 1 << 40),
            ("queue_total_bytes_max", self.queue_total_bytes_max, 1 << 50),
            ("queue_bytes_min", self.queue_bytes_min, 1 << 40),
            ("connection_groups_max", self.connection_groups_max, 1 << 30),
            ("memberships_max", self.memberships_max, 1 << 30),
            ("inbox_max", self.inbox_max, 1 << 30),
            ("forward_bytes_max", self.forward_bytes_max, 1 << 30),
            ("uid_connections_max", of(self.uid_connections_max), u32::MAX as usize),
        ];
        for (name, value, max) in counts {
            if !(1..=max).contains(&value) {
                faults.push(LimitError::OutOfRange { name, value, min: 1, max });
            }
        }
        let mut at_least = |name, value, min, reason| {
            if value < min {
                faults.push(LimitError::TooSmall { name, value, min, reason });
            }
        };
        let longest = self.message_bytes_max.saturating_add(SERVER_HEADER_BYTES_MAX);
        let reason = format!("the length of the longest frame if message_bytes_max is {}", self.message_bytes_max);
        at_least("queue_bytes_max", self.queue_bytes_max, longest, reason);
        let reason = "twice the largest of message_bytes_max, body_bytes_max and head_bytes_max".to_owned();
        at_least("inbound_total_bytes_max", self.inbound_total_bytes_max, self.inbound_bytes_min(), reason);
        if self.compression {
            let reason = "message_bytes_max".to_owned();
            let (value, min) = (self.inflated_bytes_per_second_max, self.message_bytes_max);
            at_least("inflated_bytes_per_second_max", value, min, reason);
        }
        if !(1 << 10..=1 << 26).contains(&self.read_budget_bytes) {
            faults.push(LimitError::ReadBudget { value: self.read_budget_bytes });
        }
        if self.drain_for > self.drain_time_max {
            let (drain_for, drain_time_max) = (self.drain_for, self.drain_time_max);
            faults.push(LimitError::DrainTooLong { drain_for, drain_time_max });
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
                faults.push(LimitError::Zero { name });
            }
        }
        faults
    }
}

impl Limits {
    /// Returns the limits of one of `loops` loops.
    ///
    /// Each loop has an equal share of the memory of queues and of unfinished input, but at least the memory that one
    /// client may use.
    pub(crate) fn share(&self, loops: usize) -> Limits {
        let share = |total: usize, min: usize| total.div_ceil(loops).max(min.min(total));
        Limits {
            queue_total_bytes_max: share(self.queue_total_bytes_max, self.queue_bytes_max.saturating_mul(2)),
            inbound_total_bytes_max: share(self.inbound_total_bytes_max, self.inbound_bytes_min()),
            ..self.clone()
        }
    }

    /// Returns the lowest valid `inbound_total_bytes_max`.
    fn inbound_bytes_min(&self) -> usize {
        self.message_bytes_max.max(self.body_bytes_max).max(self.head_bytes_max).saturating_mul(2)
    }

    /// Checks the limits that apply only to a server with several [loops](crate::Server::loops).
    ///
    /// # Errors
    /// Returns an error if `forward_bytes_max` is too small for a server with `loops` loops.
    pub fn check_loops(&self, loops: usize) -> Result<(), LimitError> {
        let min = self.message_bytes_max.saturating_add(FORWARD_OVERHEAD);
        if loops == 1 || self.forward_bytes_max >= min {
            return Ok(());
        }
        let reason = format!("the memory of a forwarded message if message_bytes_max is {}", self.message_bytes_max);
        Err(LimitError::TooSmall { name: "forward_bytes_max", value: self.forward_bytes_max, min, reason })
    }

    /// Returns the address that identifies the client at `ip`.
    ///
    /// A handler that limits the number of connections of each client counts the connections by this address. An IPv4
    /// address is returned unchanged. An IPv4-mapped IPv6 address, or an address with the prefix `64:ff9b::/96` of RFC
    /// 6052, is converted to its IPv4 address. Any other IPv6 address is reduced to its network: the first
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

/// The detection of dead connections.
///
/// Each connection starts with the server's setting. [`Context::set_heartbeat`](crate::Context::set_heartbeat) changes
/// the setting for one connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Heartbeat {
    /// Dead connections are not detected, as with Swoole's `protect`.
    Off,
    /// Closes a connection that sends nothing for `idle_max`.
    ///
    /// This is Swoole's `heartbeat_idle_time`. The server sends no pings.
    Client {
        /// The longest time without a byte from the client, more than 0.
        idle_max: Duration,
    },
    /// Sends pings, and closes a connection that does not answer.
    ///
    /// The connection is closed after `missed_max` unanswered pings in a row. Every byte from the client counts as an
    /// answer.
    Ping {
        /// The time between two pings, at least 10 ms.
        ///
        /// The time to the first ping is between half a period and a whole period. The exact time depends on the fd, so
        /// that clients that connected at the same moment get their pings at different times.
        every: Duration,
        /// The number of unanswered pings in a row that closes the connection, at least 1.
        ///
        /// An unanswered ping is not counted as long as the socket still accepts bytes that were queued before this
        /// ping: the connection is then slow, but not dead.
        missed_max: u32,
    },
    /// Sends pings, and requires only TCP acknowledgements, not pongs.
    ///
    /// A connection whose peer acknowledges nothing for [`write_time_max`](Limits::write_time_max) is closed: by
    /// `TCP_USER_TIMEOUT`, or by the write deadline of the loop.
    Push {
        /// The time between two pings, at least 10 ms.
        every: Duration,
    },
}

/// By default, a ping is sent every 25 s, and 2 unanswered pings in a row end the connection.
impl Default for Heartbeat {
    fn default() -> Heartbeat {
        Heartbeat::Ping { every: Duration::from_secs(25), missed_max: 2 }
    }
}

impl Heartbeat {
    /// Checks the periods and counts of the heartbeat.
    ///
    /// # Errors
    /// Returns [`LimitError::Heartbeat`] if a field is below its minimum. The error names the field, its value and the
    /// valid range.
    pub fn check(&self) -> Result<(), LimitError> {
        let fault = |name, value, min| Err(LimitError::Heartbeat { name, value, min });
        match *self {
            Heartbeat::Client { idle_max } if idle_max.is_zero() => fault("idle_max", "0".to_owned(), "over 0"),
            Heartbeat::Ping { every, .. } | Heartbeat::Push { every } if every < Duration::from_millis(10) => {
                fault("every", format!("{every:?}"), "at least 10 ms")
            }
            Heartbeat::Ping { missed_max: 0, .. } => fault("missed_max", "0".to_owned(), "at least 1"),
            _ => Ok(()),
        }
    }
}
