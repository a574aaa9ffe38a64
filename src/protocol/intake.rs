//! What is to become of a request's body: collected, handed on in pieces, or refused before it is sent.

use std::any::Any;

use super::response::Response;

/// What a handler wants with the body of a plain request, once it has seen the head.
#[derive(Debug)]
pub enum Intake {
    /// All of it at once: the request goes to [`on_request`](crate::Handler::on_request) when its body is there, which may
    /// be [`Limits::body_bytes_max`](crate::Limits::body_bytes_max) long.
    Whole,
    /// Piece by piece, however long it is, to [`on_body`](crate::Handler::on_body), together with this state of the
    /// handler's own. The state is dropped when the body has ended, or its connection has.
    Pieces(Box<dyn Any>),
    /// Not at all: the client gets this response, and the connection ends, for its body may be on its way already.
    Refuse(Response),
}

/// A part of a request's body.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// The next bytes, at least one.
    Bytes(&'a [u8]),
    /// There are no more.
    End,
}

impl Intake {
    /// [`Intake::Pieces`] with this state.
    pub fn pieces(state: impl Any) -> Intake {
        Intake::Pieces(Box::new(state))
    }
}

impl From<Response> for Intake {
    fn from(response: Response) -> Intake {
        Intake::Refuse(response)
    }
}
