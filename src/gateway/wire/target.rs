//! The target of a client frame or of an API command.

use std::borrow::Cow;

use fdpush::Fd;

use super::names::owned;

/// The receivers of a message, or the connections of a command, without duplicates.
#[derive(PartialEq, Debug)]
pub enum Target<'a> {
    Uids(Vec<Cow<'a, str>>),
    Fds(Vec<Fd>),
    Groups(Vec<Cow<'a, str>>),
    All,
}

impl Target<'_> {
    /// Returns a copy of the target. The copy owns the text of its uids or groups.
    pub fn to_owned(&self) -> Target<'static> {
        match self {
            Target::Uids(uids) => Target::Uids(owned(uids)),
            Target::Fds(fds) => Target::Fds(fds.clone()),
            Target::Groups(groups) => Target::Groups(owned(groups)),
            Target::All => Target::All,
        }
    }
}
