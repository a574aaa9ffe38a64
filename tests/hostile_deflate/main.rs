//! The tables of hostile input with permessage-deflate negotiated, and attacks by deflated messages.

// The binary `hostile` uses all of these modules.
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

/// Runs the server that the environment names. Does nothing if the environment names no server.
#[test]
fn child_server() {
    child::run(&[frames::ROLES, attacks::ROLES].concat());
}
