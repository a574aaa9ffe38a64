//! Pushes: all messages to clients, and the datagrams with push commands.

pub mod datagrams;
pub mod publish;
