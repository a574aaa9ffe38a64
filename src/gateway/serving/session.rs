//! The data that the gateway stores with a connection. Most connections have no session.

use std::net::IpAddr;

use fdpush::shared::TokenBucket;
use serde_json::{Map, Value};

use crate::gateway::identity::connect_hook::Pending;

/// The data that the gateway stores with one connection.
#[derive(Debug, Default)]
pub struct Session {
    /// The JSON attributes that the back end stores with the connection, as in a session of GatewayWorker.
    pub attributes: Map<String, Value>,
    /// The groups that the connection joins when it opens.
    pub groups: Vec<String>,
    /// The client address that a trusted proxy forwarded.
    pub forwarded: Option<IpAddr>,
    /// The time when the identity of the client expires, in seconds since 1970.
    pub exp: Option<u64>,
    /// The request to the connect hook that has no decision yet. If the session is dropped, this field is also dropped,
    /// and the request is cancelled.
    #[expect(dead_code, reason = "dropping the value with the session cancels the request")]
    pub pending_auth: Option<Pending>,
    /// The token bucket that limits the rate of messages.
    pub limiter: Option<TokenBucket>,
}

impl Session {
    /// Returns whether the session of an accepted upgrade is empty. The gateway stores no empty session.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.groups.is_empty() && self.exp.is_none() && self.forwarded.is_none()
    }
}
