//! Errors of certificates and keys.

/// An error in a certificate, a key, or their combination.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The text is not PEM (RFC 7468). The field is the error of the parser.
    #[error("invalid PEM: {0}")]
    Pem(String),
    /// There is no `CERTIFICATE` section.
    #[error("no certificate found")]
    NoCertificate,
    /// There is no private key section: PKCS#8, PKCS#1 or SEC1.
    #[error("no private key found")]
    NoKey,
    /// A certificate cannot be parsed.
    #[error("invalid certificate: {0}")]
    Certificate(String),
    /// The key is invalid, or its type is not supported.
    #[error("invalid private key: {0}")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the private key does not fit the certificate")]
    KeyMismatch,
    /// No pair of certificate and key was added.
    #[error("no certificate and key set")]
    NoPair,
    /// The settings are invalid. The field is the error of rustls.
    #[error("invalid TLS settings: {0}")]
    Settings(String),
}
