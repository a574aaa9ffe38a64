//! The server: binds addresses, takes closures and runs the loop.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use mio::Poll;

use crate::connection::Closed;
use crate::event_loop::{
    self, Address, Command, Config, Context, Error, Factory, Fleet, FleetEnd, Handler, Inbox, Listener, ListenerKind,
    Notice, ProxyFilter, TimerId, run_one, run_several,
};
use crate::fd::{Fd, LOOPS_MAX};
use crate::limits::{Heartbeat, Limits};
use crate::message::Message;
use crate::peer::Peer;
use crate::protocol::origin::Origins;
use crate::protocol::request::Request;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;
use crate::registry::SecondLogin;
use crate::remote::Remote;
#[cfg(feature = "tls")]
use crate::tls::TlsConfig;

/// A WebSocket server that is bound to its addresses and not running yet.
///
/// [`bind`](Server::bind) listens immediately, so that a program knows the port before the server runs: see
/// [`local_addr`](Server::local_addr). The `on_*` methods set closures for events. The other methods add addresses and
/// change settings. The order of these calls matters only where the doc of a method says so. [`run`](Server::run)
/// consumes the server and returns when the server has shut down. Clients that connect before `run` wait in the backlog
/// of the listening socket.
///
/// A `Server` with closures is [`Send`], because its closures are `Send`: it can be built on one thread and run on
/// another. Instead of closures, [`handler`](Server::handler) takes a value of the program's own type. This value need
/// not be `Send` if the server runs on the thread that built the server. With the handle from
/// [`remote`](Server::remote), other threads push messages and shut the server down.
///
/// ```no_run
/// use fdpush::Server;
///
/// Server::bind("127.0.0.1:9501")?
///     .on_open(|ctx, fd, request| {
///         if let Some(uid) = request.query("uid") {
///             ctx.bind(fd, uid);
///         }
///     })
///     .on_message(|ctx, fd, message| {
///         ctx.push(fd, message);
///     })
///     .run()
/// # ; Ok::<(), fdpush::Error>(())
/// ```
#[derive(Debug)]
pub struct Server<H = Closures> {
    handlers: Handlers<H>,
    loops: usize,
    config: Config,
    listeners: Vec<Listener>,
    poll: Poll,
    inbox: Inbox<Command>,
    fleet: FleetEnd<Command>,
}

/// The handlers of the loops.
enum Handlers<H> {
    /// One handler. The function turns the handler into a factory of handlers for several loops, if the handler can be
    /// copied.
    One(H, Option<fn(H) -> Factory<H>>),
    Each(Factory<H>),
}

impl Server<Closures> {
    /// Listens on `address`: `host:port`, `[v6]:port` or `unix:PATH`.
    ///
    /// Port 0 takes a free port, which [`local_addr`](Server::local_addr) returns. If a host name has several
    /// addresses, the server listens on each address. A listener on an IPv6 address accepts only IPv6. A socket file on
    /// which no process listens is replaced. The server removes its socket file when it ends.
    ///
    /// # Errors
    /// The error is [`Error::Listen`], which names the address. The source of this error is the error of the system.
    pub fn bind(address: impl AsRef<str>) -> Result<Server, Error> {
        Server::with(Listener::bind_all(address.as_ref())?)
    }

    /// Listens on `address` for TLS: see [`listen_tls`](Server::listen_tls).
    ///
    /// # Errors
    /// The errors are those of [`bind`](Server::bind).
    #[cfg(feature = "tls")]
    pub fn bind_tls(address: impl AsRef<str>, tls: TlsConfig) -> Result<Server, Error> {
        let listeners = Listener::bind_all(address.as_ref())?;
        Server::with(listeners.into_iter().map(|listener| listener.with_tls(&tls)).collect())
    }

    /// Works like [`bind_tls`](Server::bind_tls), on a socket that listens already.
    ///
    /// # Errors
    /// The errors are those of [`from_listener`](Server::from_listener).
    #[cfg(feature = "tls")]
    pub fn from_tls_listener(socket: impl Into<OwnedFd>, tls: TlsConfig) -> Result<Server, Error> {
        Server::with(vec![Listener::adopt(socket.into())?.with_tls(&tls)])
    }

    /// Creates a server that accepts connections from a socket that listens already.
    ///
    /// `socket` is a [`TcpListener`](std::net::TcpListener), a [`UnixListener`](std::os::unix::net::UnixListener), or a
    /// socket that systemd passed to the process. The server makes the socket nonblocking. The server does not remove
    /// the file of a unix socket.
    ///
    /// # Errors
    /// The error is [`Error::NotListening`], [`Error::UnsupportedSocket`] or [`Error::Socket`].
    pub fn from_listener(socket: impl Into<OwnedFd>) -> Result<Server, Error> {
        Server::with(vec![Listener::adopt(socket.into())?])
    }

    fn with(listeners: Vec<Listener>) -> Result<Server, Error> {
        let limits = Limits::default();
        let (poll, inbox) = event_loop::open(limits.inbox_max)?;
        let config = Config {
            limits,
            heartbeat: Heartbeat::default(),
            origins: Origins::default(),
            second_login: SecondLogin::default(),
            catches_signals: true,
            proxies: ProxyFilter::default(),
        };
        let handlers = Handlers::One(Closures::default(), Some(Closures::copies as fn(Closures) -> Factory<Closures>));
        let fleet = FleetEnd(Fleet::new(config.limits.inbox_max));
        Ok(Server { handlers, loops: 1, config, listeners, poll, inbox, fleet })
    }

    fn closures(&mut self) -> &mut Closures {
        if let Handlers::Each(_) = self.handlers {
            log::warn!("handlers dropped: a closure was set after handlers()");
            self.handlers = Handlers::One(Closures::default(), Some(Closures::copies));
        }
        let Handlers::One(closures, _) = &mut self.handlers else { unreachable!("the handlers must be closures") };
        closures
    }

    /// Sets a handler in place of closures.
    ///
    /// Closures that were set before are dropped, and the log has a warning. The server is `Send` if the handler is
    /// `Send`. A server with several [loops](Server::loops) needs a handler for each loop: see
    /// [`handlers`](Server::handlers).
    pub fn handler<H: Handler>(self, handler: H) -> Server<H> {
        self.with_handlers(Handlers::One(handler, None))
    }

    /// Sets a function that makes the handler of each [loop](Server::loops), in place of closures.
    ///
    /// The function gets the number of the loop, from 0. The thread of the loop calls the function, so a handler need
    /// not be `Send`. The calls are made one at a time, so a call must not wait for another call.
    ///
    /// ```no_run
    /// use fdpush::{Context, Fd, Handler, Message, Server};
    ///
    /// struct Counter { index: usize, messages: u64 }
    ///
    /// impl Handler for Counter {
    ///     fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, _: Message<'_>) {
    ///         self.messages += 1;
    ///         ctx.push(fd, &format!("message {} of loop {}", self.messages, self.index));
    ///     }
    /// }
    ///
    /// Server::bind("127.0.0.1:9501")?.loops(4).handlers(|index| Counter { index, messages: 0 }).run()
    /// # ; Ok::<(), fdpush::Error>(())
    /// ```
    pub fn handlers<H: Handler>(self, make: impl FnMut(usize) -> H + Send + 'static) -> Server<H> {
        self.with_handlers(Handlers::Each(Arc::new(Mutex::new(make))))
    }

    fn with_handlers<H: Handler>(self, handlers: Handlers<H>) -> Server<H> {
        if matches!(&self.handlers, Handlers::One(closures, _) if !closures.is_empty()) {
            log::warn!("closures dropped: a handler was set after the closures");
        }
        let Server { loops, config, listeners, poll, inbox, fleet, .. } = self;
        Server { handlers, loops, config, listeners, poll, inbox, fleet }
    }
}

impl<H: Handler> Server<H> {
    /// Sets the number of loops, from 1 to 256. The default is one loop.
    ///
    /// Each loop is a thread with its own connections and its own handler. The first loop runs on the thread that calls
    /// [`run`](Server::run). Closures are cloned for each loop, so that each loop has its own copy of the captured
    /// values. A program with a handler of its own type passes a function to [`handlers`](Server::handlers).
    ///
    /// - **Connections** stay on the loop that serves them. The number of the fd determines the loop of a connection:
    ///   [`Fd::slot`]. A new connection stays on the loop that accepted it. If this loop has over 1/64 more connections
    ///   than the emptiest loop, the emptiest loop gets the new connection. Each loop has its own socket for a TCP
    ///   address that the server bound (`SO_REUSEPORT`). The first loop accepts the connections of unix sockets and of
    ///   sockets that were passed in, and has all control connections.
    /// - **Pushes** reach the connections of all loops. For the connections of the handler's own loop, a push is queued
    ///   immediately. Each other loop that has receivers gets the messages of a turn together, at the end of the turn:
    ///   see [`Delivery::forwarded`](crate::Delivery::forwarded). Messages from one loop to another stay in order, and
    ///   are bounded by [`Limits::forward_bytes_max`]. A slow loop does not delay the other loops. When a turn of a
    ///   loop has taken a second, other loops send no new connections to this loop until the turn ends.
    /// - **Uids**: [`second_login`](Server::second_login) and [`Limits::uid_connections_max`] apply to the connections
    ///   of a uid on all loops together.
    /// - **Limits** hold for the server. Each loop has an equal share of the memory limits
    ///   [`queue_total_bytes_max`](Limits::queue_total_bytes_max) and
    ///   [`inbound_total_bytes_max`](Limits::inbound_total_bytes_max), and at least the memory that one client may use. So
    ///   with very many loops, the sum of the shares is over the limit.
    /// - **Shutdown**: all loops drain together, no matter which loop got the shutdown. A loop first delivers the
    ///   messages that were sent to it before the shutdown. Control connections are served until the other loops have
    ///   drained. If a loop ends by an error, or by a panic outside a handler, all other loops drain. A second signal
    ///   ends all loops immediately, unless the first loop has ended by an error.
    ///
    /// The doc of each method of [`Context`] says whether the method applies to the handler's own loop or to all loops.
    /// The methods of [`Remote`] apply to all loops, except that a [`call`](Remote::call) and a
    /// [notice](Remote::notify) go to one loop.
    pub fn loops(mut self, loops: usize) -> Self {
        self.loops = loops;
        self
    }

    /// Listens on one more address, for the same handlers.
    ///
    /// # Errors
    /// The errors are those of [`bind`](Server::bind).
    pub fn listen(mut self, address: impl AsRef<str>) -> Result<Self, Error> {
        self.listeners.extend(Listener::bind_all(address.as_ref())?);
        Ok(self)
    }

    /// Listens on one more address for TLS: `wss://` and `https://`.
    ///
    /// A connection is closed if its handshake is not complete within [`head_time_max`](Limits::head_time_max). Plain
    /// HTTP gets status 400. A [PROXY header](Server::proxy_protocol) comes before the handshake, and is not encrypted.
    ///
    /// # Errors
    /// The errors are those of [`bind`](Server::bind).
    #[cfg(feature = "tls")]
    pub fn listen_tls(mut self, address: impl AsRef<str>, tls: TlsConfig) -> Result<Self, Error> {
        self.listeners
            .extend(Listener::bind_all(address.as_ref())?.into_iter().map(|listener| listener.with_tls(&tls)));
        Ok(self)
    }

    /// Works like [`listen_tls`](Server::listen_tls), on a socket that listens already.
    ///
    /// # Errors
    /// The errors are those of [`from_listener`](Server::from_listener).
    #[cfg(feature = "tls")]
    pub fn listen_tls_on(mut self, socket: impl Into<OwnedFd>, tls: TlsConfig) -> Result<Self, Error> {
        self.listeners.push(Listener::adopt(socket.into())?.with_tls(&tls));
        Ok(self)
    }

    /// Accepts connections also from one more socket, which listens already.
    ///
    /// # Errors
    /// The errors are those of [`from_listener`](Server::from_listener).
    pub fn listen_on(mut self, socket: impl Into<OwnedFd>) -> Result<Self, Error> {
        self.listeners.push(Listener::adopt(socket.into())?);
        Ok(self)
    }

    /// Expects [PROXY protocol] headers on the client listeners added so far.
    ///
    /// A load balancer sends a header, version 1 or 2, with the address of its client before the first byte of HTTP.
    /// [`Peer`] is then the address of this client. `trusts` returns whether the other end of a socket is a trusted
    /// load balancer. A connection whose other end is not trusted is closed immediately and counted in
    /// [`Stats::untrusted_proxies`](crate::Stats::untrusted_proxies).
    ///
    /// A trusted load balancer that sends no valid header gets status 400. The header and the head of the first request
    /// must arrive within [`head_time_max`](Limits::head_time_max), otherwise the status is 408. The header has at most
    /// [`head_bytes_max`](Limits::head_bytes_max) bytes. If the header has no TCP address (`LOCAL`, `UNKNOWN`,
    /// `UNSPEC`), as in health checks, `Peer` is the address of the load balancer.
    ///
    /// Client listeners that are added later, and all control listeners, expect no header.
    ///
    /// ```no_run
    /// # use fdpush::{Peer, Server};
    /// let balancer = |peer: Peer| peer.ip().is_some_and(|ip| ip.to_string().starts_with("10.0.0."));
    /// Server::bind("0.0.0.0:9501")?.proxy_protocol(balancer).listen("127.0.0.1:9503")?.run()
    /// # ; Ok::<(), fdpush::Error>(())
    /// ```
    ///
    /// [PROXY protocol]: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
    pub fn proxy_protocol(mut self, trusts: impl Fn(Peer) -> bool + Send + Sync + 'static) -> Self {
        for listener in self.listeners.iter_mut().filter(|listener| listener.kind == ListenerKind::Client) {
            listener.kind = ListenerKind::Proxied;
        }
        self.config.proxies = ProxyFilter::new(trusts);
        self
    }

    /// Listens on one more address for back ends and operators: a control listener.
    ///
    /// The listener serves plain HTTP, no WebSocket. [`Request::is_control`] is `true` for the requests of the
    /// listener. The connections of the listener count towards [`Limits::control_connections_max`], not
    /// [`Limits::connections_max`]. The listener stays open during a shutdown. Error responses of the server itself are
    /// JSON on this listener: `{"error":{"code":"too_large","message":"…"}}`.
    ///
    /// # Errors
    /// The errors are those of [`bind`](Server::bind).
    pub fn listen_control(mut self, address: impl AsRef<str>) -> Result<Self, Error> {
        let mut listeners = Listener::bind_all(address.as_ref())?;
        listeners.iter_mut().for_each(|listener| listener.kind = ListenerKind::Control);
        self.listeners.append(&mut listeners);
        Ok(self)
    }

    /// Works like [`listen_control`](Server::listen_control), on a socket that is bound and listens already.
    ///
    /// # Errors
    /// The errors are those of [`from_listener`](Server::from_listener).
    pub fn listen_control_on(mut self, socket: impl Into<OwnedFd>) -> Result<Self, Error> {
        let mut listener = Listener::adopt(socket.into())?;
        listener.kind = ListenerKind::Control;
        self.listeners.push(listener);
        Ok(self)
    }

    /// Works like [`listen_control`](Server::listen_control), for TLS.
    ///
    /// # Errors
    /// The errors are those of [`bind`](Server::bind).
    #[cfg(feature = "tls")]
    pub fn listen_control_tls(mut self, address: impl AsRef<str>, tls: TlsConfig) -> Result<Self, Error> {
        for mut listener in Listener::bind_all(address.as_ref())? {
            listener.kind = ListenerKind::Control;
            self.listeners.push(listener.with_tls(&tls));
        }
        Ok(self)
    }

    /// Works like [`listen_control_tls`](Server::listen_control_tls), on a socket that is bound and listens already.
    ///
    /// # Errors
    /// The errors are those of [`from_listener`](Server::from_listener).
    #[cfg(feature = "tls")]
    pub fn listen_control_tls_on(mut self, socket: impl Into<OwnedFd>, tls: TlsConfig) -> Result<Self, Error> {
        let mut listener = Listener::adopt(socket.into())?;
        listener.kind = ListenerKind::Control;
        self.listeners.push(listener.with_tls(&tls));
        Ok(self)
    }

    /// Sets the limits. [`run`](Server::run) checks the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.inbox.set_bound(limits.inbox_max);
        self.fleet.0.set_bound(limits.inbox_max);
        self.config.limits = limits;
        self
    }

    /// Sets the heartbeat of all connections. The default is a ping every 25 s.
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.config.heartbeat = heartbeat;
        self
    }

    /// Sets the origins that browsers may connect from. By default, only pages of the server's own origin may connect.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.config.origins = origins;
        self
    }

    /// Sets the policy for a second connection of a uid. The default keeps both connections.
    pub fn second_login(mut self, policy: SecondLogin) -> Self {
        self.config.second_login = policy;
        self
    }

    /// Sets whether SIGTERM and SIGINT [shut the server down](Context::shutdown). By default, these signals shut the
    /// server down.
    ///
    /// A second signal ends the run immediately with [`Error::Interrupted`].
    pub fn catch_signals(mut self, catches: bool) -> Self {
        self.config.catches_signals = catches;
        self
    }

    /// Returns all addresses that the server listens on, control listeners included.
    ///
    /// A TCP address has the port that was bound, also if the program asked for port 0.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(Listener::address)
    }

    /// Returns the first TCP address, with the port that was bound.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// Returns a handle for other threads. The commands of the handle are carried out when the server runs.
    pub fn remote(&self) -> Remote {
        Remote::new(0, self.fleet.0.clone())
    }

    /// Runs the server on this thread until it has [shut down](Context::shutdown).
    ///
    /// This call raises the descriptor limit of the process to the hard limit.
    ///
    /// # Errors
    ///
    /// Before the loops start, the error is [`Error::Limit`], [`Error::Descriptors`], [`Error::Signals`],
    /// [`Error::Socket`], [`Error::Loops`], [`Error::OneHandler`] or [`Error::Thread`]. While the loops run, the error
    /// is [`Error::Interrupted`] after a second signal, [`Error::Poll`] or [`Error::Accept`]. Before `run` returns an
    /// error of a running loop, `run` calls `on_close` for every open WebSocket, and then `on_stop`. With several
    /// loops, `run` returns when all loops have ended, and returns the error that came first. If a loop ended by a
    /// panic outside a handler, `run` then resumes this panic.
    pub fn run(self) -> Result<(), Error> {
        let Server { handlers, loops, config, listeners, poll, inbox, fleet } = self;
        if !(1..=LOOPS_MAX).contains(&loops) {
            return Err(Error::Loops(loops));
        }
        config.limits.check()?;
        config.limits.check_loops(loops)?;
        config.heartbeat.check()?;
        for listener in &listeners {
            match listener.kind {
                ListenerKind::Control => log::debug!("listening on {} for control connections", listener.name()),
                ListenerKind::Client | ListenerKind::Proxied => log::info!("listening on {}", listener.name()),
            }
        }
        let (first, fleet) = ((poll, inbox), &fleet.0);
        match handlers {
            Handlers::One(handler, _) if loops == 1 => run_one(config, listeners, first, fleet, || handler),
            Handlers::One(handler, Some(copies)) => {
                run_several(config, listeners, first, fleet, loops, &copies(handler))
            }
            Handlers::One(_, None) => Err(Error::OneHandler),
            Handlers::Each(factory) if loops == 1 => {
                let make = || factory.lock().unwrap_or_else(PoisonError::into_inner)(0);
                run_one(config, listeners, first, fleet, make)
            }
            Handlers::Each(factory) => run_several(config, listeners, first, fleet, loops, &factory),
        }
    }
}

/// Defines [`Closures`]. For each event, the macro defines a field for a closure, the method of [`Handler`] that calls
/// the closure, and the method of [`Server`] that sets the closure.
///
/// A closure that returns an answer may return any type that converts into the answer. Without a closure, the answer is
/// the default of [`Handler`].
macro_rules! closures {
    (
        events { $($(#[$doc:meta])* $event:ident($($arg:ident: $type:ty),*);)* }
        questions { $($(#[$q_doc:meta])* $question:ident($($q_arg:ident: $q_type:ty),*) -> $answer:ty = $default:expr;)* }
    ) => {
        /// The handler that [`Server`]'s `on_*` methods build: one optional closure for each event.
        #[derive(Default)]
        pub struct Closures {
            $($event: Option<Closure<dyn FnMut(&mut Context<'_>, $($type),*) + Send>>,)*
            $($question: Option<Closure<dyn FnMut(&mut Context<'_>, $($q_type),*) -> $answer + Send>>,)*
        }

        impl Closures {
            /// Returns whether no closure was set.
            fn is_empty(&self) -> bool {
                $(self.$event.is_none() &&)* $(self.$question.is_none() &&)* true
            }

            /// Returns a copy of the closures with the captured values that they had when they were set. A copy cannot
            /// be copied again.
            fn copy(&self) -> Closures {
                Closures {
                    $($event: self.$event.as_ref().and_then(Closure::copy),)*
                    $($question: self.$question.as_ref().and_then(Closure::copy),)*
                }
            }
        }

        impl Handler for Closures {
            $(fn $event(&mut self, ctx: &mut Context<'_>, $($arg: $type),*) {
                if let Some(closure) = &mut self.$event {
                    (closure.call)(ctx, $($arg),*);
                }
            })*

            $(fn $question(&mut self, ctx: &mut Context<'_>, $($q_arg: $q_type),*) -> $answer {
                self.$question.as_mut().map_or_else(|| $default, |closure| (closure.call)(ctx, $($q_arg),*))
            })*
        }

        /// The methods that set closures. A closure replaces an earlier closure of the same event. Closures are `Send`,
        /// so that the server is `Send`, and `Clone`, so that each [loop](Server::loops) has its own copy. A server
        /// with one loop also copies each closure and keeps the copy. So such a server holds each captured `Arc` or
        /// `Sender` twice. A program whose closures cannot be `Send` or `Clone` implements [`Handler`].
        impl Server<Closures> {
            $($(#[$doc])*
            pub fn $event(
                mut self,
                closure: impl FnMut(&mut Context<'_>, $($type),*) + Clone + Send + 'static,
            ) -> Self {
                let copied = closure.clone();
                let copy = move || Box::new(copied.clone()) as Box<dyn FnMut(&mut Context<'_>, $($type),*) + Send>;
                self.closures().$event = Some(Closure { call: Box::new(closure), copy: Some(Box::new(copy)) });
                self
            })*

            $($(#[$q_doc])*
            pub fn $question<T: Into<$answer>>(
                mut self,
                closure: impl FnMut(&mut Context<'_>, $($q_type),*) -> T + Clone + Send + 'static,
            ) -> Self {
                let copy = move || {
                    let mut closure = closure.clone();
                    let call = move |ctx: &mut Context<'_>, $($q_arg: $q_type),*| closure(ctx, $($q_arg),*).into();
                    Box::new(call) as Box<dyn FnMut(&mut Context<'_>, $($q_type),*) -> $answer + Send>
                };
                self.closures().$question = Some(Closure { call: copy(), copy: Some(Box::new(copy)) });
                self
            })*
        }
    };
}

closures! {
    events {
        /// Sets the closure that is called when the server has started: see [`Handler::on_start`].
        on_start();
        /// Sets the closure that is called when a WebSocket is open: see [`Handler::on_open`].
        on_open(fd: Fd, request: &Request<'_>);
        /// Sets the closure that is called for every message: see [`Handler::on_message`].
        on_message(fd: Fd, message: Message<'_>);
        /// Sets the closure that is called once when a WebSocket has ended: see [`Handler::on_close`].
        on_close(fd: Fd, closed: &Closed);
        /// Sets the closure that is called for every ping: see [`Handler::on_ping`].
        on_ping(fd: Fd, payload: &[u8]);
        /// Sets the closure that is called for every pong: see [`Handler::on_pong`].
        on_pong(fd: Fd, payload: &[u8]);
        /// Sets the closure that is called for every notice of another thread: see [`Handler::on_notice`].
        on_notice(notice: Notice);
        /// Sets the closure that is called when a timer without a closure fires: see [`Handler::on_timer`].
        on_timer(timer: TimerId);
        /// Sets the closure that is called at the end of a turn if a handler has requested the call: see
        /// [`Handler::on_turn_end`].
        on_turn_end();
        /// Sets the closure that is called when the server has ended: see [`Handler::on_stop`].
        on_stop();
    }
    questions {
        /// Sets the closure that is called when a client asks for a WebSocket: see [`Handler::on_upgrade`].
        ///
        /// The closure returns the result of [`Upgrade::accept`], a [`Response`] that refuses the upgrade, a `Result`
        /// of these two types, or an [`Upgrade`].
        ///
        /// ```no_run
        /// # use fdpush::{Response, Server, Upgrade};
        /// # fn uid_of(cookie: Option<&str>) -> Option<String> { cookie.map(str::to_owned) }
        /// Server::bind("127.0.0.1:9501")?
        ///     .on_upgrade(|_ctx, _fd, request| match uid_of(request.header("cookie")) {
        ///         Some(uid) => Ok(Upgrade::accept().uid(uid)),
        ///         None => Err(Response::text(401, "log in first\n")),
        ///     })
        ///     .run()
        /// # ; Ok::<(), fdpush::Error>(())
        /// ```
        on_upgrade(fd: Fd, request: &Request<'_>) -> Upgrade = Upgrade::accept().into();
        /// Sets the closure that is called for every plain HTTP request: see [`Handler::on_request`].
        ///
        /// The closure returns a [`Response`] or an `Option<Response>`.
        on_request(fd: Fd, request: &Request<'_>) -> Option<Response> = None;
    }
}

/// A closure, and the function that makes copies of it.
struct Closure<F: ?Sized> {
    call: Box<F>,
    /// The value is `None` if this closure is itself a copy.
    copy: Option<Box<dyn Fn() -> Box<F> + Send>>,
}

impl<F: ?Sized> Closure<F> {
    fn copy(&self) -> Option<Closure<F>> {
        self.copy.as_ref().map(|copy| Closure { call: copy(), copy: None })
    }
}

impl Closures {
    /// Returns a factory that creates copies of these closures.
    fn copies(self) -> Factory<Closures> {
        Arc::new(Mutex::new(move |_| self.copy()))
    }
}

impl<H> fmt::Debug for Handlers<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if let Handlers::One(..) = self { "Handlers::One" } else { "Handlers::Each" })
    }
}

impl fmt::Debug for Closures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closures")
    }
}
