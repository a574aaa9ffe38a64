//! The wire format: JSON, client frames, targets, and the rules of names and ids.

pub mod frame;
pub mod id;
pub mod json;
pub mod names;
pub mod suggestion;
pub mod target;
