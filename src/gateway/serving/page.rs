//! The demo page. The program embeds the files of the page, and the page loads no external resource. The script of the
//! page uses the JavaScript client of `clients/js`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fdpush::{Request, Response};

/// A file of the demo page: its URL path, media type and text.
type PageFile = (&'static str, &'static str, &'static str);

const FILES: [PageFile; 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/chat.css", "text/css; charset=utf-8", include_str!("page/chat.css")),
    ("/chat.js", "text/javascript; charset=utf-8", include_str!("page/chat.js")),
    ("/fdpush.js", "text/javascript; charset=utf-8", include_str!("../../../clients/js/fdpush.js")),
];

/// The demo page loads files only from its own server, and connects only to this server. The policy allows no inline
/// script and no inline style.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the response to an HTTP request for a file of the demo page.
pub fn respond(request: &Request<'_>) -> Option<Response> {
    let path = request.path();
    // Browsers request `/favicon.ico` from every server. The demo page has an inline icon, so the response is empty.
    if path == "/favicon.ico" {
        return Some(Response::new(204));
    }
    let (_, media_type, text) = FILES.iter().find(|(known, ..)| path == *known)?;
    Some(match request.method() {
        "GET" | "HEAD" => Response::text(200, *text)
            .header("Content-Type", media_type)
            .header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            .header("X-Content-Type-Options", "nosniff")
            .header("Cache-Control", "no-cache"),
        _ => Response::text(405, "method must be GET\n").header("Allow", "GET, HEAD"),
    })
}

/// Returns the URL of the demo page for a browser on this machine.
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
        for (path, _, text) in FILES {
            for outside in ["http://", "https://", "src=\"//", "@import", "url("] {
                let mentions: Vec<&str> = text.lines().filter(|line| line.contains(outside)).collect();
                let are_harmless = mentions.iter().all(|line| line.contains("www.w3.org"));
                assert!(are_harmless, "{path}: {outside}: {mentions:?}");
            }
        }
    }

    #[test]
    fn the_page_has_no_inline_script_and_no_inline_style() {
        let html = FILES[0].2;
        for inline in ["<script>", "<style", " style=", " onclick=", "javascript:"] {
            assert!(!html.contains(inline), "the content security policy of the page does not allow {inline}");
        }
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
    }
}
