//! The signature of requests to back ends: HMAC-SHA256 (RFC 2104, RFC 6234) over the body.

use std::fmt::{self, Write};
use std::io;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A secret shared with the back end. Debug output does not show the secret.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Creates the secret from a text of at least one byte.
    pub fn new(text: &str) -> io::Result<SigningKey> {
        let keyed = Hmac::new_from_slice(text.as_bytes()).ok().filter(|_| !text.is_empty());
        keyed.map(SigningKey).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "secret is empty"))
    }

    /// Returns the value of `X-Fdpush-Signature`: `sha256=` and 64 lower-case hexadecimal digits.
    pub fn sign(&self, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(body);
        let digest = mac.finalize().into_bytes();
        let mut header = String::with_capacity("sha256=".len() + 2 * digest.len());
        header.push_str("sha256=");
        for byte in digest {
            // Writing to a string does not fail.
            let _ = write!(header, "{byte:02x}");
        }
        header
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test vector is from RFC 4231 section 4.3. The key of the second test vector is longer than a block of
    /// SHA-256. OpenSSL and Python computed the signature of the second test vector.
    #[test]
    fn signatures_match_known_test_vectors() {
        let secret = SigningKey::new("Jefe").expect("the secret is valid");
        assert_eq!(
            secret.sign(b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let long = SigningKey::new(&"k".repeat(131)).expect("the secret is valid");
        assert_eq!(long.sign(b"{}"), "sha256=bf56b1f6cc96e155b1f9695de165b01027af10d5c2b024bfc5c937a155402daf");
    }

    #[test]
    fn debug_output_hides_the_secret_and_an_empty_secret_is_refused() {
        let secret = SigningKey::new("hush").expect("the secret is valid");
        assert_eq!(format!("{secret:?}"), "***");
        assert!(SigningKey::new("").is_err());
    }
}
