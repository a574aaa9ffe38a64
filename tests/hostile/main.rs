//! Tests with hostile input and under overload. `cases` has tables of input; some servers run in child processes.

#[path = "../common/mod.rs"]
mod common;

mod cases {
    pub mod close_frames;
    pub mod data_frames;
    pub mod http_body;
    pub mod http_head;
    pub mod http_upgrade;
}
mod child;
mod harness;
mod wire;

mod frames;
mod fuzz_corpus;
mod http;
mod inbound;
mod system;

/// Runs the server that the environment names. Without a name it does nothing.
#[test]
fn child_server() {
    child::run(&[frames::ROLES, inbound::ROLES, system::ROLES].concat());
}
