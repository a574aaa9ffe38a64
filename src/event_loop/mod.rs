//! The event loop: epoll, sockets, system calls and the clock. The lower layers of the crate, layers 0 and 1, use no
//! epoll, socket, system call or clock.
//!
//! [`EventLoop`] runs the turns. The doc of `EventLoop` lists the steps of a turn. [`Core`] is the state of a loop.

mod accept;
mod answers;
mod bind_each;
mod call_timer;
mod clock;
mod context;
mod core;
mod deferrals;
mod drain;
mod error;
mod fleet;
mod flush;
mod guard;
mod handler;
mod handshakes;
mod inbox;
mod info;
mod input;
mod limit_update;
mod listener;
mod portion;
mod posts;
mod proxies;
mod rate_limit;
mod ready_list;
mod sessions;
mod siblings;
mod signals;
mod socket;
mod socket_file;
mod stats;
#[cfg(test)]
mod tests;
mod threads;
mod timers;
#[cfg_attr(not(feature = "tls"), path = "no_tls_sessions.rs")]
mod tls_sessions;
mod visited_slots;
mod waker;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

#[cfg(feature = "gateway")]
pub use self::bind_each::bind_each;
pub use self::context::{Command, Context, Notice, PendingReply};
pub use self::core::Core;
pub use self::error::Error;
pub use self::fleet::{Fleet, FleetEnd, loop_of, own_of};
pub use self::handler::Handler;
pub use self::handshakes::Handshakes;
pub use self::inbox::{Inbox, Rejected, Sender};
pub use self::info::Info;
pub use self::listener::{Address, Listener, ListenerKind};
pub use self::proxies::ProxyFilter;
pub use self::siblings::report::Report;
#[cfg(feature = "gateway")]
pub use self::socket_file::SocketFile;
pub use self::stats::Stats;
pub use self::threads::{Factory, run_one, run_several};
pub use self::timers::TimerId;

use self::accept::Acceptor;
use self::call_timer::CallTimer;
use self::clock::{Clock, Epoch};
use self::context::ContextParts;
use self::inbox::Item;
use self::listener::Endpoint;
use self::portion::Portion;
use self::rate_limit::RateLimit;
use self::siblings::Siblings;
use self::signals::Signals;
use self::waker::Waker;
use crate::connection::Env;
use crate::fd::Slot;
use crate::limits::{Heartbeat, Limits};
use crate::protocol::origin::Origins;
use crate::registry::SecondLogin;
use crate::wheel::Owner;

/// The maximum number of events that one wait returns. In unit tests the maximum is low, so that the tests reach it.
const EVENTS_MAX: usize = if cfg!(test) { 4 } else { 512 };

/// The maximum number of waits in a turn.
///
/// Only a wait that returned [`EVENTS_MAX`] events is repeated.
const WAITS_PER_TURN_MAX: usize = if cfg!(test) { 2 } else { 32 };

/// The maximum time in each turn for the items of the inbox. The next turn carries out the remaining items of the
/// inbox.
const COMMANDS_TIME_MAX: Duration = Duration::from_millis(5);

/// The number of items that are taken from the inbox under one lock.
const ITEMS_AT_ONCE: usize = 8;

/// The epoll token of the waker. The epoll token of a connection is its slot, which is at most `u32::MAX`. The waker
/// and the signals have the two largest tokens. The listeners have the next lower tokens.
const TOKEN_WAKER: Token = Token(usize::MAX);
const TOKEN_SIGNALS: Token = Token(usize::MAX - 1);
const TOKEN_LISTENERS_END: usize = usize::MAX - 1;

/// The settings of a loop.
#[derive(Clone, Debug)]
pub struct Config {
    pub limits: Limits,
    pub heartbeat: Heartbeat,
    pub origins: Origins,
    pub second_login: SecondLogin,
    /// The trusted proxies of listeners of [`ListenerKind::Proxied`].
    pub proxies: ProxyFilter,
    /// Whether this loop catches SIGTERM and SIGINT, which begin a drain.
    pub catches_signals: bool,
}

/// An epoll loop and its handler.
///
/// [`open`] creates the epoll instance and the inbox, so that other threads can send commands before the loop runs.
/// [`Prepared::new`] adds the listeners, [`EventLoop::new`] adds the handler, and [`EventLoop::run`] runs turns until the loop
/// has drained. A turn has these steps, in this order:
///
/// 1. Wait for events, at most until the next deadline. Then read the clock. The result is the time of the whole turn.
/// 2. Run the commands of other threads, and carry out the posts of other loops, in the order of their arrival, for at most
///    [`COMMANDS_TIME_MAX`].
/// 3. Handle the events. This step only records which sockets can be read or written.
/// 4. While the loop drains, close the WebSockets whose close is due. Apply new limits.
/// 5. Accept connections. Epoll reports the first bytes of a new connection in the next turn.
/// 6. Read once from each connection that has bytes, for at most one [`Portion`], and call the handler for the
///    messages. A connection is read at most once in a turn, so that a fast client does not delay other clients. The
///    number of TLS handshakes in a turn is limited.
/// 7. Fire timers. Timers fire after reads, because bytes that arrived in time prevent a timeout.
/// 8. Call `on_close` for the connections that closed, send deferred answers, and call `on_turn_end`.
/// 9. Send posts to other loops. Flush: write to each connection that has output. The flush comes after all handlers, so
///    that all messages of the turn to one connection take one system call.
/// 10. Free the slots of finished connections. This step comes last, so that no event of the turn reaches a new
///     connection in the same slot.
///
/// A handler is never called from within a handler. Events that a handler causes are queued, and the loop handles them
/// when the handler has returned.
///
/// Sockets are registered with epoll once, edge-triggered. Epoll does not report bytes a second time, so a connection
/// with unread bytes is on the list of ready connections. A connection with output is on a list of the table until a
/// flush has written the output. While the list of ready connections or the list of connections with output has
/// entries, the loop does not wait for events.
#[derive(Debug)]
pub struct EventLoop<H> {
    core: Core,
    parts: ContextParts,
    handler: H,
    poll: Poll,
    acceptor: Acceptor,
    inbox: Inbox<Command>,
    signals: Option<Signals>,
    handshakes: Handshakes,
    clock: Clock,
    call_timer: CallTimer,
    /// The read buffer. Messages are borrowed from this buffer.
    buffer: Vec<u8>,
    /// Whether the inbox has items for the next turn.
    has_items: bool,
    /// The items of the inbox that the loop has taken and not carried out.
    items: VecDeque<Item<Command>>,
    /// The list of the connections to read in a turn. All turns reuse the memory of this list.
    slots: Vec<Slot>,
    /// Connections that are freed at the end of the turn.
    finished: Vec<Slot>,
}

/// The parts of a loop that are prepared before its thread starts.
#[derive(Debug)]
pub struct Prepared {
    config: Config,
    connections_max: usize,
    endpoints: Vec<Endpoint>,
    poll: Poll,
    inbox: Inbox<Command>,
    fleet: Fleet<Command>,
    signals: Option<Signals>,
    epoch: Epoch,
    /// The other loops, or `None` if the server has one loop.
    siblings: Option<Siblings>,
}

/// Creates an epoll instance, and an inbox that wakes its loop.
pub fn open(commands_max: usize) -> Result<(Poll, Inbox<Command>), Error> {
    let poll = Poll::new().map_err(Error::Poll)?;
    let waker = Waker::new(poll.registry(), TOKEN_WAKER).map_err(Error::Poll)?;
    Ok((poll, Inbox::new(Arc::new(waker), commands_max)))
}

impl Prepared {
    /// Prepares a loop with the epoll instance and the inbox of [`open`].
    ///
    /// # Errors
    ///
    /// The error is [`Error::Signals`], [`Error::Socket`] or [`Error::Poll`].
    pub fn new(
        config: Config,
        connections_max: usize,
        endpoints: Vec<Endpoint>,
        (poll, inbox): (Poll, Inbox<Command>),
        fleet: Fleet<Command>,
        epoch: Epoch,
    ) -> Result<Prepared, Error> {
        let mut signals = if config.catches_signals { Some(Signals::catch().map_err(Error::Signals)?) } else { None };
        if let Some(signals) = &mut signals {
            poll.registry().register(&mut signals.pipe, TOKEN_SIGNALS, Interest::READABLE).map_err(Error::Poll)?;
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let Some(listener) = &endpoint.listener else { continue };
            listener.prepare(config.limits.write_time_max).map_err(Error::Socket)?;
            let token = Token(TOKEN_LISTENERS_END - 1 - index);
            let source = &mut SourceFd(&listener.as_raw_fd());
            poll.registry().register(source, token, Interest::READABLE).map_err(Error::Poll)?;
        }
        Ok(Prepared { config, connections_max, endpoints, poll, inbox, fleet, signals, epoch, siblings: None })
    }

    /// Makes the loop one of several loops.
    pub fn with_siblings(self, siblings: Siblings) -> Prepared {
        Prepared { siblings: Some(siblings), ..self }
    }

    /// Records that the loop runs on this thread. The caller calls this method before it creates the handler and runs
    /// the loop.
    pub fn claim_thread(&self) {
        self.inbox.claim_thread();
    }
}

impl<H: Handler> EventLoop<H> {
    /// Creates a loop from its prepared parts.
    pub fn new(prepared: Prepared, handler: H) -> EventLoop<H> {
        let Prepared { config, connections_max, endpoints, poll, inbox, fleet, signals, epoch, siblings } = prepared;
        let control_connections_max = config.limits.control_connections_max;
        let budget = config.limits.read_budget_bytes;
        let rates = siblings.as_ref().map(|siblings| {
            let process = siblings.process();
            [&process.accepts, &process.handshakes].map(|bucket| RateLimit::Shared(Arc::clone(bucket)))
        });
        let [accepts, handshakes] = rates.unwrap_or_default();
        let env = Env::new(config.limits, config.heartbeat, config.origins);
        let clock = Clock::new(epoch);
        // Each loop reserves address space for its share of the connections, because the loops have about equal numbers
        // of connections.
        let share = siblings.as_ref().map(|siblings| connections_max.div_ceil(siblings.loops()));
        let reserved = share.map_or(connections_max, |share| share + share / 16);
        let mut core = Core::new(connections_max, reserved, control_connections_max, env, config.second_login, epoch);
        core.set_proxies(config.proxies);
        if let Some(siblings) = siblings {
            core.set_siblings(siblings);
        }
        EventLoop {
            core,
            parts: ContextParts::new(fleet),
            handler,
            poll,
            acceptor: Acceptor::new(endpoints, control_connections_max, accepts),
            inbox,
            signals,
            handshakes: Handshakes::new(handshakes),
            clock,
            call_timer: CallTimer::new(),
            buffer: vec![0; budget],
            has_items: false,
            items: VecDeque::new(),
            slots: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Runs until the loop has drained.
    ///
    /// # Errors
    /// The error is [`Error::Interrupted`], [`Error::Poll`] or [`Error::Accept`].
    pub fn run(mut self) -> Result<(), Error> {
        self.core.set_time(self.clock.read());
        self.call_untimed("on_start", None, |handler, ctx| handler.on_start(ctx));
        let ended = self.turn_until_drained();
        // `on_close` is called for each open WebSocket, also after an error or a drain that took too long.
        self.core.begin_drain();
        self.core.close_all();
        self.handle_pending();
        self.send_posts();
        self.flush_all();
        self.call_untimed("on_stop", None, |handler, ctx| handler.on_stop(ctx));
        ended
    }

    fn turn_until_drained(&mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut now = self.clock.turn_start;
        while !self.is_over() {
            now = self.turn(&mut events, self.timeout(now))?;
        }
        Ok(())
    }

    /// Runs one turn, which waits for events for at most `timeout`. Returns the time at the end of the turn.
    #[inline]
    fn turn(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<Instant, Error> {
        match self.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Poll(error)),
        }
        self.core.set_time(self.clock.read());
        self.begin_turn();
        self.handle_inbox();
        self.handle_events(events)?;
        if self.core.is_draining() {
            self.acceptor.close();
            self.core.drain_others();
            self.core.close_due();
        }
        self.core.apply_limits(&self.acceptor, &mut self.buffer);
        self.acceptor.accept_pending(&mut self.core, self.poll.registry()).map_err(Error::Accept)?;
        self.read_ready();
        self.fire_timers();
        self.handle_pending();
        self.end_turn();
        self.send_posts();
        self.flush();
        self.drop_held();
        self.reap();
        if cfg!(debug_assertions) && self.core.table().count() < 64 {
            self.core.check_invariants();
        }
        // One clock read is used for the duration of the turn and for the time to wait.
        let now = clock::now();
        self.clock.last_turn = now - self.clock.turn_start;
        self.core.end_turn(self.clock.last_turn);
        Ok(now)
    }

    /// Returns the time to wait for events: zero if the next turn has work.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let is_behind = self.core.ready_len() > 0 || self.core.table().has_dirty() || self.acceptor.has_pending();
        let to_send = |siblings: &Siblings| siblings.has_posts() || siblings.has_shutdown_to_send();
        let has_more = self.core.wants_turn_end()
            || self.core.has_new_limits()
            || !self.items.is_empty()
            || !self.parts.held.is_empty()
            || self.core.siblings().is_some_and(to_send);
        if is_behind || self.has_items || has_more {
            return Some(Duration::ZERO);
        }
        let next = [self.core.next_deadline(), self.acceptor.retry_at()].into_iter().flatten().min();
        let next = next.map(|next| self.clock.epoch.at(next).saturating_duration_since(now));
        [next, self.handshakes.delay()].into_iter().flatten().min()
    }

    // The methods below are the steps of a turn.

    /// Runs the commands of other threads, and carries out the posts of other loops, for at most [`COMMANDS_TIME_MAX`].
    fn handle_inbox(&mut self) {
        let until = self.clock.turn_start + COMMANDS_TIME_MAX;
        let mut portion = Portion::new();
        loop {
            if self.items.is_empty() {
                self.has_items = self.inbox.take(ITEMS_AT_ONCE, &mut self.items);
            }
            while let Some(item) = self.items.pop_front() {
                match item {
                    Item::Command(command) => self.run_command(command),
                    Item::Posts(from, batch) => {
                        if !self.carry_out(from, batch, &mut portion) {
                            // More items may be added to the inbox before the next turn. No later event wakes the loop
                            // for these items, so the next turn must take them from the inbox without a wake.
                            self.has_items = true;
                            return;
                        }
                    }
                }
            }
            if !self.has_items || clock::now() >= until {
                break;
            }
        }
    }

    fn run_command(&mut self, command: Command) {
        self.call(command.name(), None, |handler, ctx| match command {
            Command::Call(call) => call(ctx),
            Command::Notice(notice) => handler.on_notice(ctx, notice),
            Command::Shutdown => ctx.core.drain_all(),
        });
        self.handle_pending();
        self.flush_early();
    }

    /// Handles the events that a wait returned.
    ///
    /// If most events report writable sockets, as after a push to many connections, the loop polls again without
    /// blocking. So a connection with bytes to read does not wait behind writable sockets.
    fn handle_events(&mut self, events: &mut Events) -> Result<(), Error> {
        let listed = self.core.table().listed_len();
        self.handle_few_events(events)?;
        for _ in 1..WAITS_PER_TURN_MAX {
            let is_full = events.iter().nth(EVENTS_MAX - 1).is_some();
            if !is_full || self.core.ready_len() >= EVENTS_MAX / 2 {
                break;
            }
            match self.poll.poll(events, Some(Duration::ZERO)) {
                // Epoll reports no event a second time, so each wait is followed by the handling of its events.
                Ok(()) => self.handle_few_events(events)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
                Err(error) => return Err(Error::Poll(error)),
            }
        }
        self.core.table_mut().defer_writable(listed);
        Ok(())
    }

    fn handle_few_events(&mut self, events: &Events) -> Result<(), Error> {
        for event in events {
            match event.token() {
                TOKEN_WAKER => {}
                TOKEN_SIGNALS => self.handle_signals()?,
                Token(token) => match u32::try_from(token) {
                    Ok(slot) => self.handle_socket(Slot(slot), event),
                    Err(_) => self.acceptor.handle_event(TOKEN_LISTENERS_END - 1 - token),
                },
            }
        }
        Ok(())
    }

    fn handle_signals(&mut self) -> Result<(), Error> {
        let count = self.signals.as_mut().map_or(0, Signals::count);
        if count == 0 {
            return Ok(());
        }
        // Signals that arrive together count as one signal: a terminal can send SIGINT while a supervisor sends
        // SIGTERM.
        if self.core.is_draining() {
            if let Some(siblings) = self.core.siblings() {
                siblings.process().interrupt();
            }
            return Err(Error::Interrupted);
        }
        log::info!("draining {} WebSockets", self.core.open_count());
        self.core.shut_down();
        Ok(())
    }

    /// Handles expired timeouts and timers, within the time limit of a [`Portion`].
    ///
    /// The next turn handles the remaining timeouts and timers. The next turn begins immediately, because these
    /// deadlines have expired.
    fn fire_timers(&mut self) {
        self.core.advance();
        let mut portion = Portion::new();
        while !portion.is_over()
            && let Some(owner) = self.core.pop_expired()
        {
            match owner {
                Owner::Connection(slot) => {
                    self.recheck_before_timeout(slot);
                    self.core.handle_tick(slot);
                    self.core.resume_input(slot);
                }
                Owner::Timer(index) => {
                    let Some(fired) = self.core.fire(index) else { continue };
                    self.call_timer(fired.id);
                }
            }
            self.handle_pending();
        }
    }

    /// Calls the closure of a timer, or `on_timer` for a timer without a closure.
    fn call_timer(&mut self, timer: TimerId) {
        match self.parts.timers.take(timer) {
            Some(mut closure) => {
                self.call("a timer", None, |_, ctx| closure(ctx));
                if self.core.has_timer(timer) {
                    self.parts.timers.insert(timer, closure);
                }
            }
            None => self.call("on_timer", None, |handler, ctx| handler.on_timer(ctx, timer)),
        }
    }

    /// Calls `on_close` and sends deferred answers, until no close and no answer is pending.
    #[inline]
    fn handle_pending(&mut self) {
        if self.core.has_pending_closes() || self.core.deferrals().has_answers() {
            self.handle_all_pending();
        }
    }

    fn handle_all_pending(&mut self) {
        loop {
            self.call_on_close();
            let Some((fd, ticket, answer)) = self.core.deferrals().pop() else { return };
            self.answer_deferred(fd, ticket, answer);
        }
    }

    /// Calls `on_close` for the connections that closed.
    ///
    /// This function sends no deferred answers. A deferred answer can open a WebSocket, and the input of this WebSocket
    /// calls this function again. A long chain of such calls would overflow the stack.
    fn call_on_close(&mut self) {
        while let Some((fd, closed)) = self.core.begin_on_close() {
            self.call("on_close", Some(fd), |handler, ctx| handler.on_close(ctx, fd, &closed));
            self.core.end_on_close();
            // The `drop` of a session value is code of the user's program, so it is called like a handler.
            self.call("dropping a session", Some(fd), |_, ctx| ctx.core.drop_session(fd));
        }
    }

    /// Calls `on_turn_end` if the handler has requested it.
    #[inline]
    fn end_turn(&mut self) {
        if self.core.take_turn_end() {
            self.call("on_turn_end", None, |handler, ctx| handler.on_turn_end(ctx));
            self.handle_pending();
        }
    }

    fn reap(&mut self) {
        // The flush can have closed connections with a broken socket, and slow consumers. The `on_close` of these
        // connections is called now.
        self.handle_pending();
        if self.finished.is_empty() {
            return;
        }
        for slot in self.finished.drain(..) {
            self.core.reap(slot);
        }
        self.acceptor.handle_freed();
    }
}
