//! Parses the values of settings: times, sizes, names and choices. The errors of the parsers name the allowed values.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use fdpush::{Origins, SecondLogin, SlowReader};
use ipnet::IpNet;
use log::LevelFilter;

use crate::gateway::runtime::loops::{LOOPS_MAX, cores};

/// The number of event loops.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Loops {
    /// The number of cores that the process may use.
    Auto,
    Count(usize),
}

/// A time with its unit: `25s`, `500ms`, `1m 30s`; from 10 ms to one day.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Time(pub Duration);

/// A time with its unit, from zero to one day.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Delay(pub Duration);

/// The lifetime of a token, from one second to one year.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Lifetime(pub Duration);

/// A number of bytes: `65536`, `64KiB`, `16MB`. The minimum is 1 byte, and the maximum is 1 TiB. A unit ends in `B`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Size(pub usize);

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
    /// The proxies whose addresses are in this network. The network may be a single address.
    Net(IpNet),
    /// All peers on unix sockets.
    Unix,
}

/// The header that contains the client address.
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
    /// Push to a group that the client is in.
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

impl Loops {
    /// Returns the number of loops.
    pub fn count(self) -> usize {
        match self {
            Loops::Auto => cores().min(LOOPS_MAX),
            Loops::Count(count) => count,
        }
    }
}

impl FromStr for Loops {
    type Err = String;

    fn from_str(text: &str) -> Result<Loops, String> {
        if text == "auto" {
            return Ok(Loops::Auto);
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let count = text.parse().ok().filter(|count| is_number && (1..=LOOPS_MAX).contains(count));
        count.map(Loops::Count).ok_or_else(|| format!("it must be auto, or a whole number from 1 to {LOOPS_MAX}"))
    }
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
    if range.contains(&time) { Ok(time) } else { Err(format!("the time must be {allowed}")) }
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
        // The size `1m` is refused, because `1m` can mean 1,000,000 bytes, 1,048,576 bytes or a thousandth of a byte.
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
            // The server converts the IPv4-mapped address of a peer to an IPv4 address. So an IPv4-mapped value of
            // `trusted_proxy` would match no peer.
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

/// Parses one line of text. An empty text, and white space at the start or the end of the text, is an error.
pub fn text(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_control) || text.trim() != text || text.contains('\u{feff}') {
        return Err(
            "expected one line of text, without white space at the start or the end and without a byte order mark"
                .to_owned(),
        );
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
    fn a_formatted_size_or_time_parses_to_the_same_value() {
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
    fn origins_proxies_texts_and_node_names_must_have_a_valid_form() {
        assert!("*".parse::<OriginRule>().is_ok() && "https://a.example".parse::<OriginRule>().is_ok());
        assert!("a.example".parse::<OriginRule>().is_err_and(|why| why.contains("https://example.com")));
        for good in ["10.0.0.7", "10.0.0.0/8", "::1", "fd00::/8", "unix"] {
            assert!(good.parse::<TrustedProxy>().is_ok(), "{good}");
        }
        for mapped in ["::ffff:10.0.0.7", "::ffff:10.0.0.0/104"] {
            assert!(mapped.parse::<TrustedProxy>().is_err_and(|why| why.contains("in IPv4 form")), "{mapped}");
        }
        for bad in ["", " ", "a\n", " a", "a\t", "\u{feff}a"] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0", "proxy.lan", "unix:/x"] {
            assert!(bad.parse::<TrustedProxy>().is_err_and(|why| why.contains("10.0.0.0/8")), "{bad}");
        }
        assert!("node\n".parse::<NodeName>().is_err() && "a".repeat(129).parse::<NodeName>().is_err());
    }
}
