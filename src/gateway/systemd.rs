//! What a service manager hands over and is told: sockets (sd_listen_fds(3)) and readiness (sd_notify(3)).

use std::env;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// What the socket unit of the API calls its sockets, with `FileDescriptorName=`.
const API: &str = "api";

/// The sockets that were handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    /// In place of the default of --listen.
    pub listen: Vec<OwnedFd>,
    /// In place of the default of --api: those named `api`.
    pub api: Vec<ApiSocket>,
}

/// A socket for back ends.
#[derive(Debug)]
pub enum ApiSocket {
    /// It listens, on TCP or on a unix socket.
    Http(OwnedFd),
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
}

impl Inherited {
    /// Takes the sockets that the environment speaks of, and takes them out of the environment. To be called before
    /// there are other threads.
    ///
    /// # Errors
    /// One of them is of no use.
    pub fn take() -> io::Result<Inherited> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut inherited = Inherited::default();
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            match (ApiSocket::take(&mut sockets, index)?, name) {
                (socket, API) => inherited.api.push(socket),
                (ApiSocket::Http(socket), _) => inherited.listen.push(socket),
                (socket, name) => {
                    let why =
                        format!("systemd hands over {socket} as {name:?}: only sockets named {API:?} may be such");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
                }
            }
        }
        Ok(inherited)
    }
}

impl ApiSocket {
    fn take(sockets: &mut ListenFd, index: usize) -> io::Result<ApiSocket> {
        if let Ok(Some(socket)) = sockets.take_tcp_listener(index) {
            return Ok(ApiSocket::Http(socket.into()));
        }
        if let Ok(Some(socket)) = sockets.take_unix_listener(index) {
            return Ok(ApiSocket::Http(socket.into()));
        }
        if let Ok(Some(socket)) = sockets.take_udp_socket(index) {
            return Ok(ApiSocket::Udp(socket));
        }
        if let Ok(Some(socket)) = sockets.take_unix_datagram(index) {
            return Ok(ApiSocket::UnixDatagram(socket));
        }
        let why = format!("systemd hands over descriptor {index}, which is no socket that could be served");
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }
}

impl fmt::Display for ApiSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiSocket::Http(socket) => write!(f, "a listening socket ({socket:?})"),
            ApiSocket::Udp(socket) => write!(f, "a UDP socket ({socket:?})"),
            ApiSocket::UnixDatagram(socket) => write!(f, "a unix datagram socket ({socket:?})"),
        }
    }
}

/// Tells the service manager, if there is one, that clients can come.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

/// Tells it that the server is going down.
pub fn tell_stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    let text = state.to_string();
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn!("cannot tell the service manager {text}: {error}");
    }
}
