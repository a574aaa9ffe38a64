//! What `fdpush check` judges beyond what is read: all that `serve` would stumble over, short of listening.

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
use crate::gateway::identity::jwt;

/// What only one socket can be bound to.
#[derive(PartialEq, Debug)]
enum Place {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    File(PathBuf),
}

/// What a setting wants to be bound, and where that is.
struct Wish {
    key: &'static str,
    text: String,
    places: Vec<Place>,
}

impl Settings {
    /// Collects what else can be wrong, short of listening: names that have no address, two sockets with one address,
    /// clients that are believed though other machines reach them, keys that cannot be used, back ends that cannot be
    /// asked.
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
        self.check_places(faults);
        if let Err(why) = self.token_keys() {
            faults.add(&["auth", "jwt_secret", "jwt_key_file"], why);
        }
        // A URL that cannot be used is a back end that is meant.
        let hook = &self.serve.clients.auth_url;
        let has_back_end = self.serve.hooks.webhook.is_some() || hook.is_some() && self.serve.auth() == Auth::Webhook;
        if has_back_end || faults.blames("webhook") || faults.blames("auth_url") {
            for (key, why) in back_ends::faults(&self.serve) {
                faults.add(&[key], why);
            }
        }
    }

    /// The keys that tokens are checked with; none where clients come in otherwise.
    ///
    /// # Errors
    /// Says which secret or file cannot be used, and why.
    pub fn token_keys(&self) -> Result<Option<jwt::Keys>, String> {
        if self.serve.auth() != Auth::Jwt {
            return Ok(None);
        }
        let cli::Jwt { jwt_secret, jwt_issuer, jwt_audience, .. } = &self.serve.clients.jwt;
        let secrets: Vec<&str> = jwt_secret.iter().map(Secret::expose).collect();
        let keys = jwt::Keys::new(&secrets, self.jwt_keys())?;
        Ok(Some(keys.issuer(jwt_issuer.clone()).audience(jwt_audience.clone())))
    }

    fn check_places(&self, faults: &mut Faults) {
        let wishes = self.wishes(faults);
        for (index, wish) in wishes.iter().enumerate() {
            let name = self.layers.name(wish.key);
            for path in wish.places.iter().filter_map(Place::file) {
                if let Err(why) = UnixAddr::from_pathname(path) {
                    faults.add(&[wish.key], format!("{name}: {}: {why}", wish.text));
                }
                // A socket that is left over gives way; all else stays.
                if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
                    faults.add(&[wish.key], format!("{name}: {}: there is a file that is no socket", wish.text));
                }
            }
            let collides = |other: &&Wish| other.places.iter().any(|place| wish.places.iter().any(|p| p.is_in(place)));
            if let Some(other) = wishes.iter().take(index).find(collides) {
                let (text, whose, taken) = (&wish.text, self.layers.name(other.key), &other.text);
                let keys = [wish.key, other.key];
                faults.add(&keys, format!("{name}: {text} is taken already, by {taken} of {whose}"));
            }
        }
    }

    fn wishes(&self, faults: &mut Faults) -> Vec<Wish> {
        let of = |address: Address| match address {
            Address::Tcp(address) => Place::Tcp(address),
            Address::Unix(path) => Place::File(path),
        };
        let resolved = |endpoint: &Endpoint| -> Result<Vec<Place>, String> {
            Ok(endpoint.resolve()?.into_iter().map(of).collect())
        };
        let mut wishes = Vec::new();
        for address in &self.serve.listen {
            // A name without an address was told before.
            let places = resolved(address.endpoint()).unwrap_or_default();
            wishes.push(Wish { key: "listen", text: address.to_string(), places });
        }
        for address in self.serve.api_addresses() {
            let places = match address {
                ApiAddress::Http(endpoint) => resolved(endpoint),
                ApiAddress::Udp(_) => address.resolve_udp().map(|udp| udp.into_iter().map(Place::Udp).collect()),
                ApiAddress::UnixDatagram(path) => Ok(vec![Place::File(path.clone())]),
                ApiAddress::Off => Ok(Vec::new()),
            };
            let places = places.unwrap_or_else(|why| {
                faults.add(&["api"], format!("{}: {why}", self.layers.name("api")));
                Vec::new()
            });
            wishes.push(Wish { key: "api", text: address.to_string(), places });
        }
        wishes
    }
}

impl Place {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Place::File(path) => Some(path),
            Place::Tcp(_) | Place::Udp(_) => None,
        }
    }

    /// Whether there is no room for this where the other is.
    fn is_in(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Tcp(one), Place::Tcp(other)) | (Place::Udp(one), Place::Udp(other)) => collide(one, other),
            _ => self == other,
        }
    }
}

/// Whether one address takes the other in: the unspecified one takes all of its family, port 0 is any that is free.
fn collide(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_one_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_one_ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_takes_what_is_within_it() {
        let collide =
            |one: &str, other: &str| collide(&one.parse().expect("an address"), &other.parse().expect("an address"));
        for (one, other) in [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::1]:1", "[::]:1")] {
            assert!(collide(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("[::]:1", "0.0.0.0:1"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert!(!collide(one, other), "{one} {other}");
        }
    }
}
