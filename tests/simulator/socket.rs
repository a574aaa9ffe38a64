//! The server's end of a simulated connection, as a plain or a TLS transport. The transport logs the changes that the
//! table makes.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;

use fdpush::sim::{Connection, Event, Io, Observed, Sent, SessionRead, Tick, TlsShared, Transport, Written};
use fdpush::{Closed, Fd};

use crate::rng::Rng;
use crate::session::Session;
use crate::wire::Wire;

/// The changes that a table made, in order. The oracle checks these changes.
pub type Log = Rc<RefCell<Vec<Entry>>>;

/// A change of one connection, and the state of the connection after the change.
#[derive(Debug)]
pub struct Entry {
    pub fd: Fd,
    pub change: Change,
    pub state: OutputState,
}

/// The output state of a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct OutputState {
    pub is_open: bool,
    /// The number of unwritten bytes, including those in the journal.
    pub queued: usize,
    /// The number of unwritten bytes in the journal, the output buffer of the loop.
    pub fresh: usize,
    /// Whether the output has frames that the server has not tried to write yet.
    pub is_untried: bool,
    pub charge: usize,
}

/// An [`Observed`] change in a form that can be stored.
#[derive(Debug)]
pub enum Change {
    Wrote(Written),
    Sent(Sent),
    FannedOut { is_queued: bool },
    Pinged(Sent),
    Conflated { is_done: bool },
    MovedToQueue,
    Dropped { messages: usize, charge: usize, bytes_min: usize },
    ClosedSlow { kept_max: usize, charge: Option<usize>, closed: Option<Closed> },
    ResponseDropped,
}

/// A socket of the server.
#[derive(Debug)]
pub struct Socket {
    pub wire: Rc<RefCell<Wire>>,
    /// The TLS session. `None`: a plain connection.
    pub session: Option<Box<Session>>,
    /// Whether the connection is in a list of connections to read.
    pub is_ready: bool,
    pub is_readable: bool,
    pub is_hung_up: bool,
    /// The fd of the connection, or `None` before the table has assigned one.
    pub fd: Option<Fd>,
    is_reset: bool,
    rng: Rng,
    log: Log,
}

impl Socket {
    /// Creates a socket, with a TLS session or without.
    pub fn new(wire: Rc<RefCell<Wire>>, session: Option<Box<Session>>, rng: Rng, log: Log) -> Socket {
        let (is_ready, is_readable, is_hung_up, is_reset) = Default::default();
        Socket { wire, session, is_ready, is_readable, is_hung_up, fd: None, is_reset, rng, log }
    }

    /// Returns whether each further write fails.
    pub fn is_broken(&self) -> bool {
        self.wire.borrow().is_client_reset() || self.session.as_ref().is_some_and(|session| session.has_failed())
    }

    /// Returns whether a client hello may be the next input.
    pub fn awaits_hello(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.awaits_hello())
    }
}

impl OutputState {
    pub fn of(connection: &Connection) -> OutputState {
        OutputState {
            is_open: connection.is_open(),
            queued: connection.queued_bytes(),
            fresh: connection.journal_bytes(),
            is_untried: connection.is_untried(),
            charge: connection.charge(),
        }
    }
}

impl Transport for Socket {
    type Shared = TlsShared;

    /// Reads once. As in the server, `is_readable` then tells whether another read may return more bytes without a new
    /// event.
    fn read(&mut self, shared: &mut TlsShared, buffer: &mut [u8]) -> Io {
        let Socket { wire, session, rng, .. } = self;
        let (read, may_have_more) = match session {
            None => {
                let read = wire.borrow_mut().read(buffer);
                (read, read == Io::Done(buffer.len()) || (self.is_hung_up && matches!(read, Io::Done(1..))))
            }
            Some(session) => {
                let read = session.read(wire, rng, shared, buffer);
                let has_input = shared.last.read.has_received || matches!(read, Io::Done(1..));
                (read, session.may_have_more() || (self.is_hung_up && has_input))
            }
        };
        self.is_readable = may_have_more && !matches!(read, Io::Done(0) | Io::Closed);
        read
    }

    fn write_vectored(&mut self, shared: &mut TlsShared, slices: &[IoSlice<'_>]) -> Option<Written> {
        let Socket { wire, session, rng, .. } = self;
        if let Some(session) = session {
            return session.write(wire, rng, shared, slices);
        }
        assert!(!slices.is_empty(), "a write must have bytes");
        let offered = slices.iter().map(|slice| slice.len()).sum();
        match wire.borrow_mut().write(slices, rng) {
            Io::Done(count) => Some(Written::new(count, count < offered)),
            Io::WouldBlock => Some(Written::new(0, true)),
            Io::Closed => None,
        }
    }

    fn shutdown(&mut self, shared: &mut TlsShared) {
        let Socket { wire, session, rng, .. } = self;
        match session {
            Some(session) => session.shutdown(wire, rng, shared),
            None => wire.borrow_mut().shut(),
        }
    }

    fn session_read(&self, shared: &TlsShared) -> Option<SessionRead> {
        self.session.as_ref().map(|_| shared.last.read)
    }

    fn inbound_bytes(&self, _: &TlsShared) -> usize {
        self.session.as_ref().map_or(0, |session| session.inbound_bytes())
    }

    fn unfinished_since(&self, _: &TlsShared) -> Option<Tick> {
        self.session.as_ref()?.unfinished_since()
    }

    fn set_reading(&mut self, _: &mut TlsShared, now: Option<Tick>) {
        if let Some(session) = &mut self.session {
            session.set_reading(now);
        }
    }

    fn finish(&mut self, shared: &mut TlsShared) {
        let Socket { wire, session, rng, .. } = self;
        if let Some(session) = session {
            session.finish(wire, rng, shared);
        }
    }

    fn reset(&mut self, _: &mut TlsShared) {
        self.is_reset = true;
    }

    fn remove(&mut self, shared: &mut TlsShared) {
        if let Some(session) = &self.session {
            session.remove(&self.wire, shared, self.is_reset);
        }
    }

    fn observe(&mut self, connection: &Connection, change: Observed<'_>) {
        let change = match change {
            Observed::Wrote(written) => Change::Wrote(written),
            Observed::Sent(sent) => Change::Sent(sent),
            Observed::FannedOut { is_queued } => Change::FannedOut { is_queued },
            Observed::Pinged(sent) => Change::Pinged(sent),
            Observed::Conflated { is_done } => Change::Conflated { is_done },
            Observed::MovedToQueue => Change::MovedToQueue,
            Observed::Dropped { messages, charge, bytes_min } => Change::Dropped { messages, charge, bytes_min },
            Observed::ClosedSlow { kept_max, charge, event } => {
                let closed = event.map(|event| match event {
                    Event::Closed(closed) => closed.clone(),
                    event => panic!("expected the end of a slow consumer, got {event:?}"),
                });
                Change::ClosedSlow { kept_max, charge, closed }
            }
            Observed::ResponseDropped => Change::ResponseDropped,
        };
        let fd = self.fd.expect("the connection is in the table");
        self.log.borrow_mut().push(Entry { fd, change, state: OutputState::of(connection) });
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.wire.borrow_mut().drop_server();
    }
}
