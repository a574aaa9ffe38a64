//! The loop: the only place that knows of epoll, sockets, system calls and the clock.
//!
//! One turn: wait, take what other threads sent, accept and read, fire timers, tell handlers of ends, write, and free
//! what is over. Sockets are registered edge-triggered, once. Who may have more to read than an event will tell of is on
//! the ready list; who has something to write is on the table's dirty list, or among those that a flush has left.

mod accept;
mod answers;
mod calls;
mod clock;
mod context;
mod control;
mod core;
mod drain;
mod flush;
mod handler;
mod inbox;
mod listener;
mod marks;
mod open;
mod proxies;
mod relief;
mod relimit;
mod signals;
pub mod slots;
mod socket;
mod socket_file;
mod stats;
mod table;
mod timers;
mod unwritten;

use std::io;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

pub use self::clock::Epoch;
pub use self::context::{Command, Context, Notice};
pub use self::core::{Core, Info};
pub use self::handler::Handler;
pub use self::inbox::{Inbox, Rejected, Sender};
pub use self::listener::{Address, Kind, Listener};
pub use self::proxies::Proxies;
#[cfg(feature = "gateway")]
pub use self::socket_file::SocketFile;
pub use self::stats::Stats;
pub use self::timers::TimerId;

use self::accept::Door;
use self::calls::{Calls, ON_MESSAGE};
use self::clock::Clock;
use self::context::Host;
use self::drain::Drain;
use self::signals::Signals;
use crate::connection::{Env, Event, State};
use crate::fd::{Fd, Slot};
use crate::limits::{Heartbeat, Limits};
use crate::message::Message;
use crate::protocol::origin::Origins;
use crate::registry::SecondLogin;
use crate::tick::Tick;
use crate::wheel::Owner;

/// Events that one wait takes at most. More are told of by the next.
const EVENTS_MAX: usize = 512;

/// Waits that a turn makes at most, where the first told of as many events as it could.
const WAITS_PER_TURN_MAX: usize = 32;

/// How long a turn is held up by what other threads sent. What is left is carried out in the next.
const COMMANDS_TIME_MAX: Duration = Duration::from_millis(5);

/// Commands that are taken out of the inbox under one lock, and before a look at the clock.
const COMMANDS_AT_ONCE: usize = 8;

/// Tokens from here on are not slots.
const TOKEN_WAKER: Token = Token(usize::MAX);
const TOKEN_SIGNALS: Token = Token(usize::MAX - 1);
const TOKEN_LISTENERS_END: usize = usize::MAX - 1;

/// What a loop is run with.
#[derive(Debug)]
pub struct Config {
    pub limits: Limits,
    pub heartbeat: Heartbeat,
    pub origins: Origins,
    pub second_login: SecondLogin,
    /// For listeners of [`Kind::Proxied`].
    pub proxies: Proxies,
    /// Whether SIGTERM and SIGINT drain this loop.
    pub catches_signals: bool,
}

/// A loop and its handler.
#[derive(Debug)]
pub struct EventLoop<H> {
    core: Core,
    host: Host,
    handler: H,
    poll: Poll,
    door: Door,
    inbox: Inbox<Command>,
    signals: Option<Signals>,
    clock: Clock,
    calls: Calls,
    /// Read into; lent to handlers.
    buffer: Vec<u8>,
    /// Whether the inbox has commands that were put off.
    has_commands: bool,
    /// Spare lists, kept for their memory.
    commands: Vec<Command>,
    slots: Vec<Slot>,
    flushing: Vec<Slot>,
    over: Vec<Slot>,
}

/// What a loop is made over: epoll, and an inbox that wakes it.
pub fn open(commands_max: usize) -> io::Result<(Poll, Inbox<Command>)> {
    let poll = Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), TOKEN_WAKER)?;
    Ok((poll, Inbox::new(waker, commands_max)))
}

impl<H: Handler> EventLoop<H> {
    /// A loop over `poll`, with its inbox's waker registered there.
    pub fn new(
        config: Config,
        listeners: Vec<Listener>,
        poll: Poll,
        inbox: Inbox<Command>,
        handler: H,
    ) -> io::Result<EventLoop<H>> {
        let has_control = listeners.iter().any(|listener| listener.kind == Kind::Control);
        let connections_max = accept::raise_connections_max(&config.limits, has_control)?;
        let control_connections_max = config.limits.control_connections_max;
        let budget = config.limits.read_budget_bytes;
        let write_time_max = config.limits.write_time_max;
        let env = Env::new(config.limits, config.heartbeat, config.origins);
        let mut signals = if config.catches_signals { Some(Signals::catch()?) } else { None };
        if let Some(signals) = &mut signals {
            poll.registry().register(&mut signals.pipe, TOKEN_SIGNALS, Interest::READABLE)?;
        }
        for (index, listener) in listeners.iter().enumerate() {
            listener.prepare(write_time_max)?;
            let token = Token(TOKEN_LISTENERS_END - 1 - index);
            poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE)?;
        }
        let clock = Clock::new();
        let mut core = Core::new(connections_max, control_connections_max, env, config.second_login, clock.epoch);
        core.proxies = config.proxies;
        Ok(EventLoop {
            core,
            host: Host::new(inbox.sender()),
            handler,
            poll,
            door: Door::new(listeners, control_connections_max),
            inbox,
            signals,
            clock,
            calls: Calls::new(),
            buffer: vec![0; budget],
            has_commands: false,
            commands: Vec::new(),
            slots: Vec::new(),
            flushing: Vec::new(),
            over: Vec::new(),
        })
    }

    /// Runs until the loop has drained.
    ///
    /// # Errors
    /// `Interrupted` when a second signal cut the drain short; whatever epoll or a listener reports.
    pub fn run(mut self) -> io::Result<()> {
        self.inbox.claim_thread();
        self.clock.read(&mut self.core);
        self.guard("on_start", None, |handler, ctx| handler.on_start(ctx));
        let ended = self.turn_until_drained();
        if ended.is_err() {
            // Whatever cut it short, there is an `on_close` for each `on_open`.
            self.core.begin_drain();
            self.core.close_due(Tick::NEVER);
            self.settle();
        }
        self.guard("on_stop", None, |handler, ctx| handler.on_stop(ctx));
        ended
    }

    fn turn_until_drained(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut now = self.clock.turned;
        while !self.core.is_drained() {
            match self.poll.poll(&mut events, self.timeout(now)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.clock.read(&mut self.core);
            self.handle_commands();
            self.handle_events(&mut events)?;
            if self.core.drain.is_some() {
                self.door.close();
                self.core.close_due(self.core.table.env.now);
            }
            self.core.apply_limits(&self.door, &mut self.buffer);
            self.door.accept_pending(&mut self.core, self.poll.registry())?;
            self.read_ready();
            self.fire_timers();
            self.settle();
            self.end_turn();
            self.flush();
            self.reap();
            if cfg!(debug_assertions) && self.core.table.len() < 64 {
                self.core.check_invariants();
            }
            // The same look at the clock says how long the turn took and how long to wait.
            now = clock::now();
            self.core.end_turn(now - self.clock.turned);
        }
        Ok(())
    }

    /// How long to wait for events: not at all while work was put off.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let is_behind = !self.core.ready.is_empty() || self.core.table.has_dirty() || self.door.has_pending();
        let has_more = self.core.wants_turn_end || self.core.relimit.is_some();
        if is_behind || self.has_commands || has_more {
            return Some(Duration::ZERO);
        }
        let drain = self.core.drain.as_ref().map(Drain::next);
        let next = [self.core.wheel.next(), self.door.retry_at(), drain].into_iter().flatten().min()?;
        Some(self.clock.epoch.at(next).saturating_duration_since(now))
    }

    // What happened.

    /// Carries out what other threads sent, for a while: however much that is, sockets and timers have their turn.
    fn handle_commands(&mut self) {
        let until = self.clock.turned + COMMANDS_TIME_MAX;
        let mut commands = std::mem::take(&mut self.commands);
        loop {
            self.has_commands = self.inbox.take(COMMANDS_AT_ONCE, &mut commands);
            for command in commands.drain(..) {
                self.call(command.name(), None, |handler, ctx| match command {
                    Command::Call(call) => call(ctx),
                    Command::Notice(notice) => handler.on_notice(ctx, notice),
                    Command::Shutdown => ctx.core.begin_drain(),
                });
                self.settle();
                self.flush_long();
            }
            if !self.has_commands || clock::now() >= until {
                break;
            }
        }
        self.commands = commands;
    }

    /// Handles what a wait told of. Where that is mostly sockets that have room again, as after a long push to many, it asks
    /// for more: bytes to read that came later are not to wait behind all of those.
    fn handle_events(&mut self, events: &mut Events) -> io::Result<()> {
        let listed = self.core.table.dirty.len();
        for _ in 0..WAITS_PER_TURN_MAX {
            self.handle_few_events(events)?;
            let is_full = events.iter().nth(EVENTS_MAX - 1).is_some();
            if !is_full || self.core.ready.len() >= EVENTS_MAX / 2 {
                break;
            }
            match self.poll.poll(events, Some(Duration::ZERO)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        self.core.table.put_off_writable(listed);
        Ok(())
    }

    fn handle_few_events(&mut self, events: &Events) -> io::Result<()> {
        for event in events {
            match event.token() {
                TOKEN_WAKER => {}
                TOKEN_SIGNALS => self.handle_signals()?,
                Token(token) => match u32::try_from(token) {
                    Ok(slot) => self.handle_socket(Slot(slot), event),
                    Err(_) => self.door.handle_event(TOKEN_LISTENERS_END - 1 - token),
                },
            }
        }
        Ok(())
    }

    fn handle_socket(&mut self, slot: Slot, event: &mio::event::Event) {
        let Some((entry, _)) = self.core.table.get_mut(slot) else { return };
        entry.is_hung_up |= event.is_read_closed() || event.is_error();
        let is_gone = event.is_error()
            || (event.is_read_closed() && (event.is_write_closed() || entry.connection.is_deferred_upgrade()));
        let has_input = event.is_readable() || entry.is_hung_up;
        entry.is_readable |= has_input;
        let has_room = event.is_writable() && entry.connection.handle_writable();
        let can_read = entry.connection.wants_read();
        if has_room {
            self.core.table.touch(slot);
        }
        if has_input && can_read {
            self.core.make_ready(slot);
        } else if is_gone {
            // Nothing will be read that would tell: the handler put it off.
            self.core.handle_end(slot, true);
        }
    }

    fn handle_signals(&mut self) -> io::Result<()> {
        let count = self.signals.as_mut().map_or(0, Signals::count);
        if count == 0 {
            return Ok(());
        }
        // What came in one wake is one: a terminal sends SIGINT, and what started the server SIGTERM, in the same moment.
        if self.core.drain.is_some() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "a second signal cut the drain short"));
        }
        log::info!("draining {} WebSockets", self.core.stats().open);
        self.core.begin_drain();
        Ok(())
    }

    fn read_ready(&mut self) {
        let mut slots = std::mem::take(&mut self.slots);
        slots.append(&mut self.core.ready);
        self.calls.begin();
        for slot in slots.drain(..) {
            if let Some((entry, _)) = self.core.table.get_mut(slot) {
                entry.is_ready = false;
            }
            self.read(slot);
            self.flush_long();
        }
        self.slots = slots;
    }

    /// Reads once from a connection, and puts it back on the list when there may be more.
    fn read(&mut self, slot: Slot) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.read_into(slot, &mut buffer);
        self.buffer = buffer;
        self.core.arm(slot);
    }

    fn read_into(&mut self, slot: Slot, buffer: &mut [u8]) {
        let Some((entry, _)) = self.core.table.get_mut(slot) else { return };
        if entry.connection.state() == State::Http {
            // Requests that it put off come before what is in the socket.
            self.feed(slot, &mut []);
        }
        let Some((entry, env)) = self.core.table.get_mut(slot) else { return };
        if !entry.is_readable || !entry.connection.wants_read() {
            if entry.is_hung_up && entry.connection.is_deferred_upgrade() {
                // Bytes that came early hide the end of the stream, and are not read before the upgrade is answered.
                self.core.handle_end(slot, true);
            }
            return;
        }
        env.counts.reads += 1;
        let read = self.core.table.read(slot, buffer);
        let Some((entry, env)) = self.core.table.get_mut(slot) else { return };
        match read {
            Ok(None) => entry.is_readable = false,
            Ok(Some(0)) => {
                entry.is_readable = false;
                self.core.handle_end(slot, false);
            }
            Ok(Some(count)) => {
                // A read that returns less than it was offered has drained the socket, unless the peer has closed
                // its side: that end is only seen by reading up to it.
                entry.is_readable = count == buffer.len() || entry.is_hung_up;
                entry.connection.handle_received(count, env);
                let goes_on = entry.is_readable;
                self.feed(slot, &mut buffer[..count]);
                if goes_on {
                    self.core.make_ready(slot);
                }
            }
            Err(_) => {
                entry.is_readable = false;
                self.core.handle_end(slot, true);
            }
        }
        self.settle();
        if self.core.table.env.is_over_inbound() {
            self.core.relieve_inbound();
            self.settle();
        }
    }

    /// Hands bytes to a connection, and the events they make to the handler.
    fn feed(&mut self, slot: Slot, bytes: &mut [u8]) {
        let fd = self.core.table.fd_of(slot);
        self.time_messages(fd, |this| this.handle_input(slot, fd, bytes));
    }

    fn handle_input(&mut self, slot: Slot, fd: Fd, bytes: &mut [u8]) {
        let mut input = bytes;
        loop {
            let Some((entry, env)) = self.core.table.get_mut(slot) else { return };
            let mut is_used_up = false;
            match entry.connection.handle_message(&mut input, env) {
                Ok(Some(message)) => {
                    is_used_up = input.is_empty();
                    self.deliver(fd, message);
                }
                Ok(None) => match entry.connection.handle_bytes(&mut input, env) {
                    Some(event) => self.tell(fd, event),
                    None => break,
                },
                Err(end) => self.tell(fd, *end),
            }
            if !self.core.ends.is_empty() {
                self.settle_ends();
            }
            if is_used_up {
                break;
            }
        }
        self.core.table.note_inbound(slot);
        // Pongs, errors and responses are output that no push has announced.
        self.core.table.touch_unasked(slot);
    }

    /// Tells the handler of an event, or answers what it stands for.
    fn tell(&mut self, fd: Fd, event: Event<'_>) {
        match event {
            Event::Text(text) => self.deliver(fd, Message::Text(&text)),
            Event::Binary(bytes) => self.deliver(fd, Message::Binary(&bytes)),
            Event::Ping(payload) => self.call("on_ping", Some(fd), |handler, ctx| handler.on_ping(ctx, fd, &payload)),
            Event::Pong(payload) => self.call("on_pong", Some(fd), |handler, ctx| handler.on_pong(ctx, fd, &payload)),
            Event::Request { request, wanted_upgrade } => self.answer_request(fd, &request, wanted_upgrade),
            Event::Head(request) => self.take_in(fd, request),
            Event::Piece { bytes, is_last, state } => self.hand_on(fd, &bytes, is_last, state),
            Event::Upgrade(request) => self.answer_upgrade(fd, request),
            end @ (Event::Closed(_) | Event::Refused(_)) => _ = self.core.record_end(fd.slot(), Some(end)),
        }
    }

    #[inline]
    fn deliver(&mut self, fd: Fd, message: Message<'_>) {
        self.guard(ON_MESSAGE, Some(fd), |handler, ctx| handler.on_message(ctx, fd, message));
    }

    fn fire_timers(&mut self) {
        let now = self.core.table.env.now;
        self.core.wheel.advance(now);
        while let Some(owner) = self.core.wheel.pop_expired() {
            match owner {
                Owner::Connection(slot) => {
                    self.look_again(slot);
                    let event = self.core.table.step(slot, |connection, env| connection.handle_tick(env));
                    self.core.record_end(slot, event);
                    self.core.arm(slot);
                }
                Owner::Timer(index) => {
                    let Some(fired) = self.core.timers.fire(index, now) else { continue };
                    if let Some(at) = fired.again {
                        self.core.wheel.arm(owner, at);
                    }
                    self.call_timer(fired.id);
                }
            }
            self.settle();
        }
    }

    /// Before a connection is ended for what its client did not do in time, its socket is asked once more: after a stall
    /// (a handler that blocked, a machine that was suspended) there are more events than one wait tells of, and what the
    /// client did lies in the kernel.
    fn look_again(&mut self, slot: Slot) {
        let Some((entry, env)) = self.core.table.get_mut(slot) else { return };
        if entry.connection.is_doomed(env) {
            entry.is_readable = true;
            self.core.table.retry_write(slot);
            self.calls.begin();
            self.read(slot);
        }
    }

    /// Calls the closure of a timer, or the handler if it has none.
    fn call_timer(&mut self, timer: TimerId) {
        match self.host.timers.take(timer) {
            Some(mut closure) => {
                self.call("a timer", None, |_, ctx| closure(ctx));
                if self.core.timers.contains(timer) {
                    self.host.timers.insert(timer, closure);
                }
            }
            None => self.call("on_timer", None, |handler, ctx| handler.on_timer(ctx, timer)),
        }
    }

    /// Tells the handler of what came to an end, and sends answers that came late, until its handlers cause no more
    /// of either.
    fn settle(&mut self) {
        loop {
            self.settle_ends();
            let Some((fd, answer)) = self.core.answers.pop_front() else { return };
            self.answer_late(fd, answer);
        }
    }

    /// Tells the handler of what came to an end, and of nothing else: an answer may open a connection, which leads
    /// back here, and however many there are, they must not take each a part of the stack.
    fn settle_ends(&mut self) {
        while let Some(ending) = self.core.ends.pop_front() {
            let (fd, closed) = (ending.fd, ending.closed.clone());
            self.core.departing = Some(ending);
            self.call("on_close", Some(fd), |handler, ctx| handler.on_close(ctx, fd, &closed));
            self.core.departing = None;
            // A session's own `drop` is a handler's code, too.
            self.call("the drop of a session", Some(fd), |_, ctx| ctx.core.drop_session(fd));
        }
    }

    /// Tells the handler of the end of the turn, if it asked for that.
    #[inline]
    fn end_turn(&mut self) {
        if std::mem::take(&mut self.core.wants_turn_end) {
            self.call("on_turn_end", None, |handler, ctx| handler.on_turn_end(ctx));
            self.settle();
        }
    }

    fn reap(&mut self) {
        // A socket that broke while it was written to, or took too little, has ended its connection only now.
        self.settle();
        if self.over.is_empty() {
            return;
        }
        for slot in self.over.drain(..) {
            self.core.reap(slot);
        }
        self.door.handle_freed();
    }
}
