//! WebSocket (RFC 6455) and the part of HTTP/1.1 that an upgrade needs, without I/O.
//!
//! The functions convert bytes to values, or values to bytes. The module does not use sockets, clocks, logs or
//! connections.

pub mod assembler;
pub mod body;
pub mod body_mode;
#[cfg(any(test, feature = "unstable"))]
pub mod client;
pub mod close;
pub mod close_payload;
pub mod decoder;
pub mod deferral;
pub mod deflate;
pub mod error;
pub mod extension;
pub mod frame;
pub mod held_input;
pub mod http;
pub mod inflation;
pub mod mask;
pub mod memory;
pub mod message;
pub mod origin;
pub mod proxy;
pub mod query;
pub mod request;
pub mod response;
pub mod shared;
mod target;
mod token;
pub mod upgrade;
pub mod utf8;
