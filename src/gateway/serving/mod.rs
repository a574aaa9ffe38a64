//! The part that serves clients: the start, the handler of the loop, client frames, the built-in page, and reloads by
//! SIGHUP.

pub mod client;
pub mod handler;
pub mod page;
pub mod plan;
pub mod session;
pub mod sighup;
pub mod start;
pub mod thread_message;
