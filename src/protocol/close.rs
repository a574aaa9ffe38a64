//! Close codes and the payload of close frames, RFC 6455 sections 5.5.1 and 7.4.

use std::fmt;

use crate::protocol::error::ProtocolError;

/// The longest close reason, in bytes: a control frame's 125 less the code's two.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// A WebSocket close code (RFC 6455 section 7.4).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// 1001: the server is going down, or the browser left the page.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// 1002: the client broke RFC 6455.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// 1003: a kind of data that the server does not take.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// 1005: the close frame had no code. Never sent.
    pub const NO_STATUS: CloseCode = CloseCode(1005);
    /// 1006: the connection ended without a close frame. Never sent.
    pub const ABNORMAL: CloseCode = CloseCode(1006);
    /// 1007: text that is not UTF-8.
    pub const NOT_UTF8: CloseCode = CloseCode(1007);
    /// 1008: against the server's policy.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// 1009: a message over the limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// 1011: the server's own fault; a handler that panicked.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// 1013: try again later; the client reads too slowly.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);
    /// 4001, of this server's own: the same uid connected anew ([`SecondLogin::KickOld`](crate::SecondLogin)).
    pub const KICKED: CloseCode = CloseCode(4001);

    /// The code as a number.
    pub fn as_u16(self) -> u16 {
        self.0
    }

    /// Whether a close frame may carry it: 1000-1003, 1007-1014, 3000-4999 (RFC 6455 section 7.4 and the IANA registry).
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> CloseCode {
        CloseCode(code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

/// What a close frame said: its code and reason. Without payload it is `NO_STATUS` and `""`.
pub fn parse_close(payload: &[u8]) -> Result<(CloseCode, &str), ProtocolError> {
    let (code, reason) = match payload {
        [] => return Ok((CloseCode::NO_STATUS, "")),
        [_] => return Err(ProtocolError::CloseCodeCut),
        [high, low, reason @ ..] => (CloseCode(u16::from_be_bytes([*high, *low])), reason),
    };
    if !code.is_sendable() {
        return Err(ProtocolError::CloseCodeInvalid);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::CloseReasonNotUtf8)?;
    Ok((code, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        let sendable = |code: u16| CloseCode(code).is_sendable();
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(sendable(code), "{code}");
        }
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!sendable(code), "{code}");
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(parse_close(b""), Ok((CloseCode::NO_STATUS, "")));
        assert_eq!(parse_close(b"\x03"), Err(ProtocolError::CloseCodeCut));
        assert_eq!(parse_close(b"\x03\xe8"), Ok((CloseCode::NORMAL, "")));
        assert_eq!(parse_close(b"\x0f\xa0bye"), Ok((CloseCode(4000), "bye")));
        assert_eq!(parse_close(b"\x03\xed"), Err(ProtocolError::CloseCodeInvalid));
        assert_eq!(parse_close(b"\x03\xe8\xff"), Err(ProtocolError::CloseReasonNotUtf8));
    }
}
