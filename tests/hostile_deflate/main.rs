//! Tests the tables of hostile input with permessage-deflate negotiated, and attacks by deflated messages.

// This test binary uses only a part of these modules. The test binary `hostile` uses all of them.
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

mod attacks;

/// Runs the server whose name is in an environment variable. Does nothing if the variable is not set.
#[test]
fn child_server() {
    child::run(&[frames::ROLES, attacks::ROLES].concat());
}
