//! Tables of hostile input and the expected results.

pub mod close_frames;
pub mod data_frames;
pub mod deflated_frames;
pub mod http_body;
pub mod http_head;
pub mod http_upgrade;
