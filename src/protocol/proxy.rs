//! The PROXY protocol, versions 1 and 2.
//!
//! A proxy sends a header with the address of its client, before it forwards the bytes of the client.
//!
//! Specification: `doc/proxy-protocol.txt` of HAProxy. The header comes once, before the first byte of the client. This
//! module parses it. The code that accepts connections decides whether the sender of the header is trusted. The parser
//! checks every bound, fails at the first invalid byte, and reads no byte after the header.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::http::HttpError;
use crate::peer::Peer;

/// The first bytes of a header of version 1.
const V1: &[u8] = b"PROXY ";

/// The longest header of version 1 in bytes, its CRLF included.
const V1_BYTES_MAX: usize = 107;

/// The first bytes of a header of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length of the fixed part of a header of version 2, in bytes.
///
/// This part has the signature, the version and command, the family and protocol, and the length.
const V2_START_BYTES: usize = 16;

/// A parsed header.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ProxyHeader {
    /// The length of the header in bytes.
    pub bytes: usize,
    /// The address of the client.
    ///
    /// The field is `None` if the header has no TCP address of a client: in a health check of the load balancer
    /// (command `LOCAL`), or if the address is unknown or of another type. The server then uses the address of the peer
    /// of the socket as the address of the client.
    pub client: Option<Peer>,
}

/// Parses the header at the start of `buf`.
///
/// `buf` may grow between calls. Returns `None` if the header is incomplete.
///
/// # Errors
/// Returns [`HttpError::ProxyHeader`] as soon as the bytes cannot begin a valid header of at most `bytes_max` bytes.
pub fn parse_proxy_header(buf: &[u8], bytes_max: usize) -> Result<Option<ProxyHeader>, HttpError> {
    let header = if buf.starts_with(V1) {
        parse_v1(buf)
    } else if buf.starts_with(V2) {
        parse_v2(buf)
    } else if V1.starts_with(buf) || V2.starts_with(buf) {
        Some(None)
    } else {
        None
    };
    let is_too_long = match header {
        Some(Some(header)) => header.bytes > bytes_max,
        Some(None) => buf.len() >= bytes_max,
        None => return Err(HttpError::ProxyHeader),
    };
    if is_too_long { Err(HttpError::ProxyHeader) } else { Ok(header.flatten()) }
}

/// Parses a header of version 1 (section 2.1).
///
/// The header is `PROXY TCP4 SOURCE DESTINATION PORT PORT`, the same text with `TCP6` in place of `TCP4`, or `PROXY
/// UNKNOWN …`. The header ends in CRLF. Returns `None` if the header is invalid, and `Some(None)` if the header is
/// incomplete.
fn parse_v1(buf: &[u8]) -> Option<Option<ProxyHeader>> {
    let window = buf.get(..V1_BYTES_MAX).unwrap_or(buf);
    let Some(end) = memchr::memchr(b'\n', window) else {
        // A header of version 1 contains only ASCII and no bare CR.
        let is_line = match window.split_last() {
            Some((b'\r', line)) => line.iter().all(is_line_byte),
            _ => window.iter().all(is_line_byte),
        };
        return (is_line && window.len() < V1_BYTES_MAX).then_some(None);
    };
    let line = window.get(V1.len()..end)?.strip_suffix(b"\r")?;
    if !line.iter().all(is_line_byte) {
        return None;
    }
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let family = words.next()?;
    let bytes = end + 1;
    if family == "UNKNOWN" {
        return Some(Some(ProxyHeader { bytes, client: None }));
    }
    let (source, destination) = (words.next()?, words.next()?);
    let port = parse_port(words.next()?)?;
    parse_port(words.next()?)?;
    if words.next().is_some() {
        return None;
    }
    let client = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            SocketAddr::from((source.parse::<Ipv4Addr>().ok()?, port))
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            SocketAddr::from((source.parse::<Ipv6Addr>().ok()?, port))
        }
        _ => return None,
    };
    Some(Some(ProxyHeader { bytes, client: Some(client.into()) }))
}

/// Parses a header of version 2 (section 2.2).
///
/// The header has the fixed part, the addresses of the family, and extensions (TLV). Returns `None` if the header is
/// invalid, and `Some(None)` if the header is incomplete.
fn parse_v2(buf: &[u8]) -> Option<Option<ProxyHeader>> {
    // Each byte is checked as soon as it has arrived, so an error is reported before the header is complete.
    let command = match buf.get(12) {
        None => return Some(None),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return None,
    };
    let Some(&family) = buf.get(13) else { return Some(None) };
    // The specification requires that a header with an undefined family or protocol is refused.
    if !matches!(family, 0x00 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32) && command == Command::Proxy {
        return None;
    }
    let &[_, _, high, low, ..] = buf.get(12..)? else { return Some(None) };
    let rest_bytes = usize::from(u16::from_be_bytes([high, low]));
    let address_bytes = match (command, family >> 4) {
        (Command::Local, _) | (_, 0) => 0,
        (_, 1) => 12,
        (_, 2) => 36,
        _ => 216,
    };
    if rest_bytes < address_bytes {
        return None;
    }
    let bytes = V2_START_BYTES + rest_bytes;
    let Some(rest) = buf.get(V2_START_BYTES..bytes) else { return Some(None) };
    let (addresses, extensions) = rest.split_at(address_bytes);
    // With the command LOCAL or the family UNSPEC, the receiver must skip the rest of the header without a check.
    if command == Command::Proxy && family != 0 {
        check_extensions(extensions)?;
    }
    let client = match (command, family) {
        (Command::Proxy, 0x11) => {
            let &[.., high, low, _, _] = addresses else { return None };
            Some(Peer::V4 { ip: *addresses.first_chunk::<4>()?, port: u16::from_be_bytes([high, low]) })
        }
        (Command::Proxy, 0x21) => {
            let &[.., high, low, _, _] = addresses else { return None };
            Some(Peer::V6 { ip: *addresses.first_chunk::<16>()?, port: u16::from_be_bytes([high, low]) })
        }
        _ => None,
    };
    Some(Some(ProxyHeader { bytes, client }))
}

/// The command in a header of version 2.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Command {
    Local,
    Proxy,
}

/// Checks that the last extension ends exactly at the end of the header.
///
/// An extension has a type, a length in two bytes, and a value. Values are not checked.
fn check_extensions(mut extensions: &[u8]) -> Option<()> {
    while !extensions.is_empty() {
        let &[_, high, low, ref rest @ ..] = extensions else { return None };
        extensions = rest.get(usize::from(u16::from_be_bytes([high, low]))..)?;
    }
    Some(())
}

fn is_line_byte(byte: &u8) -> bool {
    byte.is_ascii_graphic() || *byte == b' '
}

/// Parses a decimal port without leading zeros.
fn parse_port(digits: &str) -> Option<u16> {
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if is_decimal { digits.parse().ok() } else { None }
}

/// Runs the fuzz target `proxy`.
///
/// The result of the parser must not depend on how the input is split, or on the bytes after the header.
#[cfg(any(test, feature = "unstable"))]
pub fn fuzz_proxy(data: &[u8]) {
    const BYTES_MAX: usize = 512;
    let whole = parse_proxy_header(data, BYTES_MAX);
    let bytewise =
        (0..=data.len()).map(|end| parse_proxy_header(&data[..end], BYTES_MAX)).find(|outcome| *outcome != Ok(None));
    let bytewise = bytewise.unwrap_or(Ok(None));
    assert_eq!(whole, bytewise);
    let Ok(Some(header)) = whole else { return };
    assert!(header.bytes <= data.len() && header.bytes <= BYTES_MAX);
    let mut followed = data[..header.bytes].to_vec();
    assert_eq!(parse_proxy_header(&followed, BYTES_MAX), Ok(Some(header)));
    followed.extend_from_slice(b"GET / HTTP/1.1\r\n");
    assert_eq!(parse_proxy_header(&followed, BYTES_MAX), Ok(Some(header)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 8192;

    /// Returns a header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("the length must fit into 16 bits").to_be_bytes();
        [V2, &[command, family], &length, rest].concat()
    }

    const V4_ADDRESSES: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 0, 80];

    fn v6_addresses() -> Vec<u8> {
        let ips = ["2001:db8::7", "::1"].map(|ip| ip.parse::<Ipv6Addr>().expect("the address is valid").octets());
        [&ips.concat()[..], &[0x12, 0x67, 0, 80]].concat()
    }

    /// Parses a header as a whole, and split at every byte.
    fn read(header: &[u8]) -> Result<String, HttpError> {
        fuzz_proxy(header);
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let parsed = parse_proxy_header(&[header, request].concat(), BYTES_MAX)?;
        let parsed = parsed.expect("the PROXY header must be complete");
        assert_eq!(parsed.bytes, header.len());
        for end in 0..header.len() {
            assert_eq!(
                parse_proxy_header(&header[..end], BYTES_MAX),
                Ok(None),
                "a header that is cut at {end} must be incomplete"
            );
        }
        Ok(parsed.client.map_or("local".to_owned(), |client| client.to_string()))
    }

    #[test]
    fn valid_headers_of_version_1_are_parsed_and_others_are_errors() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
        assert_eq!(longest.len(), V1_BYTES_MAX);
        for (line, client) in [
            ("PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n", "203.0.113.9:4711"),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
            ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0"),
            ("PROXY TCP6 2001:db8::7 ::1 4711 80\r\n", "[2001:db8::7]:4711"),
            ("PROXY UNKNOWN\r\n", "local"),
            ("PROXY UNKNOWN ffff:f::f ffff:f::f 65535 65535\r\n", "local"),
            (&longest, "local"),
        ] {
            assert_eq!(read(line.as_bytes()).as_deref(), Ok(client), "{line:?}");
        }
        let too_long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(108 - 16));
        for line in [
            "PROXY\r\n",
            "PROXY \r\n",
            "proxy TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY  TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 80 \r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 80 1\r\n",
            "PROXY TCP4 203.0.113.9  10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 65536 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 -1 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 +1 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 01 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 x\r\n",
            "PROXY TCP4 203.0.113.09 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.9 host 4711 80\r\n",
            "PROXY TCP4 2001:db8::7 ::1 4711 80\r\n",
            "PROXY TCP6 203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY TCP6 [2001:db8::7] ::1 4711 80\r\n",
            "PROXY UDP4 203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY unknown\r\n",
            "PROXY TCP4 203.0.113.9\t10.0.0.1 4711 80\r\n",
            "PROXY UNKNOWN \u{e9}\r\n",
            "PROXY UNKNOWN a\rb\r\n",
            "GET / HTTP/1.1\r\n",
            "\r\nPROXY UNKNOWN\r\n",
            &too_long,
        ] {
            assert_eq!(read(line.as_bytes()), Err(HttpError::ProxyHeader), "{line:?}");
        }
    }

    #[test]
    fn valid_headers_of_version_2_are_parsed_and_others_are_errors() {
        // The extensions are ALPN (h2), SSL with a sub-extension, NOOP, and a checksum. The parser does not verify the
        // checksum.
        let extensions =
            [&[1, 0, 2, b'h', b'2'][..], &[0x20, 0, 8, 1, 0, 0, 0, 0, 0x21, 0, 0], &[4, 0, 0], &[3, 0, 4, 1, 2, 3, 4]];
        let extended = [&V4_ADDRESSES, &extensions.concat()[..]].concat();
        for (header, client) in [
            (v2(0x21, 0x11, &V4_ADDRESSES), "203.0.113.9:4711"),
            (v2(0x21, 0x11, &extended), "203.0.113.9:4711"),
            (v2(0x21, 0x21, &v6_addresses()), "[2001:db8::7]:4711"),
            // Headers with the command LOCAL (health checks of a load balancer), whose addresses are ignored.
            (v2(0x20, 0x00, &[]), "local"),
            (v2(0x20, 0x11, &V4_ADDRESSES), "local"),
            (v2(0x20, 0xff, b"anything"), "local"),
            // Headers without a TCP address: UNSPEC, datagrams, unix sockets.
            (v2(0x21, 0x00, &[]), "local"),
            (v2(0x21, 0x00, b"anything"), "local"),
            (v2(0x21, 0x12, &V4_ADDRESSES), "local"),
            (v2(0x21, 0x22, &v6_addresses()), "local"),
            (v2(0x21, 0x31, &[b'/'; 216]), "local"),
            (v2(0x21, 0x32, &[b'/'; 216]), "local"),
        ] {
            assert_eq!(read(&header).as_deref(), Ok(client), "{header:?}");
        }
        for header in [
            v2(0x11, 0x11, &V4_ADDRESSES),
            v2(0x31, 0x11, &V4_ADDRESSES),
            v2(0x22, 0x11, &V4_ADDRESSES),
            v2(0x21, 0x01, &V4_ADDRESSES),
            v2(0x21, 0x10, &V4_ADDRESSES),
            v2(0x21, 0x13, &V4_ADDRESSES),
            v2(0x21, 0x41, &V4_ADDRESSES),
            v2(0x21, 0x11, &V4_ADDRESSES[..11]),
            v2(0x21, 0x11, &[]),
            v2(0x21, 0x21, &V4_ADDRESSES),
            v2(0x21, 0x31, &[b'/'; 215]),
            // Extensions that are incomplete or exceed the header.
            v2(0x21, 0x11, &[&V4_ADDRESSES[..], &[1]].concat()),
            v2(0x21, 0x11, &[&V4_ADDRESSES[..], &[1, 0]].concat()),
            v2(0x21, 0x11, &[&V4_ADDRESSES[..], &[1, 0, 1]].concat()),
            v2(0x21, 0x11, &[&V4_ADDRESSES[..], &[1, 0xff, 0xff, 0]].concat()),
            b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
        ] {
            assert_eq!(read(&header), Err(HttpError::ProxyHeader), "{header:?}");
        }
    }

    #[test]
    fn the_length_of_a_header_is_limited() {
        let long = v2(0x20, 0, &[0; 1000]);
        assert_eq!(parse_proxy_header(&long, 1016), Ok(Some(ProxyHeader { bytes: 1016, client: None })));
        assert_eq!(parse_proxy_header(&long, 1015), Err(HttpError::ProxyHeader));
        assert_eq!(parse_proxy_header(&long[..1014], 1015), Ok(None));
        assert_eq!(parse_proxy_header(&long[..1015], 1015), Err(HttpError::ProxyHeader));
        // An invalid byte is an error, even if the header is not complete.
        assert_eq!(parse_proxy_header(b"PR0", BYTES_MAX), Err(HttpError::ProxyHeader));
        assert_eq!(parse_proxy_header(&v2(0x2f, 0, &[])[..13], BYTES_MAX), Err(HttpError::ProxyHeader));
    }
}
