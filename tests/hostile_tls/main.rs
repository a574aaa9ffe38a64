//! The tables of hostile input, through TLS.

// This binary uses only a part of these modules. The binary `hostile` uses all of them.
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

/// Runs the server that the environment names. Does nothing if the environment names no server.
#[test]
fn child_server() {
    child::run(frames::ROLES);
}
