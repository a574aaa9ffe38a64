//! Policies and results of the registry.

use std::fmt;

use compact_str::CompactString;

use super::names::NAME_BYTES_MAX;

/// The policy for a second connection with the same uid.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum SecondLogin {
    /// Both connections stay open. A uid may have any number of connections.
    #[default]
    Multi,
    /// The earlier connections are closed with code 4001.
    KickOld,
    /// The second connection is refused.
    ///
    /// While the first connection is open, an upgrade gets status 409, and the result of a bind is [`Change::Taken`].
    RejectNew,
}

/// The result of a change to a connection, such as a bind or a join, or of an answer to its request.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Change {
    /// The change was made.
    Done,
    /// The connection has the requested state already.
    ///
    /// For a bind, the connection is bound to this uid. For an unbind, the connection has no uid. For a join, the
    /// connection is a member. For a leave, the connection is not a member.
    Already,
    /// Another connection has the uid, and the policy is [`SecondLogin::RejectNew`].
    Taken,
    /// The uid or group name is empty or over [`NAME_BYTES_MAX`] bytes.
    BadName,
    /// A limit is reached: `connection_groups_max`, `memberships_max`, `uid_connections_max`,
    /// `control_connections_max`, `forward_bytes_max` or `inbox_max`.
    Full,
    /// The fd belongs to another [loop](crate::Server::loops), and the change was sent to that loop.
    ///
    /// The result on that loop is not known yet. The methods of [`Remote`](crate::Remote) return the result of that
    /// loop.
    Forwarded,
    /// No connection to which the change applies has this fd, or no request of the connection waits for an answer.
    Gone,
}

/// The uid and groups of a slot before its removal.
///
/// [`Registry::remove`](super::Registry::remove) returns this value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FormerNames {
    /// The uid, if the slot was bound to a uid.
    pub uid: Option<CompactString>,
    /// The groups of the slot. The group that the slot joined last comes first.
    pub groups: Vec<CompactString>,
}

impl Change {
    /// Returns `Done` if `is_done` is true, else `Gone`: there was no connection to change.
    pub(crate) fn done_or_gone(is_done: bool) -> Change {
        if is_done { Change::Done } else { Change::Gone }
    }

    /// Returns whether the change was made.
    pub fn is_done(self) -> bool {
        self == Change::Done
    }

    /// Returns whether the requested state is reached.
    ///
    /// The result is `true` for `Done` and `Already`.
    pub fn is_ok(self) -> bool {
        matches!(self, Change::Done | Change::Already)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Done => f.write_str("done"),
            Change::Already => f.write_str("nothing to change"),
            Change::Taken => f.write_str("another connection has the uid"),
            Change::BadName => write!(f, "uid or group name must have 1 to {NAME_BYTES_MAX} bytes"),
            Change::Full => f.write_str("limit reached"),
            Change::Forwarded => f.write_str("sent to the loop of the connection"),
            Change::Gone => f.write_str("connection is not open"),
        }
    }
}
