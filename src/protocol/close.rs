//! Close codes (RFC 6455 section 7.4).

use std::fmt;

/// A WebSocket close code (RFC 6455 section 7.4).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The maximum length of a close reason, in bytes.
    ///
    /// See RFC 6455 section 5.5. A control frame has at most 125 bytes of payload, and the code takes two bytes.
    pub const REASON_BYTES_MAX: usize = 123;

    /// 1000: normal closure, because the purpose of the connection is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// 1001: the server shuts down, or the browser left the page.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// 1002: the peer violated RFC 6455.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// 1003: the server does not accept this type of data.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// 1005: the close frame had no code. The server never sends this code.
    pub const NO_STATUS: CloseCode = CloseCode(1005);
    /// 1006: the connection ended without a close frame. The server never sends this code.
    pub const ABNORMAL: CloseCode = CloseCode(1006);
    /// 1007: text that is not UTF-8, or invalid compressed data.
    pub const NOT_UTF8: CloseCode = CloseCode(1007);
    /// 1008: the client violated a policy of the server.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// 1009: a message exceeds the size limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// 1011: an error in the server, for instance a handler that panicked.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// 1013: try again later, for instance because the client reads too slowly.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);
    /// 4001, specific to this server: the same uid logged in again ([`SecondLogin::KickOld`](crate::SecondLogin)).
    pub const KICKED: CloseCode = CloseCode(4001);

    /// Returns the code as a number.
    pub fn as_u16(self) -> u16 {
        self.0
    }

    /// Returns whether a close frame may carry this code.
    ///
    /// The codes that a close frame may carry are 1000-1003, 1007-1014 and 3000-4999 (RFC 6455 section 7.4 and the IANA
    /// registry).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_codes_of_rfc_6455_and_iana_may_be_sent() {
        let sendable = |code: u16| CloseCode(code).is_sendable();
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(sendable(code), "{code}");
        }
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!sendable(code), "{code}");
        }
    }
}
