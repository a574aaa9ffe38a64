//! Receives push commands in datagrams on the sockets of `--api`.
//!
//! This module owns the `udp:` and `unixgram:` sockets, one thread for each socket, and the counts of datagrams by
//! status. The module does not parse a datagram: a closure of the caller parses the datagram and returns a
//! [`DatagramStatus`].
//!
//! The sender of a datagram gets no answer, so the module counts lost datagrams. A datagram is lost if the inbox of the
//! event loop is full, if the datagram is longer than [`DATAGRAM_BYTES_MAX`], or if the kernel drops the datagram.

pub mod pending;

use std::fmt;
use std::fs;
use std::io;
use std::iter::Sum;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use fdpush::shared::{SocketFile, bind_each};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Type};

use crate::gateway::runtime::threads;

/// The maximum length of a datagram, in bytes.
///
/// Every UDP datagram is shorter than this maximum. A Unix socket can receive a datagram that is longer than this
/// maximum, and the receiver refuses such a datagram.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// The size of the kernel's receive buffer that a UDP socket requests, in bytes.
///
/// The kernel setting `net.core.rmem_max` limits the size of the receive buffer that the socket gets.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// The address of a datagram socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DatagramAddress {
    /// `udp:HOST:PORT`
    Udp(SocketAddr),
    /// `unixgram:PATH`
    Unixgram(PathBuf),
}

/// A bound datagram socket. Datagrams wait in the kernel until a [`DatagramReceiver`] reads the socket.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: socket2::Socket,
    address: DatagramAddress,
    /// The socket file that this process created. Dropping the `SocketFile` removes the socket file.
    _file: Option<SocketFile>,
}

/// A thread that reads a datagram socket.
///
/// Dropping a `DatagramReceiver` ends the thread, closes the socket and removes the socket file that this process
/// created.
#[derive(Debug)]
pub struct DatagramReceiver {
    socket: Arc<DatagramSocket>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The status of a received datagram. The closure of [`DatagramReceiver::start`] returns the status.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DatagramStatus {
    /// The datagram was passed to the event loop.
    Done,
    /// The datagram is not a valid push command.
    Malformed,
    /// The API key in the datagram is missing or wrong.
    Unauthorized,
    /// The event loop cannot take the datagram.
    ///
    /// The inbox of the event loop is full, or the datagrams that wait for the event loop have too many bytes.
    Overflowed,
}

/// The numbers of datagrams since the start of a receiver, by status.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct DatagramCounts {
    pub done: u64,
    /// The number of datagrams with an invalid command, including datagrams that are too long.
    pub malformed: u64,
    pub unauthorized: u64,
    pub overflowed: u64,
    /// The number of datagrams that the kernel dropped because the receive buffer was full.
    ///
    /// The kernel drops no datagrams of a Unix socket: the kernel blocks a sender while the receive buffer is full.
    pub lost: u64,
}

/// The state that a [`DatagramReceiver`] shares with its thread.
#[derive(Default, Debug)]
struct Shared {
    stops: AtomicBool,
    done: AtomicU64,
    malformed: AtomicU64,
    unauthorized: AtomicU64,
    overflowed: AtomicU64,
    lost: AtomicU64,
}

impl DatagramSocket {
    /// Binds `udp:HOST:PORT`, `udp:[V6]:PORT` or `unixgram:PATH`.
    ///
    /// If HOST is a name with several addresses, `bind_all` binds each address. If PORT is 0, `bind_all` binds only the
    /// first address of HOST.
    ///
    /// # Errors
    ///
    /// Returns an error if an address is invalid or cannot be bound. The text of the error contains the address. A
    /// stale Unix socket file at PATH is replaced, but any other file at PATH is an error.
    pub fn bind_all(address: &str) -> io::Result<Vec<DatagramSocket>> {
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("cannot receive on {address}: {error}"));
        if let Some(path) = address.strip_prefix("unixgram:") {
            return Ok(vec![DatagramSocket::bind_unixgram(Path::new(path)).map_err(explain)?]);
        }
        let Some(name) = address.strip_prefix("udp:") else {
            return Err(explain(io::Error::new(io::ErrorKind::InvalidInput, "prefix must be udp: or unixgram:")));
        };
        name.to_socket_addrs().and_then(|addresses| bind_each(addresses, DatagramSocket::bind_udp)).map_err(explain)
    }

    fn bind_udp(address: SocketAddr) -> io::Result<DatagramSocket> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            // With the option `IPV6_V6ONLY`, `[::]:80` and `0.0.0.0:80` do not conflict.
            socket.set_only_v6(true)?;
        }
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(DatagramSocket { socket, address: DatagramAddress::Udp(bound), _file: None })
    }

    fn bind_unixgram(path: &Path) -> io::Result<DatagramSocket> {
        let (socket, file) = SocketFile::bind(path, Type::DGRAM)?;
        Ok(DatagramSocket { socket, address: DatagramAddress::Unixgram(path.to_owned()), _file: Some(file) })
    }

    /// Takes over a UDP socket that another process has bound, for example systemd.
    ///
    /// # Errors
    ///
    /// Returns an error if a system call on the socket failed.
    pub fn from_udp(socket: UdpSocket) -> io::Result<DatagramSocket> {
        socket.set_nonblocking(false)?;
        let address = DatagramAddress::Udp(socket.local_addr()?);
        Ok(DatagramSocket { socket: socket.into(), address, _file: None })
    }

    /// Takes over a Unix datagram socket that another process has bound, for example systemd.
    ///
    /// The socket file belongs to the other process, so fdpush never removes the file.
    ///
    /// # Errors
    ///
    /// Returns an error if a system call on the socket failed.
    pub fn from_unixgram(socket: UnixDatagram) -> io::Result<DatagramSocket> {
        socket.set_nonblocking(false)?;
        let path = socket.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
        Ok(DatagramSocket { socket: socket.into(), address: DatagramAddress::Unixgram(path), _file: None })
    }

    /// Returns the bound address. If port 0 was requested, the address contains the port that the kernel assigned.
    pub fn address(&self) -> &DatagramAddress {
        &self.address
    }

    /// Returns the number of datagrams on this socket that the kernel dropped.
    ///
    /// The number is read from the last column of `/proc/net/udp` or `/proc/net/udp6`. Returns `None` for a Unix
    /// socket, or if the table in `/proc` cannot be read.
    fn dropped(&self) -> Option<u64> {
        let table = match &self.address {
            DatagramAddress::Udp(SocketAddr::V4(_)) => "/proc/net/udp",
            DatagramAddress::Udp(SocketAddr::V6(_)) => "/proc/net/udp6",
            DatagramAddress::Unixgram(_) => return None,
        };
        let inode = rustix::fs::fstat(&self.socket).ok()?.st_ino;
        drops_of(inode, &fs::read_to_string(table).ok()?)
    }
}

impl DatagramReceiver {
    /// Starts a thread that passes each datagram to `handle`, except datagrams over [`DATAGRAM_BYTES_MAX`].
    ///
    /// `handle` must not block for long, because the kernel drops UDP datagrams while the receive buffer is full.
    ///
    /// # Errors
    ///
    /// Returns an error if the system cannot start a thread.
    pub fn start(
        socket: DatagramSocket,
        mut handle: impl FnMut(&[u8]) -> DatagramStatus + Send + 'static,
    ) -> io::Result<DatagramReceiver> {
        let (socket, shared) = (Arc::new(socket), Arc::new(Shared::default()));
        let thread = threads::spawn("fdpush-ingress", {
            let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
            move || shared.receive(&socket, &mut handle)
        })?;
        Ok(DatagramReceiver { socket, shared, thread: Some(thread) })
    }

    /// Returns the counts of datagrams.
    ///
    /// Each call of `counts` for a UDP socket reads a file in `/proc`. The read is fast enough for a call at each
    /// scrape of the metrics.
    pub fn counts(&self) -> DatagramCounts {
        let shared = &self.shared;
        // If the table in `/proc` cannot be read, the number of lost datagrams keeps its last value.
        let dropped = self.socket.dropped().unwrap_or_default();
        let lost = shared.lost.fetch_max(dropped, Ordering::Relaxed).max(dropped);
        DatagramCounts {
            done: shared.done.load(Ordering::Relaxed),
            malformed: shared.malformed.load(Ordering::Relaxed),
            unauthorized: shared.unauthorized.load(Ordering::Relaxed),
            overflowed: shared.overflowed.load(Ordering::Relaxed),
            lost,
        }
    }
}

impl Drop for DatagramReceiver {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Release);
        // `shutdown` wakes the thread that waits in `recv`. For a UDP socket, `shutdown` wakes the thread but returns
        // the error ENOTCONN, so errors are ignored.
        let _ = self.socket.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Receives datagrams until the [`DatagramReceiver`] is dropped or the socket fails.
    fn receive(&self, socket: &DatagramSocket, handle: &mut impl FnMut(&[u8]) -> DatagramStatus) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !self.stops.load(Ordering::Acquire) {
            // With the flag TRUNC, `recv` returns the length of the whole datagram as `len`, even if the buffer is
            // shorter than the datagram.
            match recv(&socket.socket, &mut buffer[..], RecvFlags::TRUNC) {
                // `DatagramReceiver::drop` has set `stops` and shut the socket down. The thread stops, even if `recv`
                // returned a datagram.
                Ok(_) if self.stops.load(Ordering::Acquire) => break,
                Ok((_, len)) if len > DATAGRAM_BYTES_MAX => {
                    log::debug!(
                        "datagram on {} refused: length limit exceeded ({len} of {DATAGRAM_BYTES_MAX} bytes)",
                        socket.address
                    );
                    self.count(DatagramStatus::Malformed);
                }
                Ok((_, len)) => self.count(buffer.get(..len).map_or(DatagramStatus::Malformed, |datagram| {
                    catch_unwind(AssertUnwindSafe(|| handle(datagram))).unwrap_or_else(|_| {
                        log::error!("datagram on {} dropped: its handler panicked", socket.address);
                        DatagramStatus::Malformed
                    })
                })),
                Err(Errno::INTR | Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::CONNREFUSED) => {}
                Err(error) => {
                    log::error!("cannot receive datagrams on {}: {error}", socket.address);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn count(&self, status: DatagramStatus) {
        let counter = match status {
            DatagramStatus::Done => &self.done,
            DatagramStatus::Malformed => &self.malformed,
            DatagramStatus::Unauthorized => &self.unauthorized,
            DatagramStatus::Overflowed => &self.overflowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for DatagramAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatagramAddress::Udp(address) => write!(f, "udp:{address}"),
            DatagramAddress::Unixgram(path) => write!(f, "unixgram:{}", path.display()),
        }
    }
}

impl Sum for DatagramCounts {
    fn sum<I: Iterator<Item = DatagramCounts>>(counts: I) -> DatagramCounts {
        counts.fold(DatagramCounts::default(), |sum, one| DatagramCounts {
            done: sum.done + one.done,
            malformed: sum.malformed + one.malformed,
            unauthorized: sum.unauthorized + one.unauthorized,
            overflowed: sum.overflowed + one.overflowed,
            lost: sum.lost + one.lost,
        })
    }
}

/// Returns the number of datagrams that the kernel dropped on a socket.
///
/// `inode` is the inode of the socket, and `table` is the text of `/proc/net/udp` or `/proc/net/udp6`. In the table,
/// column 10 is `inode`, and the last column, number 13, is `drops`.
fn drops_of(inode: u64, table: &str) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(9);
        let is_it = columns.next()?.parse() == Ok(inode);
        is_it.then(|| columns.nth(2)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests;
