//! Checks the trusted proxies against the listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fdpush::Address;
use ipnet::IpNet;

use super::Settings;
use super::cli::{ClientAddress, TrustedProxy};
use super::faults::Faults;

impl Settings {
    /// Collects the faults and warnings about the trusted proxies.
    ///
    /// A listener for proxies to which no trusted proxy can connect causes a fault or a warning. A trusted proxy
    /// without effect causes a warning.
    pub(super) fn check_proxies(&mut self, faults: &mut Faults) {
        let mut warnings = Vec::new();
        self.check_proxy_listeners(faults, &mut warnings);
        let name = self.layers.name("trusted_proxy");
        for proxy in &self.serve.clients.trusted_proxy {
            match proxy {
                TrustedProxy::Net(net) if net.prefix_len() == 0 => {
                    warnings.push(format!("{name}: {net} lets every client choose its address"));
                }
                TrustedProxy::Net(net) if net.prefix_len() < private_prefix_min(net) => {
                    warnings.push(format!(
                        "{name}: {net} is larger than any private network: clients in this network can choose their address"
                    ));
                }
                TrustedProxy::Unix if !self.listens_on_unix() => {
                    warnings.push(format!("{name}: unix has no effect without --listen unix:PATH"));
                }
                TrustedProxy::Net(_) | TrustedProxy::Unix => {}
            }
        }
        self.warnings.extend(warnings);
    }

    /// Checks that a trusted proxy can connect to each listener that expects a PROXY header.
    ///
    /// A listener that expects a PROXY header closes all connections that do not come from a trusted proxy. If the
    /// server can accept no connection on any listener, the check adds a fault. Otherwise, the check adds a warning.
    fn check_proxy_listeners(&self, faults: &mut Faults, warnings: &mut Vec<String>) {
        let clients = &self.serve.clients;
        let (name, trusted) = (self.layers.name("listen"), self.layers.name("trusted_proxy"));
        // The default address of `listen` is not checked, because a service manager may pass sockets that replace this
        // address. `check_consistency` reports `proxy_protocol` without trusted proxies.
        let has_proxy_header = |address: &&ClientAddress| {
            address.has_proxy_header()
                || clients.proxy_protocol && !self.listens_by_default() && !clients.trusted_proxy.is_empty()
        };
        let mut closed = Vec::new();
        for address in self.serve.listen.iter().filter(has_proxy_header) {
            if clients.trusted_proxy.is_empty() {
                faults.add(&["listen", "trusted_proxy"], format!("{name}: {address} needs --trusted-proxy"));
                continue;
            }
            // `fdpush check` reports a host name without an IP address.
            let bound = address.endpoint().resolve().unwrap_or_default();
            let is_any = |test: fn(&TrustedProxy, &Address) -> bool| {
                bound.iter().any(|bound| clients.trusted_proxy.iter().any(|proxy| test(proxy, bound)))
            };
            if !bound.is_empty() && !is_any(can_connect) {
                closed.push(format!(
                    "{name}: no proxy of {trusted} can connect to {address}, which expects a PROXY header"
                ));
            } else if bound.iter().all(Address::is_local) && !is_any(is_on_this_machine) {
                warnings.push(format!(
                    "{name}: no proxy of {trusted} is on this machine, and {address} expects a PROXY header"
                ));
            }
        }
        match closed.len() == self.serve.listen.len() {
            true => closed.into_iter().for_each(|why| faults.add(&["listen", "trusted_proxy", "proxy_protocol"], why)),
            false => warnings.extend(closed),
        }
    }

    fn listens_on_unix(&self) -> bool {
        // If `listen` has its default value, a service manager may have passed unix sockets that replace the default
        // address.
        let is_unix = |address: &ClientAddress| address.endpoint().is_unix();
        self.listens_by_default() || self.serve.listen.iter().any(is_unix)
    }
}

/// Returns the prefix length of the largest private network: `10.0.0.0/8` (RFC 1918) or `fc00::/7` (RFC 4193).
fn private_prefix_min(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 7,
    }
}

/// Returns whether a trusted proxy can connect to an address. The address `[::]` accepts no connections over IPv4.
fn can_connect(proxy: &TrustedProxy, address: &Address) -> bool {
    match (proxy, address) {
        (TrustedProxy::Unix, Address::Unix(_)) => true,
        (TrustedProxy::Net(net), Address::Tcp(address)) => {
            net.addr().is_ipv4() == address.ip().to_canonical().is_ipv4()
        }
        _ => false,
    }
}

/// Returns whether a trusted proxy may run on this machine and can connect to a local address.
fn is_on_this_machine(proxy: &TrustedProxy, address: &Address) -> bool {
    let loopback = [IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST)), IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))];
    match proxy {
        TrustedProxy::Unix => can_connect(proxy, address),
        // All addresses in 127.0.0.0/8 are loopback addresses, not only 127.0.0.1.
        TrustedProxy::Net(net) => net.addr().is_loopback() || loopback.iter().any(|ip| net.contains(ip)),
    }
}
