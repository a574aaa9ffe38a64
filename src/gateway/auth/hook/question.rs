//! What a back end is asked: the client's request, as JSON. `docs/webhooks.md` is the reference for who reads it.

use std::borrow::Cow;
use std::net::IpAddr;

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
        headers: Headers(request),
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
}

struct Shown(Peer);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Each name once, in lower case, with all its values in order. What is no UTF-8 in a value reads U+FFFD.
struct Headers<'a>(&'a Request);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, _)) in self.0.headers().enumerate() {
            let is_repeated = self.0.headers().take(index).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name));
            if !is_repeated {
                map.serialize_entry(&name.to_ascii_lowercase(), &Values { request: self.0, name })?;
            }
        }
        map.end()
    }
}

struct Values<'a> {
    request: &'a Request,
    name: &'a str,
}

impl<'a> Values<'a> {
    fn iter(&self) -> impl Iterator<Item = Cow<'a, str>> {
        let same = self.request.headers().filter(|(name, _)| name.eq_ignore_ascii_case(self.name));
        same.map(|(_, value)| String::from_utf8_lossy(value))
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
