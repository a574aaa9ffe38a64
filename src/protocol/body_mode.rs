//! The processing of a request body: collected, streamed, or refused.

use std::any::Any;

use super::response::Response;

/// A handler's decision about the body of a plain request.
///
/// [`Handler::on_head`](crate::Handler::on_head) returns this decision before the body is received.
#[derive(Debug)]
pub enum BodyMode {
    /// Collects the whole body, then calls [`on_request`](crate::Handler::on_request).
    ///
    /// A body over [`Limits::body_bytes_max`](crate::Limits::body_bytes_max) is refused with status 413.
    Collect,
    /// Passes the body to [`on_body`](crate::Handler::on_body) as it arrives, with this state.
    ///
    /// The total length is not limited. The server stores the state for the handler, does not read it, and drops it at
    /// the end of the body or of the connection. `on_request` is not called: the handler answers with a
    /// [`Ticket`](crate::Ticket) from [`Context::ticket`](crate::Context::ticket).
    Stream(Box<dyn Any>),
    /// Refuses the request: sends this response, and closes the connection.
    ///
    /// The connection is closed because the client may already be sending the body.
    Refuse(Response),
}

/// An event of a streamed request body.
///
/// A body of `n` bytes causes any number of [`Data`](BodyEvent::Data) events with `n` bytes in total, and then one
/// [`End`](BodyEvent::End). The events do not contain the framing of chunked bodies (RFC 9112 section 7.1).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BodyEvent<'a> {
    /// The next bytes of the body, at least one byte.
    Data(&'a [u8]),
    /// The end of the body.
    End,
}

impl BodyMode {
    /// Creates a [`BodyMode::Stream`] with this state.
    pub fn stream(state: impl Any) -> BodyMode {
        BodyMode::Stream(Box::new(state))
    }
}

impl From<Response> for BodyMode {
    fn from(response: Response) -> BodyMode {
        BodyMode::Refuse(response)
    }
}
