//! The socket of a connection, TCP or unix, and its readiness.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::connection::{Io, Transport, Written};

/// A connected, non-blocking socket. It is closed when it is dropped, which also removes it from epoll.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Whether it is in the list of connections to read from.
    pub is_ready: bool,
    /// Whether epoll has reported bytes that were not all read.
    pub is_readable: bool,
    /// Whether epoll has reported the end of the peer's stream. The end itself is a read of 0 bytes.
    pub is_hung_up: bool,
}

impl Socket {
    /// Creates a socket from an accepted descriptor.
    pub fn new(fd: OwnedFd) -> Socket {
        Socket { fd, is_ready: false, is_readable: false, is_hung_up: false }
    }

    /// Returns the kernel's descriptor, for epoll.
    pub fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Transport for Socket {
    type Shared = ();

    #[inline]
    fn read(&mut self, (): &mut (), buffer: &mut [u8]) -> Io {
        let read = retry(|| rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count));
        // A short read has emptied the socket. If the peer has ended its stream, one more read finds the end.
        self.is_readable = matches!(read, Io::Done(count @ 1..) if count == buffer.len() || self.is_hung_up);
        read
    }

    #[inline]
    fn write_vectored(&mut self, (): &mut (), slices: &[IoSlice<'_>]) -> Option<Written> {
        // NOSIGNAL: a library cannot rely on SIGPIPE being ignored.
        let (sent, offered) = match slices {
            // One slice needs no vector, which the kernel would have to copy.
            [only] => (retry(|| rustix::net::send(&self.fd, only, SendFlags::NOSIGNAL)), only.len()),
            _ => (send_vector(&self.fd, slices), slices.iter().map(|slice| slice.len()).sum()),
        };
        match sent {
            Io::Done(count) => Some(Written::new(count, count < offered)),
            Io::WouldBlock => Some(Written::new(0, true)),
            Io::Closed => None,
        }
    }

    fn shutdown(&mut self, (): &mut ()) {
        // It fails only if the peer is gone.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn send_vector(fd: &OwnedFd, slices: &[IoSlice<'_>]) -> Io {
    retry(|| rustix::net::sendmsg(fd, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL))
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
