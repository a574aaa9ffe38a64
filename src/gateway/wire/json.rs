//! JSON parsing and writing. Strings without escapes are borrowed from the input. JSON that is forwarded is copied byte
//! for byte.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::suggestion::nearest;

/// The maximum number of bytes of the input that an error text repeats.
const ECHO_BYTES_MAX: usize = 64;

/// A JSON string. A string without escapes is borrowed from the input.
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A JSON array. `{}` also counts as an empty array, because Lua writes an empty array as `{}`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct List<T>(pub Vec<T>);

/// A JSON object. Duplicate members at any depth are refused, because JSON parsers disagree about the value of a
/// duplicate member.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Object(pub Map<String, Value>);

/// A time in seconds since 1970: a `NumericDate` (RFC 7519 section 2). The time can have a fraction and be negative.
///
/// The distance to 1970 is at most 2⁵³ seconds, because every JSON parser reads integers up to 2⁵³ exactly (RFC 8259
/// section 6).
#[derive(Copy, Clone, PartialEq, PartialOrd, Debug)]
pub struct Seconds(pub f64);

/// A value that is serialized as the text of its `Display`.
pub struct AsText<T>(pub T);

impl<T: fmt::Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A string that is written as JSON.
pub struct Quoted<'a>(pub &'a str);

impl Quoted<'_> {
    /// Appends the string to `out` without a formatter, because a formatter is too slow for each message.
    pub fn append_to(&self, out: &mut String) {
        // Writing to a string does not fail.
        let _ = self.write_to(out);
    }

    fn write_to(&self, out: &mut impl fmt::Write) -> fmt::Result {
        // Most strings contain no character that JSON must escape. A string without such a character is copied without
        // a serializer.
        if self.0.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            out.write_char('"')?;
            out.write_str(self.0)?;
            return out.write_char('"');
        }
        out.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

/// Returns at most the first [`ECHO_BYTES_MAX`] bytes of a text of a client or back end, for an error text.
pub fn cut(text: &str) -> Cow<'_, str> {
    let end = (0..=ECHO_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    if text.len() > ECHO_BYTES_MAX { format!("{}…", &text[..end]).into() } else { text.into() }
}

/// Returns `message`, which is the error text of a JSON parser. Input that the error text quotes is cut to
/// [`ECHO_BYTES_MAX`] bytes.
pub fn cut_quoted(message: &str) -> Cow<'_, str> {
    let (Some(start), Some(end)) = (message.find(['`', '"']), message.rfind(", expected ")) else {
        return message.into();
    };
    let quote = &message[start..=start];
    match message.get(start + 1..end).and_then(|quoted| quoted.strip_suffix(quote)) {
        Some(quoted) if quoted.len() > ECHO_BYTES_MAX => {
            format!("{}{}{quote}{}", &message[..=start], cut(quoted), &message[end..]).into()
        }
        _ => message.into(),
    }
}

/// Returns the JSON of an object without a byte order mark (RFC 8259 section 8.1). Returns `{}` for `[]`, because PHP
/// writes an empty object as `[]`.
///
/// Returns `None` for an array with elements, because serde would read the elements as the values of the object's
/// members.
pub fn object_text(json: &[u8]) -> Option<&[u8]> {
    let json = strip_bom(json);
    match json.trim_ascii().strip_prefix(b"[") {
        None => Some(json),
        Some(rest) if rest.trim_ascii_start() == b"]" => Some(b"{}"),
        Some(_) => None,
    }
}

/// Returns the JSON without a UTF-8 byte order mark at its start.
pub fn strip_bom(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// Parses a JSON object.
///
/// # Errors
/// Returns an error if the parser finds an error, or if the value is not an object.
pub fn read_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    match object_text(json) {
        Some(object) if object.trim_ascii_start().starts_with(b"{") => {
            serde_json::from_slice(object).map_err(|error| error.to_string())
        }
        _ => Err("not a JSON object".to_owned()),
    }
}

/// Returns the error text for a member that `call` does not have. The error text suggests the most similar member, and
/// lists all members of `call`.
pub fn unexpected_member(call: &str, name: &str, members: &[&str]) -> String {
    // A long name is cut, because the comparison of two names takes quadratic time.
    let name = cut(name);
    let hint = match nearest(&name.to_ascii_lowercase(), members.iter().copied()) {
        Some(meant) => format!("; did you mean {meant:?}?"),
        None => ";".to_owned(),
    };
    format!("{call} has no member {name:?}{hint} members: {}", members.join(", "))
}

/// Deserializes an object, `null`, or `[]`. `[]` counts as an empty object, because PHP writes an empty object as `[]`.
pub fn optional_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    deserializer.deserialize_any(ObjectVisitor(PhantomData))
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for ObjectVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<T>, A::Error> {
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(Some(T::default())),
            Some(_) => Err(Error::invalid_type(Unexpected::Seq, &self)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T>, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData)).map(List)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }

    // An object with members is refused, because the sender can mean an array of the names or an array of the values of
    // the members.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<T>, A::Error> {
        match map.next_key::<IgnoredAny>()? {
            None => Ok(Vec::new()),
            Some(_) => Err(Error::custom("expected an array, found an object (in PHP, use array_values)")),
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Object)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<String, Value>, A::Error> {
        let mut members = Map::new();
        while let Some((name, Unique(value))) = map.next_entry::<String, Unique>()? {
            if members.contains_key(&name) {
                return Err(Error::custom(format!("duplicate member {:?}", cut(&name))));
            }
            members.insert(name, value);
        }
        Ok(members)
    }
}

/// A JSON value without duplicate members. `serde_json::Value` accepts duplicate members, and keeps the last of them.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unique(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        MembersVisitor.visit_map(map).map(Value::Object)
    }
}

impl Seconds {
    const MAX: f64 = (1_u64 << 53) as f64;

    /// Returns the time in whole seconds, rounded down. Returns 0 for a time before 1970.
    pub fn whole(self) -> u64 {
        self.0.floor().max(0.0) as u64
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if seconds.abs() <= Seconds::MAX {
            return Ok(Seconds(seconds));
        }
        Err(Error::invalid_value(Unexpected::Float(seconds), &"a number of seconds since 1970"))
    }
}

/// Deserializes a member for which `null` is a value and does not mean that the member is missing.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Checks JSON that the server forwards unchanged, so that the parsers of all languages can read this JSON.
///
/// The JSON may have at most 127 levels of nesting. The numbers in the JSON must be in the range of a double, and the
/// surrogates in its strings must be in pairs. If the parser of a back end failed on one value, the back end would lose
/// the whole batch of events.
///
/// # Errors
/// Returns an error if the JSON breaks a rule. The error states this rule.
pub fn portable(text: &str) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str::<Portable>(text)?;
    serde_json::from_str(text)
}

/// A JSON value that was checked and not stored. Unlike serde's `IgnoredAny`, this type checks numbers and strings.
struct Portable;

impl<'de> Deserialize<'de> for Portable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Portable, D::Error> {
        deserializer.deserialize_any(Portable)
    }
}

impl<'de> Visitor<'de> for Portable {
    type Value = Portable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_str<E>(self, _: &str) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Portable, A::Error> {
        while seq.next_element::<Portable>()?.is_some() {}
        Ok(Portable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Portable, A::Error> {
        while map.next_entry::<Portable, Portable>()?.is_some() {}
        Ok(Portable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_array_counts_as_an_object_and_a_byte_order_mark_is_skipped() {
        let read = |json: &[u8]| read_object::<Object>(json).map(|object| Value::Object(object.0).to_string());
        for (json, object) in [
            (&b"{}"[..], "{}"),
            (b"[]", "{}"),
            (b" [ ]\r\n", "{}"),
            (b"\xef\xbb\xbf[]", "{}"),
            (b"\xef\xbb\xbf {\"a\":1}", r#"{"a":1}"#),
        ] {
            assert_eq!(read(json).as_deref(), Ok(object), "{json:?}");
        }
        for json in [
            &b"[1]"[..],
            b"[[]]",
            b"[]]",
            b"",
            b"\xef\xbb\xbf",
            b"1",
            b"null",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            b"\xff\xfe{}",
        ] {
            assert_eq!(read(json), Err("not a JSON object".to_owned()), "{json:?}");
        }
        for json in [r#"{"a":1,"\u0061":2}"#, r#"{"b":{"a":1,"a":1}}"#, r#"{"b":[1,[{"c":{"a":null,"a":0}}]]}"#] {
            assert!(read(json.as_bytes()).is_err_and(|error| error.starts_with(r#"duplicate member "a""#)), "{json}");
        }
        let all = r#"{"a":[null,true,-1,18446744073709551615,1.5,"\u0001\"é",{"a":{"a":[]}},[{"a":1},{"a":1}]]}"#;
        let value: Value = serde_json::from_str(all).expect("the text is JSON");
        assert_eq!(read(all.as_bytes()), Ok(value.to_string()));
    }

    #[test]
    fn an_empty_object_counts_as_an_array() {
        let read =
            |json: &str| serde_json::from_str::<List<u64>>(json).map(|list| list.0).map_err(|error| error.to_string());
        assert_eq!(read("[3,1]"), Ok(vec![3, 1]));
        assert_eq!((read("[]"), read("{}")), (Ok(vec![]), Ok(vec![])));
        let holes = read(r#"{"0":3,"2":1}"#).expect_err("the object has members");
        assert!(holes.starts_with("expected an array, found an object (in PHP, use array_values)"), "{holes}");
        for json in ["3", "null", "\"3\"", "[-1]", "[[]]"] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_time_in_seconds_can_have_a_fraction_and_has_a_maximum() {
        for (json, whole) in
            [("5", 5), ("5.9", 5), ("-0.5", 0), ("-3", 0), ("1.7e9", 1_700_000_000), ("9007199254740992", 1 << 53)]
        {
            assert_eq!(serde_json::from_str::<Seconds>(json).map(Seconds::whole).ok(), Some(whole), "{json}");
        }
        for json in ["9007199254740994", "1e300", "-1e300", "1e400", "NaN", "Infinity", "\"5\"", "true", "null", "[5]"]
        {
            assert!(serde_json::from_str::<Seconds>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_error_of_an_unknown_member_suggests_a_known_one() {
        let members = ["uid", "uids", "data"];
        for (name, expected) in [
            ("udi", r#"push has no member "udi"; did you mean "uid"? members: uid, uids, data"#),
            ("UID", r#"push has no member "UID"; did you mean "uid"? members: uid, uids, data"#),
            ("colour", r#"push has no member "colour"; members: uid, uids, data"#),
            ("a\n", r#"push has no member "a\n"; members: uid, uids, data"#),
        ] {
            assert_eq!(unexpected_member("push", name, &members), expected);
        }
        assert!(unexpected_member("push", &"x".repeat(1_000_000), &members).len() < 200);
    }

    #[test]
    fn input_that_an_error_repeats_is_cut_between_two_characters() {
        for text in ["", "short", &"x".repeat(64)] {
            assert_eq!(cut(text), text);
        }
        assert_eq!(cut(&"x".repeat(65)), format!("{}…", "x".repeat(64)));
        assert_eq!(cut(&"€".repeat(1000)), format!("{}…", "€".repeat(21)));
    }

    #[test]
    fn quoted_input_in_an_error_is_cut() {
        for message in [
            "EOF while parsing a value at line 1 column 0",
            "missing field `uids` at line 1 column 2",
            "invalid type: integer `17`, expected a string at line 1 column 9",
            "unknown field `udi`, expected one of `uid`, `uids` at line 1 column 6",
        ] {
            assert_eq!(cut_quoted(message), message);
        }
        let long = "\", expected `ü".repeat(1000);
        for (before, quote) in [("unknown field ", '`'), ("invalid type: string ", '"')] {
            let behind = ", expected one of `uid`, `uids` at line 1 column 6";
            let shown = cut_quoted(&format!("{before}{quote}{long}{quote}{behind}")).into_owned();
            assert_eq!(shown, format!("{before}{quote}{}{quote}{behind}", cut(&long)));
        }
    }

    #[test]
    fn json_that_some_parsers_refuse_is_not_portable() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let members = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        for text in [
            "null",
            " [true, -1, 18446744073709551615, 1.5e300, 123456789012345678901234567890]",
            r#"{"a":{"b":["\u0001\ud83d\ude00\"","消息"]},"a":0}"#,
            &nested(127),
            &members(127),
        ] {
            assert_eq!(portable(text).expect(text).get(), text.trim());
        }
        for text in [
            "1e999",
            "[-1e400]",
            r#"["\ud800"]"#,
            r#"{"\udc00":1}"#,
            r#""\ud800\u0041""#,
            &nested(128),
            &members(128),
            &nested(100_000),
            "[1,]",
            "1 2",
            "",
        ] {
            assert!(portable(text).is_err(), "{}", cut(text));
        }
    }
}
