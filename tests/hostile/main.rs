//! Tests with hostile input and under overload. `cases` has tables of input; some servers run in child processes.

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod child;
mod harness;
mod wire;

mod frames;
mod fuzz_corpus;
mod http;
mod inbound;
mod system;

/// Runs the server that the environment names. Does nothing if the environment names no server.
#[test]
fn child_server() {
    child::run(&[frames::ROLES, inbound::ROLES, system::ROLES].concat());
}
