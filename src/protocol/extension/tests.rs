//! Tests the negotiation of permessage-deflate.

use proptest::prelude::*;

use super::*;

const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The expected answer to an offer.
///
/// `Declined` means that the response has no extension. `Accepted` means permessage-deflate without
/// `server_max_window_bits`. `Window` means permessage-deflate with the field as the value of `server_max_window_bits`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Answer {
    Declined,
    Accepted,
    Window(u8),
}

use Answer::{Accepted, Declined, Window};

fn response(values: &[&str]) -> Answer {
    let Some(accepted) = negotiate(values.iter().map(|value| value.as_bytes())) else { return Declined };
    let [head, window] = accepted.response();
    assert_eq!(head, ACCEPTED);
    match window.strip_prefix("; server_max_window_bits=") {
        Some(bits) => {
            let bits = bits.parse().expect("the value must be a number");
            assert_eq!(accepted.server_window_bits(), bits);
            Window(bits)
        }
        None => {
            assert_eq!((window, accepted.server_window_bits()), ("", 15));
            Accepted
        }
    }
}

#[test]
fn a_single_offer_is_accepted_or_declined() {
    let table = [
        // The offers of browsers, Python `websockets` and Node `ws`.
        ("permessage-deflate; client_max_window_bits", Accepted),
        ("permessage-deflate", Accepted),
        // Each parameter.
        ("permessage-deflate; server_no_context_takeover", Accepted),
        ("permessage-deflate; client_no_context_takeover", Accepted),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", Accepted),
        ("permessage-deflate; server_max_window_bits=15", Window(15)),
        ("permessage-deflate; client_max_window_bits=8", Accepted),
        ("permessage-deflate; client_max_window_bits=15", Accepted),
        ("permessage-deflate; server_max_window_bits=14", Window(14)),
        ("permessage-deflate; server_max_window_bits=10", Window(10)),
        ("permessage-deflate; server_max_window_bits=9", Window(9)),
        ("permessage-deflate; server_max_window_bits=8", Window(8)),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=15; server_no_context_takeover",
            Window(15),
        ),
        // Offers with quoted values: the quotes and the backslashes do not belong to the value.
        ("permessage-deflate; server_max_window_bits=\"15\"", Window(15)),
        ("permessage-deflate; server_max_window_bits=\"1\\5\"", Window(15)),
        ("permessage-deflate; client_max_window_bits=\"\\9\"", Accepted),
        ("permessage-deflate; server_max_window_bits=\"14\"", Window(14)),
        ("permessage-deflate; server_max_window_bits=\"150\"", Declined),
        ("permessage-deflate; server_max_window_bits=\"15000\"", Declined),
        // Offers with an illegal value of a parameter.
        ("permessage-deflate; server_max_window_bits", Declined),
        ("permessage-deflate; server_max_window_bits=7", Declined),
        ("permessage-deflate; server_max_window_bits=16", Declined),
        ("permessage-deflate; server_max_window_bits=015", Declined),
        ("permessage-deflate; server_max_window_bits=+15", Declined),
        ("permessage-deflate; server_max_window_bits=15x", Declined),
        ("permessage-deflate; server_max_window_bits=115", Declined),
        ("permessage-deflate; client_max_window_bits=0", Declined),
        ("permessage-deflate; client_max_window_bits=08", Declined),
        ("permessage-deflate; client_max_window_bits=16", Declined),
        ("permessage-deflate; client_max_window_bits=on", Declined),
        ("permessage-deflate; server_no_context_takeover=true", Declined),
        ("permessage-deflate; server_no_context_takeover=\"\\t\"", Declined),
        ("permessage-deflate; client_no_context_takeover=1", Declined),
        // An offer that repeats a parameter is declined, even if the values are equal.
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", Declined),
        ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", Declined),
        ("permessage-deflate; server_max_window_bits=15; server_max_window_bits=15", Declined),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=15", Declined),
        // An offer with an unknown parameter is declined. The names of parameters are case-sensitive.
        ("permessage-deflate; mem_level", Declined),
        ("permessage-deflate; mem_level=9", Declined),
        ("permessage-deflate; Server_No_Context_Takeover", Declined),
        // Offers of other extensions.
        ("x-webkit-deflate-frame", Declined),
        ("permessage-bzip2; level=9", Declined),
        ("permessage-deflate-2", Declined),
        ("Permessage-Deflate", Declined),
        ("", Declined),
        // Offers with additional white space, and with empty list elements.
        ("permessage-deflate;client_max_window_bits;server_max_window_bits=15", Window(15)),
        ("  permessage-deflate \t; \tclient_max_window_bits = 15 ;server_max_window_bits= \"15\" ", Window(15)),
        (", ,permessage-deflate,,", Accepted),
    ];
    for (offer, expected) in table {
        assert_eq!(response(&[offer]), expected, "{offer}");
    }
}

#[test]
fn the_first_offer_that_the_server_can_accept_is_accepted() {
    let table: [(&[&str], _); 9] = [
        (&["permessage-deflate; server_max_window_bits=7, permessage-deflate"], Accepted),
        (&["permessage-deflate; server_max_window_bits=15, permessage-deflate"], Window(15)),
        (&["permessage-deflate, permessage-deflate; server_max_window_bits=15"], Accepted),
        (
            &["x-other; a=\"b\"; c, permessage-deflate; mem_level=1, permessage-deflate; client_max_window_bits"],
            Accepted,
        ),
        (
            &["permessage-deflate; server_max_window_bits=16", "permessage-deflate; server_max_window_bits=15"],
            Window(15),
        ),
        (&["x-other", "", "permessage-deflate"], Accepted),
        (&["permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=8"], Window(9)),
        // A second header line does not continue the offer of the first line.
        (&["permessage-deflate", "server_max_window_bits=15"], Declined),
        (&[], Declined),
    ];
    for (values, expected) in table {
        assert_eq!(response(values), expected, "{values:?}");
    }
}

#[test]
fn all_offers_are_declined_if_a_header_value_is_malformed() {
    for malformed in [
        ";",
        "a;",
        "a; ",
        "a;;b",
        "a; =1",
        "a; b=",
        "a; b=,",
        "a; b=\"",
        "a; b=\"15",
        "a; b=\"\"",
        "a; b=\"1 5\"",
        "a; b=\"15\"x",
        "a; b=\"15\\",
        "a; b=15 16",
        "a b",
        "a=b",
        "a/b",
        "\"a\"",
        "a; \"b\"",
        "a; b='1\u{e9}'",
    ] {
        assert_eq!(response(&[malformed]), Declined, "{malformed}");
        let list = format!("permessage-deflate, {malformed}");
        assert_eq!(response(&[&list]), Declined, "{list}");
        assert_eq!(
            response(&["permessage-deflate", malformed]),
            Declined,
            "an offer before {malformed} must be declined"
        );
    }
}

/// A parameter of an offer: its text, its name, whether it is legal, and the value of `server_max_window_bits`.
#[derive(Clone, Debug)]
struct Parameter {
    text: String,
    name: &'static str,
    is_legal: bool,
    server_window: Option<u32>,
}

fn parameter() -> impl Strategy<Value = Parameter> {
    let value = prop_oneof![Just(None), (0_u32..20).prop_map(Some)];
    let name = prop::sample::select(vec![
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits",
        "client_max_window_bits",
        "x",
    ]);
    (name, value, any::<bool>()).prop_map(|(name, value, is_quoted)| {
        let text = match value {
            None => name.to_owned(),
            Some(bits) if is_quoted => format!("{name}=\"{bits}\""),
            Some(bits) => format!("{name}={bits}"),
        };
        let is_bits = |bits: u32| (8..=15).contains(&bits);
        let is_legal = match name {
            "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
            "server_max_window_bits" => value.is_some_and(is_bits),
            "client_max_window_bits" => value.is_none_or(is_bits),
            _ => false,
        };
        let server_window = value.filter(|_| name == "server_max_window_bits");
        Parameter { text, name, is_legal, server_window }
    })
}

/// A second implementation of RFC 7692 section 7.1, for comparison.
fn expected(parameters: &[Parameter]) -> Answer {
    let mut names: Vec<&str> = parameters.iter().map(|parameter| parameter.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    let window = parameters.iter().find_map(|parameter| parameter.server_window);
    let is_met = names.len() == count && parameters.iter().all(|parameter| parameter.is_legal);
    match window {
        _ if !is_met => Declined,
        None => Accepted,
        Some(bits) => Window(bits as u8),
    }
}

proptest! {
    #[test]
    fn offers_match_a_model(
        offers in prop::collection::vec(prop::collection::vec(parameter(), 0..4), 1..4),
        is_split in any::<bool>(),
        gap in prop::sample::select(vec!["", " ", "\t", " \t "]),
    ) {
        let texts: Vec<String> = offers
            .iter()
            .map(|offer| {
                let names = std::iter::once("permessage-deflate").chain(offer.iter().map(|it| it.text.as_str()));
                names.collect::<Vec<_>>().join(&format!("{gap};{gap}"))
            })
            .collect();
        let lines = if is_split { texts } else { vec![texts.join(&format!("{gap},{gap}"))] };
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        prop_assert_eq!(response(&lines), offers.iter().map(|offer| expected(offer)).find(|answer| *answer != Declined).unwrap_or(Declined), "{:?}", lines);
    }

    #[test]
    fn the_result_for_random_bytes_is_the_result_of_a_simple_parser(values in prop::collection::vec(any::<u8>(), 0..120)) {
        fuzz_extension(&values);
    }

    #[test]
    fn the_result_for_random_words_is_the_result_of_a_simple_parser(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "permessage-deflate", "server_max_window_bits", "client_max_window_bits", "client_no_context_takeover",
                "server_no_context_takeover", "x", "15", "9", "7", "\"", "\\", ";", ";", ";", "=", "=", ",", "\n", " ", "\t",
            ]),
            0..14,
        ),
    ) {
        fuzz_extension(words.concat().as_bytes());
        fuzz_extension(format!("permessage-deflate;{}", words.concat()).as_bytes());
    }
}
