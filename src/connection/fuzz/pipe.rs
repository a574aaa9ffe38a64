//! A stream in memory, and a TLS session over it as a transport.

use std::io::IoSlice;

use crate::connection::{Io, SessionRead, Stream, TlsShared, TlsStream, Transport, Written};
use crate::tick::Tick;
use crate::tls::test_config;

/// The server's end of a stream.
#[derive(Debug, Default)]
pub(in crate::connection) struct Pipe {
    /// Bytes that the client sent and the server has not read.
    pub up: Vec<u8>,
    /// Bytes that the server sent and the client has not read.
    pub down: Vec<u8>,
    /// The number of bytes that the pipe still accepts.
    pub room: usize,
    /// Whether the client ended its stream after the bytes in `up`.
    pub is_ended: bool,
    /// Whether the server ended its stream.
    pub is_shut: bool,
    /// Whether the server reset the stream.
    pub is_reset: bool,
}

/// A TLS session over a [`Pipe`].
#[derive(Debug)]
pub(in crate::connection) struct SecureSocket {
    pub pipe: Pipe,
    pub session: TlsStream,
}

impl Pipe {
    pub(in crate::connection) fn new() -> Pipe {
        Pipe { room: usize::MAX, ..Pipe::default() }
    }
}

impl Stream for Pipe {
    fn receive(&mut self, buffer: &mut [u8]) -> Io {
        if self.up.is_empty() {
            return if self.is_ended { Io::Done(0) } else { Io::WouldBlock };
        }
        let count = buffer.len().min(self.up.len());
        buffer[..count].copy_from_slice(&self.up[..count]);
        self.up.drain(..count);
        Io::Done(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Io {
        assert!(!self.is_shut, "nothing is written after the shutdown of the write side");
        let count = bytes.len().min(self.room);
        if self.room != usize::MAX {
            self.room -= count;
        }
        self.down.extend_from_slice(&bytes[..count]);
        if count == 0 { Io::WouldBlock } else { Io::Done(count) }
    }

    fn shutdown(&mut self) {
        self.is_shut = true;
    }
}

impl SecureSocket {
    pub(in crate::connection) fn new(shared: &TlsShared) -> SecureSocket {
        let session = TlsStream::new(&test_config(), false, false, shared).expect("settings");
        SecureSocket { pipe: Pipe::new(), session }
    }
}

impl Transport for SecureSocket {
    type Shared = TlsShared;

    fn read(&mut self, shared: &mut TlsShared, buffer: &mut [u8]) -> Io {
        let read = self.session.read(&mut self.pipe, shared, buffer);
        shared.check_invariants();
        read
    }

    fn write_vectored(&mut self, shared: &mut TlsShared, slices: &[IoSlice<'_>]) -> Option<Written> {
        let written = self.session.write(&mut self.pipe, shared, slices);
        shared.check_invariants();
        written
    }

    fn shutdown(&mut self, shared: &mut TlsShared) {
        self.session.shutdown(&mut self.pipe, shared);
        shared.check_invariants();
    }

    fn session_read(&self, shared: &TlsShared) -> Option<SessionRead> {
        Some(shared.last.read)
    }

    fn inbound_bytes(&self, _: &TlsShared) -> usize {
        self.session.inbound_bytes()
    }

    fn unfinished_since(&self, _: &TlsShared) -> Option<Tick> {
        self.session.unfinished_since()
    }

    fn set_reading(&mut self, _: &mut TlsShared, now: Option<Tick>) {
        self.session.set_reading(now);
    }

    fn ignore_input(&mut self, _: &mut TlsShared) {
        self.session.ignore_input();
    }

    fn finish(&mut self, shared: &mut TlsShared) {
        self.session.close(&mut self.pipe, shared);
        shared.check_invariants();
    }

    fn reset(&mut self, _: &mut TlsShared) {
        self.pipe.is_reset = true;
    }

    fn remove(&mut self, shared: &mut TlsShared) {
        self.session.count_abandoned(&mut shared.counts);
    }
}
