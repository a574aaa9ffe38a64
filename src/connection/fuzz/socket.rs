//! A socket of the fuzz target `connection`.
//!
//! The socket accepts a limited number of bytes, and logs the changes that the table makes.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;

use crate::connection::fuzz::secure::Secure;
use crate::connection::{Closed, Connection, Event, Io, Observed, Sent, SessionRead, TlsShared, Transport, Written};
use crate::tick::Tick;

/// The changes that the table made to the two connections, in order, each with the index of its connection.
pub(super) type Log = Rc<RefCell<Vec<(usize, Change)>>>;

/// A change of a connection that the model of its client must know.
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
    /// The TLS session of the connection, if it has one.
    pub session: Option<Box<Secure>>,
    /// The number of bytes that the socket still accepts.
    room: usize,
    is_shut: bool,
    side: usize,
    log: Log,
    /// The bytes that the socket accepted in the last write.
    taken: Vec<u8>,
}

impl Socket {
    pub(super) fn new(side: usize, log: &Log, session: Option<Box<Secure>>) -> Socket {
        Socket { session, room: usize::MAX, is_shut: false, side, log: Rc::clone(log), taken: Vec::new() }
    }

    /// Sets the number of bytes that the socket still accepts.
    pub(super) fn set_room(&mut self, room: usize) {
        match &mut self.session {
            Some(session) => session.pipe.room = room,
            None => self.room = room,
        }
    }

    /// Checks that the client has received all bytes that the session accepted.
    pub(super) fn check_sent(&self) {
        if let Some(session) = &self.session {
            session.check_sent();
        }
    }

    fn log(&self, change: Change) {
        self.log.borrow_mut().push((self.side, change));
    }
}

impl Transport for Socket {
    type Shared = TlsShared;

    fn read(&mut self, shared: &mut TlsShared, buffer: &mut [u8]) -> Io {
        self.session.as_mut().expect("the socket has a TLS session").read(shared, buffer)
    }

    fn write_vectored(&mut self, shared: &mut TlsShared, slices: &[IoSlice<'_>]) -> Option<Written> {
        assert!(!self.is_shut, "nothing may be written after the shutdown of the write side");
        let mut offered: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        if let Some(session) = &mut self.session {
            let written = session.write(shared, slices)?;
            offered.truncate(written.bytes);
            self.taken = offered;
            return Some(written);
        }
        assert!(
            !offered.is_empty() && slices.iter().all(|slice| !slice.is_empty()),
            "a write must offer at least one byte, and no empty slice"
        );
        let bytes = offered.len();
        offered.truncate(self.room);
        if self.room != usize::MAX {
            self.room -= offered.len();
        }
        self.taken = offered;
        Some(Written::new(self.taken.len(), self.taken.len() < bytes))
    }

    fn shutdown(&mut self, shared: &mut TlsShared) {
        assert!(!self.is_shut, "the write side must be shut down only once");
        self.is_shut = true;
        if let Some(session) = &mut self.session {
            session.shutdown(shared);
        }
    }

    fn session_read(&self, shared: &TlsShared) -> Option<SessionRead> {
        self.session.as_ref().map(|_| shared.last.read)
    }

    fn inbound_bytes(&self, _: &TlsShared) -> usize {
        self.session.as_ref().map_or(0, |session| session.stream.inbound_bytes())
    }

    fn unfinished_since(&self, _: &TlsShared) -> Option<Tick> {
        self.session.as_ref()?.stream.unfinished_since()
    }

    fn set_reading(&mut self, _: &mut TlsShared, now: Option<Tick>) {
        if let Some(session) = &mut self.session {
            session.stream.set_reading(now);
        }
    }

    fn finish(&mut self, shared: &mut TlsShared) {
        if let Some(session) = &mut self.session {
            session.finish(shared);
        }
    }

    fn observe(&mut self, connection: &Connection, change: Observed<'_>) {
        connection.check_invariants();
        let change = match change {
            Observed::Wrote(written) => {
                assert_eq!(
                    written.bytes,
                    self.taken.len(),
                    "the connection must count the bytes that the socket accepted"
                );
                Change::Wrote(std::mem::take(&mut self.taken))
            }
            Observed::Sent(sent) => Change::Sent(sent),
            Observed::Pinged(sent) => Change::Pinged(sent),
            Observed::Conflated { is_done } => Change::Conflated(is_done),
            Observed::MovedToQueue | Observed::FannedOut { .. } => return,
            Observed::Dropped { messages, charge, bytes_min } => {
                assert!(
                    charge > bytes_min,
                    "a connection with at most {bytes_min} counted bytes must keep its messages"
                );
                Change::Dropped(messages)
            }
            Observed::ClosedSlow { charge, kept_max, event } => {
                assert!(
                    charge.is_none_or(|charge| charge > kept_max),
                    "a connection with at most {kept_max} counted bytes must not be closed to free memory"
                );
                Change::ClosedSlow(event.map(|event| match event {
                    Event::Closed(closed) => closed.clone(),
                    event => panic!("a closed slow consumer must return Event::Closed, not {event:?}"),
                }))
            }
            Observed::ResponseDropped => Change::ResponseDropped,
        };
        self.log(change);
    }
}
