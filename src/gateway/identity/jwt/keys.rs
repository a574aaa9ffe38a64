//! The keys that verify tokens: secrets, and public keys in PEM files.
//!
//! This module checks the keys before the server starts. A public key that cannot be used is refused. An unusable
//! public key must not become an HS256 secret, because everybody knows the public key and could sign tokens with it.

use std::fmt;
use std::path::{Path, PathBuf};

use jsonwebtoken::crypto::{self, rust_crypto};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use crate::gateway::runtime::files;
use crate::gateway::settings::cli::{WITH_NAME, bare, has_variable_name};

/// The maximum size of a key file, in bytes. A public RSA key of 4096 bits has about 800 bytes in PEM.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The minimum length of an RSA modulus, in bytes: 2048 bits (RFC 7518 section 3.3).
const MODULUS_BYTES_MIN: usize = 256;

/// The minimum length of an HS256 secret, in bytes: the length of the hash (RFC 7518 section 3.2). A shorter secret can
/// be guessed from a single token.
const SECRET_BYTES_MIN: usize = 32;

/// The text with which error messages name the supported public keys.
const SUPPORTED_KEYS: &str = "a PEM public key: RSA of 2048 to 4096 bits, EC on P-256, or Ed25519";

/// The keys that verify tokens, and the required issuer and audience.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<(DecodingKey, Algorithm)>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

/// A key file with its content. `fdpush token` and the server both read keys with this type, so both use the same bytes
/// of a file as the key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl KeyFile {
    /// Reads a file and checks its key.
    ///
    /// # Errors
    ///
    /// The error names the file.
    pub fn read(path: &Path) -> Result<KeyFile, String> {
        let named = |why: String| format!("jwt_key_file {}: {why}", path.display());
        let bytes = files::read(path, FILE_BYTES_MAX).map_err(named)?;
        let file = KeyFile { path: path.to_owned(), bytes };
        file.key().map_err(named)?;
        Ok(file)
    }

    /// Returns the HS256 secret, or `None` for a public key.
    ///
    /// If the file is text, the secret is the text that [`bare`] returns. If the file is binary, every byte is part of
    /// the secret.
    pub fn secret(&self) -> Option<&[u8]> {
        if has_pem_mark(&self.bytes) {
            return None;
        }
        Some(text_of(&self.bytes).map_or(&*self.bytes, |text| bare(text).as_bytes()))
    }

    fn key(&self) -> Result<(DecodingKey, Algorithm), String> {
        match self.secret() {
            Some(secret) if text_of(secret).is_some_and(|text| text.contains(['\n', '\r'])) => {
                Err("a secret must be one line".to_owned())
            }
            Some(secret) if text_of(secret).is_some_and(has_variable_name) => Err(WITH_NAME.to_owned()),
            Some(_) if is_utf16(&self.bytes) => Err("the file is UTF-16: save it as UTF-8".to_owned()),
            Some(secret) => secret_key(secret),
            None => public_key(self.bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&self.bytes)),
        }
    }
}

/// Returns whether bytes are UTF-16 of ASCII text, as some editors and shells write text. Random bytes are not UTF-16
/// of ASCII text.
fn is_utf16(bytes: &[u8]) -> bool {
    let units = bytes.strip_prefix(b"\xff\xfe").or_else(|| bytes.strip_prefix(b"\xfe\xff")).unwrap_or(bytes);
    let is_zero = |start: usize| units.iter().skip(start).step_by(2).all(|byte| *byte == 0);
    !units.is_empty() && units.len().is_multiple_of(2) && (is_zero(0) || is_zero(1))
}

/// Debug output hides the content of the file, because the content may be a secret.
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Keys {
    /// Creates an HS256 key from each of `secrets`, and a key from each of `files`. A file with a PEM public key gives
    /// a key for RS256, ES256 or EdDSA. Any other file contains an HS256 secret. A line end at the end of the file is
    /// not part of the secret.
    ///
    /// A token is valid if any key of its algorithm verifies the token. So a key can be replaced while tokens of the
    /// old key are in use.
    ///
    /// # Errors
    ///
    /// Returns an error if a secret or file is not a usable key, or if `secrets` and `files` are both empty.
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
            return Err("missing key for tokens: give jwt_secret or jwt_key_file".to_owned());
        }
        Ok(Keys { keys, issuer: None, audience: None })
    }

    /// Sets the required issuer, `iss`. If no issuer is set, the claim `iss` is not checked.
    #[must_use]
    pub fn issuer(self, issuer: Option<String>) -> Keys {
        Keys { issuer, ..self }
    }

    /// Sets the required audience. `aud` must be this audience, or an array that contains it. If no audience is set,
    /// the claim `aud` is not checked.
    #[must_use]
    pub fn audience(self, audience: Option<String>) -> Keys {
        Keys { audience, ..self }
    }

    /// Returns each key with its algorithm.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&DecodingKey, Algorithm)> {
        self.keys.iter().map(|(key, algorithm)| (key, *algorithm))
    }
}

/// Returns the name of an algorithm (RFC 7518 section 3.1).
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        // This module creates no key with another algorithm.
        _ => "",
    }
}

/// Checks that an HS256 secret is long enough and is not a public key.
pub fn check_secret(secret: &[u8]) -> Result<(), String> {
    if secret.is_empty() {
        return Err("secret is empty".to_owned());
    }
    if has_pem_mark(secret) {
        return Err("a PEM key is not a secret: give it as a key file".to_owned());
    }
    let kind = if is_der(secret) {
        "a DER key"
    } else if is_jwk(secret) {
        "a JSON Web Key"
    } else if secret.starts_with(b"ssh-") || secret.starts_with(b"ecdsa-sha2-") {
        "an SSH key"
    } else if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "a secret of {} bytes is too short: HS256 needs at least {SECRET_BYTES_MIN} (RFC 7518 section 3.2); \
             `openssl rand -base64 32` makes a secret",
            secret.len()
        ));
    } else {
        return Ok(());
    };
    Err(format!("{kind} is not a secret: expected {SUPPORTED_KEYS}"))
}

fn secret_key(secret: &[u8]) -> Result<(DecodingKey, Algorithm), String> {
    check_secret(secret)?;
    Ok((DecodingKey::from_secret(secret), Algorithm::HS256))
}

fn public_key(pem: &[u8]) -> Result<(DecodingKey, Algorithm), String> {
    let text = str::from_utf8(pem).map_err(|_| format!("expected {SUPPORTED_KEYS}, found binary data"))?;
    let mut labels = text.split("-----BEGIN ").skip(1).map(|rest| rest.split("-----").next().unwrap_or_default());
    let label = labels.next().unwrap_or_default();
    if labels.next().is_some() {
        return Err("several PEM blocks: give one key per file".to_owned());
    }
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
        "CERTIFICATE" => {
            return Err("found a certificate: extract its key with openssl x509 -pubkey -noout -in FILE".to_owned());
        }
        label if label.ends_with("PRIVATE KEY") => {
            return Err("found a private key: extract the public key with openssl pkey -pubout -in FILE".to_owned());
        }
        _ => return Err(format!("expected {SUPPORTED_KEYS}")),
    }
    // Each of these parsers accepts only keys of its own kind: RSA, EC or EdDSA.
    let by_kind = [
        (DecodingKey::from_rsa_pem(pem), Algorithm::RS256),
        (DecodingKey::from_ec_pem(pem), Algorithm::ES256),
        (DecodingKey::from_ed_pem(pem), Algorithm::EdDSA),
    ];
    by_kind
        .into_iter()
        .find_map(|(key, algorithm)| Some((key.ok()?, algorithm)))
        .filter(|(key, algorithm)| is_usable(key, *algorithm))
        .ok_or_else(|| format!("expected {SUPPORTED_KEYS}"))
}

/// Returns whether the key can verify tokens. Without this check, the server would find an unusable key only when the
/// first client sends a token.
fn is_usable(key: &DecodingKey, algorithm: Algorithm) -> bool {
    let Ok(bytes) = key.try_get_as_bytes() else { return false };
    match algorithm {
        Algorithm::RS256 => {
            let parts = (rust_crypto::DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(bytes);
            parts.is_ok_and(|(modulus, _)| modulus.len() >= MODULUS_BYTES_MIN)
        }
        // The verifier would panic with an Ed25519 key of fewer than 32 bytes.
        Algorithm::EdDSA if bytes.len() != 32 => false,
        _ => crypto::verify("", b"", key, algorithm).is_ok(),
    }
}

/// Returns the bytes as lines of text, or `None` for other data such as random bytes.
fn text_of(bytes: &[u8]) -> Option<&str> {
    let is_other = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    str::from_utf8(bytes).ok().filter(|text| !text.contains(is_other))
}

/// Returns whether the bytes contain the start of a PEM block (RFC 7468).
fn has_pem_mark(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"-----BEGIN").is_some()
}

/// Returns whether these bytes are one DER sequence (X.690 section 8.1).
fn is_der(bytes: &[u8]) -> bool {
    match *bytes {
        [0x30, len @ ..=0x7f, ref rest @ ..] => rest.len() == usize::from(len),
        [0x30, 0x81, len, ref rest @ ..] => rest.len() == usize::from(len),
        [0x30, 0x82, high, low, ref rest @ ..] => rest.len() == usize::from(u16::from_be_bytes([high, low])),
        _ => false,
    }
}

/// Returns whether the bytes are a JSON Web Key (RFC 7517) or a set of such keys.
fn is_jwk(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Jwk {
        kty: Option<serde::de::IgnoredAny>,
        keys: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Jwk>(bytes).is_ok_and(|jwk| jwk.kty.is_some() || jwk.keys.is_some())
}
