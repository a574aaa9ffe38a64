//! The response to a WebSocket upgrade (RFC 6455 section 4.2.2).
//!
//! This module owns the 101 response and the accept key. `http.rs` checks upgrade requests. `connection/` decides when
//! the response is sent.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest as _, Sha1};

use super::deferral::Deferral;
use super::extension::{PermessageDeflate, negotiate};
use super::request::Request;
use super::response::{HeaderLines, Response, is_own_header, push};
use super::token;

/// The string that is appended to a client's key before hashing.
///
/// See RFC 6455 section 1.3.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A Base64 decoder that ignores the unused bits of the last digit.
///
/// The example key of RFC 6455 (section 4.1, item 7: `AQIDBAUGBwgJCgsMDQ4PEC==`) has some of these bits set.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The decision of `on_upgrade` about an upgrade request.
#[derive(Clone, Debug)]
pub enum Upgrade {
    /// Accept: the connection becomes a WebSocket.
    Accept(Accept),
    /// Refuse: this response is sent, and the connection closes.
    Refuse(Response),
    /// Decide later: see [`Context::defer_upgrade`](crate::Context::defer_upgrade).
    Later(Deferral),
}

/// The acceptance of an upgrade, with the contents of the 101 response.
///
/// ```
/// use fdpush::Upgrade;
///
/// let accepted = Upgrade::accept().subprotocol("chat.v2").cookie("sid=1; Path=/").uid("10010");
/// # assert!(matches!(accepted.into(), Upgrade::Accept(_)));
/// ```
///
/// Only the server writes `Connection`, `Upgrade`, `Sec-WebSocket-…`, `Date`, `Content-Length` and `Transfer-Encoding`.
/// An acceptance has an error if it sets one of these headers, an invalid header name or value, or a subprotocol that
/// the client did not offer. The client then gets a 500, and the server logs the first error.
#[derive(Clone, Debug, Default)]
pub struct Accept {
    lines: HeaderLines,
    subprotocol: Option<String>,
    uid: Option<String>,
    is_plain: bool,
}

impl Upgrade {
    /// Accepts the upgrade. Options can be added to the result.
    #[must_use]
    pub fn accept() -> Accept {
        Accept::default()
    }

    /// Refuses the upgrade with this response.
    #[must_use]
    pub fn refuse(response: Response) -> Upgrade {
        Upgrade::Refuse(response)
    }

    /// Returns whether `name` can be the name of a subprotocol.
    ///
    /// A name must be a token (RFC 6455 section 4.1, item 10): one or more ASCII letters, digits and
    /// ``!#$%&'*+-.^_`|~``. Check configured names with this function: a client cannot offer a name that is not a
    /// token.
    #[must_use]
    pub fn is_subprotocol(name: &str) -> bool {
        token::is_token(name.as_bytes())
    }
}

impl From<Accept> for Upgrade {
    fn from(accept: Accept) -> Upgrade {
        Upgrade::Accept(accept)
    }
}

impl From<Response> for Upgrade {
    fn from(response: Response) -> Upgrade {
        Upgrade::Refuse(response)
    }
}

/// Converts a `Result`. So a handler can return `Ok(Upgrade::accept())` or `Err(Response::new(403))`.
impl<T: Into<Upgrade>, E: Into<Upgrade>> From<Result<T, E>> for Upgrade {
    fn from(result: Result<T, E>) -> Upgrade {
        result.map_or_else(E::into, T::into)
    }
}

impl Accept {
    /// Adds a header line to the 101 response. Several lines may have the same name.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Accept {
        let lower = name.to_ascii_lowercase();
        if is_own_header(&lower) || lower == "upgrade" || lower.starts_with("sec-websocket-") {
            self.lines.set_fault(|| format!("header {name} is written by the server"));
        } else {
            self.lines.add(name, value.as_ref());
        }
        self
    }

    /// Adds a `Set-Cookie` header, such as `sid=1; Path=/; HttpOnly`.
    #[must_use]
    pub fn cookie(self, cookie: impl AsRef<[u8]>) -> Accept {
        self.header("Set-Cookie", cookie)
    }

    /// Selects a subprotocol.
    ///
    /// The client must have offered the name in [`Request::subprotocols`] (RFC 6455 section 4.2.2, item 5). If a
    /// browser offers subprotocols and the server selects none of them, the browser closes the connection after the
    /// server has opened it. So select an offered subprotocol, or refuse the upgrade.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<String>) -> Accept {
        self.subprotocol = Some(name.into());
        self
    }

    /// Binds the connection to a uid before `on_open` is called.
    ///
    /// A uid has 1 to [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX) bytes. With an invalid uid, the client gets a 400
    /// instead of the 101. The policy for a second login applies: with [`RejectNew`](crate::SecondLogin::RejectNew),
    /// the client gets a 409 if the uid is online already.
    #[must_use]
    pub fn uid(mut self, uid: impl Into<String>) -> Accept {
        self.uid = Some(uid.into());
        self
    }

    /// Sets whether permessage-deflate may be negotiated (RFC 7692).
    ///
    /// The default is `true`. The setting has an effect only if [`Limits::compression`](crate::Limits::compression) is
    /// on and the client offers the extension.
    #[must_use]
    pub fn compress(mut self, may_compress: bool) -> Accept {
        self.is_plain = !may_compress;
        self
    }

    /// Returns the accepted offer of permessage-deflate, if there is one.
    pub(crate) fn negotiate(&self, request: &Request<'_>) -> Option<PermessageDeflate> {
        if self.is_plain { None } else { negotiate(request.values("sec-websocket-extensions")) }
    }

    /// Returns the uid to bind, if one was set.
    pub(crate) fn chosen_uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// Appends the 101 response of `request` to `out`.
    ///
    /// `accept` is the value of `Sec-WebSocket-Accept`. `deflate` is the accepted offer of permessage-deflate.
    ///
    /// # Errors
    /// Returns a description of the first invalid option, for the log. Nothing is then appended to `out`.
    pub(crate) fn encode(
        &self,
        accept: &[u8; 28],
        request: &Request<'_>,
        deflate: Option<PermessageDeflate>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if let Some(fault) = self.lines.fault() {
            return Err(fault.to_owned());
        }
        if let Some(selected) = &self.subprotocol
            && !request.subprotocols().any(|offered| offered == selected)
        {
            return Err(format!("subprotocol {selected:?} was not offered by the client"));
        }
        push(out, ["HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"]);
        push(out, ["Connection: Upgrade\r\nSec-WebSocket-Accept: "]);
        out.extend_from_slice(accept);
        push(out, ["\r\n"]);
        if let Some(selected) = &self.subprotocol {
            push(out, ["Sec-WebSocket-Protocol: ", selected, "\r\n"]);
        }
        if let Some(deflate) = deflate {
            let [parameters, window] = deflate.response();
            push(out, ["Sec-WebSocket-Extensions: ", parameters, window, "\r\n"]);
        }
        self.lines.encode(out);
        push(out, ["\r\n"]);
        Ok(())
    }
}

/// Computes `Sec-WebSocket-Accept` from `Sec-WebSocket-Key`.
///
/// The result is the base64 of the SHA-1 of the key and a fixed suffix (RFC 6455 section 4.2.2, item 5). Returns `None`
/// if the key is not the base64 of exactly 16 bytes.
pub fn accept_key(key: &str) -> Option<[u8; 28]> {
    // 24 digits of base64, including padding, decode to at most 18 bytes.
    let mut nonce = [0; 18];
    if key.len() != 24 || BASE64.decode_slice(key, &mut nonce) != Ok(16) {
        return None;
    }
    let hash = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    let mut accept = [0; 28];
    BASE64.encode_slice(hash, &mut accept).ok()?;
    Some(accept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;
    use crate::protocol::http::{RequestKind, parse_head};

    fn upgrade(offers: &str) -> (Request<'static>, [u8; 28]) {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offers}\r\n"
        );
        let head = parse_head(head.into_bytes(), 64, Peer::Unix).expect("the head is valid");
        let RequestKind::Upgrade { accept } = head.kind else { panic!("the request must be an upgrade") };
        (head.request, accept)
    }

    #[test]
    fn the_sample_keys_of_rfc_6455_are_accepted() {
        // The key of section 1.3.
        let accept = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept.as_ref(), Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        // The key of section 4.1. Its last digit has unused bits that are not 0.
        assert!(accept_key("AQIDBAUGBwgJCgsMDQ4PEC==").is_some());
        assert!(accept_key("AQIDBAUGBwgJCgsMDQ4PEA==").is_some());
    }

    #[test]
    fn invalid_keys_are_refused() {
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ==\n",
            " dGhlIHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZXM=",
            "dGhlIHNhbXBsZSBub25jZXMh",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25j====",
            "dGhlIHNhbXBsZSBub25jZ===",
            "dGhlIHNhbXBs*SBub25jZQ==",
            "dGhlIHNhbXBs_SBub25jZQ==",
            "ééééééééééé==",
        ] {
            assert_eq!(accept_key(key), None, "{key:?}");
        }
    }

    #[test]
    fn the_101_response_has_the_headers_that_the_handler_has_set() {
        let (request, accept) = upgrade("Sec-WebSocket-Protocol: chat, chat.v2\r\n");
        let accepted = Upgrade::accept().subprotocol("chat.v2").cookie("sid=1").header("X-A", "b").uid("7");
        assert_eq!(accepted.chosen_uid(), Some("7"));
        let mut out = b"before|".to_vec();
        assert_eq!(accepted.encode(&accept, &request, None, &mut out), Ok(()));
        assert_eq!(
            String::from_utf8_lossy(&out),
            "before|HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: chat.v2\r\nSet-Cookie: sid=1\r\nX-A: b\r\n\r\n",
        );
    }

    #[test]
    fn the_101_response_names_no_subprotocol_if_none_is_selected() {
        let (request, accept) = upgrade("Sec-WebSocket-Protocol: chat\r\n");
        let mut out = Vec::new();
        assert_eq!(Upgrade::accept().encode(&accept, &request, None, &mut out), Ok(()));
        assert!(!String::from_utf8_lossy(&out).contains("Protocol:"));
    }

    #[test]
    fn invalid_options_are_errors() {
        let (request, accept) = upgrade("Sec-WebSocket-Protocol: chat\r\n");
        let accepted = Upgrade::accept;
        for (answer, fault) in [
            (accepted().subprotocol("Chat"), "subprotocol \"Chat\" was not offered by the client"),
            (accepted().subprotocol(""), "subprotocol \"\" was not offered by the client"),
            (accepted().subprotocol("a\r\nb"), "subprotocol \"a\\r\\nb\" was not offered by the client"),
            (accepted().header("Upgrade", "x"), "header Upgrade is written by the server"),
            (accepted().header("connection", "x"), "header connection is written by the server"),
            (accepted().header("Content-Length", "0"), "header Content-Length is written by the server"),
            (
                accepted().header("SEC-WebSocket-Extensions", "x"),
                "header SEC-WebSocket-Extensions is written by the server",
            ),
            (accepted().header("a b", "x"), "header name \"a b\" is not a token"),
            (accepted().header("X", "a\r\nb"), "header X has a control character in its value"),
            (accepted().cookie("a\n"), "header Set-Cookie has a control character in its value"),
        ] {
            let mut out = Vec::new();
            assert_eq!(answer.encode(&accept, &request, None, &mut out), Err(fault.to_owned()));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn subprotocols_are_tokens() {
        for good in ["chat", "chat.v2", "!#$%&'*+-.^_`|~09azAZ"] {
            assert!(Upgrade::is_subprotocol(good), "{good}");
        }
        for bad in ["", "a b", "a,b", "a/b", "caf\u{e9}", "a\r\nb", "\"a\""] {
            assert!(!Upgrade::is_subprotocol(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_acceptance_a_response_or_a_result_converts_into_an_upgrade() {
        assert!(matches!(Upgrade::accept().into(), Upgrade::Accept(_)));
        assert!(matches!(Response::new(403).into(), Upgrade::Refuse(_)));
        assert!(matches!(Upgrade::refuse(Response::new(403)), Upgrade::Refuse(_)));
        let of = |is_in: bool| if is_in { Ok(Upgrade::accept()) } else { Err(Response::new(403)) };
        assert!(matches!(of(true).into(), Upgrade::Accept(_)));
        assert!(matches!(of(false).into(), Upgrade::Refuse(_)));
    }
}
