//! TLS (RFC 8446 and RFC 5246): certificates, settings, and the engine of a session.
//!
//! The implementation is rustls. Of the layers 0 to 3, only this module imports rustls. So only this module changes
//! when a new version of rustls has a different interface for sessions.
//!
//! The engine has neither a socket nor buffers of its own: `connection/tls.rs` connects the engine to a stream, and the
//! loop provides the buffers.

#[cfg(feature = "tls")]
mod config;
#[cfg(feature = "tls")]
mod engine;
#[cfg(feature = "tls")]
mod error;
mod info;
#[cfg(feature = "tls")]
mod short_chains;
#[cfg(all(feature = "tls", any(test, feature = "unstable")))]
mod testing;

#[cfg(feature = "tls")]
pub use self::config::{TlsBuilder, TlsConfig};
#[cfg(feature = "tls")]
pub use self::engine::{Ciphertext, Engine, EngineError, RECORD_BYTES_MAX};
#[cfg(feature = "tls")]
pub use self::error::TlsError;

#[cfg(all(feature = "tls", any(test, feature = "unstable")))]
pub use self::testing::{HANDSHAKE, Hello, TLS12_RECORDS_MAX, TestClient, test_config};

pub use self::info::{TlsCounts, TlsInfo, TlsVersion};

/// The settings of a TLS listener. Without the feature `tls`, this type has no values.
#[cfg(feature = "tls")]
pub type ListenerTls = TlsConfig;
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub enum ListenerTls {}
