//! The address of a client, in 20 bytes.
//!
//! The standard library's `SocketAddr` takes 32 bytes. The server keeps one address for each connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address of a client.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Peer {
    /// An IPv4 address and a port.
    V4 {
        /// The address, in network byte order.
        ip: [u8; 4],
        /// The client's port.
        port: u16,
    },
    /// An IPv6 address and a port.
    ///
    /// The flow label and the scope id are not stored.
    V6 {
        /// The address, in network byte order.
        ip: [u8; 16],
        /// The client's port.
        port: u16,
    },
    /// A client of a unix socket: it has no address.
    Unix,
}

const _: () = assert!(size_of::<Peer>() == 20);

impl Peer {
    /// Returns the client's IP address; `None` on a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match *self {
            Peer::V4 { ip, .. } => Some(IpAddr::V4(Ipv4Addr::from(ip))),
            Peer::V6 { ip, .. } => Some(IpAddr::V6(Ipv6Addr::from(ip))),
            Peer::Unix => None,
        }
    }

    /// Returns the client's port; `None` on a unix socket.
    pub fn port(&self) -> Option<u16> {
        match *self {
            Peer::V4 { port, .. } | Peer::V6 { port, .. } => Some(port),
            Peer::Unix => None,
        }
    }

    /// Returns whether the client has a loopback address.
    ///
    /// Loopback addresses are 127.0.0.0/8, `::1`, and 127.0.0.0/8 as IPv4-mapped IPv6 addresses. For a unix socket, the
    /// result is `false`.
    pub fn is_loopback(&self) -> bool {
        self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        match address {
            SocketAddr::V4(v4) => Peer::V4 { ip: v4.ip().octets(), port: v4.port() },
            SocketAddr::V6(v6) => Peer::V6 { ip: v6.ip().octets(), port: v6.port() },
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip(), self.port()) {
            (Some(ip), Some(port)) => SocketAddr::new(ip, port).fmt(f),
            _ => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_displayed_as_a_socket_address() {
        for text in ["127.0.0.1:80", "[::1]:9501", "203.0.113.9:65535"] {
            let peer = Peer::from(text.parse::<SocketAddr>().expect("the address is valid"));
            assert_eq!(peer.to_string(), text);
        }
        assert_eq!(Peer::Unix.to_string(), "unix");
    }

    #[test]
    fn ipv4_ipv6_and_mapped_loopback_addresses_are_loopback() {
        let is_loopback =
            |text: &str| Peer::from(text.parse::<SocketAddr>().expect("the address is valid")).is_loopback();
        assert!(is_loopback("127.8.9.1:1"));
        assert!(is_loopback("[::1]:1"));
        assert!(is_loopback("[::ffff:127.0.0.1]:1"));
        assert!(!is_loopback("198.51.100.1:1"));
        assert!(!Peer::Unix.is_loopback());
    }
}
