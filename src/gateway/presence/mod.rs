//! The uids and groups of connections, and the uids in each group.

pub mod groups;
pub mod roster;
