//! Errors of certificates and keys.

use std::error::Error;

/// An error in a certificate, a key, or their combination.
///
/// The text of the error does not contain the text of its [`source`](Error::source), which is the error of the PEM
/// parser or of rustls.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The text is not PEM (RFC 7468).
    #[error("invalid PEM")]
    Pem(#[source] Box<dyn Error + Send + Sync>),
    /// The text has no `CERTIFICATE` section.
    #[error("no certificate found")]
    NoCertificate,
    /// The text has no section with a private key: PKCS#8, PKCS#1 or SEC1.
    #[error("no private key found")]
    NoKey,
    /// A certificate cannot be parsed.
    #[error("invalid certificate")]
    Certificate(#[source] Box<dyn Error + Send + Sync>),
    /// The key is invalid, or its type is not supported.
    #[error("invalid private key")]
    Key(#[source] Box<dyn Error + Send + Sync>),
    /// The private key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// No pair of certificate and key was added.
    #[error("no pair of certificate and private key is set")]
    NoPair,
    /// The TLS settings are invalid.
    #[error("invalid TLS settings")]
    Settings(#[source] Box<dyn Error + Send + Sync>),
}
