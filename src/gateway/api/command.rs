//! What back ends ask for, read from JSON and judged before anything is done.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::Hash;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fdpush::{Fd, NAME_BYTES_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::gateway::json::{Text, cut, cut_quoted, present};

/// The longest `id`, as it is written: it is sent back.
const ID_BYTES_MAX: usize = 128;

/// Persons, connections and groups that one command names, those of `except` included.
const NAMES_MAX: usize = 10_000;

/// A push or one of the registry's verbs, as it came. Each takes what it has a use for, and the rest is refused.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Command<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    uids: Option<Vec<Text<'a>>>,
    fd: Option<u64>,
    fds: Option<Vec<u64>>,
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow)]
    groups: Option<Vec<Text<'a>>>,
    all: Option<bool>,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    binary: Option<Text<'a>>,
    /// Apart, for it is large and seldom there.
    #[serde(borrow)]
    except: Option<Box<ExceptMembers<'a>>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    /// The API key of a datagram, which has no header to show it in.
    #[serde(borrow)]
    pub auth: Option<Text<'a>>,
    pub code: Option<u16>,
    #[serde(borrow)]
    pub reason: Option<Text<'a>>,
    pub abort: Option<bool>,
}

/// The member `except`, as it came.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExceptMembers<'a> {
    fd: Option<u64>,
    fds: Option<Vec<u64>>,
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    uids: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow)]
    groups: Option<Vec<Text<'a>>>,
}

/// Who is asked after.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlineCommand<'a> {
    #[serde(borrow)]
    uids: Vec<Text<'a>>,
}

/// A push that was judged.
pub struct PushCommand<'a> {
    /// As it was written.
    pub id: Option<&'a str>,
    pub target: Target<'a>,
    pub payload: Payload<'a>,
    pub except: Except<'a>,
    pub key: Option<Cow<'a, str>>,
}

/// Whom a command is for: each once, in the order in which they are named.
#[derive(Debug)]
pub enum Target<'a> {
    Uids(Vec<Cow<'a, str>>),
    Fds(Vec<Fd>),
    Groups(Vec<Cow<'a, str>>),
    All,
}

/// Whom a push leaves out, each once.
#[derive(Default, Debug)]
pub struct Except<'a> {
    pub fds: Vec<Fd>,
    pub uids: Vec<Cow<'a, str>>,
    pub groups: Vec<Cow<'a, str>>,
}

/// What is pushed.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Any JSON, which goes into our envelope.
    Data(&'a str),
    Text(Cow<'a, str>),
    Binary(Vec<u8>),
}

/// Reads a body or a line. The message of a refusal names the member.
pub fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ApiError> {
    // An array would be taken for the members in their order.
    if json.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(ApiError::bad_request("a JSON object is wanted, not an array"));
    }
    serde_json::from_slice(json).map_err(|error| {
        // Only now is it worth the while to keep track of where in the object the reader is.
        let mut reader = serde_json::Deserializer::from_slice(json);
        let message = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(error) => match error.path().to_string() {
                // The object itself, or a name in it that is none.
                path if path == "." || path.ends_with('?') => plain(error.inner()),
                path => format!("{}: {}", cut(&path), plain(error.inner())),
            },
            Ok(_) => plain(&error),
        };
        ApiError::bad_request(message)
    })
}

/// What the parser says, in the words of JSON and not of Rust. A batch's own lines are counted elsewhere.
fn plain(error: &serde_json::Error) -> String {
    let place = match (error.line(), error.column()) {
        (0, _) | (_, 0) => String::new(),
        (1, column) => format!(" (column {column})"),
        (line, column) => format!(" (line {line}, column {column})"),
    };
    let text = error.to_string();
    let text = cut_quoted(&text);
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    if !error.is_data() {
        return format!("no JSON: {text}{place}");
    }
    let mismatch = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    let Some((found, wanted)) = mismatch.and_then(|text| text.rsplit_once(", expected ")) else {
        return format!("{text}{place}");
    };
    let wanted = match wanted {
        "u64" | "u16" => "a whole number",
        "a sequence" => "an array",
        "a map" => "an object",
        wanted if wanted.starts_with("struct ") => "an object",
        wanted => wanted,
    };
    format!("{wanted} is wanted, not {found}{place}")
}

/// A command's `id`, also where the rest of it cannot be read.
pub fn find_id(json: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let OnlyId { id } = serde_json::from_slice(json).ok()?;
    check_id(id).ok().flatten()
}

impl<'a> Command<'a> {
    /// The push that it is.
    pub fn into_push(mut self) -> Result<PushCommand<'a>, ApiError> {
        let push = PushCommand {
            id: check_id(self.id.take())?,
            target: self.take_target(true)?,
            payload: self.take_payload()?,
            except: self.take_except()?,
            key: self.take_key()?,
        };
        self.check_empty("push")?;
        Ok(push)
    }

    /// The connections or persons it is for; `groups` and `all` where the verb knows those too.
    pub fn take_target(&mut self, with_groups: bool) -> Result<Target<'a>, ApiError> {
        check_count(self.count_names())?;
        let mut given = count(&[self.uid.is_some(), self.uids.is_some(), self.fd.is_some(), self.fds.is_some()]);
        let mut allowed = "uid, uids, fd, fds";
        if with_groups {
            given += count(&[self.group.is_some(), self.groups.is_some(), self.all.is_some()]);
            allowed = "uid, uids, fd, fds, group, groups, all";
        }
        match given {
            1 => {}
            0 => return Err(ApiError::bad_request(format!("one of {allowed} is needed"))),
            _ => return Err(ApiError::bad_request(format!("only one of {allowed} may be given"))),
        }
        if let Some(uid) = self.uid.take() {
            return names(vec![uid], "uid").map(Target::Uids);
        }
        if let Some(uids) = self.uids.take() {
            return names(uids, "uids").map(Target::Uids);
        }
        if let Some(fd) = self.fd.take() {
            return fds(vec![fd], "fd").map(Target::Fds);
        }
        if let Some(numbers) = self.fds.take() {
            return fds(numbers, "fds").map(Target::Fds);
        }
        if let Some(group) = self.group.take() {
            return names(vec![group], "group").map(Target::Groups);
        }
        if let Some(groups) = self.groups.take() {
            return names(groups, "groups").map(Target::Groups);
        }
        match self.all.take() {
            Some(true) => Ok(Target::All),
            _ => Err(ApiError::bad_request("all must be true")),
        }
    }

    /// What it says.
    fn take_payload(&mut self) -> Result<Payload<'a>, ApiError> {
        match (self.data.take(), self.text.take(), self.binary.take()) {
            (Some(data), None, None) => Ok(Payload::Data(data.get())),
            (None, Some(text), None) => Ok(Payload::Text(text.0)),
            (None, None, Some(binary)) => match STANDARD.decode(binary.0.as_bytes()) {
                Ok(bytes) => Ok(Payload::Binary(bytes)),
                Err(error) => Err(ApiError::bad_request(format!("binary: not base64: {error}"))),
            },
            (None, None, None) => Err(ApiError::bad_request("one of data, text, binary is needed")),
            _ => Err(ApiError::bad_request("only one of data, text, binary may be given")),
        }
    }

    /// The conflation key, bounded as clients' are: queues keep it.
    fn take_key(&mut self) -> Result<Option<Cow<'a, str>>, ApiError> {
        let Some(key) = self.key.take() else { return Ok(None) };
        check_name(&key.0, "key")?;
        Ok(Some(key.0))
    }

    /// Whom it leaves out.
    fn take_except(&mut self) -> Result<Except<'a>, ApiError> {
        let Some(except) = self.except.take() else { return Ok(Except::default()) };
        let ExceptMembers { fd, fds: numbers, uid, uids, group, groups } = *except;
        let all = |one: Option<Text<'a>>, many: Option<Vec<Text<'a>>>| {
            names(one.into_iter().chain(many.into_iter().flatten()).collect(), "except")
        };
        Ok(Except {
            fds: fds(fd.into_iter().chain(numbers.into_iter().flatten()).collect(), "except")?,
            uids: all(uid, uids)?,
            groups: all(group, groups)?,
        })
    }

    /// The groups it is about, at least one.
    pub fn take_groups(&mut self) -> Result<Vec<Cow<'a, str>>, ApiError> {
        check_count(self.count_names())?;
        match (self.group.take(), self.groups.take()) {
            (Some(group), None) => names(vec![group], "group"),
            (None, Some(groups)) => names(groups, "groups"),
            (None, None) => Err(ApiError::bad_request("one of group, groups is needed")),
            (Some(_), Some(_)) => Err(ApiError::bad_request("only one of group, groups may be given")),
        }
    }

    /// The one connection and the one uid of a `bind`.
    pub fn take_binding(&mut self) -> Result<(Fd, Cow<'a, str>), ApiError> {
        let fd = self.fd.take().ok_or(ApiError::bad_request("fd is missing"))?;
        let fd = to_fd(fd, "fd")?;
        let uid = self.uid.take().ok_or(ApiError::bad_request("uid is missing"))?;
        check_name(&uid.0, "uid")?;
        Ok((fd, uid.0))
    }

    /// How many it names in its lists.
    fn count_names(&self) -> usize {
        let names = |names: &Option<Vec<Text<'a>>>| names.as_ref().map_or(0, Vec::len);
        let numbers = |numbers: &Option<Vec<u64>>| numbers.as_ref().map_or(0, Vec::len);
        let except =
            self.except.as_ref().map_or(0, |except| numbers(&except.fds) + names(&except.uids) + names(&except.groups));
        numbers(&self.fds) + names(&self.uids) + names(&self.groups) + except
    }

    /// Refuses what the verb has no use for: a mistake is better told than ignored. To be called when all was taken.
    pub fn check_empty(&self, verb: &str) -> Result<(), ApiError> {
        const NAMES: [&str; 17] = [
            "uid", "uids", "fd", "fds", "group", "groups", "all", "data", "text", "binary", "except", "key", "id",
            "auth", "code", "reason", "abort",
        ];
        let are_there: [bool; NAMES.len()] = [
            self.uid.is_some(),
            self.uids.is_some(),
            self.fd.is_some(),
            self.fds.is_some(),
            self.group.is_some(),
            self.groups.is_some(),
            self.all.is_some(),
            self.data.is_some(),
            self.text.is_some(),
            self.binary.is_some(),
            self.except.is_some(),
            self.key.is_some(),
            self.id.is_some(),
            self.auth.is_some(),
            self.code.is_some(),
            self.reason.is_some(),
            self.abort.is_some(),
        ];
        match NAMES.iter().zip(are_there).find(|(_, is_there)| *is_there) {
            Some((name, _)) => Err(ApiError::bad_request(format!("{verb} takes no {name}"))),
            None => Ok(()),
        }
    }
}

impl<'a> OnlineCommand<'a> {
    /// The uids, each once.
    pub fn into_uids(self) -> Result<Vec<Cow<'a, str>>, ApiError> {
        check_count(self.uids.len())?;
        names(self.uids, "uids")
    }
}

/// How many of these are so.
fn count(are_so: &[bool]) -> usize {
    are_so.iter().filter(|is_so| **is_so).count()
}

/// What a command asks for takes time and memory for each of those it names: those have a bound.
fn check_count(count: usize) -> Result<(), ApiError> {
    match count {
        0..=NAMES_MAX => Ok(()),
        _ => Err(ApiError::too_large(format!("{count} are named: a command names at most {NAMES_MAX}"))),
    }
}

fn names<'a>(texts: Vec<Text<'a>>, member: &str) -> Result<Vec<Cow<'a, str>>, ApiError> {
    texts.iter().try_for_each(|text| check_name(&text.0, member))?;
    Ok(distinct(texts.into_iter().map(|text| text.0).collect()))
}

fn fds(numbers: Vec<u64>, member: &str) -> Result<Vec<Fd>, ApiError> {
    numbers.into_iter().map(|number| to_fd(number, member)).collect::<Result<_, _>>().map(distinct)
}

fn to_fd(number: u64, member: &str) -> Result<Fd, ApiError> {
    Fd::from_u64(number).ok_or_else(|| ApiError::bad_request(format!("{member}: {number} is no fd")))
}

/// Each once, in order.
fn distinct<T: Eq + Hash>(mut items: Vec<T>) -> Vec<T> {
    if items.len() > 1 {
        let mut seen = HashSet::with_capacity(items.len());
        let are_new: Vec<bool> = items.iter().map(|item| seen.insert(item)).collect();
        let mut are_new = are_new.into_iter();
        items.retain(|_| are_new.next() == Some(true));
    }
    items
}

/// Refuses what is no uid and no group.
pub fn check_name(name: &str, member: &str) -> Result<(), ApiError> {
    match name.len() {
        1..=NAME_BYTES_MAX => Ok(()),
        len => Err(ApiError::bad_request(format!("{member}: a name has 1 to {NAME_BYTES_MAX} bytes, not {len}"))),
    }
}

fn check_id(id: Option<&RawValue>) -> Result<Option<&str>, ApiError> {
    let Some(id) = id.map(RawValue::get) else { return Ok(None) };
    let is_scalar = id.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
    if !is_scalar || id.len() > ID_BYTES_MAX {
        let what = format!("id: it must be a string or a number of at most {ID_BYTES_MAX} bytes");
        return Err(ApiError::bad_request(what));
    }
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_plainly() {
        let table = [
            (r#"{"id":3,"uid":17}"#, "uid: a string is wanted, not integer `17` (column 16)"),
            (r#"{"fd":"3"}"#, "fd: a whole number is wanted, not string \"3\" (column 9)"),
            (r#"{"fd":-1}"#, "fd: a whole number is wanted, not integer `-1` (column 8)"),
            (r#"{"fds":3}"#, "fds: an array is wanted, not integer `3` (column 8)"),
            (r#"{"except":{"uids":[1]}}"#, "except.uids[0]: a string is wanted, not integer `1` (column 20)"),
            ("\"x\"", "an object is wanted, not string \"x\" (column 3)"),
            ("{uid:1}", "no JSON: key must be a string (column 2)"),
            ("{\n\"uid\":}", "uid: no JSON: expected value (line 2, column 7)"),
            ("", "no JSON: EOF while parsing a value"),
        ];
        for (json, message) in table {
            let error = read::<Command<'_>>(json.as_bytes()).err().expect("refused");
            assert_eq!(error.message, message, "{json}");
        }
        let error = read::<Command<'_>>(br#"{"udi":"a"}"#).err().expect("refused");
        assert!(error.message.contains("unknown field `udi`, expected one of `uid`, `uids`"), "{}", error.message);
    }
}
