//! The data that `info` returns about a connection.

use std::time::{Duration, SystemTime};

use crate::connection::{State, Traffic};
use crate::fd::Fd;
use crate::peer::Peer;
use crate::tls::TlsInfo;

/// The state of a connection: see [`Context::info`](crate::Context::info).
///
/// It is a copy from one moment, and owns its names. To read a single value, [`Context::uid_of`](crate::Context::uid_of),
/// [`groups_of`](crate::Context::groups_of) and [`queued_bytes`](crate::Context::queued_bytes) copy nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The fd of the connection.
    pub fd: Fd,
    /// The state. Only an open WebSocket can be pushed to.
    pub state: State,
    /// The uid, if it is bound.
    pub uid: Option<String>,
    /// The groups it is in, the last joined first.
    pub groups: Vec<String>,
    /// The address of the client.
    pub peer: Peer,
    /// The wall-clock time at which the WebSocket was opened or the HTTP connection accepted.
    pub connected_at: SystemTime,
    /// The time since `connected_at`.
    pub connected_for: Duration,
    /// The time since its last byte arrived.
    pub idle_for: Duration,
    /// Bytes and messages in both directions.
    pub traffic: Traffic,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
    /// The TLS version and cipher suite.
    ///
    /// `None`: the connection came through a plain listener, or its handshake is not complete.
    pub tls: Option<TlsInfo>,
}
