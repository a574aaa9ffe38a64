//! The JSON frames of clients: reading theirs, writing ours.
//!
//! `data` is whatever JSON the sender wrote. It is found, never taken apart: it goes into the message byte for byte.

use std::borrow::Cow;
use std::fmt::{self, Write};

use fdpush::{Delivery, Fd, Heartbeat};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{self, List, Quoted, Text, cut};
use super::names::{self, Name};

/// uids in one frame, at most.
const UIDS_MAX: usize = 1000;

/// The longest `id`, as it is written: it is sent back.
const ID_BYTES_MAX: usize = 128;

/// What the header of a WebSocket frame of ours adds to its payload, at most.
const HEADER_BYTES_MAX: usize = 10;

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub enum Request<'a> {
    Push {
        to: Target<'a>,
        key: Option<Cow<'a, str>>,
        data: &'a str,
    },
    /// For the back end alone.
    Send {
        data: &'a str,
    },
    Join {
        group: Cow<'a, str>,
    },
    Leave {
        group: Cow<'a, str>,
    },
    Heartbeat,
    Online {
        uids: Vec<Cow<'a, str>>,
    },
}

/// Whom a push is for.
#[derive(Debug, PartialEq)]
pub enum Target<'a> {
    Uids(Vec<Cow<'a, str>>),
    Fd(u64),
    Group(Cow<'a, str>),
    All,
}

/// Why a frame is not carried out.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

/// A frame's `id` as it was written, or nothing.
pub type Id<'a> = Option<&'a str>;

/// The members of a frame, found and not yet judged.
#[derive(Debug, Default)]
struct Envelope<'a> {
    kind: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    to: Option<&'a RawValue>,
    fd: Option<&'a RawValue>,
    group: Option<&'a RawValue>,
    all: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    uids: Option<&'a RawValue>,
    unknown: Option<String>,
    twice: Option<String>,
}

/// Reads a frame. The id is found even where the rest is refused.
pub fn parse(text: &str) -> (Id<'_>, Result<Request<'_>, Refusal>) {
    // A byte order mark is no part of the JSON (RFC 8259 section 8.1).
    let json = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(json) else {
        return (None, Err(Refusal::bad_frame("a frame is one JSON object, and this is none")));
    };
    match envelope.id() {
        Ok(id) => (id, envelope.request()),
        Err(refusal) => (None, Err(refusal)),
    }
}

impl<'a> Envelope<'a> {
    fn id(&self) -> Result<Id<'a>, Refusal> {
        let Some(id) = self.id.map(RawValue::get) else { return Ok(None) };
        if self.twice.as_deref() == Some("id") {
            return Err(Refusal::bad_frame("id is there twice"));
        }
        let is_scalar = id.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
        if !is_scalar || id.len() > ID_BYTES_MAX {
            let what = format!("id must be a string or a number of at most {ID_BYTES_MAX} bytes");
            return Err(Refusal::bad_frame(what));
        }
        Ok(Some(id))
    }

    fn request(&self) -> Result<Request<'a>, Refusal> {
        if let Some(name) = &self.twice {
            return Err(Refusal::bad_frame(format!("{name} is there twice")));
        }
        let Some(kind) = self.kind else { return Err(Refusal::bad_frame("type is missing")) };
        let kind = read::<Text<'a>>(kind, "type", "a string")?.0;
        let members: &[&str] = match &*kind {
            "push" => &["to", "fd", "group", "all", "key", "data", "id"],
            "send" => &["data", "id"],
            "join" | "leave" => &["group", "id"],
            "heartbeat" => &["id"],
            "online" => &["uids", "id"],
            other => {
                let other = cut(other);
                let what = format!("unknown type {other:?}: it is one of push, send, join, leave, heartbeat, online");
                return Err(Refusal::bad_frame(what));
            }
        };
        self.check_members(&kind, members)?;
        match &*kind {
            "push" => self.push(),
            "send" => Ok(Request::Send { data: self.data()? }),
            "join" => Ok(Request::Join { group: self.group()? }),
            "leave" => Ok(Request::Leave { group: self.group()? }),
            "online" => Ok(Request::Online { uids: self.uids()? }),
            _ => Ok(Request::Heartbeat),
        }
    }

    /// A member that means nothing here is a mistake of the sender's, better told than ignored.
    fn check_members(&self, kind: &str, known: &[&str]) -> Result<(), Refusal> {
        let members = [
            ("to", self.to),
            ("fd", self.fd),
            ("group", self.group),
            ("all", self.all),
            ("key", self.key),
            ("data", self.data),
            ("uids", self.uids),
        ];
        let stray = members.iter().find(|(name, value)| value.is_some() && !known.contains(name));
        match stray.map(|(name, _)| *name).or(self.unknown.as_deref()) {
            Some(name) => Err(Refusal::bad_request(json::stray(kind, name, known))),
            None => Ok(()),
        }
    }

    fn push(&self) -> Result<Request<'a>, Refusal> {
        let data = self.data()?;
        let targets = [("to", self.to), ("fd", self.fd), ("group", self.group), ("all", self.all)];
        let mut named = targets.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let to = match (named.next(), named.next()) {
            (None, _) => return Err(Refusal::bad_request("push needs one of to, fd, group, all")),
            (Some((first, _)), Some((second, _))) => {
                return Err(Refusal::bad_request(format!("push takes one of {first} and {second}, not both")));
            }
            (Some(("to", to)), None) if to.get().starts_with('[') => {
                Target::Uids(uids(to, "to", "a uid or an array of uids")?)
            }
            (Some(("to", to)), None) => Target::Uids(vec![name(to, "to")?]),
            (Some(("fd", fd)), None) => Target::Fd(read(fd, "fd", "a positive number")?),
            (Some(("group", group)), None) => Target::Group(name(group, "group")?),
            (Some((_, all)), None) => match read::<bool>(all, "all", "true")? {
                true => Target::All,
                false => return Err(Refusal::bad_request("all must be true")),
            },
        };
        let key = self.key.map(|key| name(key, "key")).transpose()?;
        Ok(Request::Push { to, key, data })
    }

    fn data(&self) -> Result<&'a str, Refusal> {
        self.data.map_or(Err(Refusal::bad_request("data is missing")), |data| Ok(data.get()))
    }

    fn group(&self) -> Result<Cow<'a, str>, Refusal> {
        self.group.map_or(Err(Refusal::bad_request("group is missing")), |group| name(group, "group"))
    }

    fn uids(&self) -> Result<Vec<Cow<'a, str>>, Refusal> {
        let Some(uids) = self.uids else { return Err(Refusal::bad_request("uids is missing")) };
        self::uids(uids, "uids", "an array of uids")
    }
}

/// A uid, a group or a key, which all have the same bounds.
fn name<'a>(value: &'a RawValue, member: &str) -> Result<Cow<'a, str>, Refusal> {
    let Name(name) = read(value, member, "a string or an integer of 64 bits")?;
    check_name(&name, member)?;
    Ok(name)
}

fn check_name(name: &str, member: &str) -> Result<(), Refusal> {
    names::check(name).map_err(|error| Refusal::bad_request(format!("{member}: {error}")))
}

fn uids<'a>(value: &'a RawValue, member: &str, kind: &str) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let List(uids): List<Name<'a>> = read(value, member, kind)?;
    if uids.len() > UIDS_MAX {
        return Err(Refusal::too_large(format!("{member} has {} uids: it may have {UIDS_MAX}", uids.len())));
    }
    uids.iter().try_for_each(|uid| check_name(&uid.0, member))?;
    Ok(uids.into_iter().map(|uid| uid.0).collect())
}

fn read<'a, T: Deserialize<'a>>(value: &'a RawValue, name: &str, kind: &str) -> Result<T, Refusal> {
    serde_json::from_str(value.get()).map_err(|_| Refusal::bad_request(format!("{name} must be {kind}")))
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Envelope<'de>, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

/// Takes note of where each member's value lies. A member that is `null` is one that is not there, but for `data`.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(Text(name)) = map.next_key()? {
            let value: &'de RawValue = map.next_value()?;
            let place = match &*name {
                "type" => &mut envelope.kind,
                "id" => &mut envelope.id,
                "to" => &mut envelope.to,
                "fd" => &mut envelope.fd,
                "group" => &mut envelope.group,
                "all" => &mut envelope.all,
                "key" => &mut envelope.key,
                "data" => &mut envelope.data,
                "uids" => &mut envelope.uids,
                _ => {
                    envelope.unknown = Some(cut(&name).into_owned());
                    continue;
                }
            };
            if place.replace(value).is_some() {
                envelope.twice = Some(name.into_owned());
            }
        }
        let Envelope { kind, id, to, fd, group, all, key, uids, .. } = &mut envelope;
        for member in [kind, id, to, fd, group, all, key, uids] {
            member.take_if(|value| value.get() == "null");
        }
        Ok(envelope)
    }
}

impl Refusal {
    fn bad_frame(message: impl Into<String>) -> Refusal {
        Refusal { code: "bad_frame", message: message.into() }
    }

    /// The frame is one of ours, but asks for what cannot be.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal { code: "bad_request", message: message.into() }
    }

    /// The frame is more than anyone may ask for.
    pub fn too_large(message: impl Into<String>) -> Refusal {
        Refusal { code: "too_large", message: message.into() }
    }

    /// The client sends too many.
    pub fn rate_limited(message: impl Into<String>) -> Refusal {
        Refusal { code: "rate_limited", message: message.into() }
    }

    /// The back end has more to read than it can.
    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal { code: "unavailable", message: message.into() }
    }

    /// The frame is fine, but not for this client.
    pub fn not_allowed(message: impl Into<String>) -> Refusal {
        Refusal { code: "not_allowed", message: message.into() }
    }
}

/// A uid, or `null` for a client without one.
struct Uid<'a>(Option<&'a str>);

impl fmt::Display for Uid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(uid) => Quoted(uid).fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// `"id":7,`, or nothing.
struct IdMember<'a>(Id<'a>);

impl fmt::Display for IdMember<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |id| write!(f, "\"id\":{id},"))
    }
}

/// The first frame of every connection.
pub fn welcome(fd: Fd, uid: Option<&str>, heartbeat: &Heartbeat) -> String {
    let (mode, every) = match *heartbeat {
        Heartbeat::Off => ("off", std::time::Duration::ZERO),
        // Twice in the time it has: one report may come late.
        Heartbeat::Client { idle_max } => ("client", idle_max / 2),
        Heartbeat::Ping { every, .. } => ("ping", every),
        Heartbeat::Push { every } => ("push", every),
    };
    let (uid, every) = (Uid(uid), every.as_millis());
    format!(r#"{{"type":"welcome","fd":{fd},"uid":{uid},"heartbeat":{{"mode":"{mode}","every_ms":{every}}}}}"#)
}

/// A message, as its receivers get it. `to` is the member that says whom it was for, as [`to_uid`] and its like write it.
pub fn message(from: Option<&str>, fd: Fd, to: &str, data: &str) -> String {
    let from = Uid(from);
    format!(r#"{{"type":"message","from":{from},"fd":{fd},{to}"data":{data}}}"#)
}

/// Whether the frame of a message of so many bytes fits into a queue at all: one that none could ever hold is its
/// sender's mistake, and not a reader's.
///
/// # Errors
/// Says how long it would be, and may be.
pub fn check_size(message_bytes: usize, queue_bytes_max: usize) -> Result<(), String> {
    match message_bytes + HEADER_BYTES_MAX {
        bytes if bytes <= queue_bytes_max => Ok(()),
        bytes => Err(format!("the message would be a frame of {bytes} bytes: queue_bytes_max is {queue_bytes_max}")),
    }
}

/// `"to":"10010",`
pub fn to_uid(uid: &str) -> String {
    format!("\"to\":{},", Quoted(uid))
}

/// `"group":"room",`
pub fn to_group(group: &str) -> String {
    format!("\"group\":{},", Quoted(group))
}

/// `"all":true,`
pub const TO_ALL: &str = "\"all\":true,";

/// The answer to a push.
pub fn push_ack(id: &str, delivery: Delivery) -> String {
    let Delivery { matched, queued, dropped } = delivery;
    format!(r#"{{"type":"ack","id":{id},"matched":{matched},"queued":{queued},"dropped":{dropped}}}"#)
}

/// The answer to what has nothing to tell.
pub fn ack(id: &str) -> String {
    format!(r#"{{"type":"ack","id":{id}}}"#)
}

/// The answer to what cannot be done.
pub fn error(id: Id<'_>, refusal: &Refusal) -> String {
    let (id, code, message) = (IdMember(id), refusal.code, Quoted(&refusal.message));
    format!(r#"{{"type":"error",{id}"code":"{code}","message":{message}}}"#)
}

/// The answer to `online`.
pub fn online<'u>(id: Id<'_>, uids: impl Iterator<Item = &'u str>) -> String {
    let mut text = format!(r#"{{"type":"online",{}"online":["#, IdMember(id));
    for (index, uid) in uids.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{}", Quoted(uid));
    }
    text.push_str("]}");
    text
}

/// Who came into a group (`joined`) or went (`left`), and how many are there now.
pub fn presence(kind: &str, group: &str, uid: &str, count: usize) -> String {
    let (group, uid) = (Quoted(group), Quoted(uid));
    format!(r#"{{"type":"{kind}","group":{group},"uid":{uid},"count":{count}}}"#)
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
