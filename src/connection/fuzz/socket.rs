//! A socket of the fuzz target `connection`.
//!
//! The socket accepts a limited number of bytes, and logs the changes that the table makes.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;

use crate::connection::{Closed, Connection, Event, Io, Observed, Sent, Transport, Written};

/// The changes that the table made by itself, in order.
pub(super) type Log = Rc<RefCell<Vec<(usize, Change)>>>;

/// A change of a connection that its reader can observe.
#[derive(Debug)]
pub(super) enum Change {
    /// These bytes were written.
    Wrote(Vec<u8>),
    Sent(Sent),
    Pinged(Sent),
    Conflated(bool),
    Dropped(usize),
    ClosedSlow(Option<Closed>),
    ResponseDropped,
}

#[derive(Debug)]
pub(super) struct Socket {
    /// The number of bytes that the socket still accepts.
    pub room: usize,
    pub is_shut: bool,
    side: usize,
    log: Log,
    /// The bytes of the last write.
    taken: Vec<u8>,
}

impl Socket {
    pub(super) fn new(side: usize, log: &Log) -> Socket {
        Socket { room: usize::MAX, is_shut: false, side, log: Rc::clone(log), taken: Vec::new() }
    }

    fn log(&self, change: Change) {
        self.log.borrow_mut().push((self.side, change));
    }
}

impl Transport for Socket {
    type Shared = ();

    fn read(&mut self, (): &mut (), _: &mut [u8]) -> Io {
        unreachable!("the fuzz target does not read from its socket")
    }

    fn write_vectored(&mut self, (): &mut (), slices: &[IoSlice<'_>]) -> Option<Written> {
        assert!(!self.is_shut, "nothing is written after the shutdown of the write side");
        let mut offered: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        assert!(
            !offered.is_empty() && slices.iter().all(|slice| !slice.is_empty()),
            "a write offers at least one byte, and no empty slice"
        );
        let bytes = offered.len();
        offered.truncate(self.room);
        if self.room != usize::MAX {
            self.room -= offered.len();
        }
        self.taken = offered;
        Some(Written::new(self.taken.len(), self.taken.len() < bytes))
    }

    fn shutdown(&mut self, (): &mut ()) {
        assert!(!self.is_shut, "the write side is shut down once");
        self.is_shut = true;
    }

    fn observe(&mut self, connection: &Connection, change: Observed<'_>) {
        connection.check_invariants();
        let change = match change {
            Observed::Wrote(written) => {
                assert_eq!(written.bytes, self.taken.len(), "the connection counts the bytes that the socket accepted");
                Change::Wrote(std::mem::take(&mut self.taken))
            }
            Observed::Sent(sent) => Change::Sent(sent),
            Observed::Pinged(sent) => Change::Pinged(sent),
            Observed::Conflated { is_done } => Change::Conflated(is_done),
            Observed::MovedToQueue => return,
            Observed::Dropped { messages, charge, bytes_min } => {
                assert!(charge > bytes_min, "a connection within its minimum keeps its messages");
                Change::Dropped(messages)
            }
            Observed::ClosedSlow { charge, kept_max, event } => {
                assert!(
                    charge.is_none_or(|charge| charge > kept_max),
                    "a connection within its minimum keeps its messages"
                );
                Change::ClosedSlow(event.map(|event| match event {
                    Event::Closed(closed) => closed.clone(),
                    event => panic!("expected the end of a slow consumer, got {event:?}"),
                }))
            }
            Observed::ResponseDropped => Change::ResponseDropped,
        };
        self.log(change);
    }
}
