//! The payload of close frames (RFC 6455 section 5.5.1).

use crate::protocol::close::CloseCode;
use crate::protocol::error::ProtocolError;

/// Parses the payload of a close frame: code and reason.
///
/// For an empty payload, the result is `NO_STATUS` and `""`.
///
/// # Errors
/// Returns an error if the payload has only one byte, a code that must not be sent, or a reason that is not UTF-8.
pub fn parse_close(payload: &[u8]) -> Result<(CloseCode, &str), ProtocolError> {
    let (code, reason) = match payload {
        [] => return Ok((CloseCode::NO_STATUS, "")),
        [_] => return Err(ProtocolError::CloseCodeCut),
        [high, low, reason @ ..] => (CloseCode::from(u16::from_be_bytes([*high, *low])), reason),
    };
    if !code.is_sendable() {
        return Err(ProtocolError::CloseCodeInvalid);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::CloseReasonNotUtf8)?;
    Ok((code, reason))
}

/// Returns the payload of a close frame. With [`CloseCode::NO_STATUS`], the payload is empty.
pub fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    if code == CloseCode::NO_STATUS {
        return Vec::new();
    }
    [&code.as_u16().to_be_bytes(), reason.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_close_payloads_are_parsed_and_others_are_errors() {
        assert_eq!(parse_close(b""), Ok((CloseCode::NO_STATUS, "")));
        assert_eq!(parse_close(b"\x03"), Err(ProtocolError::CloseCodeCut));
        assert_eq!(parse_close(b"\x03\xe8"), Ok((CloseCode::NORMAL, "")));
        assert_eq!(parse_close(b"\x0f\xa0bye"), Ok((CloseCode::from(4000), "bye")));
        assert_eq!(parse_close(b"\x03\xed"), Err(ProtocolError::CloseCodeInvalid));
        assert_eq!(parse_close(b"\x03\xe8\xff"), Err(ProtocolError::CloseReasonNotUtf8));
    }
}
