//! The target of a client frame or of an API command.

use std::borrow::Cow;

use fdpush::Fd;

/// The receivers of a message, or the connections of a command, without duplicates.
#[derive(PartialEq, Debug)]
pub enum Target<'a> {
    Uids(Vec<Cow<'a, str>>),
    Fds(Vec<Fd>),
    Groups(Vec<Cow<'a, str>>),
    All,
}
