//! RFC 6455 and as much of HTTP/1.1 as it needs, sans-IO: bytes in, values out, and the other way round.
//!
//! Nothing here knows of a socket, a clock, a log or a connection.

pub mod assembler;
pub mod body;
pub mod client;
pub mod close;
pub mod decoder;
pub mod error;
pub mod frame;
pub mod held;
pub mod http;
pub mod intake;
pub mod mask;
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
