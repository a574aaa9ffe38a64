//! The checks of `fdpush check` that follow the parsing of the settings. `fdpush check` finds every fault that stops
//! the start of the server, except a listener that cannot be opened.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;

use fdpush::Address;

use super::Settings;
use super::back_ends;
use super::cli::{self, ApiAddress, Auth, Endpoint, Secret};
use super::faults::Faults;
use crate::gateway::hooks::backend::BackendUrl;
use crate::gateway::identity::jwt;

/// An address to which only one socket can be bound.
#[derive(PartialEq, Debug)]
enum SocketAddress {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    File(PathBuf),
}

/// One value of `listen` or `api`, and the addresses that the server binds for this value.
struct Binding {
    key: &'static str,
    text: String,
    addresses: Vec<SocketAddress>,
}

impl Settings {
    /// Collects the faults that parsing does not find: host names without an IP address, conflicting sockets, `trust`
    /// on an address that other machines can reach, unusable keys and back ends, and certificates that are not valid
    /// now.
    pub(super) fn check(&self, faults: &mut Faults) {
        let mut addresses: Vec<Address> = Vec::new();
        for address in &self.serve.listen {
            match address.endpoint().resolve() {
                Ok(resolved) => addresses.extend(resolved),
                Err(why) => faults.add(&["listen"], format!("{}: {why}", self.layers.name("listen"))),
            }
        }
        if let Err(why) = self.serve.check_trust(&addresses) {
            faults.add(&["listen", "auth"], why);
        }
        self.check_bindings(faults);
        self.check_validity(None, faults);
        let jwt = &self.serve.clients.jwt;
        // `check_consistency` has already reported that `auth` is `jwt` and no key is set.
        if !(jwt.jwt_secret.is_empty() && jwt.jwt_key_file.is_empty())
            && let Err(why) = self.token_keys()
        {
            faults.add(&["auth", "jwt_secret", "jwt_key_file"], why);
        }
        // Even an invalid URL means that a back end is configured.
        let hook = &self.serve.clients.auth_url;
        let has_back_end = self.serve.hooks.webhook.is_some() || hook.is_some() && self.serve.auth() == Auth::Webhook;
        if has_back_end || faults.is_invalid("webhook") || faults.is_invalid("auth_url") {
            for (key, why) in back_ends::faults(&self.serve) {
                faults.add(&[key], why);
            }
        }
    }

    /// Returns the keys that verify tokens, or `None` without `--auth jwt`.
    ///
    /// # Errors
    /// Returns an error if a secret or a key file cannot be used.
    pub fn token_keys(&self) -> Result<Option<jwt::Keys>, String> {
        if self.serve.auth() != Auth::Jwt {
            return Ok(None);
        }
        let cli::Jwt { jwt_secret, jwt_issuer, jwt_audience, .. } = &self.serve.clients.jwt;
        let secrets: Vec<&str> = jwt_secret.iter().map(Secret::expose).collect();
        let keys = jwt::Keys::new(&secrets, self.jwt_keys())?;
        Ok(Some(keys.issuer(jwt_issuer.clone()).audience(jwt_audience.clone())))
    }

    fn check_bindings(&self, faults: &mut Faults) {
        let bindings = self.bindings(faults);
        for (index, binding) in bindings.iter().enumerate() {
            let name = self.layers.name(binding.key);
            for path in binding.addresses.iter().filter_map(SocketAddress::file) {
                if let Err(why) = UnixAddr::from_pathname(path) {
                    faults.add(&[binding.key], format!("{name}: {}: {why}", binding.text));
                }
                // The start of the server replaces a stale socket file. Any other file at the path of the socket is an
                // error.
                if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
                    faults
                        .add(&[binding.key], format!("{name}: {}: the file exists and is not a socket", binding.text));
                }
            }
            let conflicts = |other: &&Binding| {
                other.addresses.iter().any(|address| binding.addresses.iter().any(|p| p.conflicts_with(address)))
            };
            if let Some(other) = bindings.iter().take(index).find(conflicts) {
                let (text, whose, taken) = (&binding.text, self.layers.name(other.key), &other.text);
                let keys = [binding.key, other.key];
                faults.add(&keys, format!("{name}: {text} is already used by {taken} of {whose}"));
            }
        }
        self.check_back_end_addresses(&bindings, faults);
    }

    /// Checks that no URL of a back end leads to this server.
    ///
    /// The text of a fault does not repeat the URL, because the URL may contain a password.
    fn check_back_end_addresses(&self, bindings: &[Binding], faults: &mut Faults) {
        let hook = self.serve.clients.auth_url.as_ref().filter(|_| self.serve.auth() == Auth::Webhook);
        for (key, url) in [("webhook", self.serve.hooks.webhook.as_ref()), ("auth_url", hook)] {
            let url = url.and_then(|url| BackendUrl::parse(url.as_ref()).ok());
            let addresses = url.map(|url| url.local_addresses()).unwrap_or_default();
            let is_bound = |own: &SocketAddress| match own {
                SocketAddress::Tcp(own) => addresses.iter().any(|address| conflict(own, address)),
                SocketAddress::Udp(_) | SocketAddress::File(_) => false,
            };
            let is_own = |binding: &&Binding| !self.may_be_replaced(binding) && binding.addresses.iter().any(is_bound);
            if let Some(own) = bindings.iter().find(is_own) {
                let (name, text, whose) = (self.layers.name(key), &own.text, self.layers.name(own.key));
                let why = format!(
                    "{name}: the URL is an address of this server ({text} of {whose}), and not an address of a back end"
                );
                faults.add(&[key, own.key], why);
            }
        }
    }

    /// Returns whether sockets of a service manager may replace the addresses of this binding.
    fn may_be_replaced(&self, binding: &Binding) -> bool {
        let is_default = match binding.key {
            "listen" => self.listens_by_default(),
            _ => self.has_default_api(),
        };
        is_default && std::env::var_os("LISTEN_FDS").is_some()
    }

    fn bindings(&self, faults: &mut Faults) -> Vec<Binding> {
        let of = |address: Address| match address {
            Address::Tcp(address) => SocketAddress::Tcp(address),
            Address::Unix(path) => SocketAddress::File(path),
        };
        let resolved = |endpoint: &Endpoint| -> Result<Vec<SocketAddress>, String> {
            Ok(endpoint.resolve()?.into_iter().map(of).collect())
        };
        let mut bindings = Vec::new();
        for address in &self.serve.listen {
            // `Settings::check` has already reported a host name without an IP address.
            let addresses = resolved(address.endpoint()).unwrap_or_default();
            bindings.push(Binding { key: "listen", text: address.to_string(), addresses });
        }
        for address in self.serve.api_addresses() {
            let addresses = match address {
                ApiAddress::Http(stream) => resolved(stream.endpoint()),
                ApiAddress::Udp(_) => {
                    address.resolve_udp().map(|udp| udp.into_iter().map(SocketAddress::Udp).collect())
                }
                ApiAddress::UnixDatagram(path) => Ok(vec![SocketAddress::File(path.clone())]),
                ApiAddress::Off => Ok(Vec::new()),
            };
            let addresses = addresses.unwrap_or_else(|why| {
                faults.add(&["api"], format!("{}: {why}", self.layers.name("api")));
                Vec::new()
            });
            bindings.push(Binding { key: "api", text: address.to_string(), addresses });
        }
        bindings
    }
}

impl SocketAddress {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            SocketAddress::File(path) => Some(path),
            SocketAddress::Tcp(_) | SocketAddress::Udp(_) => None,
        }
    }

    /// Returns whether two sockets cannot be bound to `self` and `other` at the same time.
    fn conflicts_with(&self, other: &SocketAddress) -> bool {
        match (self, other) {
            (SocketAddress::Tcp(one), SocketAddress::Tcp(other))
            | (SocketAddress::Udp(one), SocketAddress::Udp(other)) => conflict(one, other),
            _ => self == other,
        }
    }
}

/// Returns whether two sockets cannot be bound to two addresses at the same time. An unspecified address covers all
/// addresses of its family. Port 0 conflicts with no port.
fn conflict(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_one_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_one_ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_conflicts_with_each_address_of_its_family() {
        let conflict = |one: &str, other: &str| {
            conflict(&one.parse().expect("the address is valid"), &other.parse().expect("the address is valid"))
        };
        for (one, other) in [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::1]:1", "[::]:1")] {
            assert!(conflict(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("[::]:1", "0.0.0.0:1"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert!(!conflict(one, other), "{one} {other}");
        }
    }
}
