//! A connection, as `info` reports it.

use std::time::{Duration, SystemTime};

use crate::connection::{State, Traffic};
use crate::fd::Fd;
use crate::peer::Peer;

/// A connection, as `info` tells of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// Its number.
    pub fd: Fd,
    /// Whether it can be pushed to.
    pub state: State,
    /// Who it is, if it was bound.
    pub uid: Option<String>,
    /// The groups it is in, the last joined first.
    pub groups: Vec<String>,
    /// Where it came from.
    pub peer: Peer,
    /// When it was opened; for an HTTP connection, when it was accepted. By the wall clock as it is set now.
    pub connected_at: SystemTime,
    /// How long ago that was.
    pub connected_for: Duration,
    /// How long ago its last byte came.
    pub idle_for: Duration,
    /// Bytes and messages, both ways.
    pub traffic: Traffic,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
}
