//! Violations of RFC 6455 and RFC 7692 by a client.
//!
//! Each variant is one rule, and has a close code.

use std::fmt;

use crate::protocol::close::CloseCode;

/// A violation of RFC 6455 or RFC 7692 by the client.
///
/// In the docs of the variants, a section without an RFC number is a section of RFC 6455.
///
/// After such a violation, the server sends a close frame with the code [`close_code`](ProtocolError::close_code), and
/// ends the connection.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit (RSV1 to RSV3) is set (section 5.2).
    ///
    /// If permessage-deflate was negotiated, RSV1 may be set in the first frame of a message (RFC 7692 section 6).
    ReservedBits,
    /// The opcode is reserved: 3-7 or 11-15 (section 5.2).
    ReservedOpcode,
    /// A client frame is not masked (section 5.1).
    Unmasked,
    /// The payload length is not in its shortest form (section 5.2).
    LengthNotMinimal,
    /// The top bit of a 64-bit payload length is set (section 5.2).
    LengthTooLarge,
    /// A control frame has no FIN bit (section 5.5).
    ControlFragmented,
    /// A control frame has over 125 bytes of payload (section 5.5).
    ControlTooLong,
    /// A continuation frame comes without an unfinished message (section 5.4).
    ContinuationWithoutStart,
    /// A text or binary frame comes inside an unfinished message (section 5.4).
    MessageUnfinished,
    /// A message, including all its fragments, exceeds `message_bytes_max`.
    MessageTooBig,
    /// The payload of a text message is not UTF-8 (section 8.1).
    ///
    /// If a text message arrives in parts, the error is reported at its first invalid byte.
    TextNotUtf8,
    /// The payload of a compressed message is not a complete DEFLATE stream (RFC 7692 section 7.2.2).
    InvalidDeflate,
    /// The payload of a close frame is one byte (section 5.5.1).
    ///
    /// A close code has two bytes.
    CloseCodeCut,
    /// A close frame has a code that must not be sent (section 7.4).
    CloseCodeInvalid,
    /// The close reason is not UTF-8 (section 5.5.1).
    CloseReasonNotUtf8,
}

impl ProtocolError {
    /// Returns the close code to send: 1002, 1007 or 1009.
    ///
    /// See RFC 6455 section 7.4.1.
    pub fn close_code(self) -> CloseCode {
        match self {
            ProtocolError::MessageTooBig => CloseCode::TOO_BIG,
            ProtocolError::TextNotUtf8 | ProtocolError::CloseReasonNotUtf8 | ProtocolError::InvalidDeflate => {
                CloseCode::NOT_UTF8
            }
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// Returns a description of the violation that is short enough for the reason of a close frame.
    pub fn as_str(self) -> &'static str {
        match self {
            ProtocolError::ReservedBits => "reserved bit is set",
            ProtocolError::ReservedOpcode => "reserved opcode",
            ProtocolError::Unmasked => "client frame is not masked",
            ProtocolError::LengthNotMinimal => "payload length is not in its shortest form",
            ProtocolError::LengthTooLarge => "payload length exceeds 2^63 - 1",
            ProtocolError::ControlFragmented => "control frame is fragmented",
            ProtocolError::ControlTooLong => "control frame is over 125 bytes",
            ProtocolError::ContinuationWithoutStart => "continuation frame without a message",
            ProtocolError::MessageUnfinished => "new message inside a fragmented message",
            ProtocolError::MessageTooBig => "message exceeds message_bytes_max",
            ProtocolError::TextNotUtf8 => "text is not UTF-8",
            ProtocolError::InvalidDeflate => "invalid compressed data",
            ProtocolError::CloseCodeCut => "close frame payload is one byte",
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
