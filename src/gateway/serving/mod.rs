//! Serves clients: starts the server, handles the events of the loop, executes client frames, serves the demo page, and
//! reloads the settings on SIGHUP.

pub mod client;
pub mod fleet;
pub mod handler;
pub mod loop_settings;
pub mod page;
pub mod plan;
pub mod refusals;
pub mod session;
pub mod sighup;
pub mod start;
pub mod thread_message;
