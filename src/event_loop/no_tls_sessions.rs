//! Replaces `tls_sessions.rs` in builds without the feature `tls`: no socket has a session.

use std::convert::Infallible;
use std::io::IoSlice;
use std::os::fd::RawFd;

use crate::connection::{Io, SessionRead, Written};
use crate::protocol::memory::MemoryTotal;
use crate::tick::Tick;
use crate::tls::{ListenerTls, TlsCounts, TlsInfo};

/// The TLS alert for refused clients. This alert is never sent, because there is no TLS listener.
pub const REFUSED: &[u8] = &[];

/// An empty set of TLS sessions.
#[derive(Debug, Default)]
pub struct TlsSessions {}

/// The result of a read of a session.
#[derive(Debug, Default)]
pub struct ReadReport {
    pub read: SessionRead,
    pub secured: Option<TlsInfo>,
    pub error: Option<Infallible>,
}

impl TlsSessions {
    pub fn make_buffers(&mut self, _: usize, _: MemoryTotal) {}

    pub fn insert(&mut self, _: RawFd, config: &ListenerTls, _: bool, _: bool) -> bool {
        match *config {}
    }

    pub fn remove(&mut self, _: RawFd) {}

    pub fn read<S>(&mut self, _: RawFd, _: &mut S, _: bool, _: &mut [u8]) -> (Io, bool) {
        (Io::Closed, false)
    }

    pub fn write<S>(&mut self, _: RawFd, _: &mut S, _: &[IoSlice<'_>]) -> Option<Written> {
        None
    }

    pub fn shutdown<S>(&mut self, _: RawFd, _: &mut S) {}

    pub fn finish<S>(&mut self, _: RawFd, _: &mut S) {}

    pub fn ignore_input(&mut self, _: RawFd) {}

    pub fn session_read(&self) -> Option<SessionRead> {
        None
    }

    pub fn unfinished_since(&self, _: RawFd) -> Option<Tick> {
        None
    }

    pub fn set_reading(&mut self, _: RawFd, _: Option<Tick>) {}

    pub fn count(&self) -> usize {
        0
    }

    pub fn inbound_bytes(&self, _: RawFd) -> usize {
        0
    }

    pub fn awaits_hello(&self, _: RawFd) -> bool {
        false
    }

    pub fn info(&self, _: RawFd) -> Option<TlsInfo> {
        None
    }

    pub fn take_report(&mut self) -> ReadReport {
        ReadReport::default()
    }

    pub fn counts(&self) -> TlsCounts {
        TlsCounts::default()
    }
}
