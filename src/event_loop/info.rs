//! The data that `info` returns about a connection.

use std::time::{Duration, SystemTime};

use crate::connection::{State, Traffic};
use crate::fd::Fd;
use crate::peer::Peer;
use crate::tls::TlsInfo;

/// The state of a connection: see [`Context::info`](crate::Context::info).
///
/// All values are from the same moment. The uid and the groups are copies. [`Context::uid_of`](crate::Context::uid_of),
/// [`groups_of`](crate::Context::groups_of) and [`queued_bytes`](crate::Context::queued_bytes) return a single value
/// without copies.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The fd of the connection.
    pub fd: Fd,
    /// The state of the connection. A push reaches only an open WebSocket.
    pub state: State,
    /// The uid, if the connection is bound to a uid.
    pub uid: Option<String>,
    /// The groups of the connection, the most recently joined first.
    pub groups: Vec<String>,
    /// The address of the client.
    pub peer: Peer,
    /// The wall-clock time at which the WebSocket was opened or the HTTP connection accepted.
    pub connected_at: SystemTime,
    /// The time since `connected_at`.
    pub connected_for: Duration,
    /// The time since the last byte arrived.
    pub idle_for: Duration,
    /// Bytes and messages in both directions.
    pub traffic: Traffic,
    /// The number of output bytes that wait to be written.
    pub queued_bytes: usize,
    /// The TLS version and cipher suite.
    ///
    /// `None` if the connection came through a plain listener, or if its handshake is not complete.
    pub tls: Option<TlsInfo>,
}
