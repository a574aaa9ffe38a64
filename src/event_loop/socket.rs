//! The socket of a connection, TCP or unix, and its readiness.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::connection::{Io, SessionRead, Transport, Written};
use crate::event_loop::tls_sessions::TlsSessions;
use crate::tick::Tick;

/// A connected, non-blocking socket. When the value is dropped, the socket is closed, and epoll forgets the socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The list that contains the socket, if any.
    pub listing: Listing,
    /// Whether epoll has reported bytes that were not all read.
    pub is_readable: bool,
    /// Whether epoll has reported the end of the peer's stream. After this event, a read of 0 bytes confirms the end of
    /// the stream.
    pub is_hung_up: bool,
    is_tls: bool,
}

/// The list that contains a socket, if any.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Listing {
    None,
    /// The list of ready connections.
    Ready,
    /// The queue of connections whose TLS hello waits for the budget of handshakes.
    Handshakes,
}

const _: () = assert!(size_of::<Socket>() == 8, "the descriptor and the flags must fit into 8 bytes");

impl Socket {
    /// Creates a socket from an accepted descriptor.
    pub fn new(fd: OwnedFd) -> Socket {
        Socket { fd, listing: Listing::None, is_readable: false, is_hung_up: false, is_tls: false }
    }

    /// Returns the kernel's descriptor, for epoll.
    pub fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Marks the socket as a socket with a TLS session.
    pub fn set_tls(&mut self) {
        self.is_tls = true;
    }

    /// Returns whether the socket has a TLS session.
    #[inline]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl Transport for Socket {
    type Shared = TlsSessions;

    #[inline]
    fn read(&mut self, sessions: &mut TlsSessions, buffer: &mut [u8]) -> Io {
        if self.is_tls {
            // A further read can return plaintext if the session has more plaintext, or if the records of this read had
            // no plaintext.
            let (read, may_have_more) =
                sessions.read(self.as_raw_fd(), &mut PlainSocket(&self.fd), self.is_hung_up, buffer);
            self.is_readable = may_have_more && !matches!(read, Io::Done(0) | Io::Closed);
            return read;
        }
        let read = receive(&self.fd, buffer);
        // A read that did not fill the buffer has emptied the socket. If the peer has ended its stream, one more read
        // finds the end.
        self.is_readable = matches!(read, Io::Done(count @ 1..) if count == buffer.len() || self.is_hung_up);
        read
    }

    // This function is always inlined, for the reason given at `Table::poll_flush`.
    #[inline(always)]
    fn write_vectored(&mut self, sessions: &mut TlsSessions, slices: &[IoSlice<'_>]) -> Option<Written> {
        if self.is_tls {
            return sessions.write(self.as_raw_fd(), &mut PlainSocket(&self.fd), slices);
        }
        let (sent, offered) = match slices {
            // For one slice, `send` takes less time than `sendmsg`, because the kernel copies no vector of slices.
            [only] => (send(&self.fd, only), only.len()),
            _ => (send_vector(&self.fd, slices), slices.iter().map(|slice| slice.len()).sum()),
        };
        match sent {
            Io::Done(count) => Some(Written::new(count, count < offered)),
            Io::WouldBlock => Some(Written::new(0, true)),
            Io::Closed => None,
        }
    }

    fn shutdown(&mut self, sessions: &mut TlsSessions) {
        if self.is_tls {
            return sessions.shutdown(self.as_raw_fd(), &mut PlainSocket(&self.fd));
        }
        shutdown(&self.fd);
    }

    #[inline]
    fn session_read(&self, sessions: &TlsSessions) -> Option<SessionRead> {
        if self.is_tls { sessions.session_read() } else { None }
    }

    #[inline]
    fn inbound_bytes(&self, sessions: &TlsSessions) -> usize {
        if self.is_tls { sessions.inbound_bytes(self.as_raw_fd()) } else { 0 }
    }

    #[inline]
    fn unfinished_since(&self, sessions: &TlsSessions) -> Option<Tick> {
        if self.is_tls { sessions.unfinished_since(self.as_raw_fd()) } else { None }
    }

    #[inline]
    fn set_reading(&mut self, sessions: &mut TlsSessions, now: Option<Tick>) {
        if self.is_tls {
            sessions.set_reading(self.as_raw_fd(), now);
        }
    }

    fn ignore_input(&mut self, sessions: &mut TlsSessions) {
        if self.is_tls {
            sessions.ignore_input(self.as_raw_fd());
        }
    }

    #[inline]
    fn finish(&mut self, sessions: &mut TlsSessions) {
        if self.is_tls {
            sessions.finish(self.as_raw_fd(), &mut PlainSocket(&self.fd));
        }
    }

    fn reset(&mut self, _: &mut TlsSessions) {
        // The stream ends with a reset, and a TLS session also ends without `close_notify`. The reset, and the missing
        // `close_notify`, show the client that the response is incomplete.
        let _ = rustix::net::sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    #[inline]
    fn remove(&mut self, sessions: &mut TlsSessions) {
        if self.is_tls {
            sessions.remove(self.as_raw_fd());
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[inline]
fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> Io {
    retry(|| rustix::net::recv(fd, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count))
}

#[inline]
fn send(fd: &OwnedFd, bytes: &[u8]) -> Io {
    // NOSIGNAL prevents SIGPIPE: a library cannot rely on the program to ignore this signal.
    retry(|| rustix::net::send(fd, bytes, SendFlags::NOSIGNAL))
}

fn send_vector(fd: &OwnedFd, slices: &[IoSlice<'_>]) -> Io {
    retry(|| rustix::net::sendmsg(fd, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL))
}

fn shutdown(fd: &OwnedFd) {
    // This call fails only if the peer has disconnected.
    let _ = rustix::net::shutdown(fd, Shutdown::Write);
}

#[inline]
fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Io {
    loop {
        match call() {
            Ok(count) => return Io::Done(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Io::WouldBlock,
            Err(_) => return Io::Closed,
        }
    }
}

/// The socket that carries the records of a TLS session.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without the feature `tls`, no socket has a TLS session"))]
struct PlainSocket<'a>(&'a OwnedFd);

#[cfg(feature = "tls")]
impl crate::connection::Stream for PlainSocket<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> Io {
        receive(self.0, buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> Io {
        send(self.0, bytes)
    }

    fn shutdown(&mut self) {
        shutdown(self.0);
    }
}
