//! The webhook events and their JSON. The reference for webhook events is `docs/webhooks.md`.
//!
//! Each event is encoded once, into a buffer with a maximum length. So the JSON of an event never exceeds the maximum
//! length of the buffer, even if escapes make a text longer. For example, JSON writes a control character as an escape
//! of six bytes.

use std::io;
use std::net::IpAddr;

use clap::ValueEnum;
use fdpush::{By, Closed, Fd, Peer};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::gateway::wire::json::AsText;

/// A webhook event.
#[derive(Copy, Clone, Debug)]
pub enum Event<'a> {
    /// A connection opened.
    Open {
        fd: Fd,
        uid: Option<&'a str>,
        peer: Peer,
        /// The address of the client. If the client connected through a trusted proxy, the proxy states this address.
        address: Option<IpAddr>,
        /// The path of the request, percent-decoded.
        path: &'a str,
        /// The groups that the connection joined when it was opened.
        groups: &'a [&'a str],
        /// The attributes of the client, from the answer of the connect hook.
        attributes: Option<&'a RawValue>,
        /// Whether the whole event exceeded `webhook_event_bytes_max`. In a truncated event, `groups` and `attributes`
        /// are missing and `path` is cut.
        is_truncated: bool,
    },
    /// A client sent a text message. The text need not be a valid frame.
    Message { fd: Fd, uid: Option<&'a str>, text: &'a str },
    /// A client sent a valid frame of type `send`.
    Send { fd: Fd, uid: Option<&'a str>, data: &'a RawValue },
    /// A connection ended.
    Close { fd: Fd, uid: Option<&'a str>, closed: &'a Closed },
    /// A uid that was offline has got a connection.
    Online { uid: &'a str },
    /// A uid has had no connection for the whole presence delay.
    Offline { uid: &'a str },
}

/// The type of an event, and a value of `webhook_events`.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    Open,
    Message,
    Send,
    Close,
    Online,
    Offline,
}

/// The smallest allowed value of `webhook_event_bytes_max`.
///
/// Every event except `message` and `send` events fits into this size, because a larger `open` event is truncated.
pub const EVENT_BYTES_MAX_MIN: usize = 4 << 10;

/// The maximum length of the path in a truncated `open` event, in bytes. In JSON with escapes, the path can be six
/// times as long.
const TRUNCATED_PATH_BYTES_MAX: usize = 256;

/// The reason why an event could not be encoded.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum EventError {
    /// The JSON of the event exceeds the maximum length.
    TooLarge,
    /// Memory for the JSON of the event could not be allocated.
    OutOfMemory,
}

/// A set of event types.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Kinds(u8);

impl Event<'_> {
    pub fn kind(&self) -> Kind {
        match self {
            Event::Open { .. } => Kind::Open,
            Event::Message { .. } => Kind::Message,
            Event::Send { .. } => Kind::Send,
            Event::Close { .. } => Kind::Close,
            Event::Online { .. } => Kind::Online,
            Event::Offline { .. } => Kind::Offline,
        }
    }

    /// Returns the event and its time, in milliseconds since 1970, as a JSON object of at most `bytes_max` bytes.
    ///
    /// An `open` event that would exceed `bytes_max` is truncated.
    ///
    /// # Errors
    /// Returns an error if the event is longer than `bytes_max` and cannot be truncated, or if memory for the event
    /// cannot be allocated.
    pub fn to_json(self, time_ms: u64, bytes_max: usize) -> Result<Vec<u8>, EventError> {
        match (self.encode(time_ms, bytes_max), self.truncated()) {
            (Err(EventError::TooLarge), Some(truncated)) => truncated.encode(time_ms, bytes_max),
            (encoded, _) => encoded,
        }
    }

    fn encode(self, time_ms: u64, bytes_max: usize) -> Result<Vec<u8>, EventError> {
        let mut json = Bounded { bytes: Vec::new(), bytes_max };
        json.reserve(self.bytes_about().min(bytes_max)).map_err(|error| EventError::of(error.kind()))?;
        // The serialization of an event fails only if the buffer refuses a write.
        serde_json::to_writer(&mut json, &Timed { event: self, time_ms })
            .map_err(|error| EventError::of(error.io_error_kind().unwrap_or(io::ErrorKind::Other)))?;
        Ok(json.bytes)
    }

    /// Returns a shorter form of the event, if this type of event has a shorter form.
    fn truncated(self) -> Option<Self> {
        let Event::Open { fd, uid, peer, address, path, .. } = self else { return None };
        let path = &path[..path.floor_char_boundary(TRUNCATED_PATH_BYTES_MAX)];
        Some(Event::Open { fd, uid, peer, address, path, groups: &[], attributes: None, is_truncated: true })
    }

    /// Estimates the length of the JSON of the event in bytes, so that one allocation is usually enough.
    fn bytes_about(&self) -> usize {
        let payload = match self {
            Event::Open { groups, attributes, .. } => {
                let groups: usize = groups.iter().map(|group| group.len() + 3).sum();
                groups + attributes.map_or(0, |attributes| attributes.get().len())
            }
            Event::Message { text, .. } => text.len() + text.len() / 8,
            Event::Send { data, .. } => data.get().len(),
            Event::Close { .. } | Event::Online { .. } | Event::Offline { .. } => 0,
        };
        payload + 192
    }
}

impl Kind {
    /// Returns the name of this event type in JSON and in `--webhook-events`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Open => "open",
            Kind::Message => "message",
            Kind::Send => "send",
            Kind::Close => "close",
            Kind::Online => "online",
            Kind::Offline => "offline",
        }
    }

    /// Returns whether a client's frame causes events of this type. A full queue drops `message` and `send` events
    /// before other events.
    pub fn is_frame(self) -> bool {
        matches!(self, Kind::Message | Kind::Send)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl EventError {
    /// Returns the reason for which a [`Bounded`] buffer refused a write.
    fn of(kind: io::ErrorKind) -> EventError {
        match kind {
            io::ErrorKind::OutOfMemory => EventError::OutOfMemory,
            _ => EventError::TooLarge,
        }
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

/// The default event types are `open`, `message` and `close`.
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
            Event::Open { fd, uid, peer, address, path, groups, attributes, is_truncated } => {
                serialize_sender(&mut map, fd, uid)?;
                map.serialize_entry("peer", &AsText(peer))?;
                map.serialize_entry("address", &address)?;
                map.serialize_entry("path", path)?;
                if !groups.is_empty() {
                    map.serialize_entry("groups", groups)?;
                }
                if let Some(attributes) = attributes {
                    map.serialize_entry("attributes", attributes)?;
                }
                if is_truncated {
                    map.serialize_entry("truncated", &true)?;
                }
            }
            Event::Send { fd, uid, data } => {
                serialize_sender(&mut map, fd, uid)?;
                map.serialize_entry("data", data)?;
            }
            Event::Message { fd, uid, text } => {
                serialize_sender(&mut map, fd, uid)?;
                map.serialize_entry("text", text)?;
            }
            Event::Close { fd, uid, closed } => {
                serialize_sender(&mut map, fd, uid)?;
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

fn serialize_sender<M: SerializeMap>(map: &mut M, fd: Fd, uid: Option<&str>) -> Result<(), M::Error> {
    map.serialize_entry("fd", &fd.as_u64())?;
    map.serialize_entry("uid", &uid)
}

fn by(by: By) -> &'static str {
    match by {
        By::Client => "client",
        By::Server => "server",
    }
}

/// A buffer with a maximum length in bytes. A write that would exceed the maximum length fails.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Bounded {
    /// Reserves memory for `more` bytes.
    fn reserve(&mut self, more: usize) -> io::Result<()> {
        self.bytes.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory.into())
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.bytes_max - self.bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fdpush::{Cause, CloseCode};
    use serde_json::{Value, json};

    use super::*;

    fn value(event: Event<'_>) -> Value {
        serde_json::from_slice(&event.to_json(1_700_000_000_123, 1 << 20).expect("the event fits into the bound"))
            .expect("the event is JSON")
    }

    fn fd() -> Fd {
        Fd::from_u64(7).expect("the fd is valid")
    }

    #[test]
    fn an_open_event_has_the_documented_json() {
        let attributes = RawValue::from_string(r#"{"plan": "pro"}"#.to_owned()).expect("the text is JSON");
        let peer = Peer::V4 { ip: [203, 0, 113, 9], port: 4711 };
        let (uid, path, groups) = (Some("10086"), "/chät", ["a", "b\"c"].as_slice());
        let attributes = Some(&*attributes);
        let event = Event::Open {
            fd: fd(),
            uid,
            peer,
            address: Some([198, 51, 100, 7].into()),
            path,
            groups,
            attributes,
            is_truncated: false,
        };
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
            is_truncated: false,
        };
        assert_eq!(
            value(event),
            json!({"type": "open", "time_ms": 1_700_000_000_123_u64, "fd": 7, "uid": null, "peer": "unix", "address": null, "path": "/"})
        );
    }

    #[test]
    fn a_message_event_has_the_documented_json() {
        let text = "line\nbreak \"quote\" \u{0} 消息";
        let event = Event::Message { fd: fd(), uid: Some("u"), text };
        assert_eq!(
            value(event),
            json!({"type": "message", "time_ms": 1_700_000_000_123_u64, "fd": 7, "uid": "u", "text": text})
        );
    }

    #[test]
    fn a_send_event_copies_its_data_unchanged() {
        let data = RawValue::from_string(r#"{"order": [1,2]}"#.to_owned()).expect("the text is JSON");
        let event = Event::Send { fd: fd(), uid: Some("u"), data: &data };
        assert_eq!(
            value(event),
            json!({"type": "send", "time_ms": 1_700_000_000_123_u64, "fd": 7, "uid": "u", "data": {"order": [1, 2]}})
        );
        let json = event.to_json(1, 1000).expect("the value can be written as JSON");
        assert!(json.ends_with(br#""data":{"order": [1,2]}}"#), "the data must be copied unchanged");
    }

    #[test]
    fn the_maximum_length_of_an_event_is_measured_in_bytes_of_json() {
        let control = "\u{1}".repeat(1000);
        let event = Event::Message { fd: fd(), uid: None, text: &control };
        let length = event.to_json(1, usize::MAX).expect("the value can be written as JSON").len();
        assert!(length > 6000, "{length}");
        assert_eq!(event.to_json(1, length).map(|json| json.len()), Ok(length));
        assert_eq!(event.to_json(1, length - 1), Err(EventError::TooLarge));
        assert_eq!(event.to_json(1, 0), Err(EventError::TooLarge));
    }

    #[test]
    fn a_failed_allocation_is_an_error() {
        let mut json = Bounded { bytes: Vec::new(), bytes_max: usize::MAX };
        // An allocation has at most `isize::MAX` bytes, so an allocation of `usize::MAX` bytes must fail.
        let error = json.reserve(usize::MAX).expect_err("the allocation fails");
        assert_eq!(EventError::of(error.kind()), EventError::OutOfMemory);
        let full =
            serde_json::to_writer(Bounded { bytes: Vec::new(), bytes_max: 3 }, "text").expect_err("the buffer is full");
        assert_eq!(full.io_error_kind().map(EventError::of), Some(EventError::TooLarge));
    }

    #[test]
    fn every_event_except_message_and_send_fits_into_the_smallest_limit() {
        let long = "\u{1}".repeat(fdpush::NAME_BYTES_MAX);
        let (path, groups) = ("/\u{1}ä".repeat(100_000), vec!["\u{1}"; 1000]);
        let attributes = RawValue::from_string(format!("[{}1]", "1,".repeat(50_000))).expect("the text is JSON");
        let peer = Peer::V6 { ip: [255; 16], port: 65535 };
        let fd = Fd::from_u64((1 << 53) - 1).unwrap_or_else(fd);
        let open = Event::Open {
            fd,
            uid: Some(&long),
            peer,
            address: Some([0xffff; 8].into()),
            path: &path,
            groups: &groups,
            attributes: Some(&attributes),
            is_truncated: false,
        };
        let json = open.to_json(u64::MAX, EVENT_BYTES_MAX_MIN).expect("the event fits into the bound");
        let event: Value = serde_json::from_slice(&json).expect("the text is JSON");
        assert_eq!(
            (&event["truncated"], &event["groups"], &event["attributes"]),
            (&json!(true), &json!(null), &json!(null))
        );
        assert!(path.starts_with(event["path"].as_str().expect("the value is a path")));
        assert!(
            open.to_json(1, 10 << 20).is_ok_and(|json| !json.ends_with(b"true}")),
            "the event must be complete if it fits into the bound"
        );

        let closed =
            Closed::new(CloseCode::KICKED, &"\u{1}".repeat(CloseCode::REASON_BYTES_MAX), By::Server, Cause::Kicked);
        for event in [Event::Close { fd, uid: Some(&long), closed: &closed }, Event::Online { uid: &long }] {
            assert!(event.to_json(u64::MAX, EVENT_BYTES_MAX_MIN).is_ok());
        }
    }

    #[test]
    fn close_and_presence_events_have_the_documented_json() {
        let (code, cause) = (CloseCode::KICKED, Cause::Kicked);
        let closed = Closed::new(code, "elsewhere", By::Server, cause);
        assert_eq!(
            value(Event::Close { fd: fd(), uid: Some("u"), closed: &closed }),
            json!({"type": "close", "time_ms": 1_700_000_000_123_u64, "fd": 7, "uid": "u", "code": 4001,
                "reason": "elsewhere", "by": "server", "cause": "kicked"})
        );
        let closed = Closed::new(code, "", By::Client, cause);
        assert_eq!(value(Event::Close { fd: fd(), uid: None, closed: &closed })["by"], "client");
        for (event, kind) in [(Event::Online { uid: "u" }, "online"), (Event::Offline { uid: "u" }, "offline")] {
            assert_eq!(value(event), json!({"type": kind, "time_ms": 1_700_000_000_123_u64, "uid": "u"}));
        }
    }

    #[test]
    fn a_set_of_event_types_contains_only_the_added_types() {
        let kinds = Kinds::default();
        for kind in [Kind::Open, Kind::Message, Kind::Close] {
            assert!(kinds.contains(kind), "{}", kind.as_str());
        }
        assert!(![Kind::Send, Kind::Online, Kind::Offline].iter().any(|kind| kinds.contains(*kind)));
        assert!([Kind::Offline].into_iter().collect::<Kinds>().contains(Kind::Offline));
    }
}
