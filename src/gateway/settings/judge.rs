//! What `fdpush check` judges beyond what is read: all that `serve` would stumble over, short of listening.

use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;

use fdpush::Address;

use super::Settings;
use crate::gateway::auth::jwt;
use crate::gateway::cli::{self, ApiAddress, Auth, Secret};
use crate::gateway::contact;

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
    /// What else can be said without listening: that all names can be resolved, that no two sockets want one place, that
    /// nobody has to be trusted who should not, that keys are keys, and that back ends can be spoken to.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check(&self) -> Result<(), String> {
        let mut addresses: Vec<Address> = Vec::new();
        for endpoint in &self.serve.listen {
            addresses.extend(endpoint.resolve()?);
        }
        self.serve.check_trust(&addresses)?;
        self.check_places()?;
        self.token_keys()?;
        contact::check(&self.serve).map_err(|why| why.to_string())
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

    fn check_places(&self) -> Result<(), String> {
        let wishes = self.wishes()?;
        for (index, wish) in wishes.iter().enumerate() {
            let name = self.layers.name(wish.key);
            for path in wish.places.iter().filter_map(Place::file) {
                UnixAddr::from_pathname(path).map_err(|why| format!("{name}: {}: {why}", wish.text))?;
            }
            let collides = |other: &&Wish| other.places.iter().any(|place| wish.places.iter().any(|p| p.is_in(place)));
            if let Some(other) = wishes.iter().take(index).find(collides) {
                let (text, whose, taken) = (&wish.text, self.layers.name(other.key), &other.text);
                return Err(format!("{name}: {text} is taken already, by {taken} of {whose}"));
            }
        }
        Ok(())
    }

    fn wishes(&self) -> Result<Vec<Wish>, String> {
        let of = |address: Address| match address {
            Address::Tcp(address) => Place::Tcp(address),
            Address::Unix(path) => Place::File(path),
        };
        let mut wishes = Vec::new();
        for endpoint in &self.serve.listen {
            let places = endpoint.resolve()?.into_iter().map(of).collect();
            wishes.push(Wish { key: "listen", text: endpoint.to_string(), places });
        }
        for address in self.serve.api_addresses() {
            let places = match address {
                ApiAddress::Http(endpoint) => endpoint.resolve()?.into_iter().map(of).collect(),
                ApiAddress::Udp(_) => address.resolve_udp()?.into_iter().map(Place::Udp).collect(),
                ApiAddress::UnixDatagram(path) => vec![Place::File(path.clone())],
                ApiAddress::Off => Vec::new(),
            };
            wishes.push(Wish { key: "api", text: address.to_string(), places });
        }
        Ok(wishes)
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
