//! The proxies whose PROXY headers are trusted.

use std::fmt;

use crate::peer::Peer;

/// The rule that decides which proxies are trusted.
///
/// The rule gets the address of the socket's peer. Without a rule, no proxy is trusted.
#[derive(Default)]
pub struct ProxyFilter(Option<Box<dyn Fn(Peer) -> bool + Send>>);

impl ProxyFilter {
    /// Trusts the proxies for which `trusts` returns `true`.
    pub fn new(trusts: impl Fn(Peer) -> bool + Send + 'static) -> ProxyFilter {
        ProxyFilter(Some(Box::new(trusts)))
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
