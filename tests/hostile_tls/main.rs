//! Tests the tables of hostile input through TLS.

// This test binary uses only a part of these modules. The test binary `hostile` uses all of them, and further modules
// that do not run through TLS: see docs/testing.md.
#![allow(dead_code)]

#[path = "../hostile/cases/mod.rs"]
mod cases;
#[path = "../hostile/child.rs"]
mod child;
#[path = "../common/mod.rs"]
mod common;
#[path = "../hostile/harness.rs"]
mod harness;
#[path = "../hostile/wire.rs"]
mod wire;

#[path = "../hostile/frames.rs"]
mod frames;
#[path = "../hostile/http.rs"]
mod http;
#[path = "../hostile/inbound.rs"]
mod inbound;
#[path = "../hostile/system.rs"]
mod system;

/// Runs the server whose name is in an environment variable. Does nothing if the variable is not set.
#[test]
fn child_server() {
    child::run(&[frames::ROLES, inbound::ROLES, system::ROLES].concat());
}
