//! A WebSocket push server for Linux. Floor 0: the protocol and the values that all floors share.

mod connection;
mod fd;
mod limits;
mod message;
mod peer;
mod protocol;
mod registry;
mod tick;
mod wheel;

pub use crate::fd::Fd;
pub use crate::limits::{Heartbeat, Limits, SlowReader};
pub use crate::message::{Delivery, Message, Outcome, Push};
pub use crate::peer::Peer;
pub use crate::protocol::close::CloseCode;
pub use crate::protocol::error::ProtocolError;
pub use crate::protocol::origin::Origins;
pub use crate::protocol::request::Request;
pub use crate::protocol::response::Response;
pub use crate::protocol::shared::Frame;
pub use crate::protocol::upgrade::{Accept, Upgrade};
pub use crate::registry::{Change, NAME_BYTES_MAX, SecondLogin};
pub use crate::connection::{By, Cause, Closed, State, Traffic};
