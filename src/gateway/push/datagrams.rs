//! Datagrams on `--api`: a push command each, sent and forgotten.
//!
//! It owns the sockets, `udp:` and `unixgram:`, a thread for each, and the count of what became of every datagram. It must
//! not know what is in one: that is judged by the closure it is started with, which says how it went.
//!
//! Nobody is answered, so what counts is that nothing goes missing unseen: what the loop's inbox has no room for, what is
//! longer than the buffer, and what the kernel drops because the thread is too slow.

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

use fdpush::shared::SocketFile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Type};

use crate::gateway::runtime::threads;

/// The longest datagram that is read. UDP has none longer; one of a unix socket may be, and is refused.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// What the kernel is asked to hold while the thread is busy. It gives what `net.core.rmem_max` allows.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Where datagrams come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// `udp:HOST:PORT`
    Udp(SocketAddr),
    /// `unixgram:PATH`
    Unixgram(PathBuf),
}

/// A socket that is bound and not yet read: what comes waits in the kernel.
#[derive(Debug)]
pub struct Socket {
    socket: socket2::Socket,
    address: Address,
    /// Held for what dropping it does.
    _file: Option<SocketFile>,
}

/// A thread that reads a socket. Dropping it ends both, and removes a unix socket's file.
#[derive(Debug)]
pub struct Ingress {
    socket: Arc<Socket>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What became of a datagram, as the closure says that judges it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is on its way to the loop.
    Done,
    /// It is no command.
    Malformed,
    /// It lacks a key, or has a wrong one.
    Unauthorized,
    /// The loop's inbox is full.
    Overflowed,
}

/// Datagrams since the start, by what became of them.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub done: u64,
    /// Those that are too long included.
    pub malformed: u64,
    pub unauthorized: u64,
    pub overflowed: u64,
    /// Dropped by the kernel, because its buffer was full. A unix socket drops none: its senders wait.
    pub lost: u64,
}

/// What the thread and its owner share.
#[derive(Default, Debug)]
struct Shared {
    stops: AtomicBool,
    done: AtomicU64,
    malformed: AtomicU64,
    unauthorized: AtomicU64,
    overflowed: AtomicU64,
    lost: AtomicU64,
}

impl Socket {
    /// Binds `udp:HOST:PORT`, `udp:[V6]:PORT` or `unixgram:PATH`. A name with several addresses, as `localhost` has, is bound
    /// on each, unless the port is 0, where each would get another.
    ///
    /// # Errors
    ///
    /// Names the address. A unix socket's file that nobody reads is replaced; another's, and any other file, is left.
    pub fn bind_all(address: &str) -> io::Result<Vec<Socket>> {
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("cannot receive on {address}: {error}"));
        if let Some(path) = address.strip_prefix("unixgram:") {
            return Ok(vec![Socket::bind_unixgram(Path::new(path)).map_err(explain)?]);
        }
        let Some(name) = address.strip_prefix("udp:") else {
            return Err(explain(io::Error::new(io::ErrorKind::InvalidInput, "it is neither udp: nor unixgram:")));
        };
        let mut addresses: Vec<SocketAddr> = name.to_socket_addrs().map_err(explain)?.collect();
        addresses.dedup();
        let wanted = if addresses.first().is_some_and(|first| first.port() == 0) { 1 } else { addresses.len() };
        let mut sockets = Vec::new();
        for udp in addresses.into_iter().take(wanted) {
            match Socket::bind_udp(udp) {
                Ok(socket) => sockets.push(socket),
                // `localhost` may name ::1 on a machine that has no IPv6.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && wanted > 1 => {}
                Err(error) => return Err(explain(error)),
            }
        }
        if sockets.is_empty() {
            return Err(explain(io::ErrorKind::AddrNotAvailable.into()));
        }
        Ok(sockets)
    }

    fn bind_udp(address: SocketAddr) -> io::Result<Socket> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            // As the listeners are: `[::]:80` beside `0.0.0.0:80` is no conflict.
            socket.set_only_v6(true)?;
        }
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Socket { socket, address: Address::Udp(bound), _file: None })
    }

    fn bind_unixgram(path: &Path) -> io::Result<Socket> {
        let (socket, file) = SocketFile::bind(path, Type::DGRAM)?;
        Ok(Socket { socket, address: Address::Unixgram(path.to_owned()), _file: Some(file) })
    }

    /// A socket that was bound by somebody else, systemd for one.
    ///
    /// # Errors
    ///
    /// That of the system.
    pub fn from_udp(socket: UdpSocket) -> io::Result<Socket> {
        socket.set_nonblocking(false)?;
        let address = Address::Udp(socket.local_addr()?);
        Ok(Socket { socket: socket.into(), address, _file: None })
    }

    /// As [`from_udp`](Socket::from_udp). Its file is not ours to remove.
    ///
    /// # Errors
    ///
    /// That of the system.
    pub fn from_unixgram(socket: UnixDatagram) -> io::Result<Socket> {
        socket.set_nonblocking(false)?;
        let path = socket.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
        Ok(Socket { socket: socket.into(), address: Address::Unixgram(path), _file: None })
    }

    /// Where it is bound; the port that was given where 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Datagrams that the kernel dropped since the socket was bound: the last column of `/proc/net/udp`.
    fn dropped(&self) -> Option<u64> {
        let table = match &self.address {
            Address::Udp(SocketAddr::V4(_)) => "/proc/net/udp",
            Address::Udp(SocketAddr::V6(_)) => "/proc/net/udp6",
            Address::Unixgram(_) => return None,
        };
        let inode = rustix::fs::fstat(&self.socket).ok()?.st_ino;
        drops_of(inode, &fs::read_to_string(table).ok()?)
    }
}

impl Ingress {
    /// Reads the socket on a thread of its own, and hands every datagram to `handle`, which must not wait for long.
    ///
    /// # Errors
    ///
    /// That of the system, when it has no thread to give.
    pub fn start(socket: Socket, mut handle: impl FnMut(&[u8]) -> Outcome + Send + 'static) -> io::Result<Ingress> {
        let (socket, shared) = (Arc::new(socket), Arc::new(Shared::default()));
        let thread = threads::spawn("fdpush-ingress", {
            let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
            move || shared.receive(&socket, &mut handle)
        })?;
        Ok(Ingress { socket, shared, thread: Some(thread) })
    }

    /// What became of all datagrams until now. It reads a file in `/proc`, and is meant for a scrape.
    pub fn counts(&self) -> Counts {
        let shared = &self.shared;
        // What is counted once stays counted, even if the kernel's table cannot be read.
        let dropped = self.socket.dropped().unwrap_or_default();
        let lost = shared.lost.fetch_max(dropped, Ordering::Relaxed).max(dropped);
        Counts {
            done: shared.done.load(Ordering::Relaxed),
            malformed: shared.malformed.load(Ordering::Relaxed),
            unauthorized: shared.unauthorized.load(Ordering::Relaxed),
            overflowed: shared.overflowed.load(Ordering::Relaxed),
            lost,
        }
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Release);
        // It wakes the thread. On UDP, Linux does so and says ENOTCONN all the same.
        let _ = self.socket.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Receives until the end, or until the socket cannot be read.
    fn receive(&self, socket: &Socket, handle: &mut impl FnMut(&[u8]) -> Outcome) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !self.stops.load(Ordering::Acquire) {
            // With TRUNC, the length is the datagram's, not that of what was read of it.
            match recv(&socket.socket, &mut buffer[..], RecvFlags::TRUNC) {
                // An empty datagram, or the one that wakes.
                Ok(_) if self.stops.load(Ordering::Acquire) => break,
                Ok((_, len)) if len > DATAGRAM_BYTES_MAX => {
                    log::debug!("a datagram on {} is not carried out: it has {len} bytes", socket.address);
                    self.count(Outcome::Malformed);
                }
                Ok((_, len)) => self.count(buffer.get(..len).map_or(Outcome::Malformed, |datagram| {
                    catch_unwind(AssertUnwindSafe(|| handle(datagram))).unwrap_or_else(|_| {
                        log::error!("a datagram on {} made the server panic, and is given up", socket.address);
                        Outcome::Malformed
                    })
                })),
                Err(Errno::INTR | Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::CONNREFUSED) => {}
                Err(error) => {
                    log::error!("datagrams on {} are not received: {error}", socket.address);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Done => &self.done,
            Outcome::Malformed => &self.malformed,
            Outcome::Unauthorized => &self.unauthorized,
            Outcome::Overflowed => &self.overflowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Udp(address) => write!(f, "udp:{address}"),
            Address::Unixgram(path) => write!(f, "unixgram:{}", path.display()),
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), |sum, one| Counts {
            done: sum.done + one.done,
            malformed: sum.malformed + one.malformed,
            unauthorized: sum.unauthorized + one.unauthorized,
            overflowed: sum.overflowed + one.overflowed,
            lost: sum.lost + one.lost,
        })
    }
}

/// The drops of the socket with this inode in a table as `/proc/net/udp` is: `inode` is its tenth column, `drops` its
/// thirteenth and last.
fn drops_of(inode: u64, table: &str) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(9);
        let is_it = columns.next()?.parse() == Ok(inode);
        is_it.then(|| columns.nth(2)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests;
