//! Parses and checks the JSON commands of back ends before their execution.

use std::borrow::Cow;

use base64::Engine as _;
use base64::decoded_len_estimate;
use base64::engine::general_purpose::STANDARD;
use fdpush::Fd;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::gateway::push::publish::Envelope;
use crate::gateway::wire::id;
use crate::gateway::wire::json::{self, List, Object, Text, cut, cut_quoted, optional_object, present};
use crate::gateway::wire::names::{self, Name};
use crate::gateway::wire::target::Target;

/// The maximum number of uids, fds and groups in one command.
///
/// The uids, fds and groups in the member `except` count towards this maximum.
pub const NAMES_MAX: usize = 10_000;

/// The name of an API call, and the JSON members that its command may have.
#[derive(Copy, Clone, Debug)]
pub struct Shape {
    pub call: &'static str,
    pub members: &'static [&'static str],
}

pub const PUSH: Shape = Shape {
    call: "push",
    members: &[
        "uid", "uids", "fd", "fds", "group", "groups", "all", "data", "text", "binary", "except", "key", "compress",
        "id",
    ],
};

/// The [`Shape`] of the push command in a datagram.
///
/// A datagram has no HTTP header, so the push command contains the API key in the member `auth`.
pub const DATAGRAM: Shape = Shape {
    call: "push",
    members: &[
        "uid", "uids", "fd", "fds", "group", "groups", "all", "data", "text", "binary", "except", "key", "compress",
        "id", "auth",
    ],
};

pub const BIND: Shape = Shape { call: "bind", members: &["fd", "uid"] };
pub const UNBIND: Shape = Shape { call: "unbind", members: &["uid", "uids", "fd", "fds"] };
pub const JOIN: Shape = Shape { call: "join", members: &["uid", "uids", "fd", "fds", "group", "groups"] };
pub const LEAVE: Shape = Shape { call: "leave", ..JOIN };
pub const UNGROUP: Shape = Shape { call: "ungroup", members: &["group", "groups"] };
pub const ONLINE: Shape = Shape { call: "online", members: &["uids"] };
pub const CLOSE: Shape = Shape {
    call: "close",
    members: &["uid", "uids", "fd", "fds", "group", "groups", "all", "code", "reason", "abort"],
};

/// The [`Shape`] of connection attributes. The empty list `members` means that the JSON object may have any members.
const ATTRIBUTES: Shape = Shape { call: "attributes", members: &[] };

/// The [`Shape`] of the JSON object `except` in a push command.
pub const EXCEPT: Shape = Shape { call: "except", members: &["uid", "uids", "fd", "fds", "group", "groups"] };

/// The JSON members of an API command, with unchecked values.
///
/// [`Command::read`] refuses a member that is not in the [`Shape`] of the command.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Command<'a> {
    #[serde(borrow)]
    uid: Option<Name<'a>>,
    #[serde(borrow)]
    uids: Option<List<Name<'a>>>,
    fd: Option<u64>,
    fds: Option<List<u64>>,
    #[serde(borrow)]
    group: Option<Name<'a>>,
    #[serde(borrow)]
    groups: Option<List<Name<'a>>>,
    all: Option<bool>,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    binary: Option<Text<'a>>,
    /// The members of `except`. The value is boxed to save memory, because most commands do not contain `except`.
    #[serde(borrow, deserialize_with = "optional_object")]
    except: Option<Box<ExceptMembers<'a>>>,
    #[serde(borrow)]
    key: Option<Name<'a>>,
    compress: Option<bool>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    /// The API key in the push command of a datagram.
    #[serde(borrow)]
    pub auth: Option<Text<'a>>,
    pub code: Option<u16>,
    #[serde(borrow)]
    pub reason: Option<Text<'a>>,
    pub abort: Option<bool>,
}

/// The members of the JSON object `except`, with unchecked values.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExceptMembers<'a> {
    fd: Option<u64>,
    fds: Option<List<u64>>,
    #[serde(borrow)]
    uid: Option<Name<'a>>,
    #[serde(borrow)]
    uids: Option<List<Name<'a>>>,
    #[serde(borrow)]
    group: Option<Name<'a>>,
    #[serde(borrow)]
    groups: Option<List<Name<'a>>>,
}

/// A push command whose members were checked.
pub struct PushCommand<'a> {
    /// The JSON text of the member `id`, unchanged. The answer to the push command repeats this JSON text.
    pub id: Option<&'a str>,
    pub target: Target<'a>,
    pub envelope: Envelope<'a>,
    pub except: Except<'a>,
    pub key: Option<Cow<'a, str>>,
    pub may_compress: bool,
}

/// The fds, uids and groups that a push command excludes, without duplicates.
#[derive(Default, Debug)]
pub struct Except<'a> {
    pub fds: Vec<Fd>,
    pub uids: Vec<Cow<'a, str>>,
    pub groups: Vec<Cow<'a, str>>,
}

impl Except<'_> {
    /// Returns whether `except` excludes uids or groups.
    pub fn has_names(&self) -> bool {
        !self.uids.is_empty() || !self.groups.is_empty()
    }

    /// Returns a copy that owns its names.
    pub fn to_owned(&self) -> Except<'static> {
        Except { fds: self.fds.clone(), uids: names::owned(&self.uids), groups: names::owned(&self.groups) }
    }
}

/// Parses the attributes of a connection. Any JSON object is a valid value of the attributes.
pub fn read_attributes(json: &[u8]) -> Result<Object, ApiError> {
    read(json, &ATTRIBUTES)
}

/// Parses a JSON object. The error for an unknown member names the call and the members of `shape`.
fn read<'a, T: Deserialize<'a>>(json: &'a [u8], shape: &Shape) -> Result<T, ApiError> {
    let json = json::object_text(json).ok_or(ApiError::bad_request("expected a JSON object, found an array"))?;
    // The whole JSON text is checked for valid UTF-8 once, so that the parser need not check each string.
    let parsed = str::from_utf8(json).map_or_else(|_| serde_json::from_slice(json), serde_json::from_str);
    parsed.map_err(|error| {
        // `serde_path_to_error` is slow, so it parses the JSON text again only after `serde_json` has found an error.
        let mut reader = serde_json::Deserializer::from_slice(json);
        let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut reader) else {
            return ApiError::bad_request(plain(&error));
        };
        let (path, is_nested) = (error.path().to_string(), error.path().iter().nth(1).is_some());
        let first = error.path().iter().next().map(ToString::to_string).unwrap_or_default();
        let message = match unknown_member(error.inner()) {
            // The command contains a member that only other API calls have.
            _ if shape.lacks(&first) => shape.unexpected_member(&first),
            // A nested unknown member is a member of `except`, because `except` is the only JSON object in a command
            // with a fixed set of members.
            Some(name) if is_nested => EXCEPT.unexpected_member(&name),
            Some(name) => shape.unexpected_member(&name),
            // The JSON text is not a valid object, or a member name in the object is not a string.
            None if path == "." || path.ends_with('?') => plain(error.inner()),
            None => format!("{}: {}", cut(&path), plain(error.inner())),
        };
        ApiError::bad_request(message)
    })
}

/// Returns the name of the unknown member that an error reports, if any.
fn unknown_member(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let (name, _) = text.strip_prefix("unknown field `")?.rsplit_once("`, expected ")?;
    Some(name.to_owned())
}

/// Describes a parser error in terms of JSON instead of Rust types.
///
/// A line number in the error text counts the lines within one command. The member `line` of the answer contains the
/// line number of the command in a batch.
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
        return format!("invalid JSON: {text}{place}");
    }
    if let Some(name) = text.strip_prefix("duplicate field `").and_then(|text| text.strip_suffix('`')) {
        return format!("duplicate member: {name}{place}");
    }
    let mismatch = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    let Some((found, wanted)) = mismatch.and_then(|text| text.rsplit_once(", expected ")) else {
        return format!("{text}{place}");
    };
    let wanted = match wanted {
        "u64" => "an integer of at least 0",
        "u16" => "an integer from 0 to 65535",
        "a map" => "an object",
        wanted if wanted.starts_with("struct ") => "an object",
        wanted => wanted,
    };
    let found = match found {
        "sequence" => "an array",
        "map" => "an object",
        found => found,
    };
    format!("expected {wanted}, found {found}{place}")
}

/// Returns the `id` of a command, even if other members are invalid.
pub fn find_id(json: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let OnlyId { id } = serde_json::from_slice(json::object_text(json)?).ok()?;
    check_id(id).ok().flatten()
}

impl Shape {
    /// Returns whether `name` is a member of other API calls, but not of this API call.
    fn lacks(&self, name: &str) -> bool {
        let is_known = DATAGRAM.members.contains(&name) || CLOSE.members.contains(&name);
        is_known && !self.members.is_empty() && !self.members.contains(&name)
    }

    fn unexpected_member(&self, name: &str) -> String {
        match name {
            "auth" => "auth: give the API key in the header Authorization: Bearer KEY".to_owned(),
            name => json::unexpected_member(self.call, name, self.members),
        }
    }
}

impl<'a> PushCommand<'a> {
    /// Parses and checks a push command.
    ///
    /// # Errors
    /// Returns an error if the push command is invalid. The error message names the invalid member.
    pub fn read(json: &'a [u8], shape: &Shape) -> Result<PushCommand<'a>, ApiError> {
        Command::read(json, shape)?.take_push()
    }
}

impl<'a> Command<'a> {
    /// Parses a command from a request body, a batch line or a datagram.
    ///
    /// # Errors
    /// Returns an error if a member is invalid. The error message names the invalid member. A member that the API call
    /// does not have is also an error, because ignoring an unknown member would hide a mistake of the back end.
    pub fn read(json: &'a [u8], shape: &Shape) -> Result<Command<'a>, ApiError> {
        let command: Result<Command<'a>, ApiError> = read(json, shape);
        if let Ok(command) = &command
            && let Some(name) = command.members().find(|name| !shape.members.contains(name))
        {
            return Err(ApiError::bad_request(shape.unexpected_member(name)));
        }
        // A `Command` is a large value. So the result of the parser is returned directly, and the `Command` is not
        // copied into a new `Result`.
        command
    }

    /// Checks the members of a push command, and returns the push command.
    pub fn take_push(&mut self) -> Result<PushCommand<'a>, ApiError> {
        Ok(PushCommand {
            id: check_id(self.id.take())?,
            target: self.take_target(true)?,
            envelope: self.take_envelope()?,
            except: self.take_except()?,
            key: self.take_key()?,
            may_compress: self.compress.unwrap_or(true),
        })
    }

    /// Checks and returns the target of a command.
    ///
    /// The command may give its target in the member `group`, `groups` or `all` only if `with_groups` is `true`.
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
            0 => return Err(ApiError::bad_request(format!("expected one of {allowed}"))),
            _ => return Err(ApiError::bad_request(format!("expected only one of {allowed}"))),
        }
        if let Some(uid) = self.uid.take() {
            return names(vec![uid], "uid").map(Target::Uids);
        }
        if let Some(uids) = self.uids.take() {
            return names(uids.0, "uids").map(Target::Uids);
        }
        if let Some(fd) = self.fd.take() {
            return fds(vec![fd], "fd").map(Target::Fds);
        }
        if let Some(numbers) = self.fds.take() {
            return fds(numbers.0, "fds").map(Target::Fds);
        }
        if let Some(group) = self.group.take() {
            return names(vec![group], "group").map(Target::Groups);
        }
        if let Some(groups) = self.groups.take() {
            return names(groups.0, "groups").map(Target::Groups);
        }
        match self.all.take() {
            Some(true) => Ok(Target::All),
            _ => Err(ApiError::bad_request("member all must be true")),
        }
    }

    /// Returns the content of the message of a push command.
    fn take_envelope(&mut self) -> Result<Envelope<'a>, ApiError> {
        match (self.data.take(), self.text.take(), self.binary.take()) {
            (Some(data), None, None) => Ok(Envelope::Data { from: None, data: data.get() }),
            (None, Some(text), None) => Ok(Envelope::Text(text.0)),
            (None, None, Some(binary)) => decode_base64(binary.0.as_bytes()).map(Envelope::Binary),
            (None, None, None) => Err(ApiError::bad_request("expected one of data, text, binary")),
            _ => Err(ApiError::bad_request("expected only one of data, text, binary")),
        }
    }

    /// Returns the conflation key. Queues store the key, so the key has the same length limit as a name.
    fn take_key(&mut self) -> Result<Option<Cow<'a, str>>, ApiError> {
        let Some(key) = self.key.take() else { return Ok(None) };
        check_name(&key.0, "key")?;
        Ok(Some(key.0))
    }

    /// Checks and returns the connections, uids and groups that the member `except` excludes.
    fn take_except(&mut self) -> Result<Except<'a>, ApiError> {
        let Some(except) = self.except.take() else { return Ok(Except::default()) };
        let ExceptMembers { fd, fds: numbers, uid, uids, group, groups } = *except;
        let all = |one: Option<Name<'a>>, many: Option<List<Name<'a>>>| {
            names(one.into_iter().chain(many.into_iter().flat_map(|list| list.0)).collect(), "except")
        };
        Ok(Except {
            fds: fds(fd.into_iter().chain(numbers.into_iter().flat_map(|list| list.0)).collect(), "except")?,
            uids: all(uid, uids)?,
            groups: all(group, groups)?,
        })
    }

    /// Returns the group names in the member `group` or `groups`, without duplicates.
    pub fn take_groups(&mut self) -> Result<Vec<Cow<'a, str>>, ApiError> {
        check_count(self.count_names())?;
        match (self.group.take(), self.groups.take()) {
            (Some(group), None) => names(vec![group], "group"),
            (None, Some(groups)) => names(groups.0, "groups"),
            (None, None) => Err(ApiError::bad_request("expected one of group, groups")),
            (Some(_), Some(_)) => Err(ApiError::bad_request("expected only one of group, groups")),
        }
    }

    /// Returns the fd and the uid of a `bind` command.
    pub fn take_binding(&mut self) -> Result<(Fd, Cow<'a, str>), ApiError> {
        let fd = self.fd.take().ok_or(ApiError::bad_request("missing member: fd"))?;
        let fd = to_fd(fd, "fd")?;
        let uid = self.uid.take().ok_or(ApiError::bad_request("missing member: uid"))?;
        check_name(&uid.0, "uid")?;
        Ok((fd, uid.0))
    }

    /// Returns the uids of an `online` command, without duplicates.
    pub fn take_uids(&mut self) -> Result<Vec<Cow<'a, str>>, ApiError> {
        check_count(self.count_names())?;
        let uids = self.uids.take().ok_or(ApiError::bad_request("missing member: uids"))?;
        names(uids.0, "uids")
    }

    /// Returns the number of names and fds in all lists of the command.
    fn count_names(&self) -> usize {
        let names = |names: &Option<List<Name<'a>>>| names.as_ref().map_or(0, |list| list.0.len());
        let numbers = |numbers: &Option<List<u64>>| numbers.as_ref().map_or(0, |list| list.0.len());
        let except =
            self.except.as_ref().map_or(0, |except| numbers(&except.fds) + names(&except.uids) + names(&except.groups));
        numbers(&self.fds) + names(&self.uids) + names(&self.groups) + except
    }

    /// Returns the names of the members that the command contains.
    fn members(&self) -> impl Iterator<Item = &'static str> {
        let members = [
            ("uid", self.uid.is_some()),
            ("uids", self.uids.is_some()),
            ("fd", self.fd.is_some()),
            ("fds", self.fds.is_some()),
            ("group", self.group.is_some()),
            ("groups", self.groups.is_some()),
            ("all", self.all.is_some()),
            ("data", self.data.is_some()),
            ("text", self.text.is_some()),
            ("binary", self.binary.is_some()),
            ("except", self.except.is_some()),
            ("key", self.key.is_some()),
            ("compress", self.compress.is_some()),
            ("id", self.id.is_some()),
            ("auth", self.auth.is_some()),
            ("code", self.code.is_some()),
            ("reason", self.reason.is_some()),
            ("abort", self.abort.is_some()),
        ];
        members.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name)
    }
}

/// Returns the number of `true` values.
fn count(are_so: &[bool]) -> usize {
    are_so.iter().filter(|is_so| **is_so).count()
}

/// Checks the number of names and fds in one command. Each name and each fd costs time and memory.
fn check_count(count: usize) -> Result<(), ApiError> {
    match count {
        0..=NAMES_MAX => Ok(()),
        _ => Err(ApiError::too_large(format!("name limit of a command exceeded ({count} of {NAMES_MAX})"))),
    }
}

fn names<'a>(names: Vec<Name<'a>>, member: &str) -> Result<Vec<Cow<'a, str>>, ApiError> {
    names.iter().try_for_each(|name| check_name(&name.0, member))?;
    Ok(names::distinct(names.into_iter().map(|name| name.0).collect()))
}

fn fds(numbers: Vec<u64>, member: &str) -> Result<Vec<Fd>, ApiError> {
    numbers.into_iter().map(|number| to_fd(number, member)).collect::<Result<_, _>>().map(names::distinct)
}

fn to_fd(number: u64, member: &str) -> Result<Fd, ApiError> {
    Fd::from_u64(number).ok_or_else(|| ApiError::bad_request(format!("{member}: {number} is not an fd")))
}

/// Checks the length of a uid, a group name or a conflation key. The text of the error begins with `member`.
pub fn check_name(name: &str, member: &str) -> Result<(), ApiError> {
    names::check(name).map_err(|error| ApiError::bad_request(format!("{member}: {error}")))
}

fn check_id(id: Option<&RawValue>) -> Result<Option<&str>, ApiError> {
    id.map(id::check).transpose().map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Decodes the base64 text of a binary message.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    // The memory for the decoded bytes is reserved here, so the decoder allocates no memory. A failed allocation in the
    // decoder would end the process.
    bytes.try_reserve_exact(decoded_len_estimate(text.len())).map_err(|_| ApiError::out_of_memory())?;
    let decoded = STANDARD.decode_vec(text, &mut bytes);
    decoded.map_err(|error| ApiError::bad_request(format!("binary: not base64: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the error message for an invalid push command.
    fn refusal(json: impl AsRef<[u8]>) -> String {
        let outcome = PushCommand::read(json.as_ref(), &PUSH);
        outcome.err().expect("the push is invalid").message.into_owned()
    }

    #[test]
    fn an_error_message_names_the_invalid_member_and_its_fault() {
        let table = [
            (
                r#"{"id":3,"uid":true}"#,
                "uid: expected a string or an integer of 64 bits, found boolean `true` (column 18)",
            ),
            (
                r#"{"uid":10010.0}"#,
                "uid: expected a string or an integer of 64 bits, found floating point `10010.0` (column 14)",
            ),
            (
                r#"{"except":{"uids":[1,[]]}}"#,
                "except.uids[1]: expected a string or an integer of 64 bits, found an array (column 23)",
            ),
            (r#"{"fd":"3"}"#, "fd: expected an integer of at least 0, found string \"3\" (column 9)"),
            (r#"{"fd":-1}"#, "fd: expected an integer of at least 0, found integer `-1` (column 8)"),
            (r#"{"fds":3}"#, "fds: expected an array, found integer `3` (column 8)"),
            (
                r#"{"uids":{"0":"a","2":"b"}}"#,
                "uids: expected an array, found an object (in PHP, use array_values) (column 12)",
            ),
            (r#"{"except":[1]}"#, "except: expected an object, found an array (column 13)"),
            ("\"x\"", "expected an object, found string \"x\" (column 3)"),
            ("[1]", "expected a JSON object, found an array"),
            ("[]", "expected one of uid, uids, fd, fds, group, groups, all"),
            ("{uid:1}", "invalid JSON: key must be a string (column 2)"),
            ("{\n\"uid\":}", "uid: invalid JSON: expected value (line 2, column 7)"),
            ("", "invalid JSON: EOF while parsing a value"),
        ];
        for (json, message) in table {
            assert_eq!(refusal(json), message, "{json}");
        }
        let close = Command::read(br#"{"fd":1,"code":70000}"#, &CLOSE).err().expect("the close code is invalid");
        assert_eq!(close.message, "code: expected an integer from 0 to 65535, found integer `70000` (column 20)");
        assert!(refusal(b"{\"uid\":\"\xd5\xc5\",\"data\":1}").contains("invalid JSON: invalid unicode"));
        assert!(refusal(r#"{"uid":"\ud800","data":1}"#).contains("uid: invalid JSON"));
        assert!(refusal(r#"{"uid":"a","u\u0069d":"b","data":1}"#).starts_with("duplicate member: uid (column "));
    }

    #[test]
    fn the_error_for_an_unknown_member_lists_the_known_members() {
        let all = "members: uid, uids, fd, fds, group, groups";
        for (shape, json, message) in [
            (
                &BIND,
                r#"{"fd":1,"udi":"a"}"#,
                r#"bind has no member "udi"; did you mean "uid"? members: fd, uid"#.to_owned(),
            ),
            (
                &BIND,
                r#"{"fd":1,"uids":["a"]}"#,
                r#"bind has no member "uids"; did you mean "uid"? members: fd, uid"#.to_owned(),
            ),
            (&JOIN, r#"{"gruop":"a"}"#, format!(r#"join has no member "gruop"; did you mean "group"? {all}"#)),
            (&ONLINE, r#"{"uid":"a"}"#, r#"online has no member "uid"; did you mean "uids"? members: uids"#.to_owned()),
            (
                &ONLINE,
                r#"{"x`, expected `y":1}"#,
                r#"online has no member "x`, expected `y"; members: uids"#.to_owned(),
            ),
            (&PUSH, r#"{"except":{"udi":"a"}}"#, format!(r#"except has no member "udi"; did you mean "uid"? {all}"#)),
            (&PUSH, r#"{"except":{"all":true}}"#, format!(r#"except has no member "all"; {all}"#)),
            (
                &ONLINE,
                r#"{"uid":["a"]}"#,
                r#"online has no member "uid"; did you mean "uids"? members: uids"#.to_owned(),
            ),
            (
                &ONLINE,
                r#"{"uids":{"1":2},"code":"x"}"#,
                "uids: expected an array, found an object (in PHP, use array_values) (column 12)".to_owned(),
            ),
            (&BIND, r#"{"uids":"a"}"#, r#"bind has no member "uids"; did you mean "uid"? members: fd, uid"#.to_owned()),
            (&BIND, r#"{"except":{"x":1}}"#, r#"bind has no member "except"; members: fd, uid"#.to_owned()),
            (&PUSH, r#"{"auth":7}"#, "auth: give the API key in the header Authorization: Bearer KEY".to_owned()),
            (&PUSH, r#"{"auth":"x"}"#, "auth: give the API key in the header Authorization: Bearer KEY".to_owned()),
        ] {
            assert_eq!(
                Command::read(json.as_bytes(), shape).err().expect("the command is invalid").message,
                message,
                "{json}"
            );
        }
        assert!(Command::read(br#"{"all":true,"data":1,"auth":"x"}"#, &DATAGRAM).is_ok());
        assert!(
            Command::read(br#"{"fd":1,"uid":null,"data":null}"#, &UNBIND).is_err(),
            "`data` must count as a given member even if its value is null"
        );
    }

    #[test]
    fn integers_as_names_and_an_empty_array_as_an_object_are_accepted() {
        let json = b"\xef\xbb\xbf{\"uids\":[10010,\"10010\",-7,\"a\"],\"key\":5,\"data\":1,\
                     \"except\":{\"uid\":3,\"groups\":[4,\"4\"],\"fds\":{}}}";
        let push = PushCommand::read(json, &PUSH).expect("the push is valid");
        let Target::Uids(uids) = push.target else { panic!("{:?}", push.target) };
        assert_eq!((uids, push.key.as_deref()), (vec!["10010".into(), "-7".into(), "a".into()], Some("5")));
        assert_eq!(
            (push.except.uids, push.except.groups, push.except.fds),
            (vec!["3".into()], vec!["4".into()], vec![])
        );
        let push = PushCommand::read(br#"{"group":7,"data":[],"except":[]}"#, &PUSH).expect("the push is valid");
        assert!(matches!(push.target, Target::Groups(groups) if groups == ["7"]));
        assert!(
            matches!(push.envelope, Envelope::Data { from: None, data: "[]" }),
            "`data` must accept any JSON value"
        );
    }
}
