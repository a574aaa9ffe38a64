//! The keys that vouch for tokens: secrets, and public keys from PEM files.
//!
//! It owns what a key must be like before the server starts with it. A public key is no secret: whatever looks like one
//! and cannot be used as one is refused, and never taken for an HS256 secret, which anybody could then sign with.

use std::fmt;
use std::path::{Path, PathBuf};

use jsonwebtoken::crypto::{self, rust_crypto};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use crate::gateway::runtime::files;
use crate::gateway::settings::cli::bare;

/// The largest key file, in bytes. An RSA key of 4096 bits has 800.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The least of an RSA modulus, in bytes: 2048 bits (RFC 7518 section 3.3).
const MODULUS_BYTES_MIN: usize = 256;

/// The least of an HS256 secret, in bytes: as long as the hash (RFC 7518 section 3.2). A shorter one can be guessed from a
/// single token.
const SECRET_BYTES_MIN: usize = 32;

/// What is asked for where something else was given.
const WANTED: &str = "a PEM public key: RSA of 2048 to 4096 bits, EC on P-256, or Ed25519";

/// The keys that vouch for tokens, and the parties that a token must name.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<(DecodingKey, Algorithm)>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

/// A file that was read and holds a key: whoever makes tokens and whoever checks them goes by these same bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl KeyFile {
    /// Reads a file, and judges its key.
    ///
    /// # Errors
    ///
    /// Names the file, and says why it cannot be used.
    pub fn read(path: &Path) -> Result<KeyFile, String> {
        let named = |why: String| format!("jwt_key_file {}: {why}", path.display());
        let bytes = files::read(path, FILE_BYTES_MAX).map_err(named)?;
        let file = KeyFile { path: path.to_owned(), bytes };
        file.key().map_err(named)?;
        Ok(file)
    }

    /// The HS256 secret in it; none where it holds a public key.
    ///
    /// Of a text, what is [`bare`]; of a binary secret, every byte.
    pub fn secret(&self) -> Option<&[u8]> {
        if has_pem_mark(&self.bytes) {
            return None;
        }
        Some(text_of(&self.bytes).map_or(&*self.bytes, |text| bare(text).as_bytes()))
    }

    fn key(&self) -> Result<(DecodingKey, Algorithm), String> {
        match self.secret() {
            Some(secret) if text_of(secret).is_some_and(|text| text.contains(['\n', '\r'])) => {
                Err("it has several lines: a secret is one".to_owned())
            }
            Some(secret) => secret_key(secret),
            None => public_key(self.bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&self.bytes)),
        }
    }
}

/// What it holds may be a secret.
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Keys {
    /// HS256 keys from `secrets`, and one key from each of `files`: RS256, ES256 or EdDSA from a PEM public key, HS256 from
    /// anything else. In a text file with a secret, one line end at the end does not count.
    ///
    /// A token is good when any of its algorithm's keys made it, so that a key can be changed while its tokens are about.
    ///
    /// # Errors
    ///
    /// Says which key or file cannot be used and why, and that there must be at least one.
    pub fn new(secrets: &[&str], files: &[KeyFile]) -> Result<Keys, String> {
        let mut keys = Vec::with_capacity(secrets.len() + files.len());
        for (index, secret) in secrets.iter().enumerate() {
            let name = format!("jwt_secret {}", index + 1);
            keys.push(secret_key(secret.as_bytes()).map_err(|why| format!("{name}: {why}"))?);
        }
        for file in files {
            keys.push(file.key().map_err(|why| format!("jwt_key_file {}: {why}", file.path.display()))?);
        }
        if keys.is_empty() {
            return Err("tokens need a key: give a jwt_secret or a jwt_key_file".to_owned());
        }
        Ok(Keys { keys, issuer: None, audience: None })
    }

    /// With an issuer that a token's `iss` must be. Without one, `iss` is not looked at.
    #[must_use]
    pub fn issuer(self, issuer: Option<String>) -> Keys {
        Keys { issuer, ..self }
    }

    /// With an audience that must be, or be among, a token's `aud`. Without one, `aud` is not looked at.
    #[must_use]
    pub fn audience(self, audience: Option<String>) -> Keys {
        Keys { audience, ..self }
    }

    /// Each key with the one algorithm that it is for.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&DecodingKey, Algorithm)> {
        self.keys.iter().map(|(key, algorithm)| (key, *algorithm))
    }
}

/// An algorithm as a token's header has it (RFC 7518 section 3.1).
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        // No key is for another.
        _ => "",
    }
}

/// Whether this may be an HS256 secret: long enough, and nothing that is public.
pub fn check_secret(secret: &[u8]) -> Result<(), String> {
    if secret.is_empty() {
        return Err("it is empty".to_owned());
    }
    if has_pem_mark(secret) {
        return Err("a PEM key is no secret: give it as a key file".to_owned());
    }
    let kind = if is_der(secret) {
        "a DER key"
    } else if is_jwk(secret) {
        "a JSON Web Key"
    } else if secret.starts_with(b"ssh-") || secret.starts_with(b"ecdsa-sha2-") {
        "an SSH key"
    } else if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "a secret of {} bytes is too short: HS256 needs at least {SECRET_BYTES_MIN} (RFC 7518 section 3.2), as \
             `openssl rand -base64 32` makes them",
            secret.len()
        ));
    } else {
        return Ok(());
    };
    Err(format!("{kind} is no secret: give {WANTED}"))
}

fn secret_key(secret: &[u8]) -> Result<(DecodingKey, Algorithm), String> {
    check_secret(secret)?;
    Ok((DecodingKey::from_secret(secret), Algorithm::HS256))
}

fn public_key(pem: &[u8]) -> Result<(DecodingKey, Algorithm), String> {
    let text = str::from_utf8(pem).map_err(|_| format!("it is no text; it must be {WANTED}"))?;
    let mut labels = text.split("-----BEGIN ").skip(1).map(|rest| rest.split("-----").next().unwrap_or_default());
    let label = labels.next().unwrap_or_default();
    if labels.next().is_some() {
        return Err("it holds several PEM blocks: give one key a file".to_owned());
    }
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
        "CERTIFICATE" => return Err("a certificate: give its key, openssl x509 -pubkey -noout -in FILE".to_owned()),
        label if label.ends_with("PRIVATE KEY") => {
            return Err("a private key: give the public one, openssl pkey -pubout -in FILE".to_owned());
        }
        _ => return Err(format!("it must be {WANTED}")),
    }
    // One of them finds its algorithm's identifier within.
    let by_kind = [
        (DecodingKey::from_rsa_pem(pem), Algorithm::RS256),
        (DecodingKey::from_ec_pem(pem), Algorithm::ES256),
        (DecodingKey::from_ed_pem(pem), Algorithm::EdDSA),
    ];
    by_kind
        .into_iter()
        .find_map(|(key, algorithm)| Some((key.ok()?, algorithm)))
        .filter(|(key, algorithm)| is_usable(key, *algorithm))
        .ok_or_else(|| format!("it must be {WANTED}"))
}

/// Whether a token could be checked with this key, so that none is ever refused, or worse, for the key's sake.
fn is_usable(key: &DecodingKey, algorithm: Algorithm) -> bool {
    let Ok(bytes) = key.try_get_as_bytes() else { return false };
    match algorithm {
        Algorithm::RS256 => {
            let parts = (rust_crypto::DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(bytes);
            parts.is_ok_and(|(modulus, _)| modulus.len() >= MODULUS_BYTES_MIN)
        }
        // A shorter key would bring the verifier down.
        Algorithm::EdDSA if bytes.len() != 32 => false,
        _ => crypto::verify("", b"", key, algorithm).is_ok(),
    }
}

/// Lines of text; `None` for anything else, as random bytes are.
fn text_of(bytes: &[u8]) -> Option<&str> {
    let is_other = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    str::from_utf8(bytes).ok().filter(|text| !text.contains(is_other))
}

/// Whether it is, or was meant to be, PEM (RFC 7468).
fn has_pem_mark(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"-----BEGIN").is_some()
}

/// Whether it is one DER sequence from its first byte to its last (X.690 section 8.1).
fn is_der(bytes: &[u8]) -> bool {
    match *bytes {
        [0x30, len @ ..=0x7f, ref rest @ ..] => rest.len() == usize::from(len),
        [0x30, 0x81, len, ref rest @ ..] => rest.len() == usize::from(len),
        [0x30, 0x82, high, low, ref rest @ ..] => rest.len() == usize::from(u16::from_be_bytes([high, low])),
        _ => false,
    }
}

/// Whether it is a JSON Web Key (RFC 7517), or a set of them.
fn is_jwk(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Jwk {
        kty: Option<serde::de::IgnoredAny>,
        keys: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Jwk>(bytes).is_ok_and(|jwk| jwk.kty.is_some() || jwk.keys.is_some())
}
