//! What a WebSocket peer can do wrong: one variant a rule of RFC 6455, and the close code each gets.

use std::fmt;

use crate::protocol::close::CloseCode;

/// A rule of RFC 6455 that the client broke. The connection is failed with [`close_code`](ProtocolError::close_code).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ProtocolError {
    /// RSV1, RSV2 or RSV3 is set and no extension was agreed on (section 5.2).
    ReservedBits,
    /// An opcode of 3-7 or 11-15 (section 5.2).
    ReservedOpcode,
    /// A client's frame must be masked (section 5.1).
    Unmasked,
    /// A length written in more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// A 64-bit length whose top bit is set (section 5.2).
    LengthTooLarge,
    /// A ping, pong or close without FIN (section 5.5).
    ControlFragmented,
    /// A ping, pong or close with more than 125 bytes (section 5.5).
    ControlTooLong,
    /// A continuation with no message to continue (section 5.4).
    ContinuationWithoutStart,
    /// A new text or binary frame before the last message's end (section 5.4).
    MessageUnfinished,
    /// A message, in all its fragments, over `message_bytes_max`.
    MessageTooBig,
    /// Text that is not UTF-8 (section 8.1), told at the first byte that cannot be.
    TextNotUtf8,
    /// A close frame with one byte of payload: half a code (section 5.5.1).
    CloseCodeCut,
    /// A close code that must not be sent (section 7.4).
    CloseCodeInvalid,
    /// A close reason that is not UTF-8 (section 5.5.1).
    CloseReasonNotUtf8,
}

impl ProtocolError {
    /// The code the client is told: 1002, 1007 or 1009 (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            ProtocolError::MessageTooBig => CloseCode::TOO_BIG,
            ProtocolError::TextNotUtf8 | ProtocolError::CloseReasonNotUtf8 => CloseCode::NOT_UTF8,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// The rule in words, short enough for a close frame's reason.
    pub fn as_str(self) -> &'static str {
        match self {
            ProtocolError::ReservedBits => "a reserved bit is set",
            ProtocolError::ReservedOpcode => "reserved opcode",
            ProtocolError::Unmasked => "client frame is not masked",
            ProtocolError::LengthNotMinimal => "payload length is not minimal",
            ProtocolError::LengthTooLarge => "payload length has its top bit set",
            ProtocolError::ControlFragmented => "control frame is fragmented",
            ProtocolError::ControlTooLong => "control frame is over 125 bytes",
            ProtocolError::ContinuationWithoutStart => "continuation without a start",
            ProtocolError::MessageUnfinished => "new message inside a fragmented one",
            ProtocolError::MessageTooBig => "message is too big",
            ProtocolError::TextNotUtf8 => "text is not UTF-8",
            ProtocolError::CloseCodeCut => "close payload of one byte",
            ProtocolError::CloseCodeInvalid => "invalid close code",
            ProtocolError::CloseReasonNotUtf8 => "close reason is not UTF-8",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for ProtocolError {}
