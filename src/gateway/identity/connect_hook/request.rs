//! The request of the connect hook: the client's request as JSON. The reference for this JSON is `docs/webhooks.md`.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fdpush::{Fd, Peer, Request};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::gateway::wire::json::AsText;

/// Returns the JSON that describes a client's request. The JSON includes cookies and `Authorization`, because the back
/// end needs them to authenticate the client.
pub fn to_json(node: &str, fd: Fd, address: Option<IpAddr>, request: &Request<'_>) -> Vec<u8> {
    let body = RequestBody {
        node,
        fd: fd.as_u64(),
        peer: AsText(request.peer()),
        address,
        method: request.method(),
        target: request.target(),
        headers: Headers { request, form: Form::Text },
        headers_base64: Some(Headers { request, form: Form::Base64 }).filter(|headers| !headers.is_empty()),
    };
    // The serialization of a request cannot fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

#[derive(serde::Serialize)]
struct RequestBody<'a> {
    node: &'a str,
    fd: u64,
    peer: AsText<Peer>,
    address: Option<IpAddr>,
    method: &'a str,
    target: &'a str,
    headers: Headers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers_base64: Option<Headers<'a>>,
}

/// The headers of a request whose values have the form `form`. Each header name appears once, in lower case, with the
/// values of this header in order.
///
/// A value that is not UTF-8 is encoded in base64. If U+FFFD replaced invalid bytes, two different values could become
/// equal, and a back end could find the session of another user.
#[derive(Copy, Clone)]
struct Headers<'a> {
    request: &'a Request<'a>,
    form: Form,
}

/// The form in which header values are sent: text or base64.
#[derive(Copy, Clone, PartialEq)]
enum Form {
    Text,
    Base64,
}

impl<'a> Headers<'a> {
    fn lines(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.request.headers().filter(move |(_, value)| Form::of(value) == self.form)
    }

    fn is_empty(&self) -> bool {
        self.lines().next().is_none()
    }
}

impl Form {
    fn of(value: &[u8]) -> Form {
        if str::from_utf8(value).is_ok() { Form::Text } else { Form::Base64 }
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, _)) in self.lines().enumerate() {
            let is_repeated = self.lines().take(index).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name));
            if !is_repeated {
                map.serialize_entry(&name.to_ascii_lowercase(), &Values { headers: *self, name })?;
            }
        }
        map.end()
    }
}

struct Values<'a> {
    headers: Headers<'a>,
    name: &'a str,
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lines = self.headers.lines().filter(|(name, _)| name.eq_ignore_ascii_case(self.name));
        serializer.collect_seq(lines.map(|(_, value)| Value(value)))
    }
}

struct Value<'a>(&'a [u8]);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.serialize_str(&STANDARD.encode(self.0)),
        }
    }
}
