//! Listening sockets: `host:port`, `[v6]:port`, `unix:PATH`.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{Domain, Socket, Type};

use crate::event_loop::bind_each::bind_each;
use crate::event_loop::error::Error;
use crate::event_loop::socket_file::SocketFile;
use crate::peer::Peer;
use crate::tls::ListenerTls;

/// The maximum number of connections that wait to be accepted.
///
/// The backlog is long, because many clients can reconnect at the same time. The kernel limits the backlog to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The number of unsent bytes above which a socket is not writable (`TCP_NOTSENT_LOWAT`).
///
/// The limit bounds the kernel memory of a client that does not read.
const UNSENT_BYTES_MAX: u32 = 16 << 10;

/// The maximum of `TCP_USER_TIMEOUT`: about 24 days.
const TCP_USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// An address that a server listens on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// An IPv4 or IPv6 address and port.
    Tcp(SocketAddr),
    /// The path of a unix socket. An abstract name begins with `@`.
    Unix(PathBuf),
}

/// A listening socket.
///
/// If the listener created a socket file, dropping the listener removes the file.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: Address,
    pub kind: ListenerKind,
    /// The TLS settings of a TLS listener.
    pub tls: Option<ListenerTls>,
    /// Whether this listener has bound its socket itself. Only then another socket can be bound to the same address.
    is_bound_here: bool,
    /// The socket file, which is removed when this value is dropped.
    _file: Option<SocketFile>,
    /// Errors that the next calls of `accept` report in place of the system's result.
    #[cfg(test)]
    pub injected: std::cell::RefCell<std::collections::VecDeque<Errno>>,
}

/// A listener of one loop, or an empty entry for a listener of another loop.
///
/// All loops have the same list of endpoints, so that a loop knows the kind and the TLS settings of a socket that another
/// loop accepted.
#[derive(Debug)]
pub struct Endpoint {
    pub listener: Option<Listener>,
    pub kind: ListenerKind,
    pub tls: Option<ListenerTls>,
}

/// The kind of connections that a listener accepts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ListenerKind {
    Client,
    /// Clients behind a trusted proxy that sends a PROXY header: see `Server::proxy_protocol`.
    Proxied,
    /// Back ends and operators: see `Server::listen_control`.
    Control,
}

/// The result of one call of accept(2).
#[derive(Debug)]
pub enum Accepted {
    Connection(OwnedFd, Peer),
    /// No client waits.
    Empty,
    /// The client disconnected before it was accepted. Other clients may wait.
    Aborted,
    /// The system refused this client, for instance by a firewall or a security module.
    Failed(Errno),
    /// The process, or the system, is out of descriptors or memory.
    Exhausted,
}

impl Listener {
    /// Listens on `address`.
    ///
    /// A name such as `localhost` can have several addresses. The result has a listener for each address. With port 0,
    /// the result has only one listener, because each address would get a different port.
    pub fn bind_all(address: &str) -> Result<Vec<Listener>, Error> {
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(vec![with_address(address, Listener::bind_unix(Path::new(path)))?]);
        }
        let found = address.to_socket_addrs().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => io::Error::new(error.kind(), "expected HOST:PORT, [V6]:PORT or unix:PATH"),
            _ => error,
        });
        with_address(address, found.and_then(|addresses| bind_each(addresses, Listener::bind_tcp)))
    }

    fn new(socket: Socket, address: Address, file: Option<SocketFile>) -> Listener {
        Listener {
            socket: socket.into(),
            address,
            kind: ListenerKind::Client,
            tls: None,
            is_bound_here: false,
            _file: file,
            #[cfg(test)]
            injected: Default::default(),
        }
    }

    fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
        Listener::bind_tcp_with(address, false)
    }

    fn bind_tcp_with(address: SocketAddr, shares_port: bool) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // Without this option, `[::]:80` would conflict with `0.0.0.0:80`.
            socket.set_only_v6(true)?;
        }
        if shares_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Listener { is_bound_here: true, ..Listener::new(socket, Address::Tcp(bound), None) })
    }

    fn bind_unix(path: &Path) -> io::Result<Listener> {
        let (socket, file) = SocketFile::bind(path, Type::STREAM)?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        Ok(Listener::new(socket, Address::Unix(path.to_owned()), Some(file)))
    }

    /// Creates a listener from a listening socket. A drop of such a listener does not remove its socket file.
    pub fn adopt(socket: OwnedFd) -> Result<Listener, Error> {
        let socket = Socket::from(socket);
        if !socket.is_listener().map_err(Error::Socket)? {
            return Err(Error::NotListening);
        }
        let name = socket.local_addr().map_err(Error::Socket)?;
        let address = match (name.as_socket(), name.as_pathname(), name.as_abstract_namespace()) {
            (Some(tcp), _, _) => Address::Tcp(tcp),
            (_, Some(path), _) => Address::Unix(path.to_owned()),
            (_, _, Some(name)) => Address::Unix(OsStr::from_bytes(&[b"@", name].concat()).into()),
            _ => return Err(Error::UnsupportedSocket),
        };
        socket.set_nonblocking(true).map_err(Error::Socket)?;
        socket.set_cloexec(true).map_err(Error::Socket)?;
        Ok(Listener::new(socket, address, None))
    }

    /// Listens on the same address with one more socket, for another loop (`SO_REUSEPORT`).
    ///
    /// Returns `None` if [`bind_all`](Listener::bind_all) did not bind the socket, or if the socket is not a TCP socket
    /// for clients.
    pub fn listen_again(&self) -> io::Result<Option<Listener>> {
        let Address::Tcp(address) = self.address else { return Ok(None) };
        if !self.is_bound_here || self.kind == ListenerKind::Control {
            return Ok(None);
        }
        // The kernel reads SO_REUSEPORT of the first socket when the second socket is bound, so the first socket may
        // set the option after its bind. A server with one loop does not set SO_REUSEPORT, because another process of
        // the same user could then listen on the port.
        socket2::SockRef::from(&self.socket).set_reuse_port(true)?;
        let again = Listener::bind_tcp_with(address, true)?;
        Ok(Some(Listener { kind: self.kind, tls: self.tls.clone(), ..again }))
    }

    /// Returns the entry for a loop that does not accept this listener's connections.
    pub fn place(&self) -> Endpoint {
        Endpoint { listener: None, kind: self.kind, tls: self.tls.clone() }
    }

    /// Sets the options that accepted sockets inherit on Linux.
    pub fn prepare(&self, write_time_max: Duration) -> io::Result<()> {
        if let Address::Tcp(_) = self.address {
            let socket = socket2::SockRef::from(&self.socket);
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        }
        self.set_user_timeout(user_timeout(write_time_max))
    }

    /// Sets the `TCP_USER_TIMEOUT` that accepted sockets inherit.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self.address {
            Address::Tcp(_) => socket2::SockRef::from(&self.socket).set_tcp_user_timeout(Some(timeout)),
            Address::Unix(_) => Ok(()),
        }
    }

    /// Accepts one connection.
    ///
    /// # Errors
    /// Returns an error if the socket does not listen any more.
    pub fn accept(&self) -> io::Result<Accepted> {
        #[cfg(test)]
        if let Some(error) = self.injected.borrow_mut().pop_front() {
            return classify(error);
        }
        match acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, address)) => Ok(Accepted::Connection(socket, peer(address))),
            Err(error) => classify(error),
        }
    }

    /// Returns the address. The port is the port that was bound.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sets the TLS settings of the listener.
    #[cfg(feature = "tls")]
    pub fn with_tls(self, tls: &ListenerTls) -> Listener {
        Listener { tls: Some(tls.clone()), ..self }
    }

    /// Returns the address for the log: `127.0.0.1:9501`, or `tls:127.0.0.1:9443`.
    pub fn name(&self) -> String {
        format!("{}{}", if self.tls.is_some() { "tls:" } else { "" }, self.address)
    }

    /// Returns the kernel's descriptor, for epoll.
    pub fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl From<Listener> for Endpoint {
    fn from(listener: Listener) -> Endpoint {
        Endpoint { kind: listener.kind, tls: listener.tls.clone(), listener: Some(listener) }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Writes an address as `127.0.0.1:9501`, `[::1]:9501` or `unix:/run/push.sock`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Returns whether only processes on this machine can connect to the address.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

/// Returns the `TCP_USER_TIMEOUT` for a `write_time_max`.
///
/// The kernel accepts milliseconds up to the maximum of a signed 32-bit number.
pub fn user_timeout(write_time_max: Duration) -> Duration {
    write_time_max.min(TCP_USER_TIMEOUT_MAX)
}

/// Sends a response to a refused client.
pub fn refuse(socket: &OwnedFd, response: &[u8]) {
    // The client's bytes are read first: a close with unread bytes resets the connection, and the response can be lost.
    // An error means that the client has disconnected, so errors are ignored.
    let _ = rustix::net::recv(socket, &mut [0; 4096], RecvFlags::empty());
    let _ = rustix::net::send(socket, response, SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(socket, Shutdown::Write);
}

/// Classifies an error of accept(2).
///
/// After a lack of descriptors or memory, the listener pauses. After any other error, the listener pauses only if one turn
/// has many such errors.
///
/// # Errors
/// Returns `error` if the socket does not listen any more, so that no later call can succeed.
fn classify(error: Errno) -> io::Result<Accepted> {
    match error {
        Errno::AGAIN => Ok(Accepted::Empty),
        // According to accept(2), these errors are network errors of the new connection, and the caller should retry.
        Errno::INTR
        | Errno::CONNABORTED
        | Errno::NETDOWN
        | Errno::PROTO
        | Errno::NOPROTOOPT
        | Errno::HOSTDOWN
        | Errno::NONET
        | Errno::HOSTUNREACH
        | Errno::OPNOTSUPP
        | Errno::NETUNREACH => Ok(Accepted::Aborted),
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Ok(Accepted::Exhausted),
        Errno::BADF | Errno::INVAL | Errno::NOTSOCK => Err(error.into()),
        // EPERM comes from a firewall. Other protocols and security modules return errors that accept(2) does not list.
        error => Ok(Accepted::Failed(error)),
    }
}

fn peer(address: Option<SocketAddrAny>) -> Peer {
    let socket_address = address.and_then(|address| SocketAddr::try_from(address).ok());
    socket_address.map_or(Peer::Unix, Peer::from)
}

fn with_address<T>(address: &str, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Listen { address: address.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept_are_classified_as_in_the_manual_page_of_accept() {
        let table: [(&str, &[Errno]); 5] = [
            ("Empty", &[Errno::AGAIN, Errno::WOULDBLOCK]),
            (
                "Aborted",
                &[
                    Errno::INTR,
                    Errno::CONNABORTED,
                    Errno::NETDOWN,
                    Errno::PROTO,
                    Errno::NOPROTOOPT,
                    Errno::HOSTDOWN,
                    Errno::NONET,
                    Errno::HOSTUNREACH,
                    Errno::OPNOTSUPP,
                    Errno::NETUNREACH,
                ],
            ),
            ("Exhausted", &[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]),
            (
                "Failed",
                &[
                    Errno::PERM,
                    Errno::ACCESS,
                    Errno::NOSR,
                    Errno::SOCKTNOSUPPORT,
                    Errno::PROTONOSUPPORT,
                    Errno::TIMEDOUT,
                    Errno::IO,
                ],
            ),
            ("no listener", &[Errno::BADF, Errno::INVAL, Errno::NOTSOCK]),
        ];
        for (expected, errors) in table {
            for &error in errors {
                let found = match classify(error) {
                    Ok(Accepted::Connection(..)) => "Connection",
                    Ok(Accepted::Empty) => "Empty",
                    Ok(Accepted::Aborted) => "Aborted",
                    Ok(Accepted::Failed(same)) if same == error => "Failed",
                    Ok(Accepted::Failed(_)) => "Failed with another error",
                    Ok(Accepted::Exhausted) => "Exhausted",
                    Err(_) => "no listener",
                };
                assert_eq!(found, expected, "{error:?}");
            }
        }
    }
}
