//! What a back end's answer means.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::gateway::auth::{Identity, LEEWAY};

/// What a refused client reads where the back end says nothing.
const REFUSED: &str = "refused";

/// What a client reads whose identity is over before it has begun.
const EXPIRED: &str = "who you are has expired\n";

/// Bytes of a refusal's text; what is longer is cut.
const REFUSAL_BYTES_MAX: usize = 1024;

/// The greatest time that JavaScript and this server reckon with, in seconds since 1970.
const EXP_MAX: u64 = 1 << 53;

/// Whether a client may come in, and who it is.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It may.
    Accept(Identity),
    /// It may not: what it is answered, with a status from 400 to 499, and text.
    Refuse { status: u16, body: String },
    /// Nobody can say: 503.
    Unavailable,
}

/// Fields that this server does not know are for others.
#[derive(Deserialize)]
struct Accepted<'a> {
    #[serde(borrow, default)]
    uid: Option<Uid<'a>>,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default)]
    attributes: Option<Map<String, Value>>,
    #[serde(default)]
    exp: Option<u64>,
    #[serde(default)]
    subprotocol: Option<String>,
}

/// A uid as text, or as the number that it is in many a database.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a uid is a string, a whole number or null")]
enum Uid<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Number(i64),
}

#[derive(Deserialize)]
struct Refused<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
}

/// Reads the body of a 200, or says what is wrong with it. `now` is in seconds since 1970: an identity that is over by
/// then is refused, and not let in to be thrown out.
pub fn accept(body: &[u8], now: u64) -> Result<Verdict, String> {
    let accepted: Accepted<'_> = object(body)?;
    let uid = accepted.uid.map(|uid| match uid {
        Uid::Text(text) => text.into_owned(),
        Uid::Number(number) => number.to_string(),
    });
    let mut identity = Identity::new(uid, accepted.groups.unwrap_or_default()).map_err(|error| error.to_string())?;
    identity.attributes = accepted.attributes.unwrap_or_default();
    identity.exp = accepted.exp;
    identity.subprotocol = accepted.subprotocol;
    if identity.exp.is_some_and(|exp| exp > EXP_MAX) {
        return Err("exp is beyond all time".to_owned());
    }
    if identity.exp.is_some_and(|exp| exp + LEEWAY <= now) {
        return Ok(Verdict::Refuse { status: 401, body: EXPIRED.to_owned() });
    }
    Ok(Verdict::Accept(identity))
}

/// Reads the body of a 4xx, which may say why.
pub fn refuse(status: u16, body: &[u8]) -> Verdict {
    let message = object(body).map_or(Cow::Borrowed(REFUSED), |refused: Refused<'_>| refused.message);
    let cut = message.floor_char_boundary(REFUSAL_BYTES_MAX);
    Verdict::Refuse { status, body: format!("{}\n", &message[..cut]) }
}

/// Reads a JSON object. An array is none, although serde would take its items for the fields.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("it is no JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use fdpush::NAME_BYTES_MAX;

    use super::*;
    use crate::gateway::auth::GROUPS_MAX;

    const NOW: u64 = 1_700_000_000;

    fn text(body: &str) -> String {
        match accept(body.as_bytes(), NOW) {
            Ok(Verdict::Accept(Identity { uid, groups, attributes, exp, subprotocol })) => {
                let subprotocol = subprotocol.map_or_else(String::new, |name| format!(" {name}"));
                format!("{uid:?} {groups:?} {} {exp:?}{subprotocol}", Value::from(attributes))
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn accepts() {
        let all =
            r#"{"uid": "1\u0030", "groups": ["a", "b"], "attributes": {"x" : [1]}, "exp": 1700000000, "more": 1}"#;
        assert_eq!(text(all), r#"Some("10") ["a", "b"] {"x":[1]} Some(1700000000)"#);
        for nobody in ["{}", r#"{"uid":null,"groups":null,"attributes":null,"exp":null}"#, r#"{"groups":[]}"#] {
            assert_eq!(text(nobody), "None [] {} None", "{nobody}");
        }
        assert_eq!(text(r#"{"subprotocol":"chat.v1"}"#), "None [] {} None chat.v1");
        assert_eq!(text(r#"{"uid":10086}"#), r#"Some("10086") [] {} None"#);
        let longest = "u".repeat(NAME_BYTES_MAX);
        assert!(accept(format!(r#"{{"uid":"{longest}","groups":["{longest}"]}}"#).as_bytes(), NOW).is_ok());
    }

    #[test]
    fn does_not_accept() {
        let long = "u".repeat(NAME_BYTES_MAX + 1);
        let long = [format!(r#"{{"uid":"{long}"}}"#), format!(r#"{{"groups":["{long}"]}}"#)];
        let many = format!(r#"{{"groups":[{}"a"]}}"#, r#""a","#.repeat(GROUPS_MAX));
        let deep = format!(r#"{{"attributes":{{"a":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
        let bad = [
            &deep,
            r#"{"attributes":{"plan":"pro","n":1e999}}"#,
            r#"{"attributes":{"plan":"pro","s":"\ud800"}}"#,
            &many,
            r#"{"exp":9007199254740993}"#,
            "",
            "OK",
            "null",
            "\"10\"",
            "[]",
            r#"["a",[],{},1]"#,
            "{",
            r#"{"uid":"a"} trailing"#,
            r#"{"uid":""}"#,
            r#"{"uid":1.5}"#,
            r#"{"uid":true}"#,
            r#"{"uid":{}}"#,
            r#"{"uid":"a","uid":"b"}"#,
            r#"{"groups":"a"}"#,
            r#"{"groups":[""]}"#,
            r#"{"groups":[1]}"#,
            r#"{"attributes":[]}"#,
            r#"{"attributes":"{}"}"#,
            r#"{"exp":"soon"}"#,
            r#"{"exp":-1}"#,
            r#"{"subprotocol":1}"#,
            r#"{"subprotocol":["chat.v1"]}"#,
            r#"{"exp":1.5}"#,
            &long[0],
            &long[1],
        ];
        for body in bad {
            assert!(accept(body.as_bytes(), NOW).is_err(), "{body}");
        }
        assert!(accept(b"{\"uid\":\"\xff\"}", NOW).is_err());
    }

    #[test]
    fn an_identity_that_is_over_is_refused() {
        let verdict = |exp: u64| accept(format!(r#"{{"uid":"a","exp":{exp}}}"#).as_bytes(), NOW);
        assert!(matches!(verdict(NOW - LEEWAY + 1), Ok(Verdict::Accept(_))));
        for exp in [0, 1, NOW - LEEWAY] {
            assert!(matches!(verdict(exp), Ok(Verdict::Refuse { status: 401, .. })), "{exp}");
        }
    }

    #[test]
    fn refuses() {
        let body = |body: &str| match refuse(403, body.as_bytes()) {
            Verdict::Refuse { status: 403, body } => body,
            other => panic!("{other:?}"),
        };
        assert_eq!(body(r#"{"message":"log in \"first\""}"#), "log in \"first\"\n");
        for nothing in ["", "<html>", "{}", r#"["no"]"#, r#"{"message":1}"#, r#"{"message":null}"#] {
            assert_eq!(body(nothing), "refused\n", "{nothing}");
        }
        let long = "é".repeat(2000);
        assert_eq!(body(&format!(r#"{{"message":"{long}"}}"#)).len(), REFUSAL_BYTES_MAX + 1);
    }
}
