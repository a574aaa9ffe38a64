//! A request that waits for its response.

use crate::protocol::deferral::Deferral;
use crate::protocol::request::Request;

/// The properties of a request that its response needs.
#[derive(Debug, Default)]
pub struct PendingRequest {
    /// Whether the connection stays open for another request after the response.
    pub keep_alive: bool,
    /// Whether the request is a HEAD request, whose response has no body.
    pub head_only: bool,
    /// For an upgrade, the value of `Sec-WebSocket-Accept`.
    pub accept: Option<[u8; 28]>,
    /// The deferred request, until the handler has answered the request.
    pub deferred: Option<Deferred>,
    /// The number of the [`Ticket`](crate::Ticket) that may answer the request, until a response begins.
    pub ticket: Option<Deferral>,
    /// Whether the client speaks HTTP/1.1, and can read chunks.
    pub knows_chunks: bool,
    /// The encoding of the body of a response in pieces.
    pub reply: ResponseMode,
}

/// The encoding of the body of a response in pieces.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum ResponseMode {
    /// No response in pieces was started.
    #[default]
    None,
    /// The head is queued, and the body is sent in chunks.
    ///
    /// See RFC 9112 section 7.1.
    Chunked,
    /// The head is queued, and the end of the connection marks the end of the body.
    ///
    /// This mode is for HTTP/1.0: see RFC 9112 section 6.3, item 8.
    UntilClose,
    /// The head is queued, and the response has no body.
    ///
    /// Either the request is a HEAD request, or the status of the response allows no body, such as 204.
    HeadOnly,
}

/// A request whose response is deferred.
#[derive(Debug)]
pub enum Deferred {
    /// A request for a WebSocket. The request is stored because its headers are needed when the upgrade is accepted.
    Upgrade(Box<Request<'static>>),
    /// A request for plain HTTP.
    Plain,
}
