//! Certificates and keys of TLS listeners.

mod certificate;
pub mod expiry;
pub mod files;
mod pem;
