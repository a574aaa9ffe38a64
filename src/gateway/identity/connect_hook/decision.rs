//! The decision of the connect hook, parsed from the back end's answer.

use std::borrow::Cow;

use serde::Deserialize;

use crate::gateway::identity::{Identity, has_expired};
use crate::gateway::wire::json::{List, Object, Seconds, Text, optional_object, read_object};
use crate::gateway::wire::names::Name;

/// The body of a refusal for which the back end gave no message.
const REFUSED: &str = "refused";

/// The body of a refusal of an expired identity.
const EXPIRED: &str = "identity has expired\n";

/// The maximum length of the message of a refusal, in bytes. A longer message is cut.
const REFUSAL_BYTES_MAX: usize = 1024;

/// The decision about a client.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Accept the client.
    Accept(Identity),
    /// The client is refused with a status from 400 to 499 and a text.
    Refuse { status: u16, body: String },
    /// The back end made no decision, so the client gets 503.
    Unavailable,
}

/// The JSON object that accepts a client. Unknown members of the object are ignored.
#[derive(Deserialize)]
struct AcceptAnswer<'a> {
    #[serde(borrow, default)]
    uid: Option<Name<'a>>,
    #[serde(borrow, default)]
    groups: Option<List<Name<'a>>>,
    #[serde(default, deserialize_with = "optional_object")]
    attributes: Option<Object>,
    #[serde(default)]
    exp: Option<Seconds>,
    #[serde(default)]
    subprotocol: Option<String>,
}

#[derive(Deserialize)]
struct RefuseAnswer<'a> {
    #[serde(borrow)]
    message: Text<'a>,
}

/// Parses the body of an answer with status 200. `now` is in seconds since 1970. If the identity in the answer has
/// expired, returns a refusal.
pub fn accept(body: &[u8], now: u64) -> Result<Decision, String> {
    let AcceptAnswer { uid, groups, attributes, exp, subprotocol } = read_object(body)?;
    let uid = uid.map(|uid| uid.0.into_owned());
    let groups = groups.into_iter().flat_map(|list| list.0).map(|group| group.0.into_owned());
    let identity = Identity::new(uid, groups.collect()).map_err(|error| error.to_string())?;
    if exp.is_some_and(|exp| has_expired(exp, now)) {
        return Ok(Decision::Refuse { status: 401, body: EXPIRED.to_owned() });
    }
    let attributes = attributes.unwrap_or_default().0;
    Ok(Decision::Accept(Identity { attributes, exp: exp.map(Seconds::whole), subprotocol, ..identity }))
}

/// Parses the body of an answer with a status from 400 to 499. The member `message` of the body becomes the text of the
/// refusal.
pub fn refuse(status: u16, body: &[u8]) -> Decision {
    let message = read_object(body).map_or(Cow::Borrowed(REFUSED), |refused: RefuseAnswer<'_>| refused.message.0);
    let cut = message.floor_char_boundary(REFUSAL_BYTES_MAX);
    Decision::Refuse { status, body: format!("{}\n", &message[..cut]) }
}

#[cfg(test)]
mod tests {
    use fdpush::NAME_BYTES_MAX;
    use serde_json::Value;

    use super::*;
    use crate::gateway::identity::{GROUPS_MAX, LEEWAY};

    const NOW: u64 = 1_700_000_000;

    fn text(body: &str) -> String {
        match accept(body.as_bytes(), NOW) {
            Ok(Decision::Accept(Identity { uid, groups, attributes, exp, subprotocol })) => {
                let subprotocol = subprotocol.map_or_else(String::new, |name| format!(" {name}"));
                format!("{uid:?} {groups:?} {} {exp:?}{subprotocol}", Value::from(attributes))
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_valid_answer_accepts_the_client() {
        let all =
            r#"{"uid": "1\u0030", "groups": ["a", "b"], "attributes": {"x" : [1]}, "exp": 1700000000, "more": 1}"#;
        assert_eq!(text(all), r#"Some("10") ["a", "b"] {"x":[1]} Some(1700000000)"#);
        for anonymous in ["{}", r#"{"uid":null,"groups":null,"attributes":null,"exp":null}"#, r#"{"groups":[]}"#] {
            assert_eq!(text(anonymous), "None [] {} None", "{anonymous}");
        }
        assert_eq!(text(r#"{"subprotocol":"chat.v1"}"#), "None [] {} None chat.v1");
        assert_eq!(text(r#"{"uid":10086}"#), r#"Some("10086") [] {} None"#);
        let php =
            "\u{feff}{\"uid\":-5,\"groups\":[7,\"a\",18446744073709551615],\"attributes\":[],\"exp\":1700000000.75}\n";
        assert_eq!(text(php), r#"Some("-5") ["7", "a", "18446744073709551615"] {} Some(1700000000)"#);
        assert_eq!(text(r#"{"uid":"a","exp":1.7e9,"groups":{}}"#), r#"Some("a") [] {} Some(1700000000)"#);
        for anonymous in ["[]", " [ ] ", "\u{feff}{}"] {
            assert_eq!(text(anonymous), "None [] {} None", "{anonymous}");
        }
        let longest = "u".repeat(NAME_BYTES_MAX);
        assert!(accept(format!(r#"{{"uid":"{longest}","groups":["{longest}"]}}"#).as_bytes(), NOW).is_ok());
    }

    #[test]
    fn an_invalid_answer_is_an_error() {
        let long = "u".repeat(NAME_BYTES_MAX + 1);
        let long = [format!(r#"{{"uid":"{long}"}}"#), format!(r#"{{"groups":["{long}"]}}"#)];
        let many = format!(r#"{{"groups":[{}"a"]}}"#, r#""a","#.repeat(GROUPS_MAX));
        let deep = format!(r#"{{"attributes":{{"a":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
        let bad = [
            &deep,
            r#"{"attributes":{"plan":"pro","n":1e999}}"#,
            r#"{"attributes":{"plan":"pro","s":"\ud800"}}"#,
            &many,
            r#"{"exp":9007199254740994}"#,
            "",
            "OK",
            "null",
            "\"10\"",
            "[[]]",
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
            r#"{"groups":[1.5]}"#,
            r#"{"groups":{"0":"a","2":"b"}}"#,
            r#"{"groups":["a",true]}"#,
            r#"{"attributes":[1]}"#,
            r#"{"attributes":[{}]}"#,
            r#"{"attributes":{"a":1,"a":2}}"#,
            r#"{"uid":18446744073709551616}"#,
            r#"{"uid":1e3}"#,
            r#"{"uid":null,"uid":"b"}"#,
            r#"{"uid":"\ud800"}"#,
            r#"{"attributes":"{}"}"#,
            r#"{"exp":"soon"}"#,
            r#"{"subprotocol":1}"#,
            r#"{"subprotocol":["chat.v1"]}"#,
            r#"{"exp":1e300}"#,
            r#"{"exp":1e999}"#,
            r#"{"exp":NaN}"#,
            r#"{"exp":true}"#,
            &long[0],
            &long[1],
        ];
        for body in bad {
            assert!(accept(body.as_bytes(), NOW).is_err(), "{body}");
        }
        assert!(accept(b"{\"uid\":\"\xff\"}", NOW).is_err());
    }

    #[test]
    fn an_expired_identity_is_refused() {
        let decision = |exp: u64| accept(format!(r#"{{"uid":"a","exp":{exp}}}"#).as_bytes(), NOW);
        assert!(matches!(decision(NOW - LEEWAY + 1), Ok(Decision::Accept(_))));
        for exp in ["0", "1.5", "-1", "-0.5", &format!("{}", NOW - LEEWAY), &format!("{}.9", NOW - LEEWAY)] {
            let decision = accept(format!(r#"{{"uid":"a","exp":{exp}}}"#).as_bytes(), NOW);
            assert!(matches!(decision, Ok(Decision::Refuse { status: 401, .. })), "{exp}");
        }
    }

    #[test]
    fn the_message_of_an_answer_is_the_text_of_the_refusal() {
        let body = |body: &str| match refuse(403, body.as_bytes()) {
            Decision::Refuse { status: 403, body } => body,
            other => panic!("{other:?}"),
        };
        assert_eq!(body(r#"{"message":"log in \"first\""}"#), "log in \"first\"\n");
        assert_eq!(body("\u{feff}{\"message\":\"no\"}"), "no\n");
        for nothing in ["", "<html>", "{}", r#"["no"]"#, r#"{"message":1}"#, r#"{"message":null}"#] {
            assert_eq!(body(nothing), "refused\n", "{nothing}");
        }
        let long = "é".repeat(2000);
        assert_eq!(body(&format!(r#"{{"message":"{long}"}}"#)).len(), REFUSAL_BYTES_MAX + 1);
    }
}
