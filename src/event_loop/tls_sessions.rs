//! The TLS sessions of a loop.
//!
//! The sessions are stored apart from the sockets, so that a plain socket needs no memory for TLS. A loop without a TLS
//! listener has no buffers for TLS.

use std::io::IoSlice;
use std::os::fd::RawFd;

pub use crate::connection::{REFUSED, ReadReport};

use crate::connection::{Io, SessionRead, Stream, TlsShared, TlsStream, Written};
use crate::protocol::memory::MemoryTotal;
use crate::tick::Tick;
use crate::tls::{TlsConfig, TlsCounts, TlsInfo};

/// The TLS sessions of a loop, and their shared buffers.
#[derive(Debug, Default)]
pub struct TlsSessions {
    /// `None` until the first connection of a TLS listener.
    tls: Option<Box<Tls>>,
}

#[derive(Debug)]
struct Tls {
    /// The sessions, indexed by the kernel's descriptor of the socket. A descriptor is a small number.
    streams: Vec<Option<Box<TlsStream>>>,
    shared: TlsShared,
}

impl TlsSessions {
    /// Creates the shared buffers, unless the buffers exist already.
    pub fn make_buffers(&mut self, read_bytes: usize, inbound: MemoryTotal) {
        self.tls
            .get_or_insert_with(|| Box::new(Tls { streams: Vec::new(), shared: TlsShared::new(read_bytes, inbound) }));
    }

    /// Creates the TLS session of an accepted socket. Returns `false` if the TLS settings are invalid.
    pub fn insert(&mut self, descriptor: RawFd, config: &TlsConfig, is_control: bool, is_proxied: bool) -> bool {
        let Some(tls) = &mut self.tls else { return false };
        match TlsStream::new(config, is_control, is_proxied, &tls.shared) {
            Ok(stream) => {
                let index = index(descriptor);
                if index >= tls.streams.len() {
                    tls.streams.resize_with(index + 1, || None);
                }
                tls.streams[index] = Some(Box::new(stream));
                true
            }
            Err(error) => {
                log::warn!("cannot create a TLS session: {error}");
                false
            }
        }
    }

    /// Removes the session of a socket.
    pub fn remove(&mut self, descriptor: RawFd) {
        let Some(tls) = &mut self.tls else { return };
        if let Some(stream) = tls.streams.get_mut(index(descriptor)).and_then(Option::take) {
            stream.count_abandoned(&mut tls.shared.counts);
        }
    }

    /// Reads once from a socket, and decrypts the bytes.
    ///
    /// The returned `bool` says whether another read may return more bytes without a new epoll event. `is_hung_up` is
    /// whether epoll has reported the end of the peer's stream.
    pub fn read(
        &mut self,
        descriptor: RawFd,
        socket: &mut impl Stream,
        is_hung_up: bool,
        buffer: &mut [u8],
    ) -> (Io, bool) {
        let Some((stream, shared)) = self.stream_mut(descriptor) else { return (Io::Closed, false) };
        let read = stream.read(socket, shared, buffer);
        let has_input = shared.last.read.has_received || matches!(read, Io::Done(1..));
        (read, stream.may_have_more() || (is_hung_up && has_input))
    }

    /// Encrypts bytes, and writes them to a socket once.
    pub fn write(&mut self, descriptor: RawFd, socket: &mut impl Stream, slices: &[IoSlice<'_>]) -> Option<Written> {
        let (stream, shared) = self.stream_mut(descriptor)?;
        stream.write(socket, shared, slices)
    }

    /// Ends the server's side of a socket's stream.
    pub fn shutdown(&mut self, descriptor: RawFd, socket: &mut impl Stream) {
        if let Some((stream, shared)) = self.stream_mut(descriptor) {
            stream.shutdown(socket, shared);
        }
    }

    /// Ends the session of a finished connection.
    pub fn finish(&mut self, descriptor: RawFd, socket: &mut impl Stream) {
        if let Some((stream, shared)) = self.stream_mut(descriptor) {
            stream.close(socket, shared);
        }
    }

    /// Ignores all further input of a socket.
    pub fn ignore_input(&mut self, descriptor: RawFd) {
        if let Some((stream, _)) = self.stream_mut(descriptor) {
            stream.ignore_input();
        }
    }

    /// Returns the result of the last read from a session.
    pub fn session_read(&self) -> Option<SessionRead> {
        Some(self.tls.as_ref()?.shared.last.read)
    }

    /// Returns the time since which the server waits for the remaining bytes of a record.
    pub fn unfinished_since(&self, descriptor: RawFd) -> Option<Tick> {
        self.stream(descriptor)?.unfinished_since()
    }

    /// Starts or stops the time limit of an unfinished record: see [`TlsStream::set_reading`].
    pub fn set_reading(&mut self, descriptor: RawFd, now: Option<Tick>) {
        if let Some((stream, _)) = self.stream_mut(descriptor) {
            stream.set_reading(now);
        }
    }

    /// Returns the memory of unfinished input of a socket, in bytes.
    pub fn inbound_bytes(&self, descriptor: RawFd) -> usize {
        self.stream(descriptor).map_or(0, TlsStream::inbound_bytes)
    }

    /// Returns whether the next read of a socket may answer a client hello.
    pub fn awaits_hello(&self, descriptor: RawFd) -> bool {
        self.stream(descriptor).is_some_and(TlsStream::awaits_hello)
    }

    /// Returns the version and cipher suite of a socket, after its handshake.
    pub fn info(&self, descriptor: RawFd) -> Option<TlsInfo> {
        self.stream(descriptor)?.info()
    }

    /// Returns the report of the last read from a session, and resets the report.
    pub fn take_report(&mut self) -> ReadReport {
        self.tls.as_mut().map(|tls| std::mem::take(&mut tls.shared.last)).unwrap_or_default()
    }

    /// Returns the number of sessions.
    pub fn count(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.streams.iter().flatten().count())
    }

    /// Returns the number of handshakes by outcome.
    pub fn counts(&self) -> TlsCounts {
        self.tls.as_ref().map(|tls| tls.shared.counts).unwrap_or_default()
    }

    fn stream(&self, descriptor: RawFd) -> Option<&TlsStream> {
        self.tls.as_ref()?.streams.get(index(descriptor))?.as_deref()
    }

    fn stream_mut(&mut self, descriptor: RawFd) -> Option<(&mut TlsStream, &mut TlsShared)> {
        let Tls { streams, shared } = &mut **self.tls.as_mut()?;
        let stream = streams.get_mut(index(descriptor))?.as_deref_mut()?;
        Some((stream, shared))
    }
}

fn index(descriptor: RawFd) -> usize {
    // A descriptor of the kernel is never negative.
    usize::try_from(descriptor).unwrap_or_default()
}
