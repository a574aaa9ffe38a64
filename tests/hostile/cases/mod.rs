//! What the hostile tests share: a peer that speaks bytes, the ways to send them, and the tables of what to send.

// Each test file is a crate of its own and uses its own part of this.
#![allow(dead_code)]

pub mod child;
pub mod close_frames;
pub mod data_frames;
pub mod http_body;
pub mod http_head;
pub mod http_upgrade;
pub mod ways;
pub mod wire;
