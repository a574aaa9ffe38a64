//! What should be: every connection's life, everybody's name, and every push with those it was meant for.

use std::collections::BTreeMap;

use fdpush::Fd;

use crate::lane::{Ledger, PushId};
use crate::life::Life;
use crate::people::People;

/// The payload of a message begins with the number of its push.
pub const PUSH_ID_BYTES: usize = 16;

/// What should be.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Of every connection that the server or its client still has.
    pub lives: BTreeMap<Fd, Life>,
    pub people: People,
    pub ledger: Ledger,
    pushes: BTreeMap<PushId, Pushed>,
    pushed: PushId,
}

/// A push.
#[derive(Debug)]
struct Pushed {
    /// In order.
    intended: Vec<Fd>,
    payload_bytes: usize,
    is_text: bool,
}

impl Oracle {
    /// The life of a connection that the server has.
    pub fn life(&mut self, fd: Fd) -> &mut Life {
        self.lives.get_mut(&fd).unwrap_or_else(|| panic!("{fd} was never there"))
    }

    /// The same, and the ledger, which most of what happens to a connection is entered in.
    pub fn account(&mut self, fd: Fd) -> (&mut Life, &mut Ledger) {
        let life = self.lives.get_mut(&fd).unwrap_or_else(|| panic!("{fd} was never there"));
        (life, &mut self.ledger)
    }

    /// Who can be pushed to, in order.
    pub fn open(&self) -> impl Iterator<Item = Fd> {
        self.lives.values().filter(|life| life.is_open()).map(|life| life.fd)
    }

    /// Whether a connection can be pushed to.
    pub fn is_open(&self, fd: Fd) -> bool {
        self.lives.get(&fd).is_some_and(Life::is_open)
    }

    /// A new push, to these.
    pub fn post(&mut self, intended: Vec<Fd>, payload_bytes: usize, is_text: bool) -> PushId {
        self.pushed += 1;
        self.pushes.insert(self.pushed, Pushed { intended, payload_bytes, is_text });
        self.pushed
    }

    /// A client has received this message: it must have been meant for it, and be what was pushed.
    pub fn judge_receipt(&self, fd: Fd, payload: &[u8], is_text: bool) -> PushId {
        let id = payload.get(..PUSH_ID_BYTES).and_then(|id| std::str::from_utf8(id).ok());
        let id = id.and_then(|id| PushId::from_str_radix(id, 16).ok());
        let id = id.unwrap_or_else(|| panic!("{fd} received what nobody pushed: {payload:?}"));
        let pushed = self.pushes.get(&id).unwrap_or_else(|| panic!("{fd} received push {id}, which never was"));
        assert!(pushed.intended.binary_search(&fd).is_ok(), "{fd} is a stranger to push {id}");
        assert_eq!(pushed.is_text, is_text, "kind of push {id}");
        assert!(payload == payload_of(id, pushed.payload_bytes), "push {id} came to {fd} damaged");
        id
    }
}

/// What a push says: its number, and then letters that are its own.
pub fn payload_of(id: PushId, bytes: usize) -> Vec<u8> {
    let mut payload = format!("{id:016x}").into_bytes();
    let first = id as u8;
    payload.extend((0..bytes.saturating_sub(PUSH_ID_BYTES)).map(|at| b'a' + (first ^ at as u8) % 26));
    payload
}
