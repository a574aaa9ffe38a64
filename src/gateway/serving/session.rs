//! What the gateway keeps with a connection, where there is something to keep: most have none.

use std::net::IpAddr;

use fdpush::shared::TokenBucket;
use serde_json::{Map, Value};

use crate::gateway::identity::connect_hook::Pending;

/// A connection's own.
#[derive(Debug, Default)]
pub struct Session {
    /// GatewayWorker's session: what the back end wants to find again with the connection.
    pub attributes: Map<String, Value>,
    /// Groups to be joined when it opens.
    pub groups: Vec<String>,
    /// Where its client is, as a trusted proxy told it.
    pub forwarded: Option<IpAddr>,
    /// When it stops being who it is, in seconds since 1970.
    pub exp: Option<u64>,
    /// The question of who it is, while the back end is asked. A client that goes takes it back: the session ends with the
    /// connection.
    #[expect(dead_code, reason = "kept for its drop")]
    pub question: Option<Pending>,
    /// How many messages it may send.
    pub limiter: Option<TokenBucket>,
}

impl Session {
    /// Whether there is nothing to keep of what a client brings.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.groups.is_empty() && self.exp.is_none() && self.forwarded.is_none()
    }
}
