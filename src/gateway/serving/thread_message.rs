//! The messages that other threads send to the loop.

use std::net::IpAddr;

use fdpush::{Ticket, Upgrade};

use crate::gateway::identity::connect_hook::Decision;
use crate::gateway::identity::subprotocol::Choice;
use crate::gateway::push::datagrams::pending::Datagram;

/// A message from another thread to the gateway.
pub enum ThreadMessage {
    /// A push command from a datagram.
    Datagram(Datagram),
    /// The decision of the connect hook about an upgrade request.
    Decision { ticket: Ticket<Upgrade>, address: Option<IpAddr>, choice: Choice, decision: Decision },
    /// A result has been added to the reload queue.
    Reload,
}
