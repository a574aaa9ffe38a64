//! The JSON frames of clients: parsing and writing.
//!
//! The member `data` of a frame is any JSON value. The server does not interpret `data`. The server copies the bytes of
//! `data` into the message unchanged.

use std::borrow::Cow;
use std::fmt::{self, Write};

use compact_str::CompactString;
use fdpush::shared::SERVER_HEADER_BYTES_MAX;
use fdpush::{Delivery, Fd, Heartbeat};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::id;
use super::json::{self, List, Quoted, Text, cut};
use super::names::{self, Name};
use super::target::Target;

/// The maximum number of uids in one frame.
const UIDS_MAX: usize = 1000;

/// The maximum number of uids in one notice, as documented in docs/api.md and the README.
pub const NOTICE_UIDS_MAX: usize = 100;

/// The maximum length of the text `"count":N}` at the end of a notice, in bytes. The number N has up to 20 digits.
const NOTICE_END_BYTES_MAX: usize = 32;

/// A frame of a client.
#[derive(Debug, PartialEq)]
pub enum ClientFrame<'a> {
    Push {
        to: Target<'a>,
        key: Option<Cow<'a, str>>,
        data: &'a str,
    },
    /// A message that only the back end receives.
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

/// The reason why a frame is refused.
#[derive(Debug, PartialEq)]
pub struct FrameError {
    pub code: &'static str,
    pub message: String,
}

/// The JSON text of the `id` of a frame, or `None` if the frame has no `id`.
pub type Id<'a> = Option<&'a str>;

/// The members of a frame, not yet checked.
#[derive(Debug, Default)]
struct Members<'a> {
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
    duplicate: Option<String>,
}

/// Parses a frame. Returns the id of the frame even if the frame is invalid.
pub fn parse(text: &str) -> (Id<'_>, Result<ClientFrame<'_>, FrameError>) {
    // A byte order mark is not part of the JSON (RFC 8259 section 8.1).
    let json = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Ok(members) = serde_json::from_str::<Members<'_>>(json) else {
        return (None, Err(FrameError::bad_frame("frame must be a JSON object")));
    };
    match members.id() {
        Ok(id) => (id, members.request()),
        Err(error) => (None, Err(error)),
    }
}

impl<'a> Members<'a> {
    fn id(&self) -> Result<Id<'a>, FrameError> {
        if self.duplicate.as_deref() == Some("id") {
            return Err(FrameError::bad_frame("duplicate member: id"));
        }
        self.id.map(id::check).transpose().map_err(|error| FrameError::bad_frame(error.to_string()))
    }

    fn request(&self) -> Result<ClientFrame<'a>, FrameError> {
        if let Some(name) = &self.duplicate {
            return Err(FrameError::bad_frame(format!("duplicate member: {name}")));
        }
        let Some(kind) = self.kind else { return Err(FrameError::bad_frame("missing member: type")) };
        let kind = read::<Text<'a>>(kind, "type", "a string")?.0;
        let members: &[&str] = match &*kind {
            "push" => &["to", "fd", "group", "all", "key", "data", "id"],
            "send" => &["data", "id"],
            "join" | "leave" => &["group", "id"],
            "heartbeat" => &["id"],
            "online" => &["uids", "id"],
            other => {
                let other = cut(other);
                let what = format!("unknown type {other:?}: expected push, send, join, leave, heartbeat or online");
                return Err(FrameError::bad_frame(what));
            }
        };
        self.check_members(&kind, members)?;
        match &*kind {
            "push" => self.push(),
            "send" => Ok(ClientFrame::Send { data: self.data()? }),
            "join" => Ok(ClientFrame::Join { group: self.group()? }),
            "leave" => Ok(ClientFrame::Leave { group: self.group()? }),
            "online" => Ok(ClientFrame::Online { uids: self.uids()? }),
            _ => Ok(ClientFrame::Heartbeat),
        }
    }

    /// Refuses members that this type of frame does not have, because ignoring such a member would hide a mistake.
    fn check_members(&self, kind: &str, known: &[&str]) -> Result<(), FrameError> {
        let members = [
            ("to", self.to),
            ("fd", self.fd),
            ("group", self.group),
            ("all", self.all),
            ("key", self.key),
            ("data", self.data),
            ("uids", self.uids),
        ];
        let unexpected_member = members.iter().find(|(name, value)| value.is_some() && !known.contains(name));
        match unexpected_member.map(|(name, _)| *name).or(self.unknown.as_deref()) {
            Some(name) => Err(FrameError::bad_request(json::unexpected_member(kind, name, known))),
            None => Ok(()),
        }
    }

    fn push(&self) -> Result<ClientFrame<'a>, FrameError> {
        let data = self.data()?;
        let targets = [("to", self.to), ("fd", self.fd), ("group", self.group), ("all", self.all)];
        let mut named = targets.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let to = match (named.next(), named.next()) {
            (None, _) => return Err(FrameError::bad_request("push needs one of to, fd, group, all")),
            (Some((first, _)), Some((second, _))) => {
                return Err(FrameError::bad_request(format!("push takes either {first} or {second}")));
            }
            (Some(("to", to)), None) if to.get().starts_with('[') => {
                // Duplicate uids are removed, because a frame that lists one uid a thousand times must not cause a
                // thousand searches for the connections of this uid.
                Target::Uids(names::distinct(uids(to, "to", "a uid or an array of uids")?))
            }
            (Some(("to", to)), None) => Target::Uids(vec![name(to, "to")?]),
            (Some(("fd", fd)), None) => Target::Fds(vec![self::fd(fd)?]),
            (Some(("group", group)), None) => Target::Groups(vec![name(group, "group")?]),
            (Some((_, all)), None) => match read::<bool>(all, "all", "true")? {
                true => Target::All,
                false => return Err(FrameError::bad_request("member all must be true")),
            },
        };
        let key = self.key.map(|key| name(key, "key")).transpose()?;
        Ok(ClientFrame::Push { to, key, data })
    }

    fn data(&self) -> Result<&'a str, FrameError> {
        self.data.map_or(Err(FrameError::bad_request("missing member: data")), |data| Ok(data.get()))
    }

    fn group(&self) -> Result<Cow<'a, str>, FrameError> {
        self.group.map_or(Err(FrameError::bad_request("missing member: group")), |group| name(group, "group"))
    }

    fn uids(&self) -> Result<Vec<Cow<'a, str>>, FrameError> {
        let Some(uids) = self.uids else { return Err(FrameError::bad_request("missing member: uids")) };
        self::uids(uids, "uids", "an array of uids")
    }
}

/// Parses a uid, a group or a key.
fn name<'a>(value: &'a RawValue, member: &str) -> Result<Cow<'a, str>, FrameError> {
    let Name(name) = read(value, member, "a string or an integer of 64 bits")?;
    check_name(&name, member)?;
    Ok(name)
}

fn check_name(name: &str, member: &str) -> Result<(), FrameError> {
    names::check(name).map_err(|error| FrameError::bad_request(format!("{member}: {error}")))
}

fn fd(value: &RawValue) -> Result<Fd, FrameError> {
    let number = read(value, "fd", "a positive number")?;
    Fd::from_u64(number).ok_or_else(|| FrameError::bad_request(format!("{number} is not an fd")))
}

fn uids<'a>(value: &'a RawValue, member: &str, kind: &str) -> Result<Vec<Cow<'a, str>>, FrameError> {
    let List(uids): List<Name<'a>> = read(value, member, kind)?;
    if uids.len() > UIDS_MAX {
        return Err(FrameError::too_large(format!("uid limit of {member} exceeded ({} of {UIDS_MAX})", uids.len())));
    }
    uids.iter().try_for_each(|uid| check_name(&uid.0, member))?;
    Ok(uids.into_iter().map(|uid| uid.0).collect())
}

fn read<'a, T: Deserialize<'a>>(value: &'a RawValue, name: &str, kind: &str) -> Result<T, FrameError> {
    serde_json::from_str(value.get()).map_err(|_| FrameError::bad_request(format!("{name} must be {kind}")))
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A visitor that collects the members of a frame. A member with the value `null` counts as absent, except for `data`.
struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(Text(name)) = map.next_key()? {
            let value: &'de RawValue = map.next_value()?;
            let place = match &*name {
                "type" => &mut members.kind,
                "id" => &mut members.id,
                "to" => &mut members.to,
                "fd" => &mut members.fd,
                "group" => &mut members.group,
                "all" => &mut members.all,
                "key" => &mut members.key,
                "data" => &mut members.data,
                "uids" => &mut members.uids,
                _ => {
                    // A frame may have a hundred thousand unknown members, so only the name of the first unknown member
                    // is copied.
                    members.unknown.get_or_insert_with(|| cut(&name).into_owned());
                    continue;
                }
            };
            // If a frame has several duplicate members, a duplicate `id` is reported, because the answer to a frame
            // with a duplicate `id` has no `id`.
            let is_first = |known: &str| known != "id" && name == "id";
            if place.replace(value).is_some() && members.duplicate.as_deref().is_none_or(is_first) {
                members.duplicate = Some(name.into_owned());
            }
        }
        let Members { kind, id, to, fd, group, all, key, uids, .. } = &mut members;
        for member in [kind, id, to, fd, group, all, key, uids] {
            member.take_if(|value| value.get() == "null");
        }
        Ok(members)
    }
}

impl FrameError {
    fn bad_frame(message: impl Into<String>) -> FrameError {
        FrameError { code: "bad_frame", message: message.into() }
    }

    /// Returns the error of a frame that cannot be executed.
    pub fn bad_request(message: impl Into<String>) -> FrameError {
        FrameError { code: "bad_request", message: message.into() }
    }

    /// Returns the error of a frame that exceeds a limit.
    pub fn too_large(message: impl Into<String>) -> FrameError {
        FrameError { code: "too_large", message: message.into() }
    }

    /// Returns the error of a frame that exceeds the message rate of its client.
    pub fn rate_limited(message: impl Into<String>) -> FrameError {
        FrameError { code: "rate_limited", message: message.into() }
    }

    /// Returns the error of a frame that the server cannot execute now, because the queue of webhook events is full or
    /// memory is short.
    pub fn unavailable(message: impl Into<String>) -> FrameError {
        FrameError { code: "unavailable", message: message.into() }
    }

    /// Returns the error of a frame for which the client has no permission.
    pub fn not_allowed(message: impl Into<String>) -> FrameError {
        FrameError { code: "not_allowed", message: message.into() }
    }
}

/// A uid as a JSON string, or `null` for a client without a uid.
struct Uid<'a>(Option<&'a str>);

impl fmt::Display for Uid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(uid) => Quoted(uid).fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// The text `"id":7,` in an answer, or no text if the frame has no id.
struct IdMember<'a>(Id<'a>);

impl fmt::Display for IdMember<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |id| write!(f, "\"id\":{id},"))
    }
}

/// Returns the frame `welcome`, which is the first frame to a new client.
pub fn welcome(fd: Fd, uid: Option<&str>, heartbeat: &Heartbeat) -> String {
    let (mode, every) = match *heartbeat {
        Heartbeat::Off => ("off", std::time::Duration::ZERO),
        // The announced interval is half of the maximum idle time, so a late heartbeat does not close the connection.
        Heartbeat::Client { idle_max } => ("client", idle_max / 2),
        Heartbeat::Ping { every, .. } => ("ping", every),
        Heartbeat::Push { every } => ("push", every),
    };
    let (uid, every) = (Uid(uid), every.as_millis());
    format!(r#"{{"type":"welcome","fd":{fd},"uid":{uid},"heartbeat":{{"mode":"{mode}","every_ms":{every}}}}}"#)
}

/// Returns the answer to a frame of type `push`.
pub fn push_ack(id: &str, delivery: Delivery) -> String {
    let Delivery { matched, queued, dropped, .. } = delivery;
    format!(r#"{{"type":"ack","id":{id},"matched":{matched},"queued":{queued},"dropped":{dropped}}}"#)
}

/// Returns the answer that confirms a frame and contains only the `id` of the frame.
pub fn ack(id: &str) -> String {
    format!(r#"{{"type":"ack","id":{id}}}"#)
}

/// Returns the text of an error frame.
pub fn error(id: Id<'_>, error: &FrameError) -> String {
    let (id, code, message) = (IdMember(id), error.code, Quoted(&error.message));
    format!(r#"{{"type":"error",{id}"code":"{code}","message":{message}}}"#)
}

/// Returns the answer to a frame of type `online`.
pub fn online<'u>(id: Id<'_>, uids: impl Iterator<Item = &'u str>) -> String {
    let mut text = format!(r#"{{"type":"online",{}"online":["#, IdMember(id));
    append_names(&mut text, uids);
    text.push_str("]}");
    text
}

/// A notice to the members of a group about users who joined or left.
#[derive(Debug)]
pub struct PresenceNotice {
    pub kind: NoticeKind,
    /// The uids of the users who joined or left, at least one.
    pub uids: Vec<CompactString>,
    /// The number of users in the group after the users in `uids` joined or left.
    pub count: usize,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum NoticeKind {
    Joined,
    Left,
}

/// Returns a notice as JSON.
///
/// A notice about one user has the member `uid`, and a notice about several users has the member `uids`. A notice has
/// neither member if it is about more than [`NOTICE_UIDS_MAX`] users, or if its uids do not fit into the queue of a
/// connection. Every notice has the member `count`.
pub fn notice(group: &str, notice: &PresenceNotice, queue_bytes_max: usize) -> String {
    let (kind, group, count) = (notice.kind.as_str(), Quoted(group), notice.count);
    let mut text = format!(r#"{{"type":"{kind}","group":{group},"#);
    let bare = text.len();
    match notice.uids.as_slice() {
        [uid] => {
            text.push_str("\"uid\":");
            Quoted(uid).append_to(&mut text);
            text.push(',');
        }
        uids if uids.len() <= NOTICE_UIDS_MAX => {
            text.push_str("\"uids\":[");
            append_names(&mut text, uids.iter().map(AsRef::as_ref));
            text.push_str("],");
        }
        _ => {}
    }
    if text.len() + NOTICE_END_BYTES_MAX + SERVER_HEADER_BYTES_MAX > queue_bytes_max {
        text.truncate(bare);
    }
    // Writing to a string does not fail.
    let _ = write!(text, r#""count":{count}}}"#);
    text
}

impl NoticeKind {
    fn as_str(self) -> &'static str {
        match self {
            NoticeKind::Joined => "joined",
            NoticeKind::Left => "left",
        }
    }
}

/// Appends names to `out` as elements of a JSON array.
pub fn append_names<'n>(out: &mut String, names: impl Iterator<Item = &'n str>) {
    for (index, name) in names.enumerate() {
        if index > 0 {
            out.push(',');
        }
        Quoted(name).append_to(out);
    }
}

#[cfg(test)]
mod tests;
