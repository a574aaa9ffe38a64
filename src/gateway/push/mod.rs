//! Sends messages to clients, and receives datagrams that contain push commands.

pub mod datagrams;
pub mod publish;
