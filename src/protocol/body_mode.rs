//! Options for a request body: collect it, stream it, or refuse it before it is sent.

use std::any::Any;

use super::response::Response;

/// A handler's decision about the body of a plain request.
#[derive(Debug)]
pub enum Intake {
    /// Collect the whole body, then call [`on_request`](crate::Handler::on_request).
    ///
    /// The limit is [`Limits::body_bytes_max`](crate::Limits::body_bytes_max).
    Whole,
    /// Pass the body in pieces to [`on_body`](crate::Handler::on_body), with this state.
    ///
    /// The total length is not limited. The state belongs to the handler. It is dropped at the end of the body or of
    /// the connection.
    Pieces(Box<dyn Any>),
    /// Refuse the body: send this response and close the connection.
    ///
    /// The connection must close, because the body may already be on its way.
    Refuse(Response),
}

/// A part of a request body.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// The next bytes, at least one.
    Bytes(&'a [u8]),
    /// The end of the body.
    End,
}

impl Intake {
    /// Creates an [`Intake::Pieces`] with this state.
    pub fn pieces(state: impl Any) -> Intake {
        Intake::Pieces(Box::new(state))
    }
}

impl From<Response> for Intake {
    fn from(response: Response) -> Intake {
        Intake::Refuse(response)
    }
}
