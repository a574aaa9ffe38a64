//! The responses to refused upgrade requests.

use std::net::IpAddr;

use fdpush::{Limits, Response, Upgrade};

/// Returns the answer to an upgrade if the authentication back end made no decision.
pub fn unavailable() -> Upgrade {
    Upgrade::refuse(Response::text(503, "authentication back end unavailable\n").header("Retry-After", "1"))
}

/// Returns the error text for an address or IPv6 network at its connection limit.
pub fn address_full(counted: IpAddr, limits: &Limits, max: u32) -> String {
    match counted {
        IpAddr::V4(ip) => format!("connection limit of address {ip} reached ({max})\n"),
        IpAddr::V6(ip) => {
            format!("connection limit of network {ip}/{} reached ({max})\n", limits.address_ipv6_prefix)
        }
    }
}

/// Returns the answer to an upgrade that exceeds the connection limit of a uid or an address. `why` is the error text.
pub fn too_many(why: String) -> Upgrade {
    Upgrade::refuse(Response::text(429, why))
}
