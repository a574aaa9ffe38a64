//! Negotiation of permessage-deflate (RFC 7692 section 7.1, RFC 6455 section 9.1).
//!
//! The server keeps no compression context between messages. A message that fits into the inflation window of a client
//! is sent deflated. A longer message is sent without deflation, because the deflated message could refer to bytes
//! outside this window. So the server can accept every legal offer, and the same deflated frame is valid for all
//! clients. An illegal offer is declined. If no offer of a client is accepted, no message from or to this client is
//! deflated.
//!
//! If a header does not follow the grammar of RFC 6455 section 9.1, all offers of the client are declined. That section
//! requires that the server fails such a connection. This server only declines the offers, so that the setting
//! `compression` does not decide whether a client can connect: without compression, the server does not read the header.

use crate::protocol::token::is_token_byte;

/// The name of the extension.
const PERMESSAGE_DEFLATE: &[u8] = b"permessage-deflate";

/// The base-2 logarithm of the size of the largest window, which is 2^15 bytes (RFC 7692 section 7.1.2).
pub const WINDOW_BITS_MAX: u8 = 15;

/// An accepted offer of permessage-deflate.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PermessageDeflate {
    /// The value of `server_max_window_bits` in the offer. The response repeats this value.
    server_window_bits: Option<u8>,
}

impl PermessageDeflate {
    /// Returns the value of `Sec-WebSocket-Extensions` in the response, in two parts.
    ///
    /// The response contains `client_no_context_takeover`, which RFC 7692 section 7.1.1.2 allows in the response to
    /// every offer.
    pub fn response(self) -> [&'static str; 2] {
        let window = match self.server_window_bits {
            None => "",
            Some(8) => "; server_max_window_bits=8",
            Some(9) => "; server_max_window_bits=9",
            Some(10) => "; server_max_window_bits=10",
            Some(11) => "; server_max_window_bits=11",
            Some(12) => "; server_max_window_bits=12",
            Some(13) => "; server_max_window_bits=13",
            Some(14) => "; server_max_window_bits=14",
            Some(_) => "; server_max_window_bits=15",
        };
        ["permessage-deflate; server_no_context_takeover; client_no_context_takeover", window]
    }

    /// Returns the base-2 logarithm of the size of the client's inflation window.
    pub fn server_window_bits(self) -> u8 {
        self.server_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }
}

/// Selects the first offer that the server can accept, in the client's order of preference.
///
/// `values` are the values of all `Sec-WebSocket-Extensions` lines. Returns `None` if the server can accept none of the
/// offers.
pub fn negotiate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<PermessageDeflate> {
    let mut accepted = None;
    for value in values {
        let mut cursor = Cursor { rest: value };
        while cursor.skip_to_element() {
            let offer = cursor.read_offer()?;
            accepted = accepted.or(offer);
        }
    }
    accepted
}

/// A parser of one header value, with the bytes that are not parsed yet.
struct Cursor<'a> {
    rest: &'a [u8],
}

/// The parameters of one offer of permessage-deflate.
#[derive(Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    has_client_max_window_bits: bool,
    /// Whether a parameter of the offer is unknown, is repeated or has an illegal value.
    is_invalid: bool,
}

impl Offer {
    fn add(&mut self, name: &[u8], value: Option<&[u8]>) {
        let is_new = match (name, value) {
            (b"server_no_context_takeover", None) => !std::mem::replace(&mut self.server_no_context_takeover, true),
            (b"client_no_context_takeover", None) => !std::mem::replace(&mut self.client_no_context_takeover, true),
            (b"server_max_window_bits", Some(value)) => match window_bits(value) {
                Some(bits) => self.server_max_window_bits.replace(bits).is_none(),
                None => false,
            },
            (b"client_max_window_bits", value) if value.is_none_or(|value| window_bits(value).is_some()) => {
                !std::mem::replace(&mut self.has_client_max_window_bits, true)
            }
            _ => false,
        };
        self.is_invalid |= !is_new;
    }

    fn accept(&self) -> Option<PermessageDeflate> {
        (!self.is_invalid).then_some(PermessageDeflate { server_window_bits: self.server_max_window_bits })
    }
}

/// Parses a number of window bits: 8 to 15, without leading zeros.
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

impl<'a> Cursor<'a> {
    /// Skips white space and empty list elements. Returns `false` if the value has no further list element.
    fn skip_to_element(&mut self) -> bool {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
        !self.rest.is_empty()
    }

    /// Reads one extension with its parameters, up to the next comma.
    ///
    /// Returns `None` if the header value is malformed, and `Some(None)` if the extension is not permessage-deflate or
    /// the offer is declined.
    fn read_offer(&mut self) -> Option<Option<PermessageDeflate>> {
        let name = self.read_token()?;
        let mut offer = Offer::default();
        while self.skip(b';') {
            let parameter = self.read_token()?;
            if !self.skip(b'=') {
                offer.add(parameter, None);
                continue;
            }
            let mut unquoted = [0; QUOTED_BYTES_MAX];
            let value =
                if self.rest.first() == Some(&b'"') { self.read_quoted(&mut unquoted)? } else { self.read_token()? };
            offer.add(parameter, Some(value));
        }
        if !self.rest.is_empty() && !self.skip(b',') {
            return None;
        }
        Some(offer.accept().filter(|_| name == PERMESSAGE_DEFLATE))
    }

    /// Reads a token, and skips the white space around it. Returns `None` if there is no token.
    fn read_token(&mut self) -> Option<&'a [u8]> {
        self.skip_space();
        let len = self.rest.iter().take_while(|byte| is_token_byte(**byte)).count();
        let (token, rest) = self.rest.split_at_checked(len).filter(|(token, _)| !token.is_empty())?;
        self.rest = rest;
        self.skip_space();
        Some(token)
    }

    /// Reads a quoted string, whose content must be a token (RFC 6455 section 9.1).
    ///
    /// Only the first [`QUOTED_BYTES_MAX`] bytes are returned. All legal values are shorter.
    fn read_quoted<'b>(&mut self, unquoted: &'b mut [u8; QUOTED_BYTES_MAX]) -> Option<&'b [u8]> {
        let mut len = 0;
        self.rest = self.rest.strip_prefix(b"\"")?;
        loop {
            let (&first, rest) = self.rest.split_first()?;
            let (byte, rest) = match first {
                b'"' => {
                    self.rest = rest;
                    self.skip_space();
                    return unquoted.get(..len.min(QUOTED_BYTES_MAX)).filter(|_| len > 0);
                }
                b'\\' => rest.split_first().map(|(byte, rest)| (*byte, rest))?,
                byte => (byte, rest),
            };
            if !is_token_byte(byte) {
                return None;
            }
            if let Some(place) = unquoted.get_mut(len) {
                *place = byte;
            }
            (len, self.rest) = (len + 1, rest);
        }
    }

    /// Skips `byte` and the white space after it. Returns `false` if the next byte is not `byte`.
    fn skip(&mut self, byte: u8) -> bool {
        let Some((_, rest)) = self.rest.split_first().filter(|(first, _)| **first == byte) else { return false };
        self.rest = rest;
        self.skip_space();
        true
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

/// The maximum number of bytes of a quoted value that the parser stores: one more than the length of the longest legal
/// value.
const QUOTED_BYTES_MAX: usize = 3;

#[cfg(any(test, feature = "unstable"))]
mod fuzz;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "unstable"))]
pub use self::fuzz::fuzz_extension;
