//! Client addresses behind proxies.
//!
//! This module knows the trusted proxies, and parses the header in which proxies forward client addresses. Each proxy
//! appends the address of its peer to the header. So an address in the header can be trusted if the proxy that appended
//! this address is trusted. The rightmost address in the header that is not the address of a trusted proxy is the
//! client's address. All addresses to the left of the client's address may be forged.

use std::net::{IpAddr, SocketAddr};

use fdpush::{Context, Fd, Peer, Request};

use crate::gateway::serving::session::Session;
use crate::gateway::settings::cli::{ForwardedHeader, Serve, TrustedProxy};

/// The trusted proxies, and the header that they write.
#[derive(Debug)]
pub struct Proxies {
    trusted: Vec<TrustedProxy>,
    header: ForwardedHeader,
}

impl Proxies {
    /// Creates a set of trusted proxies that write this header.
    pub fn new(trusted: &[TrustedProxy], header: ForwardedHeader) -> Proxies {
        Proxies { trusted: trusted.to_vec(), header }
    }

    /// Returns the trusted proxies of the settings.
    pub fn of(serve: &Serve) -> Proxies {
        Proxies::new(&serve.clients.trusted_proxy, serve.clients.forwarded_header)
    }

    /// Returns whether the peer of a socket is a trusted proxy.
    pub fn trusts_peer(&self, peer: Peer) -> bool {
        match peer.ip() {
            Some(ip) => self.trusts(ip.to_canonical()),
            None => self.trusted.contains(&TrustedProxy::Unix),
        }
    }

    /// Returns the client address that a trusted proxy states in its header. Returns `None` if the peer is not trusted,
    /// or the header has no address.
    pub fn forwarded(&self, request: &Request<'_>) -> Option<IpAddr> {
        let name = match self.header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        let lines = request.headers().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        self.client_address(request.peer(), lines.map(|(_, value)| value))
    }

    fn client_address<'a>(&self, peer: Peer, lines: impl Iterator<Item = &'a [u8]>) -> Option<IpAddr> {
        if !self.trusts_peer(peer) {
            return None;
        }
        let hops: Vec<Option<IpAddr>> = lines.flat_map(|line| self.hops(line)).collect();
        let mut client_address = None;
        // An element that is not an address ends the search from right to left. The address that was found last is then
        // the client's address.
        for ip in hops.into_iter().rev().map_while(|hop| hop) {
            client_address = Some(ip);
            if !self.trusts(ip) {
                break;
            }
        }
        client_address
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|proxy| matches!(proxy, TrustedProxy::Net(net) if net.contains(&ip)))
    }

    /// Returns the addresses in a header line, in order. An element that is not an address is `None`.
    fn hops(&self, line: &[u8]) -> Vec<Option<IpAddr>> {
        let Ok(line) = str::from_utf8(line) else { return vec![None] };
        match self.header {
            ForwardedHeader::XForwardedFor => line.split(',').map(address).collect(),
            // A malformed line counts as one element that is not an address.
            ForwardedHeader::Forwarded => split(line, ',')
                .map_or(vec![None], |elements| elements.into_iter().map(|element| address(for_of(element)?)).collect()),
        }
    }
}

/// Returns the address of the client: the address from a trusted proxy, or the address of the peer. Returns `None` for
/// a unix socket without a forwarded address.
pub fn address_of(ctx: &Context<'_>, fd: Fd, peer: Peer) -> Option<IpAddr> {
    let forwarded = ctx.session::<Session>(fd).and_then(|session| session.forwarded);
    forwarded.or_else(|| Some(peer.ip()?.to_canonical()))
}

/// Parses an IP address with or without a port. An IPv6 address may be in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_ascii();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    ip.ok().map(|ip: IpAddr| ip.to_canonical())
}

/// Returns the parameter `for` of a `Forwarded` element, without quotes (RFC 7239 section 4).
fn for_of(element: &str) -> Option<&str> {
    let pairs = split(element, ';')?;
    let mut values = pairs.into_iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim_ascii().eq_ignore_ascii_case("for").then_some(value.trim_ascii())
    });
    let value = values.next()?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Splits a text at each separator outside quoted strings (RFC 9110 section 5.6.4). Returns `None` if a quoted string
/// has no end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let pieces = text.split(|char| {
        let is_plain = !std::mem::take(&mut is_escaped);
        is_escaped = is_plain && is_quoted && char == '\\';
        is_quoted ^= is_plain && char == '"';
        char == separator && !is_quoted
    });
    let pieces = pieces.collect();
    (!is_quoted).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the client's address for a peer and its header lines. The trusted proxies are 10.0.0.0/8, ::1 and unix
    /// sockets.
    fn client_address(header: ForwardedHeader, peer: Peer, lines: &[&str]) -> Option<String> {
        let trusted = ["10.0.0.0/8", "::1", "unix"].map(|text| text.parse().expect("the proxy is valid"));
        let client_address =
            Proxies::new(&trusted, header).client_address(peer, lines.iter().map(|line| line.as_bytes()));
        client_address.map(|ip| ip.to_string())
    }

    fn peer(text: &str) -> Peer {
        Peer::from(text.parse::<SocketAddr>().expect("the address is valid"))
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        let table: [(&[&str], Option<&str>); 14] = [
            (&["203.0.113.9"], Some("203.0.113.9")),
            (&["1.1.1.1, 203.0.113.9"], Some("203.0.113.9")),
            (&["1.1.1.1, 203.0.113.9 ,10.1.2.3,\t10.0.0.1"], Some("203.0.113.9")),
            (&["1.1.1.1", "203.0.113.9, 10.1.2.3", "10.0.0.1"], Some("203.0.113.9")),
            (&["10.1.2.3, 10.0.0.1"], Some("10.1.2.3")),
            (&["203.0.113.9:4711"], Some("203.0.113.9")),
            (&["2001:db8::7"], Some("2001:db8::7")),
            (&["[2001:db8::7]"], Some("2001:db8::7")),
            (&["[2001:db8::7]:4711, ::1"], Some("2001:db8::7")),
            (&["203.0.113.9, ::ffff:10.0.0.1"], Some("203.0.113.9")),
            // Addresses to the left of an invalid element are ignored.
            (&["1.1.1.1, unknown"], None),
            (&["1.1.1.1, , 10.0.0.1"], Some("10.0.0.1")),
            (&[""], None),
            (&[], None),
        ];
        for (lines, expected) in table {
            let client_address = client_address(ForwardedHeader::XForwardedFor, peer("10.9.9.9:1"), lines);
            assert_eq!(client_address.as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_header_named_forwarded_is_parsed_as_in_rfc_7239() {
        let table: [(&[&str], Option<&str>); 14] = [
            (&["for=203.0.113.9"], Some("203.0.113.9")),
            (&["by=10.0.0.2; FOR = 203.0.113.9 ;proto=https"], Some("203.0.113.9")),
            (&["for=1.1.1.1, for=203.0.113.9;by=10.0.0.2, for=10.0.0.1"], Some("203.0.113.9")),
            (&[r#"for="[2001:db8::7]:4711""#], Some("2001:db8::7")),
            (&[r#"for="203.0.113.9:80";host="a,b;for=1.1.1.1""#], Some("203.0.113.9")),
            (&[r#"for=203.0.113.9;host="\",for=1.1.1.1""#], Some("203.0.113.9")),
            (&["for=1.1.1.1, for=_hidden"], None),
            (&["for=1.1.1.1, for=unknown, for=10.0.0.1"], Some("10.0.0.1")),
            (&["for=1.1.1.1, by=10.0.0.2"], None),
            // A client can open a quoted string and not close it. If the proxy adds its element to the line of the
            // client, no address in this line counts. If the proxy adds a new line, the address in the new line counts.
            (&[r#"for=1.1.1.1;x=", for=203.0.113.9"#], None),
            (&[r#"for=1.1.1.1;x=", for="[2001:db8::7]""#], None),
            (&[r#"for=1.1.1.1;x=""#, "for=203.0.113.9"], Some("203.0.113.9")),
            (&["203.0.113.9"], None),
            (&[], None),
        ];
        for (lines, expected) in table {
            let client_address = client_address(ForwardedHeader::Forwarded, peer("[::1]:1"), lines);
            assert_eq!(client_address.as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_the_header_of_a_trusted_proxy_counts() {
        for (peer, is_trusted) in [
            (peer("10.255.0.1:1"), true),
            (peer("[::ffff:10.0.0.1]:1"), true),
            (peer("[::1]:1"), true),
            (Peer::Unix, true),
            (peer("11.0.0.1:1"), false),
            (peer("[::2]:1"), false),
        ] {
            let client_address = client_address(ForwardedHeader::XForwardedFor, peer, &["203.0.113.9"]);
            assert_eq!(client_address.is_some(), is_trusted, "{peer}");
        }
        let no_proxy = Proxies::new(&[], ForwardedHeader::XForwardedFor);
        assert_eq!(no_proxy.client_address(Peer::Unix, [&b"203.0.113.9"[..]].into_iter()), None);
    }

    #[test]
    fn an_invalid_header_has_no_address() {
        let all = Proxies::new(&["0.0.0.0/0".parse().expect("the proxy is valid")], ForwardedHeader::Forwarded);
        for line in [&b"for=\xff"[..], b"for", b"=", b";;,=,\"", b"for=\"", b"for=\"\\", b"for=[", b"for=]["] {
            assert_eq!(all.client_address(peer("10.0.0.1:1"), [line].into_iter()), None, "{line:?}");
        }
    }
}
