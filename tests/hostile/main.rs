//! Tests with hostile input and under overload. The module `cases` has tables of input. Some tests run their server in
//! a child process.

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
mod plain;
mod system;

/// Runs the server whose name is in an environment variable. Does nothing if the variable is not set.
#[test]
fn child_server() {
    child::run(&[frames::ROLES, inbound::ROLES, system::ROLES].concat());
}
