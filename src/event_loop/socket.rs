//! A connection's socket, TCP or unix: the four system calls that are made on it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

/// A connected, non-blocking socket. Closed when it is dropped, which also takes it out of epoll.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Takes over an accepted socket.
    pub fn new(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    /// Reads once. `None`: there is nothing to read now. 0: the peer has ended its stream.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        retry(|| rustix::net::recv(&self.0, &mut *buf, RecvFlags::empty()).map(|(count, _)| count))
    }

    /// Writes once. `None`: the socket is full.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        // NOSIGNAL: a library cannot count on SIGPIPE being ignored.
        retry(|| rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL))
    }

    /// The same, from several places. One spares the kernel the import of a vector.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        retry(|| rustix::net::sendmsg(&self.0, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL))
    }

    /// Tells the peer that no more will come.
    pub fn shut(&self) {
        // A peer that is gone has nothing to be told.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Write);
    }

    /// The kernel's descriptor, for epoll.
    pub fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
