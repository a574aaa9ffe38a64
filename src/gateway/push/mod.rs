//! Pushes: the one path of a message to clients, and the datagrams that bring some of them.

pub mod datagrams;
pub mod publish;
