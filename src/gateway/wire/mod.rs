//! The wire format: JSON, the frames of clients, and the rules of names.

pub mod frame;
pub mod json;
pub mod names;
pub mod suggestion;
