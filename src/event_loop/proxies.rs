//! The proxies whose PROXY headers are trusted.

use std::fmt;
use std::sync::Arc;

use crate::peer::Peer;

/// The rule that decides which proxies are trusted.
///
/// The rule gets the address of the socket's peer. Without a rule, no proxy is trusted. A clone shares the rule.
#[derive(Clone, Default)]
pub struct ProxyFilter(Option<Arc<dyn Fn(Peer) -> bool + Send + Sync>>);

impl ProxyFilter {
    /// Trusts the proxies for which `trusts` returns `true`.
    pub fn new(trusts: impl Fn(Peer) -> bool + Send + Sync + 'static) -> ProxyFilter {
        ProxyFilter(Some(Arc::new(trusts)))
    }

    /// Returns whether this peer is a trusted proxy.
    pub fn trusts(&self, peer: Peer) -> bool {
        self.0.as_ref().is_some_and(|trusts| trusts(peer))
    }
}

impl fmt::Debug for ProxyFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ProxyFilter(by a rule)" } else { "ProxyFilter(none)" })
    }
}
