//! Parses the addresses of listeners.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use fdpush::Address;

/// The address of a stream listener: `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint(String);

/// An [`Endpoint`], with the prefix `tls:` if connections to the endpoint use TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamAddress {
    endpoint: Endpoint,
    is_tls: bool,
}

/// The address of a listener for clients.
///
/// The address is a [`StreamAddress`]. The prefix `proxy:` means that each connection starts with a PROXY header. The
/// PROXY header comes before the TLS handshake, so the order is `proxy:tls:HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    stream: StreamAddress,
    has_proxy_header: bool,
}

/// An address of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApiAddress {
    /// The API over HTTP or HTTPS.
    Http(StreamAddress),
    /// Datagrams with one command each, on UDP `HOST:PORT`.
    Udp(String),
    /// Datagrams with one command each, on a unix socket.
    UnixDatagram(PathBuf),
    /// The API is off.
    Off,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        let is_sound = match text.strip_prefix("unix:") {
            Some(path) => !path.is_empty(),
            None => is_host_and_port(text),
        };
        if is_sound {
            Ok(Endpoint(text.to_owned()))
        } else {
            Err("expected HOST:PORT, [V6]:PORT or unix:PATH".to_owned())
        }
    }
}

impl AsRef<str> for Endpoint {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Endpoint {
    /// Returns whether the address is a unix socket.
    pub fn is_unix(&self) -> bool {
        self.0.starts_with("unix:")
    }

    /// Resolves the address. A host name may have several addresses.
    pub fn resolve(&self) -> Result<Vec<Address>, String> {
        match self.0.strip_prefix("unix:") {
            Some(path) => Ok(vec![Address::Unix(path.into())]),
            None => Ok(resolve(&self.0)?.into_iter().map(Address::Tcp).collect()),
        }
    }
}

impl FromStr for StreamAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<StreamAddress, String> {
        // The prefix `tls:` is removed only before an address, because `tls:9443` is port 9443 of a host named `tls`.
        if let Some(Ok(endpoint)) = text.strip_prefix("tls:").map(str::parse) {
            return Ok(StreamAddress { endpoint, is_tls: true });
        }
        Ok(StreamAddress { endpoint: text.parse()?, is_tls: false })
    }
}

impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_tls { "tls:" } else { "" };
        write!(f, "{prefix}{}", self.endpoint)
    }
}

impl StreamAddress {
    /// Returns the address to bind, without the prefixes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns whether connections to this address speak TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl FromStr for ClientAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ClientAddress, String> {
        // The prefix `proxy:` is removed only before an address, because `proxy:9501` is port 9501 of a host named
        // `proxy`.
        if let Some(Ok(stream)) = text.strip_prefix("proxy:").map(str::parse) {
            return Ok(ClientAddress { stream, has_proxy_header: true });
        }
        let why = "expected HOST:PORT, [V6]:PORT or unix:PATH, with the prefix tls: for TLS, \
                   and with proxy: as the first prefix for a PROXY header";
        let stream = text.parse().map_err(|_| why.to_owned())?;
        Ok(ClientAddress { stream, has_proxy_header: false })
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.has_proxy_header { "proxy:" } else { "" };
        write!(f, "{prefix}{}", self.stream)
    }
}

impl ClientAddress {
    /// Returns the address to bind, without the prefixes.
    pub fn endpoint(&self) -> &Endpoint {
        self.stream.endpoint()
    }

    /// Returns whether connections to this address speak TLS.
    pub fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    /// Returns whether each connection starts with a PROXY header.
    pub fn has_proxy_header(&self) -> bool {
        self.has_proxy_header
    }
}

impl FromStr for ApiAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ApiAddress, String> {
        let expected = || {
            "expected HOST:PORT, [V6]:PORT or unix:PATH, with the prefix tls: for TLS; or udp:HOST:PORT, unixgram:PATH or off"
                .to_owned()
        };
        if text == "off" {
            return Ok(ApiAddress::Off);
        }
        if let Some(address) = text.strip_prefix("udp:") {
            return if is_host_and_port(address) { Ok(ApiAddress::Udp(address.to_owned())) } else { Err(expected()) };
        }
        match text.strip_prefix("unixgram:") {
            Some("") => Err(expected()),
            Some(path) => Ok(ApiAddress::UnixDatagram(path.into())),
            None => text.parse().map(ApiAddress::Http).map_err(|_| expected()),
        }
    }
}

impl fmt::Display for ApiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiAddress::Http(stream) => stream.fmt(f),
            ApiAddress::Udp(address) => write!(f, "udp:{address}"),
            ApiAddress::UnixDatagram(path) => write!(f, "unixgram:{}", path.display()),
            ApiAddress::Off => f.write_str("off"),
        }
    }
}

impl ApiAddress {
    /// Resolves a UDP address. Returns an empty list for any other address.
    pub fn resolve_udp(&self) -> Result<Vec<SocketAddr>, String> {
        match self {
            ApiAddress::Udp(address) => resolve(address),
            ApiAddress::Http(_) | ApiAddress::UnixDatagram(_) | ApiAddress::Off => Ok(Vec::new()),
        }
    }

    /// Returns whether the address is for HTTPS.
    pub fn is_tls(&self) -> bool {
        matches!(self, ApiAddress::Http(stream) if stream.is_tls())
    }

    /// Returns whether only this machine can connect to the address.
    pub fn is_local(&self) -> Result<bool, String> {
        match self {
            ApiAddress::Http(stream) => Ok(stream.endpoint().resolve()?.iter().all(Address::is_local)),
            ApiAddress::Udp(_) => Ok(self.resolve_udp()?.iter().all(|address| Address::Tcp(*address).is_local())),
            ApiAddress::UnixDatagram(_) | ApiAddress::Off => Ok(true),
        }
    }
}

/// Returns whether a text has the form `HOST:PORT` or `[V6]:PORT`. The host is not resolved.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // In a link-local address, the name of the interface follows a `%`.
        Some(v6) => v6.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    is_host && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    let found = address.to_socket_addrs().map_err(|why| format!("{address}: {why}"))?;
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_must_have_a_valid_form() {
        for good in
            ["127.0.0.1:0", "[::1]:9501", "[fe80::1%2]:9501", "localhost:9501", "my_host-1.lan:1", "unix:/run/x"]
        {
            assert_eq!(good.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(good.to_owned()));
        }
        for bad in
            ["", "9501", ":9501", "localhost", "::1:9501", "[::1]", "a:65536", "a:+1", "a b:1", "unix:", "http://a:1"]
        {
            assert!(bad.parse::<Endpoint>().is_err_and(|why| why.starts_with("expected HOST:PORT")), "{bad}");
            assert!(bad.parse::<ApiAddress>().is_err_and(|why| why.contains("unixgram:PATH or off")), "{bad}");
        }
        for (good, is_tls) in [
            ("off", false),
            ("udp:127.0.0.1:9", false),
            ("unixgram:/run/x", false),
            ("unix:/run/y", false),
            ("[::1]:1", false),
            ("tls:[::1]:1", true),
            ("tls:unix:/run/y", true),
        ] {
            let address: ApiAddress = good.parse().expect("the address is valid");
            assert_eq!((address.to_string().as_str(), address.is_tls()), (good, is_tls));
        }
        for bad in
            ["udp:9", "unixgram:", "udp:unix:/x", "OFF", "tls:udp:a:1", "tls:unixgram:/x", "tls:off", "proxy:tls:a:1"]
        {
            assert!(bad.parse::<ApiAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_prefixes_proxy_and_tls_of_client_addresses_are_parsed() {
        for (text, endpoint, has_proxy_header, is_tls) in [
            ("127.0.0.1:1", "127.0.0.1:1", false, false),
            ("unix:/a", "unix:/a", false, false),
            ("proxy:127.0.0.1:1", "127.0.0.1:1", true, false),
            ("proxy:[::]:1", "[::]:1", true, false),
            ("proxy:unix:/a", "unix:/a", true, false),
            ("proxy:9501", "proxy:9501", false, false),
            ("proxy:proxy:9501", "proxy:9501", true, false),
            ("tls:127.0.0.1:0", "127.0.0.1:0", false, true),
            ("tls:[::1]:1", "[::1]:1", false, true),
            ("tls:localhost:1", "localhost:1", false, true),
            ("tls:unix:/a", "unix:/a", false, true),
            ("tls:9443", "tls:9443", false, false),
            ("tls:tls:9443", "tls:9443", false, true),
            ("proxy:tls:9443", "tls:9443", true, false),
            ("proxy:tls:[::]:1", "[::]:1", true, true),
            ("proxy:tls:unix:/a", "unix:/a", true, true),
        ] {
            let address: ClientAddress = text.parse().expect("the address is valid");
            let found = (address.endpoint().as_ref(), address.has_proxy_header(), address.is_tls());
            assert_eq!(found, (endpoint, has_proxy_header, is_tls), "{text}");
            assert_eq!(address.to_string(), text);
        }
        for bad in [
            "proxy:",
            "proxy:unix:",
            "proxy:::1",
            "proxy:proxy:proxy:1",
            "PROXY:a:1",
            "proxy: a:1",
            "",
            "tls:",
            "tls:unix:",
            "tls:tls:tls:1",
            "tls:proxy:a:1",
            "TLS:a:1",
            "wss:a:1",
            "tls://a:1",
        ] {
            assert!(bad.parse::<ClientAddress>().is_err_and(|why| why.starts_with("expected HOST:PORT")), "{bad}");
        }
    }

    #[test]
    fn local_addresses_are_recognised() {
        let is_local = |text: &str| text.parse::<ApiAddress>().expect("the address is valid").is_local();
        for local in ["127.0.0.2:1", "[::1]:1", "tls:[::1]:1", "unix:/x", "unixgram:/x", "udp:127.0.0.1:1", "off"] {
            assert_eq!(is_local(local), Ok(true), "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "tls:[::]:1", "udp:10.0.0.1:1"] {
            assert_eq!(is_local(open), Ok(false), "{open}");
        }
    }
}
