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

/// The most sockets that are taken. Whoever says that there are more has no so many descriptors.
const SOCKETS_MAX: u64 = 1024;

/// The first of the descriptors that are handed over, unless the environment says otherwise.
const FIRST_DESCRIPTOR: u64 = 3;

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
        check_count()?;
        let first = number("LISTEN_FDS_FIRST_FD").unwrap_or(FIRST_DESCRIPTOR);
        let mut sockets = ListenFd::from_env();
        let mut inherited = Inherited::default();
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            let socket = ApiSocket::take(&mut sockets, index).ok_or_else(|| {
                let descriptor = first.saturating_add(index as u64);
                unfit(format!("systemd hands over descriptor {descriptor}, which is no socket that could be served"))
            })?;
            match (socket, name) {
                (socket, API) => inherited.api.push(socket),
                (ApiSocket::Http(socket), _) => inherited.listen.push(socket),
                (socket, name) => {
                    let why =
                        format!("systemd hands over {socket} as {name:?}: only sockets named {API:?} may be such");
                    return Err(unfit(why));
                }
            }
        }
        Ok(inherited)
    }
}

/// Refuses what would have to be listed before it could be found missing.
fn check_count() -> io::Result<()> {
    let is_ours = match env::var("LISTEN_PID") {
        Ok(pid) => pid.is_empty() || pid == std::process::id().to_string(),
        Err(_) => true,
    };
    match number("LISTEN_FDS").filter(|_| is_ours) {
        Some(count) if count > SOCKETS_MAX => {
            Err(unfit(format!("LISTEN_FDS is {count}: at most {SOCKETS_MAX} sockets are taken")))
        }
        _ => Ok(()),
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn unfit(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl ApiSocket {
    /// What is at an index, if it is of use.
    fn take(sockets: &mut ListenFd, index: usize) -> Option<ApiSocket> {
        if let Ok(Some(socket)) = sockets.take_tcp_listener(index) {
            return Some(ApiSocket::Http(socket.into()));
        }
        if let Ok(Some(socket)) = sockets.take_unix_listener(index) {
            return Some(ApiSocket::Http(socket.into()));
        }
        if let Ok(Some(socket)) = sockets.take_udp_socket(index) {
            return Some(ApiSocket::Udp(socket));
        }
        sockets.take_unix_datagram(index).ok()?.map(ApiSocket::UnixDatagram)
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
