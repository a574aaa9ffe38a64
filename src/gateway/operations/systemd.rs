//! Implements the protocol of the service manager: inherited sockets (sd_listen_fds(3)) and readiness (sd_notify(3)).

use std::env;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::gateway::runtime::threads;

/// The `FileDescriptorName=` of the API sockets.
const API: &str = "api";

/// The maximum number of inherited sockets.
const SOCKETS_MAX: u64 = 1024;

/// The number of the first inherited descriptor, unless `LISTEN_FDS_FIRST_FD` is set to another number.
const FIRST_DESCRIPTOR: u64 = 3;

/// The maximum time that the server waits until the service manager receives a notification.
const NOTIFY_TIME_MAX: Duration = Duration::from_secs(1);

/// The sockets that the service manager passed to the server.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The listening sockets for clients. Inherited sockets replace the default address of --listen.
    pub listen: Vec<OwnedFd>,
    /// The sockets for back ends, which have the name `api`. Inherited sockets replace the default address of --api.
    pub api: Vec<ApiSocket>,
}

/// A socket for back ends.
#[derive(Debug)]
pub enum ApiSocket {
    /// A listening TCP or unix socket.
    Http(OwnedFd),
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
}

impl Inherited {
    /// Takes the sockets that the `LISTEN_*` variables name, and removes these variables from the environment. The
    /// caller must call this function before other threads start.
    ///
    /// # Errors
    /// Returns an error if an inherited descriptor is not a usable socket.
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
                invalid(format!("systemd passed descriptor {descriptor}, which is not a usable socket"))
            })?;
            match (socket, name) {
                (socket, API) => inherited.api.push(socket),
                (ApiSocket::Http(socket), _) => inherited.listen.push(socket),
                (socket, name) => {
                    let why = format!("systemd passed {socket} with the name {name:?}: expected the name {API:?}");
                    return Err(invalid(why));
                }
            }
        }
        Ok(inherited)
    }
}

/// Returns an error if `LISTEN_FDS` exceeds [`SOCKETS_MAX`]. `LISTEN_FDS` can be any number, and the time to check the
/// sockets grows with this number.
fn check_count() -> io::Result<()> {
    let is_ours = match env::var("LISTEN_PID") {
        Ok(pid) => pid.is_empty() || pid == std::process::id().to_string(),
        Err(_) => true,
    };
    match number("LISTEN_FDS").filter(|_| is_ours) {
        Some(count) if count > SOCKETS_MAX => {
            Err(invalid(format!("LISTEN_FDS must be at most {SOCKETS_MAX}, not {count}")))
        }
        _ => Ok(()),
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl ApiSocket {
    /// Takes the inherited socket at an index, if the server can use the socket.
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

/// Notifies the service manager, if there is one, that the server is ready.
pub fn notify_ready() {
    notify(NotifyState::Ready);
}

/// Notifies the service manager that the server stops.
pub fn notify_stopping() {
    notify(NotifyState::Stopping);
}

/// Sends a notification to the service manager.
///
/// A separate thread sends the notification, because sending blocks while the service manager does not read its socket.
/// This function returns after [`NOTIFY_TIME_MAX`] at the latest.
fn notify(state: NotifyState<'static>) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let text = state.to_string();
    let (sender, receiver) = mpsc::channel();
    let started = threads::spawn("fdpush-notify", move || {
        // An error of `sender.send` is ignored: `notify` drops the receiver after `NOTIFY_TIME_MAX`, and then the
        // result is not needed.
        let _ = sender.send(sd_notify::notify(std::slice::from_ref(&state)));
        Ok(())
    });
    let sent = started.and_then(|_| receiver.recv_timeout(NOTIFY_TIME_MAX).unwrap_or_else(|_| Err(not_received())));
    if let Err(error) = sent {
        log::warn!("cannot notify the service manager {text}: {error}");
    }
}

fn not_received() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the notification was not received within {NOTIFY_TIME_MAX:?}"))
}
