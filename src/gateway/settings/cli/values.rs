//! The values of settings: times, sizes, addresses and choices. Their errors name the allowed values.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use fdpush::{Address, Origins, SecondLogin, SlowReader};
use ipnet::IpNet;
use log::LevelFilter;

/// A time with its unit: `25s`, `500ms`, `1m 30s`; at least 10 ms, at most a day.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Time(pub Duration);

/// A time that may also be zero.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Delay(pub Duration);

/// The lifetime of a token: at least a second, at most a year.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Lifetime(pub Duration);

/// A number of bytes: `65536`, `64KiB`, `16MB`. At least a byte, at most 1 TiB. A unit ends in `B`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Size(pub usize);

/// The address of a stream listener: `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint(String);

/// The address of a listener for clients: an [`Endpoint`], with the prefix `proxy:` if each connection starts with a
/// PROXY header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    endpoint: Endpoint,
    has_proxy_header: bool,
}

/// An address of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApiAddress {
    /// HTTP.
    Http(Endpoint),
    /// One command per datagram, on `HOST:PORT`.
    Udp(String),
    /// One command per datagram, on a unix socket.
    UnixDatagram(PathBuf),
    /// No API.
    Off,
}

/// An allowed origin of browsers, `null`, `file://`, or `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginRule(String);

/// The name of a server: 1 to 128 bytes without control characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeName(String);

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Auth {
    Trust,
    Jwt,
    Webhook,
}

/// A proxy that is trusted to report client addresses.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TrustedProxy {
    /// The proxies in this network, which may be a single address.
    Net(IpNet),
    /// All peers on unix sockets.
    Unix,
}

/// The header with the client address.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum ForwardedHeader {
    XForwardedFor,
    Forwarded,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum OnSecondLogin {
    Multi,
    KickOld,
    RejectNew,
}

/// A permission of clients.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Permission {
    /// Push to a uid.
    PushUid,
    /// Push to an fd.
    PushFd,
    /// Push to a group they are in.
    PushOwnGroup,
    /// Push to any group.
    PushGroup,
    /// Push to all.
    PushAll,
    /// Join and leave groups.
    Join,
    /// Query the online state of uids.
    Online,
    All,
    Nothing,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum HeartbeatMode {
    Client,
    Ping,
    Push,
    Off,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SlowReaderPolicy {
    Close,
    DropNewest,
    Conflate,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        duration(text, Duration::from_millis(10)..=DAY, "from 10ms to 24h").map(Time)
    }
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Delay, String> {
        duration(text, Duration::ZERO..=DAY, "from 0s to 24h").map(Delay)
    }
}

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Lifetime, String> {
        duration(text, Duration::from_secs(1)..=YEAR, "from 1s to 1y").map(Lifetime)
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The value of `1y`: 365.25 days.
const YEAR: Duration = Duration::from_secs(31_557_600);

fn duration(text: &str, range: RangeInclusive<Duration>, allowed: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|_| "expected a whole number with its unit, for example 25s, 500ms or 1m 30s".to_owned())?;
    if range.contains(&time) { Ok(time) } else { Err(format!("a time must be {allowed} here")) }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        // `1m` is ambiguous: 1,000,000, 1,048,576 or a thousandth.
        let is_plain = text.ends_with(|last: char| last.is_ascii_digit() || matches!(last, 'b' | 'B'));
        let size: Option<ByteSize> = text.parse().ok().filter(|_| is_plain);
        let Some(size) = size else {
            return Err(
                "expected a size, for example 65536, 64KiB or 16MiB (1 KiB is 1,024 bytes), or 64kB or 16MB (1 kB is 1,000 bytes)".to_owned()
            );
        };
        match usize::try_from(size.as_u64()) {
            Ok(bytes @ 1..=0x100_0000_0000) => Ok(Size(bytes)),
            _ => Err("a size must be from 1 byte to 1TiB".to_owned()),
        }
    }
}

/// Formats the size in the largest unit that gives a whole number.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(bits, _)| self.0 != 0 && self.0.trailing_zeros() >= *bits) {
            Some((bits, unit)) => write!(f, "{}{unit}", self.0 >> bits),
            None => self.0.fmt(f),
        }
    }
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
    /// Resolves the address. A name may have several addresses.
    pub fn resolve(&self) -> Result<Vec<Address>, String> {
        match self.0.strip_prefix("unix:") {
            Some(path) => Ok(vec![Address::Unix(path.into())]),
            None => Ok(resolve(&self.0)?.into_iter().map(Address::Tcp).collect()),
        }
    }
}

impl FromStr for ClientAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ClientAddress, String> {
        // `proxy:9501` is port 9501 of a host named `proxy`.
        if let Some(Ok(endpoint)) = text.strip_prefix("proxy:").map(str::parse) {
            return Ok(ClientAddress { endpoint, has_proxy_header: true });
        }
        let why = "expected HOST:PORT, [V6]:PORT or unix:PATH, or one of them after proxy:";
        let endpoint = text.parse().map_err(|_| why.to_owned())?;
        Ok(ClientAddress { endpoint, has_proxy_header: false })
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.has_proxy_header { "proxy:" } else { "" };
        write!(f, "{prefix}{}", self.endpoint)
    }
}

impl ClientAddress {
    /// Returns the address to bind.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns whether each connection starts with a PROXY header.
    pub fn has_proxy_header(&self) -> bool {
        self.has_proxy_header
    }
}

impl FromStr for ApiAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ApiAddress, String> {
        let expected = || "expected HOST:PORT, [V6]:PORT, unix:PATH, udp:HOST:PORT, unixgram:PATH or off".to_owned();
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
            ApiAddress::Http(endpoint) => endpoint.fmt(f),
            ApiAddress::Udp(address) => write!(f, "udp:{address}"),
            ApiAddress::UnixDatagram(path) => write!(f, "unixgram:{}", path.display()),
            ApiAddress::Off => f.write_str("off"),
        }
    }
}

impl ApiAddress {
    /// Resolves a UDP address. Empty for other addresses.
    pub fn resolve_udp(&self) -> Result<Vec<SocketAddr>, String> {
        match self {
            ApiAddress::Udp(address) => resolve(address),
            ApiAddress::Http(_) | ApiAddress::UnixDatagram(_) | ApiAddress::Off => Ok(Vec::new()),
        }
    }

    /// Returns whether only this machine can connect.
    pub fn is_local(&self) -> Result<bool, String> {
        match self {
            ApiAddress::Http(endpoint) => Ok(endpoint.resolve()?.iter().all(Address::is_local)),
            ApiAddress::Udp(_) => Ok(self.resolve_udp()?.iter().all(|address| Address::Tcp(*address).is_local())),
            ApiAddress::UnixDatagram(_) | ApiAddress::Off => Ok(true),
        }
    }
}

/// Returns whether a text has the form `HOST:PORT` or `[V6]:PORT`. The host is not resolved.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // The interface of a link-local address follows the %.
        Some(v6) => v6.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    is_host && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    let found = address.to_socket_addrs().map_err(|why| format!("{address}: {why}"))?;
    Ok(found.collect())
}

impl FromStr for OriginRule {
    type Err = String;

    fn from_str(text: &str) -> Result<OriginRule, String> {
        if text != "*" {
            Origins::list([text]).map_err(|why| {
                format!("{why}; expected https://example.com, https://*.example.com, null, file:// or *")
            })?;
        }
        Ok(OriginRule(text.to_owned()))
    }
}

impl AsRef<str> for OriginRule {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<TrustedProxy, String> {
        if text == "unix" {
            return Ok(TrustedProxy::Unix);
        }
        let net = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| IpNet::from(ip)));
        if let Ok(IpNet::V6(net)) = net
            && net.addr().to_ipv4_mapped().is_some()
        {
            // The addresses of clients are compared as IPv4.
            return Err("expected an IPv4-mapped address in IPv4 form, for example 10.0.0.7 or 10.0.0.0/8".to_owned());
        }
        net.map(TrustedProxy::Net)
            .map_err(|_| "expected an address (10.0.0.7), a network (10.0.0.0/8) or unix".to_owned())
    }
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeName, String> {
        let is_sound = (1..=128).contains(&text.len()) && !text.contains(char::is_control);
        if is_sound { Ok(NodeName(text.to_owned())) } else { Err("expected 1 to 128 bytes of text".to_owned()) }
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Parses a text for comparisons: one line, not empty, without white space around it.
pub fn text(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_control) || text.trim() != text {
        return Err("expected a line of text, without white space around it".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses the path of a file. An empty path is an error.
pub fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(Path::new(text).to_owned()) }
}

impl From<OnSecondLogin> for SecondLogin {
    fn from(policy: OnSecondLogin) -> SecondLogin {
        match policy {
            OnSecondLogin::Multi => SecondLogin::Multi,
            OnSecondLogin::KickOld => SecondLogin::KickOld,
            OnSecondLogin::RejectNew => SecondLogin::RejectNew,
        }
    }
}

impl From<SlowReaderPolicy> for SlowReader {
    fn from(policy: SlowReaderPolicy) -> SlowReader {
        match policy {
            SlowReaderPolicy::Close => SlowReader::Close,
            SlowReaderPolicy::DropNewest => SlowReader::DropNewest,
            SlowReaderPolicy::Conflate => SlowReader::Conflate,
        }
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> LevelFilter {
        match level {
            Level::Off => LevelFilter::Off,
            Level::Error => LevelFilter::Error,
            Level::Warn => LevelFilter::Warn,
            Level::Info => LevelFilter::Info,
            Level::Debug => LevelFilter::Debug,
            Level::Trace => LevelFilter::Trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_sizes_and_times_parse_to_the_original() {
        for (bytes, text) in [(1, "1"), (1000, "1000"), (65_536, "64KiB"), (3 << 20, "3MiB"), (1 << 30, "1GiB")] {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Size(bytes)));
        }
        for (text, bytes) in [("64kB", 64_000), ("16MB", 16_000_000), ("1 KiB", 1024), ("2mib", 2 << 20), ("7B", 7)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["1m", "1M", "1k", "64Ki", "", "much", "2TiB", "0"] {
            assert!(bad.parse::<Size>().is_err_and(|why| why.contains("a size")), "{bad}");
        }
        for (millis, text) in [(10, "10ms"), (25_000, "25s"), (90_000, "1m 30s")] {
            let time = Time(Duration::from_millis(millis));
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
        }
        assert_eq!("0s".parse(), Ok(Delay(Duration::ZERO)));
        assert!("0s".parse::<Time>().is_err_and(|why| why.contains("from 10ms")));
        for good in ["1s", "30d", "365d", "1y"] {
            assert!(good.parse::<Lifetime>().is_ok(), "{good}");
        }
        for bad in ["0s", "999ms", "1y 1s", "ever"] {
            assert!(bad.parse::<Lifetime>().is_err(), "{bad}");
        }
    }

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
        for good in ["off", "udp:127.0.0.1:9", "unixgram:/run/x", "unix:/run/y", "[::1]:1"] {
            assert_eq!(good.parse::<ApiAddress>().map(|address| address.to_string()), Ok(good.to_owned()));
        }
        for bad in ["udp:9", "unixgram:", "udp:unix:/x", "OFF"] {
            assert!(bad.parse::<ApiAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_prefix_proxy_sets_the_proxy_header() {
        for (text, endpoint, has_proxy_header) in [
            ("127.0.0.1:1", "127.0.0.1:1", false),
            ("unix:/a", "unix:/a", false),
            ("proxy:127.0.0.1:1", "127.0.0.1:1", true),
            ("proxy:[::]:1", "[::]:1", true),
            ("proxy:unix:/a", "unix:/a", true),
            ("proxy:9501", "proxy:9501", false),
            ("proxy:proxy:9501", "proxy:9501", true),
        ] {
            let address: ClientAddress = text.parse().expect("an address");
            assert_eq!(
                (address.endpoint().as_ref(), address.has_proxy_header()),
                (endpoint, has_proxy_header),
                "{text}"
            );
            assert_eq!(address.to_string(), text);
        }
        for bad in ["proxy:", "proxy:unix:", "proxy:::1", "proxy:proxy:proxy:1", "PROXY:a:1", "proxy: a:1", ""] {
            assert!(bad.parse::<ClientAddress>().is_err_and(|why| why.starts_with("expected HOST:PORT")), "{bad}");
        }
    }

    #[test]
    fn local_addresses_are_recognised() {
        let is_local = |text: &str| text.parse::<ApiAddress>().expect("an address").is_local();
        for local in ["127.0.0.2:1", "[::1]:1", "unix:/x", "unixgram:/x", "udp:127.0.0.1:1", "off"] {
            assert_eq!(is_local(local), Ok(true), "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "udp:10.0.0.1:1"] {
            assert_eq!(is_local(open), Ok(false), "{open}");
        }
    }

    #[test]
    fn origins_proxies_texts_and_node_names_must_have_a_valid_form() {
        assert!("*".parse::<OriginRule>().is_ok() && "https://a.example".parse::<OriginRule>().is_ok());
        assert!("a.example".parse::<OriginRule>().is_err_and(|why| why.contains("https://example.com")));
        for good in ["10.0.0.7", "10.0.0.0/8", "::1", "fd00::/8", "unix"] {
            assert!(good.parse::<TrustedProxy>().is_ok(), "{good}");
        }
        for mapped in ["::ffff:10.0.0.7", "::ffff:10.0.0.0/104"] {
            assert!(mapped.parse::<TrustedProxy>().is_err_and(|why| why.contains("in IPv4 form")), "{mapped}");
        }
        for bad in ["", " ", "a\n", " a", "a\t"] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0", "proxy.lan", "unix:/x"] {
            assert!(bad.parse::<TrustedProxy>().is_err_and(|why| why.contains("10.0.0.0/8")), "{bad}");
        }
        assert!("node\n".parse::<NodeName>().is_err() && "a".repeat(129).parse::<NodeName>().is_err());
    }
}
