//! What the registry is asked under, and what it answers: second-login policies, the outcome of a
//! change, and what a slot leaves behind.

use std::fmt;

use compact_str::CompactString;

use super::NAME_BYTES_MAX;

/// What a uid's second connection gets.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum SecondLogin {
    /// It joins the first: a uid has as many connections as it likes (tabs, devices).
    #[default]
    Multi,
    /// It takes over: the earlier ones are closed with code 4001.
    KickOld,
    /// It is refused, on the upgrade with 409, while the first lives.
    RejectNew,
}

/// What came of binding, unbinding, joining or leaving.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// It is so now, and was not before.
    Done,
    /// It was so already: bound to that very uid, a member, not a member, without a uid.
    Already,
    /// Another connection holds the uid, and [`SecondLogin::RejectNew`] lets it keep it.
    Taken,
    /// The uid or group name is empty, or longer than [`NAME_BYTES_MAX`].
    BadName,
    /// The connection is in `connection_groups_max` groups, or all are in `memberships_max`.
    Full,
    /// The connection does not exist, or not any more.
    Gone,
}

/// What [`Registry::remove`](super::Registry::remove) took from a slot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Departed {
    /// The uid it was bound to.
    pub uid: Option<CompactString>,
    /// The groups it was in, the last joined first.
    pub groups: Vec<CompactString>,
}

impl Change {
    /// Whether anything changed.
    pub fn is_done(self) -> bool {
        self == Change::Done
    }

    /// Whether what was asked for is so now, changed or not.
    pub fn is_ok(self) -> bool {
        matches!(self, Change::Done | Change::Already)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Done => f.write_str("done"),
            Change::Already => f.write_str("nothing to change"),
            Change::Taken => f.write_str("the uid is taken by another connection"),
            Change::BadName => write!(f, "a uid or group name has 1 to {NAME_BYTES_MAX} bytes"),
            Change::Full => f.write_str("group limit reached"),
            Change::Gone => f.write_str("the connection is gone"),
        }
    }
}
