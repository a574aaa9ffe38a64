//! The fuzz target `extension` compares `negotiate` with a simple, slow parser.

use super::{PermessageDeflate, WINDOW_BITS_MAX, negotiate};
use crate::protocol::token::is_token_byte;

/// A lexical element of a header value.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Word(Vec<u8>),
    Quoted(Vec<u8>),
    /// One of the separators `,`, `;` and `=`.
    Mark(u8),
}

/// An extension: its name, and its parameters with their values.
type Offer = (Vec<u8>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// Runs the fuzz target `extension`.
///
/// The lines of `data` are the values of `Sec-WebSocket-Extensions`. The result of `negotiate` must be equal to the
/// result of a simple, slow parser. The result must not change if all values are in one line, separated by commas.
pub fn fuzz_extension(data: &[u8]) {
    let values: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let accepted = negotiate(values.iter().copied());
    assert_eq!(accepted.map(PermessageDeflate::server_window_bits), negotiate_naively(&values));
    let list = values.join(&b", "[..]);
    assert_eq!(
        negotiate(std::iter::once(&list[..])),
        accepted,
        "the same values in one line must have the same result"
    );
    if let Some(accepted) = accepted {
        let response = accepted.response().concat();
        assert_eq!(negotiate_naively(&[response.as_bytes()]), Some(accepted.server_window_bits()), "{response}");
    }
}

/// Returns `server_max_window_bits` of the first offer that the server can accept, or 15 if this offer does not have
/// the parameter.
fn negotiate_naively(values: &[&[u8]]) -> Option<u8> {
    let mut offers = Vec::new();
    for value in values {
        let parts = parts_of(value)?;
        for element in parts.split(|part| *part == Part::Mark(b',')).filter(|element| !element.is_empty()) {
            offers.push(offer_of(element)?);
        }
    }
    offers.iter().find_map(accept)
}

/// Splits a value into lexical elements. Returns `None` if the value is malformed.
fn parts_of(value: &[u8]) -> Option<Vec<Part>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(&byte) = value.get(at) {
        at += 1;
        match byte {
            b' ' | b'\t' => {}
            b',' | b';' | b'=' => parts.push(Part::Mark(byte)),
            b'"' => {
                let mut content = Vec::new();
                loop {
                    let byte = *value.get(at)?;
                    at += 1;
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            content.push(*value.get(at)?);
                            at += 1;
                        }
                        byte => content.push(byte),
                    }
                }
                if content.is_empty() || !content.iter().all(|byte| is_token_byte(*byte)) {
                    return None;
                }
                parts.push(Part::Quoted(content));
            }
            _ => {
                let rest = value.get(at - 1..)?;
                let word: Vec<u8> = rest.iter().copied().take_while(|byte| is_token_byte(*byte)).collect();
                at += word.len().checked_sub(1)?;
                parts.push(Part::Word(word));
            }
        }
    }
    Some(parts)
}

/// Parses one extension of the list. Returns `None` if the extension is malformed.
fn offer_of(element: &[Part]) -> Option<Offer> {
    let mut groups = element.split(|part| *part == Part::Mark(b';'));
    let Some([Part::Word(name)]) = groups.next() else { return None };
    let mut parameters = Vec::new();
    for group in groups {
        parameters.push(match group {
            [Part::Word(name)] => (name.clone(), None),
            [Part::Word(name), Part::Mark(b'='), Part::Word(value) | Part::Quoted(value)] => {
                (name.clone(), Some(value.clone()))
            }
            _ => return None,
        });
    }
    Some((name.clone(), parameters))
}

/// Returns `server_max_window_bits` of the offer, or 15 if the parameter is absent. Returns `None` if the server cannot
/// accept the offer (RFC 7692 section 7.1).
fn accept((name, parameters): &Offer) -> Option<u8> {
    let (mut seen, mut window) = (Vec::new(), WINDOW_BITS_MAX);
    for (name, value) in parameters {
        let text = value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
        let bits = text.as_ref().and_then(|text| (8..=15).find(|bits: &u8| bits.to_string() == *text));
        match (&name[..], &text, bits) {
            (b"server_no_context_takeover" | b"client_no_context_takeover" | b"client_max_window_bits", None, _) => {}
            (b"client_max_window_bits", Some(_), Some(_)) => {}
            (b"server_max_window_bits", Some(_), Some(bits)) => window = bits,
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    (name == b"permessage-deflate").then_some(window)
}
