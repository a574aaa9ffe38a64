//! The data that the gateway stores with a connection. Most connections have none.

use std::net::IpAddr;

use fdpush::shared::TokenBucket;
use serde_json::{Map, Value};

use crate::gateway::identity::connect_hook::Pending;

/// The data of a connection.
#[derive(Debug, Default)]
pub struct Session {
    /// Data of the back end, like GatewayWorker's session.
    pub attributes: Map<String, Value>,
    /// The groups to join when the connection opens.
    pub groups: Vec<String>,
    /// The client's address from a trusted proxy.
    pub forwarded: Option<IpAddr>,
    /// The expiry of the identity, in seconds since 1970.
    pub exp: Option<u64>,
    /// The request to the connect hook. Dropping it with the session cancels the request.
    #[expect(dead_code, reason = "its drop cancels the request")]
    pub pending_auth: Option<Pending>,
    /// The bucket of the message rate.
    pub limiter: Option<TokenBucket>,
}

impl Session {
    /// Returns whether an accepted upgrade needs no session.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.groups.is_empty() && self.exp.is_none() && self.forwarded.is_none()
    }
}
