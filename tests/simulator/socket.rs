//! The server's end of a simulated connection as a transport, and the log of the table's changes.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;

use fdpush::sim::{Connection, Event, Io, Observed, Sent, Transport, Written};
use fdpush::{Closed, Fd};

use crate::rng::Rng;
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
    pub fresh: usize,
    pub is_untried: bool,
    pub charge: usize,
}

/// An [`Observed`] change in a form that can be stored.
#[derive(Debug)]
pub enum Change {
    Wrote(Written),
    Sent(Sent),
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
    pub is_ready: bool,
    pub is_readable: bool,
    pub is_hung_up: bool,
    /// The fd of the connection, or `None` before the table has assigned one.
    pub fd: Option<Fd>,
    rng: Rng,
    log: Log,
}

impl Socket {
    pub fn new(wire: Rc<RefCell<Wire>>, rng: Rng, log: Log) -> Socket {
        Socket { wire, is_ready: false, is_readable: false, is_hung_up: false, fd: None, rng, log }
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
    type Shared = ();

    fn read(&mut self, (): &mut (), buffer: &mut [u8]) -> Io {
        self.wire.borrow_mut().read(buffer)
    }

    fn write_vectored(&mut self, (): &mut (), slices: &[IoSlice<'_>]) -> Option<Written> {
        assert!(!slices.is_empty(), "a write must have bytes");
        let offered = slices.iter().map(|slice| slice.len()).sum();
        match self.wire.borrow_mut().write(slices, &mut self.rng) {
            Io::Done(count) => Some(Written::new(count, count < offered)),
            Io::WouldBlock => Some(Written::new(0, true)),
            Io::Closed => None,
        }
    }

    fn shutdown(&mut self, (): &mut ()) {
        self.wire.borrow_mut().shut();
    }

    fn observe(&mut self, connection: &Connection, change: Observed<'_>) {
        let change = match change {
            Observed::Wrote(written) => Change::Wrote(written),
            Observed::Sent(sent) => Change::Sent(sent),
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
