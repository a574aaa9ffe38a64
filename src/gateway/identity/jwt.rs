//! JSON Web Tokens (RFC 7519): identities signed by the back end.
//!
//! This module finds the token of a request, verifies the token, and issues tokens for `fdpush token`. Each key has one
//! algorithm, and the token cannot choose another algorithm. The signature is verified before the claims are parsed.
//! Before the verification of the signature, only the header of the token is parsed.
//!
//! No error repeats a part of the token, because errors appear in logs and in answers to clients.

mod keys;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fdpush::{Request, Response};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::keys::{KeyFile, Keys, check_secret};

use super::{Identity, LEEWAY, NameError, has_expired};
use crate::gateway::runtime::clock;
use crate::gateway::wire::json::{List, Seconds, read_object};
use crate::gateway::wire::names::Name;

/// The maximum length of a token, in bytes. A longer token is refused and not parsed.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// The maximum `exp` of an issued token, in seconds since 1970.
const SECONDS_MAX: u64 = 1 << 53;

/// The prefix of a subprotocol that carries a token.
const SUBPROTOCOL: &str = "bearer.";

/// The reason why a token is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// The token has more than 64 KiB.
    TooLong,
    /// The token is not a JWT in the compact form (RFC 7515 section 7.1).
    Malformed,
    /// The header of the token requires extensions (RFC 7515 section 4.1.11).
    Critical,
    /// No key has the algorithm in the header of the token.
    Algorithm,
    /// No key verifies the signature of the token.
    Signature,
    /// The payload is not an object of claims, or has a duplicate claim. The text is the error of the JSON parser.
    Claims(String),
    /// The token lacks this claim.
    Missing(&'static str),
    /// The claim that the first text names does not have the type that the second text names.
    ClaimType(&'static str, &'static str),
    /// The uid in `sub` or a group in `groups` is empty or too long, or `groups` has too many groups.
    Name(NameError),
    /// The time in `exp` passed at least [`LEEWAY`] seconds ago.
    Expired,
    /// The time in `nbf` is more than [`LEEWAY`] seconds in the future.
    Early,
    /// The claim `iss` is not the configured issuer.
    Issuer,
    /// The claim `aud` does not contain the configured audience.
    Audience,
}

/// The content of a token that [`issue`] signs.
#[derive(Copy, Clone, Debug)]
pub struct Grant<'a> {
    pub uid: &'a str,
    pub groups: &'a [String],
    /// The lifetime of the token, rounded up to whole seconds.
    pub ttl: Duration,
    pub issuer: Option<&'a str>,
    pub audience: Option<&'a str>,
}

/// The members of a token's header that the server reads. `kid`, `jku`, `jwk` and `x5u` are not read, because a token
/// must not choose its key.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    crit: Option<&'a RawValue>,
}

/// The claims that the server reads, before they are checked. A claim with the value `null` counts as missing.
#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    sub: Option<&'a RawValue>,
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    nbf: Option<&'a RawValue>,
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
    #[serde(borrow)]
    groups: Option<&'a RawValue>,
}

/// The claims of an issued token.
#[derive(Serialize)]
struct Issued<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Returns the token of a request.
///
/// The server searches for the token in this order: query parameter `token`, header `Authorization: Bearer` (RFC 6750
/// section 2.1), subprotocol `bearer.<token>`. Browsers use the subprotocol, because a browser cannot set headers. An
/// empty token counts as missing.
///
/// # Errors
/// Returns an error if the query contains the parameter `token` more than once or with invalid percent-encoding, or if
/// there are several `Authorization` headers.
pub fn find<'r>(request: &'r Request<'_>) -> Result<Option<Cow<'r, str>>, String> {
    let query = request.try_query("token").map_err(|error| error.to_string())?;
    if super::has_several_authorizations(request) {
        return Err("duplicate header: Authorization".to_owned());
    }
    Ok(choose(query, request.header("authorization"), request.subprotocols()))
}

fn choose<'a>(
    query: Option<Cow<'a, str>>,
    authorization: Option<&'a str>,
    mut subprotocols: impl Iterator<Item = &'a str>,
) -> Option<Cow<'a, str>> {
    query
        .filter(|token| !token.is_empty())
        .or_else(|| Some(super::bearer(authorization?)?.into()))
        .or_else(|| subprotocols.find_map(in_subprotocol).map(Cow::Borrowed))
}

/// Returns whether a subprotocol contains a token.
pub fn is_bearer(subprotocol: &str) -> bool {
    in_subprotocol(subprotocol).is_some()
}

fn in_subprotocol(name: &str) -> Option<&str> {
    name.strip_prefix(SUBPROTOCOL).filter(|token| !token.is_empty())
}

/// Returns the response with status 401 to a request without a valid token. `why` is the body of the response.
pub fn refuse(why: impl fmt::Display) -> Response {
    Response::text(401, format!("{why}\n")).header("WWW-Authenticate", "Bearer")
}

impl Keys {
    /// Verifies a token, and returns the identity in it.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.verify_at(token, clock::unix_seconds())
    }

    /// Verifies a token at the time `now`, in seconds since 1970.
    fn verify_at(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (head, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        self.check_signature(head, message, signature)?;
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Malformed)?;
        self.check_claims(&read_object(&claims).map_err(TokenError::Claims)?, now)
    }

    fn check_signature(&self, head: &str, message: &str, signature: &str) -> Result<(), TokenError> {
        let head = BASE64_URL_SAFE_NO_PAD.decode(head).map_err(|_| TokenError::Malformed)?;
        let head: Head<'_> = read_object(&head).map_err(|_| TokenError::Malformed)?;
        if head.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let mut error = TokenError::Algorithm;
        for (key, algorithm) in self.iter().filter(|(_, algorithm)| keys::name(*algorithm) == head.alg) {
            match crypto::verify(signature, message.as_bytes(), key, algorithm) {
                Ok(true) => return Ok(()),
                Ok(false) => error = TokenError::Signature,
                // All keys are usable, so an error of `verify` means that the signature is not base64url.
                Err(_) => return Err(TokenError::Malformed),
            }
        }
        Err(error)
    }

    fn check_claims(&self, claims: &Claims<'_>, now: u64) -> Result<Identity, TokenError> {
        let exp = seconds("exp", claims.exp)?.ok_or(TokenError::Missing("exp"))?;
        if has_expired(exp, now) {
            return Err(TokenError::Expired);
        }
        // A fraction of a second in `nbf` is rounded up, so that the rounding does not extend the validity of the
        // token.
        if seconds("nbf", claims.nbf)?.is_some_and(|Seconds(nbf)| nbf.ceil() > (now + LEEWAY) as f64) {
            return Err(TokenError::Early);
        }
        self.check_parties(claims)?;
        let sub: Name<'_> =
            read("sub", "a string or an integer of 64 bits", claims.sub)?.ok_or(TokenError::Missing("sub"))?;
        let groups: Option<List<Name<'_>>> =
            read("groups", "an array of strings or integers of 64 bits", claims.groups)?;
        let groups = groups.into_iter().flat_map(|list| list.0).map(|group| group.0.into_owned());
        let identity = Identity::new(Some(sub.0.into_owned()), groups.collect()).map_err(TokenError::Name)?;
        Ok(Identity { exp: Some(exp.whole()), ..identity })
    }

    /// Checks `iss` and `aud`, if they are configured (RFC 7519 sections 4.1.1 and 4.1.3).
    fn check_parties(&self, claims: &Claims<'_>) -> Result<(), TokenError> {
        if let Some(issuer) = &self.issuer {
            let iss: String = read("iss", "a string", claims.iss)?.ok_or(TokenError::Missing("iss"))?;
            if iss != *issuer {
                return Err(TokenError::Issuer);
            }
        }
        if let Some(audience) = &self.audience {
            let aud: Audience =
                read("aud", "a string or an array of strings", claims.aud)?.ok_or(TokenError::Missing("aud"))?;
            if !aud.names(audience) {
                return Err(TokenError::Audience);
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// Issues a token, signed with HS256.
///
/// # Errors
/// Returns an error if the secret, a name in `grant`, or the lifetime of the token is invalid.
pub fn issue(secret: &[u8], grant: &Grant<'_>) -> Result<String, String> {
    issue_at(secret, grant, clock::unix_seconds())
}

fn issue_at(secret: &[u8], grant: &Grant<'_>, now: u64) -> Result<String, String> {
    check_secret(secret)?;
    Identity::new(Some(grant.uid.to_owned()), grant.groups.to_vec()).map_err(|why| why.to_string())?;
    let ttl = grant.ttl.as_secs().saturating_add(u64::from(grant.ttl.subsec_nanos() > 0));
    let exp = now.saturating_add(ttl);
    if ttl == 0 || exp > SECONDS_MAX {
        return Err("the lifetime of a token must be at least 1s, and its exp at most 2^53".to_owned());
    }
    let &Grant { uid, groups, issuer, audience, .. } = grant;
    let claims = Issued { sub: uid, iat: now, exp, groups, iss: issuer, aud: audience };
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|why| why.to_string())
}

fn read<'a, T: Deserialize<'a>>(
    name: &'static str,
    kind: &'static str,
    value: Option<&'a RawValue>,
) -> Result<Option<T>, TokenError> {
    let Some(value) = value else { return Ok(None) };
    serde_json::from_str(value.get()).map(Some).map_err(|_| TokenError::ClaimType(name, kind))
}

fn seconds(name: &'static str, value: Option<&RawValue>) -> Result<Option<Seconds>, TokenError> {
    read(name, "a number of seconds since 1970", value)
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::TooLong => write!(f, "token length limit exceeded ({TOKEN_BYTES_MAX} bytes)"),
            TokenError::Malformed => {
                f.write_str("the token is not a JWT: expected three parts in base64url, separated by dots")
            }
            TokenError::Critical => f.write_str("the token's header has \"crit\", and no extension is supported"),
            TokenError::Algorithm => f.write_str("no key has the token's algorithm"),
            TokenError::Signature => f.write_str("the token's signature is invalid"),
            TokenError::Claims(why) => write!(f, "the token's claims are invalid: {why}"),
            TokenError::Missing(name) => write!(f, "the token has no {name:?}"),
            TokenError::ClaimType(name, kind) => write!(f, "the token's {name:?} must be {kind}"),
            TokenError::Name(why) => write!(f, "the token's names are invalid: {why}"),
            TokenError::Expired => f.write_str("the token has expired"),
            TokenError::Early => f.write_str("the token is not valid yet"),
            TokenError::Issuer => f.write_str("the token is from another issuer"),
            TokenError::Audience => f.write_str("the token is for another audience"),
        }
    }
}

impl std::error::Error for TokenError {}
