//! The built-in test page: one embedded file without external resources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fdpush::{Request, Response};

const PAGE: &str = include_str!("page/index.html");

/// The page loads nothing and connects only to its own server.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the response to a plain HTTP request for the page.
pub fn respond(request: &Request<'_>) -> Option<Response> {
    match &*request.path() {
        "/" => {}
        // Browsers request this path by themselves. The page has an inline icon.
        "/favicon.ico" => return Some(Response::new(204)),
        _ => return None,
    }
    Some(match request.method() {
        "GET" | "HEAD" => Response::html(200, PAGE)
            .header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            .header("X-Content-Type-Options", "nosniff")
            .header("Cache-Control", "no-cache"),
        _ => Response::text(405, "method must be GET\n").header("Allow", "GET, HEAD"),
    })
}

/// Returns the URL of the page for a browser on this machine.
pub fn url(mut address: SocketAddr, is_tls: bool) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let scheme = if is_tls { "https" } else { "http" };
    format!("{scheme}://{address}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_can_be_opened() {
        let url = |text: &str| url(text.parse().expect("the address is valid"), false);
        assert_eq!(url("127.0.0.1:9501"), "http://127.0.0.1:9501/");
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80/");
        assert_eq!(url("[::]:80"), "http://[::1]:80/");
        assert_eq!(super::url("[::]:443".parse().expect("the address is valid"), true), "https://[::1]:443/");
    }

    #[test]
    fn the_page_loads_no_external_resource() {
        for outside in ["http://", "https://", "src=\"//", "@import", "url("] {
            let mentions: Vec<&str> = PAGE.lines().filter(|line| line.contains(outside)).collect();
            let are_harmless = mentions.iter().all(|line| line.contains("www.w3.org") || line.contains("location"));
            assert!(are_harmless, "{outside}: {mentions:?}");
        }
    }
}
