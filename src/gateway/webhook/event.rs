//! The events that a back end hears of, and their JSON. `docs/webhooks.md` is the reference for who reads them.

use std::fmt;
use std::net::IpAddr;

use fdpush::{By, Closed, Fd, Peer};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

/// Something that happened.
#[derive(Copy, Clone, Debug)]
pub enum Event<'a> {
    /// A connection opened.
    Open {
        fd: Fd,
        uid: Option<&'a str>,
        peer: Peer,
        /// Where the client is, behind proxies that are trusted.
        address: Option<IpAddr>,
        /// The path it asked for, decoded.
        path: &'a str,
        /// The groups it is in from the start.
        groups: &'a [&'a str],
        /// What the back end said of it when it was let in.
        attributes: Option<&'a RawValue>,
    },
    /// A client sent a message.
    Message { fd: Fd, uid: Option<&'a str>, text: &'a str },
    /// A connection ended.
    Close { fd: Fd, uid: Option<&'a str>, closed: &'a Closed },
    /// A uid's first connection opened.
    Online { uid: &'a str },
    /// A uid's last connection ended, and none came back for a while.
    Offline { uid: &'a str },
}

/// What kind of event.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Open,
    Message,
    Close,
    Online,
    Offline,
}

/// A set of kinds.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Kinds(u8);

impl Event<'_> {
    pub fn kind(&self) -> Kind {
        match self {
            Event::Open { .. } => Kind::Open,
            Event::Message { .. } => Kind::Message,
            Event::Close { .. } => Kind::Close,
            Event::Online { .. } => Kind::Online,
            Event::Offline { .. } => Kind::Offline,
        }
    }

    /// A JSON object of the event, and of when it was in milliseconds since 1970.
    pub fn to_json(self, time_ms: u64) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.bytes_about());
        // Nothing in an event can fail to serialize, and a vector takes everything.
        if let Err(error) = serde_json::to_writer(&mut json, &Timed { event: self, time_ms }) {
            log::error!("an event that is no JSON: {error}");
        }
        json
    }

    /// About how long its JSON is, so that one allocation is enough for nearly all.
    fn bytes_about(&self) -> usize {
        let payload = match self {
            Event::Open { groups, attributes, .. } => {
                let groups: usize = groups.iter().map(|group| group.len() + 3).sum();
                groups + attributes.map_or(0, |attributes| attributes.get().len())
            }
            Event::Message { text, .. } => text.len() + text.len() / 8,
            Event::Close { .. } | Event::Online { .. } | Event::Offline { .. } => 0,
        };
        payload + 192
    }
}

impl Kind {
    /// Its name in JSON and in `--webhook-events`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Open => "open",
            Kind::Message => "message",
            Kind::Close => "close",
            Kind::Online => "online",
            Kind::Offline => "offline",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Kinds {
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Kinds {
        Kinds(kinds.into_iter().fold(0, |set, kind| set | kind.bit()))
    }
}

/// `open`, `message` and `close`.
impl Default for Kinds {
    fn default() -> Kinds {
        [Kind::Open, Kind::Message, Kind::Close].into_iter().collect()
    }
}

struct Timed<'a> {
    event: Event<'a>,
    time_ms: u64,
}

impl Serialize for Timed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", self.event.kind().as_str())?;
        map.serialize_entry("time_ms", &self.time_ms)?;
        match self.event {
            Event::Open { fd, uid, peer, address, path, groups, attributes } => {
                whose(&mut map, fd, uid)?;
                map.serialize_entry("peer", &Shown(peer))?;
                map.serialize_entry("address", &address)?;
                map.serialize_entry("path", path)?;
                if !groups.is_empty() {
                    map.serialize_entry("groups", groups)?;
                }
                if let Some(attributes) = attributes {
                    map.serialize_entry("attributes", attributes)?;
                }
            }
            Event::Message { fd, uid, text } => {
                whose(&mut map, fd, uid)?;
                map.serialize_entry("text", text)?;
            }
            Event::Close { fd, uid, closed } => {
                whose(&mut map, fd, uid)?;
                map.serialize_entry("code", &closed.code.as_u16())?;
                map.serialize_entry("reason", &*closed.reason)?;
                map.serialize_entry("by", by(closed.by))?;
                map.serialize_entry("cause", closed.cause.as_str())?;
            }
            Event::Online { uid } | Event::Offline { uid } => map.serialize_entry("uid", uid)?,
        }
        map.end()
    }
}

fn whose<M: SerializeMap>(map: &mut M, fd: Fd, uid: Option<&str>) -> Result<(), M::Error> {
    map.serialize_entry("fd", &fd.as_u64())?;
    map.serialize_entry("uid", &uid)
}

fn by(by: By) -> &'static str {
    match by {
        By::Client => "client",
        By::Server => "server",
    }
}

/// What is written as it is displayed.
struct Shown<T>(T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use fdpush::{Cause, CloseCode};
    use serde_json::{Value, json};

    use super::*;

    fn value(event: Event<'_>) -> Value {
        serde_json::from_slice(&event.to_json(1_700_000_000_123)).expect("JSON")
    }

    fn fd() -> Fd {
        Fd::from_u64(7).expect("an fd")
    }

    #[test]
    fn open() {
        let attributes = RawValue::from_string(r#"{"plan": "pro"}"#.to_owned()).expect("JSON");
        let peer = Peer::V4 { ip: [203, 0, 113, 9], port: 4711 };
        let (uid, path, groups) = (Some("10086"), "/chät", ["a", "b\"c"].as_slice());
        let attributes = Some(&*attributes);
        let event =
            Event::Open { fd: fd(), uid, peer, address: Some([198, 51, 100, 7].into()), path, groups, attributes };
        assert_eq!(
            value(event),
            json!({"type": "open", "time_ms": 1_700_000_000_123_u64, "fd": 7, "uid": "10086", "peer": "203.0.113.9:4711",
                "address": "198.51.100.7", "path": "/chät", "groups": ["a", "b\"c"], "attributes": {"plan": "pro"}})
        );
        let event = Event::Open {
            fd: fd(),
            uid: None,
            peer: Peer::Unix,
            address: None,
            path: "/",
            groups: &[],
            attributes: None,
        };
        assert_eq!(
            value(event),
            json!({"type": "open", "time_ms": 1_700_000_000_123_u64, "fd": 7, "uid": null, "peer": "unix", "address": null, "path": "/"})
        );
    }

    #[test]
    fn message() {
        let text = "line\nbreak \"quote\" \u{0} 消息";
        let event = Event::Message { fd: fd(), uid: Some("u"), text };
        assert_eq!(
            value(event),
            json!({"type": "message", "time_ms": 1_700_000_000_123_u64, "fd": 7, "uid": "u", "text": text})
        );
    }

    #[test]
    fn close_and_presence() {
        let (code, cause) = (CloseCode::KICKED, Cause::Kicked);
        let closed = Closed { code, reason: "elsewhere".into(), by: By::Server, cause };
        assert_eq!(
            value(Event::Close { fd: fd(), uid: Some("u"), closed: &closed }),
            json!({"type": "close", "time_ms": 1_700_000_000_123_u64, "fd": 7, "uid": "u", "code": 4001,
                "reason": "elsewhere", "by": "server", "cause": "kicked"})
        );
        let closed = Closed { by: By::Client, reason: "".into(), ..closed };
        assert_eq!(value(Event::Close { fd: fd(), uid: None, closed: &closed })["by"], "client");
        for (event, kind) in [(Event::Online { uid: "u" }, "online"), (Event::Offline { uid: "u" }, "offline")] {
            assert_eq!(value(event), json!({"type": kind, "time_ms": 1_700_000_000_123_u64, "uid": "u"}));
        }
    }

    #[test]
    fn kinds_are_a_set() {
        let kinds = Kinds::default();
        for kind in [Kind::Open, Kind::Message, Kind::Close] {
            assert!(kinds.contains(kind), "{}", kind.as_str());
        }
        assert!(!kinds.contains(Kind::Online) && !kinds.contains(Kind::Offline));
        assert!([Kind::Offline].into_iter().collect::<Kinds>().contains(Kind::Offline));
    }
}
