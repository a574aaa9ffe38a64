//! The proxies whose PROXY headers are believed.

use std::fmt;

use crate::peer::Peer;

/// The trusted proxies: a rule over the other end of a socket. Without one, none is trusted.
#[derive(Default)]
pub struct Proxies(Option<Box<dyn Fn(Peer) -> bool + Send>>);

impl Proxies {
    /// Proxies by this rule.
    pub fn new(trusts: impl Fn(Peer) -> bool + Send + 'static) -> Proxies {
        Proxies(Some(Box::new(trusts)))
    }

    /// Whether a connection from here is a trusted proxy's.
    pub fn trusts(&self, peer: Peer) -> bool {
        self.0.as_ref().is_some_and(|trusts| trusts(peer))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Proxies(by a rule)" } else { "Proxies(none)" })
    }
}
