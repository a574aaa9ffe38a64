//! What should be: the model of every connection, the uids and groups, and every push with those it was meant for.

use std::collections::BTreeMap;

use fdpush::Fd;

use crate::connection_model::ConnectionModel;
use crate::name_model::NameModel;
use crate::output_model::{Ledger, PushId};

/// The payload of a message begins with the number of its push.
pub const PUSH_ID_BYTES: usize = 16;

/// What should be.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Of every connection that the server or its client still has.
    pub models: BTreeMap<Fd, ConnectionModel>,
    pub names: NameModel,
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
    /// The model of a connection that the server has.
    pub fn model(&mut self, fd: Fd) -> &mut ConnectionModel {
        self.models.get_mut(&fd).unwrap_or_else(|| panic!("{fd} was never there"))
    }

    /// The same, and the ledger, which most of what happens to a connection is entered in.
    pub fn account(&mut self, fd: Fd) -> (&mut ConnectionModel, &mut Ledger) {
        let model = self.models.get_mut(&fd).unwrap_or_else(|| panic!("{fd} was never there"));
        (model, &mut self.ledger)
    }

    /// Who can be pushed to, in order.
    pub fn open(&self) -> impl Iterator<Item = Fd> {
        self.models.values().filter(|model| model.is_open()).map(|model| model.fd)
    }

    /// Whether a connection can be pushed to.
    pub fn is_open(&self, fd: Fd) -> bool {
        self.models.get(&fd).is_some_and(ConnectionModel::is_open)
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
