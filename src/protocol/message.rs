//! WebSocket messages, borrowed from the input or from a handler.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// A WebSocket message (RFC 6455 section 5.6), borrowed.
///
/// `Message` is `Copy`: a handler can push a received message without a copy of its payload.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message<'a> {
    /// UTF-8 text (opcode 1).
    Text(&'a str),
    /// Bytes (opcode 2).
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Returns the text; `None` for a binary message.
    pub fn as_text(self) -> Option<&'a str> {
        match self {
            Message::Text(text) => Some(text),
            Message::Binary(_) => None,
        }
    }

    /// Returns the payload of a text or binary message.
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// Returns the length of the payload in bytes.
    pub fn len(self) -> usize {
        self.as_bytes().len()
    }

    /// Returns whether the payload is empty, which RFC 6455 allows.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Message<'a> {
        Message::Text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Message<'a> {
        Message::Text(text)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    fn from(bytes: &'a [u8; N]) -> Message<'a> {
        Message::Binary(bytes)
    }
}

impl<'a, T: ?Sized> From<&'a Box<T>> for Message<'a>
where
    &'a T: Into<Message<'a>>,
{
    fn from(boxed: &'a Box<T>) -> Message<'a> {
        (&**boxed).into()
    }
}

impl<'a, T: ?Sized> From<&'a Rc<T>> for Message<'a>
where
    &'a T: Into<Message<'a>>,
{
    fn from(shared: &'a Rc<T>) -> Message<'a> {
        (&**shared).into()
    }
}

impl<'a, T: ?Sized> From<&'a Arc<T>> for Message<'a>
where
    &'a T: Into<Message<'a>>,
{
    fn from(shared: &'a Arc<T>) -> Message<'a> {
        (&**shared).into()
    }
}

impl<'a, T: ?Sized + ToOwned> From<&'a Cow<'_, T>> for Message<'a>
where
    &'a T: Into<Message<'a>>,
{
    fn from(cow: &'a Cow<'_, T>) -> Message<'a> {
        (&**cow).into()
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Message<'a> {
        Message::Binary(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    fn from(bytes: &'a Vec<u8>) -> Message<'a> {
        Message::Binary(bytes)
    }
}
