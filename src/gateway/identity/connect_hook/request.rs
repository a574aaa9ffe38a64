//! The connect hook's question: the client's request, as JSON. `docs/webhooks.md` is the reference for who reads it.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fdpush::{Fd, Peer, Request};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The body of the question. Cookies and authorization are in it: that is what it is for.
pub fn to_json(node: &str, fd: Fd, address: Option<IpAddr>, request: &Request) -> Vec<u8> {
    let question = Question {
        node,
        fd: fd.as_u64(),
        peer: Shown(request.peer()),
        address,
        method: request.method(),
        target: request.target(),
        headers: Headers { request, form: Form::Text },
        headers_base64: Some(Headers { request, form: Form::Base64 }).filter(|headers| !headers.is_empty()),
    };
    // A vector takes everything, and nothing in a request can fail to serialize.
    serde_json::to_vec(&question).unwrap_or_default()
}

#[derive(serde::Serialize)]
struct Question<'a> {
    node: &'a str,
    fd: u64,
    peer: Shown,
    address: Option<IpAddr>,
    method: &'a str,
    target: &'a str,
    headers: Headers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers_base64: Option<Headers<'a>>,
}

struct Shown(Peer);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Header lines whose values are of one form: each name once, in lower case, with its values in order.
///
/// A value that is not UTF-8 is told in base64. With U+FFFD in it, two values would read the same, and a back end that
/// looks up a session by one would find another person's.
#[derive(Copy, Clone)]
struct Headers<'a> {
    request: &'a Request,
    form: Form,
}

/// The form in which JSON can hold a value.
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
