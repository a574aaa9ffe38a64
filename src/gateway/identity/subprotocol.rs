//! Selection of a subprotocol among the subprotocols that a client offers (RFC 6455 section 1.9).
//!
//! A browser that offers subprotocols closes a connection if the server selects none of them (WHATWG WebSockets,
//! "establish a WebSocket connection"). Many other clients also close a connection without a selected subprotocol.
//! Until the client closes such a connection, the server would count the connection as open, and `kick_old` would close
//! a valid connection of the same uid. So the server selects one of the subprotocols that a client offers, or refuses
//! the client with 400.

use std::str::FromStr;

use fdpush::{Request, Response, Upgrade};

use super::jwt;

/// A subprotocol of this server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subprotocol(String);

/// The result of the selection of a subprotocol for a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The client offers no subprotocol.
    NotOffered,
    /// The server selects this subprotocol.
    One(String),
    /// The client offers subprotocols, and the server supports none of them.
    NoneInCommon,
}

impl FromStr for Subprotocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Subprotocol, String> {
        match text {
            "" => Err("expected a subprotocol, found an empty text".to_owned()),
            _ if !Upgrade::is_subprotocol(text) => {
                Err("expected a token of RFC 9110, for example chat.v1: letters, digits and !#$%&'*+-.^_`|~".to_owned())
            }
            _ if jwt::is_bearer(text) => {
                Err("bearer.… carries a token and cannot be a subprotocol of the server".to_owned())
            }
            _ => Ok(Subprotocol(text.to_owned())),
        }
    }
}

impl AsRef<str> for Subprotocol {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Selects the first of `spoken`, the subprotocols of the server, that the client offers. If the client offers none of
/// them, selects the first `bearer.…` that the client offers.
///
/// The selected `bearer.…` need not contain the verified token, which may be elsewhere in the request.
pub fn choose(request: &Request<'_>, spoken: &[Subprotocol]) -> Choice {
    choose_of(&request.subprotocols().collect::<Vec<_>>(), spoken)
}

fn choose_of(offers: &[&str], spoken: &[Subprotocol]) -> Choice {
    let own = spoken.iter().map(|own| own.0.as_str()).find(|own| offers.contains(own));
    match own.or_else(|| offers.iter().copied().find(|offer| jwt::is_bearer(offer))) {
        Some(chosen) => Choice::One(chosen.to_owned()),
        None if offers.is_empty() => Choice::NotOffered,
        None => Choice::NoneInCommon,
    }
}

/// Returns the response with status 400 to a client whose subprotocols the server does not support.
pub fn refuse(spoken: &[Subprotocol]) -> Response {
    Response::text(400, none_in_common(spoken))
}

fn none_in_common(spoken: &[Subprotocol]) -> String {
    let spoken: Vec<&str> = spoken.iter().map(|own| own.0.as_str()).collect();
    let spoken = if spoken.is_empty() { "none".to_owned() } else { spoken.join(", ") };
    format!("no common subprotocol: this server supports {spoken}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(names: &[&str]) -> Vec<Subprotocol> {
        names.iter().map(|name| name.parse().expect("the subprotocol is valid")).collect()
    }

    #[test]
    fn the_order_of_the_server_decides_and_a_bearer_subprotocol_is_the_last_choice() {
        let one = |name: &str| Choice::One(name.to_owned());
        let both = ["chat.v2", "chat.v1"];
        for (offers, names, choice) in [
            (&[][..], &both[..], Choice::NotOffered),
            (&[], &[], Choice::NotOffered),
            (&["chat.v1", "chat.v2"], &both, one("chat.v2")),
            (&["chat.v1"], &both, one("chat.v1")),
            (&["bearer.t", "chat.v1"], &both, one("chat.v1")),
            (&["chat.v1", "bearer.t"], &[], one("bearer.t")),
            (&["bearer.", "bearer.t"], &both, one("bearer.t")),
            (&["bearer."], &both, Choice::NoneInCommon),
            (&["Chat.v1"], &both, Choice::NoneInCommon),
            (&["chat.v1"], &[], Choice::NoneInCommon),
        ] {
            assert_eq!(choose_of(offers, &spoken(names)), choice, "{offers:?} {names:?}");
        }
    }

    #[test]
    fn a_subprotocol_of_the_server_is_a_token_and_carries_no_bearer_token() {
        for name in ["chat", "chat.v1", "v12.stomp", "!#$%&'*+-.^_`|~09aZ", "bearer."] {
            assert!(name.parse::<Subprotocol>().is_ok(), "{name}");
        }
        for name in ["", "a b", "a,b", "a/b", "é", "a\r\n", "\"a\"", "bearer.x"] {
            assert!(name.parse::<Subprotocol>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_supported_subprotocols() {
        assert_eq!(none_in_common(&spoken(&["a", "b"])), "no common subprotocol: this server supports a, b\n");
        assert_eq!(none_in_common(&[]), "no common subprotocol: this server supports none\n");
    }
}
