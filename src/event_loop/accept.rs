//! Accepts connections, and refuses connections when a limit is reached.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::event_loop::core::Core;
use crate::event_loop::listener::{self, Accepted, Endpoint, Listener, ListenerKind};
use crate::event_loop::rate_limit::RateLimit;
use crate::event_loop::siblings::admission::Place;
use crate::event_loop::siblings::post::{AcceptedSocket, Post};
use crate::event_loop::socket::Socket;
use crate::event_loop::tls_sessions::REFUSED;
use crate::limits::Limits;
use crate::peer::Peer;
use crate::tick::Tick;
use crate::tls::ListenerTls;

/// The maximum number of connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN_MAX: usize = 512;

/// The number of spare descriptors: see [`Acceptor::spares`].
const SPARES: usize = 16;

/// The number of descriptors that each loop after the first needs besides its connections.
///
/// The descriptors are the spare descriptors, the epoll instance, the waker and the listeners.
const DESCRIPTORS_PER_LOOP: u64 = SPARES as u64 + 16;

/// The number of accept(2) errors in a turn after which a listener pauses.
const FAILURES_PER_TURN_MAX: usize = 16;

/// The time for which a listener pauses after errors of accept(2). A freed descriptor also ends the pause.
const PAUSE: Duration = Duration::from_millis(50);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
    Content-Length: 25\r\nConnection: close\r\n\r\nconnection limit reached\n";

const TOO_FAST: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
    Content-Length: 26\r\nConnection: close\r\n\r\naccept rate limit reached\n";

/// Accepts connections from the listeners of a loop, or refuses them.
///
/// [`handle_event`](Acceptor::handle_event) records that clients wait at a listener.
/// [`accept_pending`](Acceptor::accept_pending) then accepts these clients once a turn, control connections first. An
/// accepted socket becomes a connection of the [`Core`], or is refused. [`handle_freed`](Acceptor::handle_freed)
/// reports that descriptors are free again.
#[derive(Debug)]
pub struct Acceptor {
    /// The listeners, by the index in their epoll token.
    listeners: Vec<ListenerState>,
    rate: RateLimit,
    /// Open descriptors of `/dev/null`. When the process has no free descriptor, the acceptor closes a spare
    /// descriptor, so that accept(2) succeeds. Control connections use all spare descriptors except the last. The last
    /// spare descriptor is used to accept a client and refuse it with 503.
    spares: Vec<OwnedFd>,
    /// The response to a new control connection when the limit of control connections is reached.
    control_full: Vec<u8>,
    /// The response to a new control connection when no descriptor is free.
    control_exhausted: Vec<u8>,
}

/// The reason for refusing a new connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum RefusalReason {
    Full,
    ControlFull,
    ControlExhausted,
    TooFast,
}

/// A listener and its state.
#[derive(Debug)]
struct ListenerState {
    /// The value is `None` if the listener was closed, or if another loop accepts its connections.
    listener: Option<Listener>,
    kind: ListenerKind,
    tls: Option<ListenerTls>,
    /// Whether clients may wait in the listener's queue. Edge-triggered epoll reports waiting clients once.
    is_pending: bool,
    /// The end of the listener's pause, if the listener pauses.
    retry: Option<Retry>,
}

#[derive(Copy, Clone, Debug)]
struct Retry {
    at: Tick,
    /// Whether a connection has been freed since the pause began. A freed connection ends the pause.
    is_freed: bool,
}

impl Acceptor {
    /// Creates an acceptor. The 503 response to a control connection over the limit contains the number
    /// `control_connections_max`.
    pub fn new(endpoints: Vec<Endpoint>, control_connections_max: u32, rate: RateLimit) -> Acceptor {
        let listener = |endpoint: Endpoint| {
            let Endpoint { listener, kind, tls } = endpoint;
            ListenerState { listener, kind, tls, is_pending: false, retry: None }
        };
        let mut acceptor = Acceptor {
            listeners: endpoints.into_iter().map(listener).collect(),
            rate,
            spares: Vec::new(),
            control_full: control_unavailable(&control_limit_reached(control_connections_max)),
            control_exhausted: control_unavailable("file descriptor limit reached"),
        };
        acceptor.refill();
        acceptor
    }

    /// Records that epoll reported waiting clients of a listener.
    pub fn handle_event(&mut self, listener: usize) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.is_pending = true;
        }
    }

    /// Records that a connection and its descriptor were freed.
    pub fn handle_freed(&mut self) {
        self.refill();
        for retry in self.listeners.iter_mut().filter_map(|listener| listener.retry.as_mut()) {
            retry.is_freed = true;
        }
    }

    /// Returns whether clients may wait at a listener that is not paused.
    pub fn has_pending(&self) -> bool {
        self.listeners.iter().any(|listener| listener.is_pending && listener.retry.is_none_or(|retry| retry.is_freed))
    }

    /// Returns the time at which the first pause of a listener ends.
    pub fn retry_at(&self) -> Option<Tick> {
        self.listeners.iter().filter_map(|listener| Some(listener.retry?.at)).min()
    }

    /// Closes all listeners except control listeners.
    ///
    /// Control listeners stay open, so that health checks can ask whether the server is draining.
    pub fn close(&mut self) {
        for listener in self.listeners.iter_mut().filter(|listener| !listener.is_control()) {
            *listener =
                ListenerState { listener: None, kind: listener.kind, tls: None, is_pending: false, retry: None };
        }
    }

    /// Sets `TCP_USER_TIMEOUT` for the sockets that will be accepted.
    pub fn set_write_time_max(&self, write_time_max: Duration) {
        for listener in self.listeners.iter().filter_map(|listener| listener.listener.as_ref()) {
            if let Err(error) = listener.set_user_timeout(listener::user_timeout(write_time_max)) {
                log::warn!("{}: TCP_USER_TIMEOUT cannot be set: {error}", listener.address());
            }
        }
    }

    /// Accepts waiting clients, at most [`ACCEPTS_PER_TURN_MAX`] per listener.
    ///
    /// Control listeners accept before the other listeners.
    pub fn accept_pending(&mut self, core: &mut Core, epoll: &mio::Registry) -> io::Result<()> {
        for is_control in [true, false] {
            for index in 0..self.listeners.len() {
                if self.listeners[index].begin(is_control, core.now()) {
                    self.refill();
                    self.listeners[index].is_pending = self.accept_from(index, core, epoll)?;
                }
            }
        }
        Ok(())
    }

    /// Accepts clients from one listener, and returns whether more clients may wait.
    fn accept_from(&mut self, index: usize, core: &mut Core, epoll: &mio::Registry) -> io::Result<bool> {
        let kind = self.listeners[index].kind;
        let is_control = kind == ListenerKind::Control;
        let (mut is_short, mut failures) = (false, 0);
        let share = if is_control { core.control_accepts_max() } else { usize::MAX };
        for _ in 0..share.min(ACCEPTS_PER_TURN_MAX) {
            match self.accept_one(index, core)? {
                Accepted::Connection(socket, peer) => self.admit(socket, peer, index, core, epoll),
                Accepted::Empty => return Ok(false),
                Accepted::Aborted => {}
                Accepted::Failed(error) => {
                    core.count_accept_error(error);
                    failures += 1;
                    // After the error, the client may still be in the listener's queue. In this case, the next call of
                    // accept(2) may return the same error.
                    if failures == FAILURES_PER_TURN_MAX {
                        is_short = true;
                        break;
                    }
                }
                Accepted::Exhausted => {
                    is_short = true;
                    if !self.refuse_with_spare(index, core)? {
                        break;
                    }
                }
            }
        }
        if is_short {
            self.listeners[index].retry = Some(Retry { at: core.now().after(PAUSE), is_freed: false });
        }
        Ok(true)
    }

    /// Accepts one connection. If no descriptor is free, a control connection uses a [spare](Acceptor::spares)
    /// descriptor.
    ///
    /// A control connection uses the last spare descriptor only if another control connection can be closed. The
    /// descriptor of the closed connection is free at the end of the turn. If no control connection can be closed, the
    /// last spare descriptor is kept for refusals.
    fn accept_one(&mut self, index: usize, core: &mut Core) -> io::Result<Accepted> {
        let ListenerState { listener: Some(listener), kind, .. } = &self.listeners[index] else {
            return Ok(Accepted::Empty);
        };
        let mut accepted = listener.accept()?;
        while *kind == ListenerKind::Control && matches!(accepted, Accepted::Exhausted) {
            let is_last = self.spares.len() == 1;
            if self.spares.is_empty() || (is_last && !core.table().can_evict_control()) {
                break;
            }
            self.spares.pop();
            accepted = listener.accept()?;
            if is_last && matches!(accepted, Accepted::Connection(..)) {
                core.evict_control();
            }
        }
        Ok(accepted)
    }

    /// Adds an accepted socket to the connections, or refuses it.
    pub fn admit(&mut self, socket: OwnedFd, peer: Peer, index: usize, core: &mut Core, epoll: &mio::Registry) {
        let kind = self.listeners[index].kind;
        let is_control = kind == ListenerKind::Control;
        if kind == ListenerKind::Proxied && !core.trusts(peer) {
            // An untrusted peer may speak another protocol than HTTP, so it gets no HTTP response.
            return core.count_untrusted_proxy(peer);
        }
        if let Some(refused) = self.refusal(is_control, core) {
            return listener::refuse(&socket, self.response(refused, index));
        }
        let (max, now) = (core.connections_max(), core.now());
        let Some(siblings) = core.siblings_mut().filter(|_| !is_control) else {
            return self.insert(socket, peer, index, None, core, epoll);
        };
        let own = siblings.index();
        match siblings.process().admission.admit(own, max, now) {
            Some(place) if place.index() == own => self.insert(socket, peer, index, Some(place), core, epoll),
            Some(place) => {
                let to = place.index();
                let accepted = AcceptedSocket { socket, peer, listener: index, place };
                siblings.post(to, Post::Socket(Box::new(accepted)));
            }
            None => {
                core.count_full(false, format_args!("connection limit reached ({max})"));
                listener::refuse(&socket, self.response(RefusalReason::Full, index));
            }
        }
    }

    /// Adds a socket that another loop accepted.
    pub fn admit_sent(&self, accepted: AcceptedSocket, core: &mut Core, epoll: &mio::Registry) {
        let AcceptedSocket { socket, peer, listener, place } = accepted;
        // A loop that drains has no TLS settings any more. So this loop closes the socket. The sockets in the queue of
        // a closed listener are also closed.
        if !core.is_draining() {
            self.insert(socket, peer, listener, Some(place), core, epoll);
        }
    }

    /// Adds a socket to the connections.
    fn insert(
        &self,
        socket: OwnedFd,
        peer: Peer,
        index: usize,
        place: Option<Place>,
        core: &mut Core,
        epoll: &mio::Registry,
    ) {
        let ListenerState { kind, tls, .. } = &self.listeners[index];
        let socket = Socket::new(socket);
        let descriptor = socket.as_raw_fd();
        let Some(slot) = core.insert(socket, peer, *kind, tls.as_ref()) else {
            return core.count_full(*kind == ListenerKind::Control, "all slots are in use or retired");
        };
        // The connection keeps its `Place` until the connection is removed.
        place.into_iter().for_each(Place::keep);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = epoll.register(&mut SourceFd(&descriptor), Token(slot.index()), interest) {
            log::warn!("cannot add a new connection to epoll: {error}");
            return core.remove(slot);
        }
        core.count_accepted();
        core.arm(slot);
    }

    /// Returns the reason for refusing a new connection, if a limit is reached.
    fn refusal(&mut self, is_control: bool, core: &mut Core) -> Option<RefusalReason> {
        let control = core.table().control_count();
        if is_control {
            if core.make_control_room() {
                return None;
            }
            core.count_full(true, control_limit_reached(core.control_connections_max()));
            return Some(RefusalReason::ControlFull);
        }
        let max = core.connections_max();
        let is_full = match core.siblings() {
            None => core.table().count() - control >= max,
            Some(siblings) => siblings.process().admission.is_full(max),
        };
        if is_full {
            core.count_full(false, format_args!("connection limit reached ({max})"));
            return Some(RefusalReason::Full);
        }
        let (now, per_second) = (core.now(), core.table().env().limits.accepts_per_second_max);
        if self.rate.take(per_second, now) {
            return None;
        }
        core.count_full(false, format_args!("accept rate limit reached ({} a second)", per_second.unwrap_or_default()));
        Some(RefusalReason::TooFast)
    }

    /// Returns the response to a refused client: a TLS alert on a TLS listener, and a 503 on any other listener.
    fn response(&self, refused: RefusalReason, index: usize) -> &[u8] {
        match refused {
            _ if self.listeners[index].tls.is_some() => REFUSED,
            RefusalReason::Full => FULL,
            RefusalReason::ControlFull => &self.control_full,
            RefusalReason::ControlExhausted => &self.control_exhausted,
            RefusalReason::TooFast => TOO_FAST,
        }
    }

    /// Accepts one client with a spare descriptor, and refuses the client.
    ///
    /// Returns whether a client was refused.
    fn refuse_with_spare(&mut self, index: usize, core: &mut Core) -> io::Result<bool> {
        let Some(listener) = &self.listeners[index].listener else { return Ok(false) };
        if self.spares.pop().is_none() {
            return Ok(false);
        }
        let accepted = listener.accept()?;
        let is_answered = if let Accepted::Connection(socket, _) = accepted {
            let is_control = listener.kind == ListenerKind::Control;
            core.count_full(is_control, "file descriptor limit reached");
            let refused = if is_control { RefusalReason::ControlExhausted } else { RefusalReason::Full };
            listener::refuse(&socket, self.response(refused, index));
            true
        } else {
            false
        };
        self.refill();
        Ok(is_answered)
    }

    /// Opens spare descriptors, until [`SPARES`] are open or no descriptor is free.
    fn refill(&mut self) {
        while self.spares.len() < SPARES
            && let Ok(file) = File::open("/dev/null")
        {
            self.spares.push(file.into());
        }
    }
}

impl ListenerState {
    fn is_control(&self) -> bool {
        self.kind == ListenerKind::Control
    }

    /// Returns whether this listener accepts clients now, and ends a pause that is over.
    fn begin(&mut self, is_control: bool, now: Tick) -> bool {
        if self.is_control() != is_control || !self.is_pending {
            return false;
        }
        let is_due = self.retry.is_none_or(|retry| retry.is_freed || now >= retry.at);
        if is_due {
            self.retry = None;
        }
        is_due
    }
}

/// Raises the descriptor limit to the hard limit, and returns the maximum number of client connections.
///
/// Each loop after the first needs [`DESCRIPTORS_PER_LOOP`] descriptors, which its connections cannot use.
pub fn raise_connections_max(limits: &Limits, has_control: bool, loops: usize) -> io::Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let of_loops = (loops as u64 - 1) * DESCRIPTORS_PER_LOOP;
    let derived =
        || limits.derived_connections_max(maximum.map(|maximum| maximum.saturating_sub(of_loops)), has_control);
    Ok(limits.connections_max.unwrap_or_else(derived) as usize)
}

fn control_limit_reached(max: u32) -> String {
    format!("API connection limit reached ({max})")
}

/// Creates a 503 response for a control connection. `message` must not contain characters that JSON escapes.
fn control_unavailable(message: &str) -> Vec<u8> {
    let body = format!("{{\"error\":{{\"code\":\"unavailable\",\"message\":\"{message}\"}}}}\n");
    let count = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n\
         Cache-Control: no-store\r\nContent-Length: {count}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rustix::io::Errno;

    use super::*;
    use crate::connection::Env;
    use crate::event_loop::clock::Epoch;
    use crate::event_loop::listener::Address;
    use crate::limits::Heartbeat;
    use crate::protocol::origin::Origins;
    use crate::registry::SecondLogin;

    /// Returns an acceptor on a free port, a core, an epoll instance and the address of the listener.
    fn acceptor() -> (Acceptor, Core, mio::Poll, std::net::SocketAddr) {
        let listener = Listener::bind_all("127.0.0.1:0").expect("port 0 can be bound").remove(0);
        let Address::Tcp(address) = *listener.address() else { panic!("the listener must have a TCP address") };
        let env = Env::new(Limits::default(), Heartbeat::default(), Origins::default());
        let core = Core::new(1000, 1000, 256, env, SecondLogin::default(), Epoch::begin());
        (
            Acceptor::new(vec![listener.into()], 256, RateLimit::default()),
            core,
            mio::Poll::new().expect("an epoll instance can be created"),
            address,
        )
    }

    impl Acceptor {
        fn inject(&self, errors: &[Errno]) {
            let listener = self.listeners[0].listener.as_ref().expect("the listener is open");
            listener.injected.borrow_mut().extend(errors);
        }

        fn turn(&mut self, core: &mut Core, poll: &mio::Poll) {
            self.handle_event(0);
            self.accept_pending(core, poll.registry()).expect("the listener can accept");
        }
    }

    #[test]
    fn an_error_of_accept_loses_no_waiting_client() {
        for error in [Errno::PERM, Errno::ACCESS, Errno::NOPROTOOPT, Errno::NONET, Errno::OPNOTSUPP, Errno::CONNABORTED]
        {
            let (mut acceptor, mut core, poll, address) = acceptor();
            // On the loopback interface, the connection is in the listener's queue when connect() returns.
            let clients: Vec<TcpStream> =
                (0..20).map(|_| TcpStream::connect(address).expect("the listener's queue has space")).collect();
            acceptor.inject(&[error]);
            acceptor.turn(&mut core, &poll);
            assert_eq!((core.table().count(), core.stats().refused, acceptor.retry_at()), (20, 0, None), "{error:?}");
            let is_counted = matches!(error, Errno::PERM | Errno::ACCESS);
            assert_eq!(core.stats().accept_errors, u64::from(is_counted), "{error:?}");
            drop(clients);
        }
    }

    #[test]
    fn a_persistent_error_pauses_its_listener_and_refuses_no_client() {
        let (mut acceptor, mut core, poll, address) = acceptor();
        let _client = TcpStream::connect(address).expect("the listener's queue has space");
        acceptor.inject(&[Errno::PERM; 100]);
        acceptor.turn(&mut core, &poll);
        assert_eq!(core.stats().accept_errors, FAILURES_PER_TURN_MAX as u64);
        assert!(!acceptor.has_pending() && acceptor.retry_at() == Some(Tick(0).after(PAUSE)), "{acceptor:?}");
        acceptor.turn(&mut core, &poll);
        assert_eq!(
            core.stats().accept_errors,
            FAILURES_PER_TURN_MAX as u64,
            "no accept may be tried before the end of the pause"
        );
        while core.table().count() == 0 {
            core.table_mut().env_mut().now = core.now().after(PAUSE);
            acceptor.turn(&mut core, &poll);
        }
        assert_eq!((core.stats().accept_errors, core.stats().refused), (100, 0));
    }

    #[test]
    fn one_emfile_refuses_one_client() {
        let (mut acceptor, mut core, poll, address) = acceptor();
        let clients: Vec<TcpStream> =
            (0..20).map(|_| TcpStream::connect(address).expect("the listener's queue has space")).collect();
        acceptor.inject(&[Errno::MFILE]);
        acceptor.turn(&mut core, &poll);
        assert_eq!((core.table().count(), core.stats().refused), (19, 1));
        assert_eq!(acceptor.spares.len(), SPARES);
        drop(clients);
    }

    #[test]
    fn the_content_length_of_refusals_is_correct() {
        for refusal in [FULL, &control_unavailable(&control_limit_reached(7)), TOO_FAST] {
            let text = str::from_utf8(refusal).expect("the output is UTF-8");
            let (head, body) = text.split_once("\r\n\r\n").expect("the response has a head");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
        }
    }
}
