//! Reads, checks and creates certificates and keys of TLS listeners.

mod certificate;
pub mod expiry;
pub mod files;
pub mod names;
mod pem;
pub mod self_signed;
