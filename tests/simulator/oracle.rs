//! The oracle: the models of all connections, uids and groups, and the receivers of all pushes.

use std::collections::BTreeMap;

use fdpush::Fd;

use crate::connection_model::ConnectionModel;
use crate::name_model::NameModel;
use crate::segment_model::{Ledger, PushId};

/// The length of the push number at the start of each payload.
pub const PUSH_ID_BYTES: usize = 16;

/// The expected state of the server.
#[derive(Debug, Default)]
pub struct Oracle {
    /// The models of all connections, except those that both the server and the client have freed.
    pub models: BTreeMap<Fd, ConnectionModel>,
    pub names: NameModel,
    pub ledger: Ledger,
    pushes: BTreeMap<PushId, Pushed>,
    pushed: PushId,
}

/// A push.
#[derive(Debug)]
struct Pushed {
    /// The receivers of the push, sorted.
    intended: Vec<Fd>,
    payload_bytes: usize,
    is_text: bool,
}

impl Oracle {
    /// Returns the model of a connection.
    pub fn model(&mut self, fd: Fd) -> &mut ConnectionModel {
        self.models.get_mut(&fd).unwrap_or_else(|| panic!("{fd} has no model"))
    }

    /// Returns the model of a connection, and the ledger.
    pub fn account(&mut self, fd: Fd) -> (&mut ConnectionModel, &mut Ledger) {
        let model = self.models.get_mut(&fd).unwrap_or_else(|| panic!("{fd} has no model"));
        (model, &mut self.ledger)
    }

    /// Returns the open connections, sorted.
    pub fn open(&self) -> impl Iterator<Item = Fd> {
        self.models.values().filter(|model| model.is_open()).map(|model| model.fd)
    }

    /// Returns whether a connection is open.
    pub fn is_open(&self, fd: Fd) -> bool {
        self.models.get(&fd).is_some_and(ConnectionModel::is_open)
    }

    /// Stores a push whose receivers are the `intended` connections. Returns the number of the push.
    pub fn post(&mut self, intended: Vec<Fd>, payload_bytes: usize, is_text: bool) -> PushId {
        self.pushed += 1;
        self.pushes.insert(self.pushed, Pushed { intended, payload_bytes, is_text });
        self.pushed
    }

    /// Checks that the message is a push to this client, and that its payload is unchanged.
    pub fn check_receipt(&self, fd: Fd, payload: &[u8], is_text: bool) -> PushId {
        let id = payload.get(..PUSH_ID_BYTES).and_then(|id| std::str::from_utf8(id).ok());
        let id = id.and_then(|id| PushId::from_str_radix(id, 16).ok());
        let id = id.unwrap_or_else(|| panic!("{fd} received a message that was not pushed: {payload:?}"));
        let pushed = self.pushes.get(&id).unwrap_or_else(|| panic!("{fd} received push {id}, which does not exist"));
        assert!(pushed.intended.binary_search(&fd).is_ok(), "push {id} must not reach {fd}, which is not a receiver");
        assert_eq!(pushed.is_text, is_text, "push {id} must arrive as it was sent, as text or as binary");
        assert!(
            payload == payload_of(id, pushed.payload_bytes),
            "the payload of push {id} must arrive unchanged at {fd}"
        );
        id
    }
}

/// Returns the payload of a push: its number, and then letters that depend on the number.
pub fn payload_of(id: PushId, bytes: usize) -> Vec<u8> {
    let mut payload = format!("{id:016x}").into_bytes();
    let first = id as u8;
    payload.extend((0..bytes.saturating_sub(PUSH_ID_BYTES)).map(|at| b'a' + (first ^ at as u8) % 26));
    payload
}
