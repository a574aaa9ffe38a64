//! Tests the negotiation of permessage-deflate through sockets: RFC 7692 section 7.1, RFC 6455 section 9.1.

use crate::common::deflated::{connect_offering, message};
use crate::common::raw::TEXT;
use crate::common::serve;
use fdpush::Limits;

/// The response to an accepted offer, without `server_max_window_bits`.
const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The expected answer to an offer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Extension {
    /// The response has no extension.
    Declined,
    /// The response has permessage-deflate without `server_max_window_bits`.
    Accepted,
    /// The response has permessage-deflate with this value of `server_max_window_bits`.
    Window(u8),
}

use Extension::{Accepted, Declined, Window};

/// Opens a WebSocket for each offer, and checks the response and the encoding of an echo.
///
/// A line break in an offer begins another header line.
fn check(table: &[(&str, Extension)]) {
    let limits = Limits { compression: true, compress_bytes_min: 64, ..Limits::default() };
    let server = serve(move |server| {
        server.limits(limits).on_message(|ctx, fd, message| {
            ctx.push(fd, message);
        })
    });
    // The text fits into the smallest window. So the server can compress the text with every accepted offer.
    let text = "a declined offer is no error ".repeat(8);
    for &(offer, expected) in table {
        let lines = offer.replace('\n', "\r\nSec-WebSocket-Extensions: ");
        let (mut raw, found) = connect_offering(server.address(), "/", &lines);
        let response = match expected {
            Declined => None,
            Accepted => Some(ACCEPTED.to_owned()),
            Window(bits) => Some(format!("{ACCEPTED}; server_max_window_bits={bits}")),
        };
        assert_eq!(found, response, "{offer}");
        raw.send_frame(TEXT, text.as_bytes());
        assert_eq!(message(&mut raw), (expected != Declined, text.clone().into_bytes()), "{offer}");
    }
}

#[test]
fn each_parameter_is_accepted_or_declined_by_its_value() {
    check(&[
        ("permessage-deflate", Accepted),
        // Section 7.1.1: these parameters have no value.
        ("permessage-deflate; server_no_context_takeover", Accepted),
        ("permessage-deflate; client_no_context_takeover", Accepted),
        ("permessage-deflate; server_no_context_takeover=1", Declined),
        ("permessage-deflate; client_no_context_takeover=\"true\"", Declined),
        // Section 7.1.2.1: `server_max_window_bits` must have a value. The response has the same value.
        ("permessage-deflate; server_max_window_bits", Declined),
        ("permessage-deflate; server_max_window_bits=7", Declined),
        ("permessage-deflate; server_max_window_bits=8", Window(8)),
        ("permessage-deflate; server_max_window_bits=11", Window(11)),
        ("permessage-deflate; server_max_window_bits=15", Window(15)),
        ("permessage-deflate; server_max_window_bits=16", Declined),
        ("permessage-deflate; server_max_window_bits=08", Declined),
        ("permessage-deflate; server_max_window_bits=8.0", Declined),
        ("permessage-deflate; server_max_window_bits=-8", Declined),
        ("permessage-deflate; server_max_window_bits=0xf", Declined),
        // Section 7.1.2.2: `client_max_window_bits` may have a value or none.
        ("permessage-deflate; client_max_window_bits", Accepted),
        ("permessage-deflate; client_max_window_bits=8", Accepted),
        ("permessage-deflate; client_max_window_bits=15", Accepted),
        ("permessage-deflate; client_max_window_bits=7", Declined),
        ("permessage-deflate; client_max_window_bits=1e1", Declined),
        // The server declines an offer with an unknown parameter or with a parameter that occurs twice.
        ("permessage-deflate; no_context_takeover", Declined),
        ("permessage-deflate; server_max_window_bits=15; mem_level=9", Declined),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", Declined),
        ("permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", Declined),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_no_context_takeover",
            Declined,
        ),
        // An offer can have all four parameters, in any order.
        (
            "permessage-deflate; client_max_window_bits=9; server_no_context_takeover; server_max_window_bits=10; client_no_context_takeover",
            Window(10),
        ),
    ]);
}

#[test]
fn quoted_values() {
    check(&[
        ("permessage-deflate; server_max_window_bits=\"10\"", Window(10)),
        ("permessage-deflate; server_max_window_bits=\"1\\0\"", Window(10)),
        ("permessage-deflate; client_max_window_bits=\"8\"", Accepted),
        ("permessage-deflate; client_max_window_bits=\"16\"", Declined),
        ("permessage-deflate; server_max_window_bits='10'", Declined),
        ("permessage-deflate; server_no_context_takeover=\"\\1\"", Declined),
        ("x-other; a=\"b\", permessage-deflate", Accepted),
    ]);
}

#[test]
fn the_server_accepts_the_first_acceptable_offer_of_all_header_lines() {
    let many = "permessage-deflate; unknown, ".repeat(200) + "permessage-deflate; server_max_window_bits=12";
    let lines = "x-other\n".repeat(50) + "permessage-deflate; server_max_window_bits=13";
    check(&[
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", Window(9)),
        ("permessage-deflate, permessage-deflate; server_max_window_bits=9", Accepted),
        ("permessage-deflate; server_max_window_bits=7, permessage-deflate; server_max_window_bits=14", Window(14)),
        ("permessage-deflate; unknown\npermessage-deflate; server_max_window_bits=9", Window(9)),
        ("permessage-deflate\nx-other", Accepted),
        ("x-other\npermessage-deflate", Accepted),
        ("\npermessage-deflate\n", Accepted),
        (",,permessage-deflate , ,", Accepted),
        ("permessage-deflate; unknown, x-webkit-deflate-frame, permessage-bzip2", Declined),
        (&many, Window(12)),
        (&lines, Window(13)),
    ]);
}

#[test]
fn a_malformed_header_line_makes_the_server_decline_all_offers() {
    check(&[
        ("permessage-deflate; =", Declined),
        ("permessage-deflate;", Declined),
        ("permessage-deflate; server_max_window_bits=", Declined),
        ("permessage-deflate; server_max_window_bits=\"\"", Declined),
        ("permessage-deflate; server_max_window_bits=\"15", Declined),
        ("permessage-deflate; server_max_window_bits=\" 15\"", Declined),
        ("permessage-deflate; server_max_window_bits=1 5", Declined),
        ("permessage-deflate client_max_window_bits", Declined),
        ("permessage-deflate; a=\"b,c\", permessage-deflate", Declined),
        ("permessage-deflate, ;", Declined),
        ("permessage-deflate\n\"permessage-deflate\"", Declined),
        ("permessage-deflate\nserver_max_window_bits=15", Declined),
        ("permessage-deflate/1.0, permessage-deflate", Declined),
        ("permessage-deflate; grüße, permessage-deflate", Declined),
    ]);
}
