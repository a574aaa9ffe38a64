//! The fuzz target `upgrade`: passes random bytes of a client to a connection, until an upgrade is answered.
//!
//! A 101 response must be correct, and only a valid upgrade may get a 101. All other output must be complete and
//! well-formed responses.

use std::io::IoSlice;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::connection::{Connection, Env, Event, Queued, State, Written};
use crate::fd::{Fd, Slot};
use crate::limits::{Heartbeat, Limits};
use crate::peer::Peer;
use crate::protocol::body_mode::BodyMode;
use crate::protocol::origin::Origins;
use crate::protocol::request::Request;
use crate::protocol::response::Response;
use crate::protocol::upgrade::{Accept, Upgrade};

const PEERS: [Peer; 3] =
    [Peer::V4 { ip: [127, 0, 0, 1], port: 1 }, Peer::V4 { ip: [192, 0, 2, 1], port: 1 }, Peer::Unix];

/// The only allowed origin, if the setting of the server is a list of origins.
const LISTED: &str = "https://good.example";

/// The output, the events and the last state of a connection that received the whole input.
#[derive(PartialEq, Eq, Debug)]
struct UpgradeResult {
    state: State,
    /// The output without `100 Continue` responses, because their number depends on how input is split.
    output: Vec<u8>,
    /// A description of each event.
    events: Vec<String>,
}

/// Checks that a connection returns the same events and output for each way to split the client's input.
///
/// The first bytes of `data` select the settings of the server, and the lengths of the parts into which the client's
/// input is split. The other bytes of `data` are the input.
#[doc(hidden)]
pub fn fuzz_upgrade(data: &[u8]) {
    let Some((&[ways, manner, cuts @ ..], stream)) = data.split_first_chunk::<5>() else { return };
    let whole = run(ways, manner, stream, &[stream.len().max(1)]);
    let cut = run(ways, manner, stream, &cuts.map(|size| usize::from(size) + 1));
    assert_eq!(whole, cut);
}

fn run(ways: u8, manner: u8, stream: &[u8], sizes: &[usize]) -> UpgradeResult {
    let origins = match ways % 3 {
        0 => Origins::Same,
        1 => Origins::Any,
        _ => Origins::list([LISTED]).expect("the origin is valid"),
    };
    let limits = Limits { head_bytes_max: 1024, body_bytes_max: 256, ..Limits::default() };
    let mut env = Env::new(limits, Heartbeat::Off, origins);
    let mut connection = Connection::new(PEERS[usize::from(ways / 3) % PEERS.len()], &env);
    let mut outcome = UpgradeResult { state: State::Http, output: Vec::new(), events: Vec::new() };

    let mut rest = stream;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() || connection.state() != State::Http {
            break;
        }
        let (part, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        let mut part = part.to_vec();
        let mut input = &mut part[..];
        while connection.state() == State::Http
            && let Some(event) = connection.handle_bytes(&mut input, &mut env)
        {
            answer(&mut connection, event, manner, &mut env, &mut outcome);
        }
        write(&mut connection, &mut env, &mut outcome.output);
    }
    outcome.state = connection.state();
    connection.check_invariants();
    connection.release(&mut env);
    assert_eq!(env.queued, Queued::default());
    outcome
}

fn answer(connection: &mut Connection, event: Event<'_>, manner: u8, env: &mut Env, outcome: &mut UpgradeResult) {
    match event {
        Event::Request { request, wanted_upgrade } => {
            outcome.events.push(format!("{} {wanted_upgrade}", request.target()));
            // The response has a header with the path of the request. A decoded path can contain any byte, also bytes
            // that are invalid in a header.
            let response = Response::new(200).header("X-Path", request.path().as_bytes());
            connection.respond(response, env);
            let before = outcome.output.len();
            write(connection, env, &mut outcome.output);
            check_lines(&outcome.output[before..]);
        }
        Event::Upgrade(request) => {
            outcome.events.push(format!("upgrade {}", request.target()));
            assert!(
                is_valid_upgrade(&request),
                "only a valid request may be reported as an upgrade: {:?}",
                head_of(&request)
            );
            assert!(is_origin_allowed(&env.origins, &request), "the origin must be allowed: {:?}", head_of(&request));
            let before = outcome.output.len();
            let accept = accept_of(&request, manner);
            let answer = connection.accept(Fd::new(Slot(0), 0), &accept, &request, env);
            write(connection, env, &mut outcome.output);
            let written = &outcome.output[before..];
            check_lines(written);
            check_answer(&request, manner, answer.is_ok(), written);
        }
        Event::Head(request) => {
            connection.receive_body(request, BodyMode::Collect, env);
        }
        Event::Refused(_) => {}
        event => panic!("a connection must not return this event before the upgrade: {event:?}"),
    }
}

fn write(connection: &mut Connection, env: &mut Env, output: &mut Vec<u8>) {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut written = Vec::new();
    while connection.can_write() {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = connection.poll_slices(env, &mut slices);
        let before = written.len();
        written.extend(slices[..filled].iter().flat_map(|slice| slice.to_vec()));
        connection.handle_written(Written::new(written.len() - before, false), env);
    }
    env.end_turn();
    let output_left = written.strip_prefix(CONTINUE).unwrap_or(&written);
    output.extend_from_slice(output_left.strip_suffix(CONTINUE).unwrap_or(output_left));
}

/// Returns the handler's answer to an upgrade. The answer contains the path of the request, and may contain a
/// subprotocol of the request.
fn accept_of(request: &Request<'_>, manner: u8) -> Accept {
    let accept = Upgrade::accept().header("X-Path", request.path().as_bytes());
    let offered = request.subprotocols().nth(usize::from(manner / 4 % 4));
    match (manner % 4, offered) {
        (0, _) => accept,
        (1, _) => accept.subprotocol("not-offered"),
        (_, Some(offered)) => accept.subprotocol(offered),
        (_, None) => accept.cookie("sid=1"),
    }
}

/// Checks the response to an upgrade.
///
/// The response is a 101 as in RFC 6455 section 4.2.2, or a 500 if the handler's answer is invalid.
fn check_answer(request: &Request<'_>, manner: u8, is_accepted: bool, written: &[u8]) {
    let text = String::from_utf8_lossy(written);
    let offers = |name: &str| {
        request
            .values("sec-websocket-protocol")
            .any(|line| line.split(|byte| *byte == b',').any(|offer| offer.trim_ascii() == name.as_bytes()))
    };
    if !is_accepted {
        assert!(text.starts_with("HTTP/1.1 500 ") && text.contains("\r\nConnection: close\r\n"), "{text}");
        let is_path_bad = request.path().bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f);
        assert!(
            is_path_bad || (manner % 4 == 1 && !offers("not-offered")),
            "only an invalid answer may be replaced by status 500: {request:?}"
        );
        return;
    }
    let key = request.values("sec-websocket-key").next().expect("the request has a key");
    let accept = STANDARD.encode(Sha1::digest([key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat()));
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    for line in ["Upgrade: websocket", "Connection: Upgrade", &format!("Sec-WebSocket-Accept: {accept}")] {
        assert_eq!(
            text.matches(&format!("\r\n{line}\r\n")).count(),
            1,
            "the response {text} must have the line {line} once"
        );
    }
    let chosen: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: ")).collect();
    assert!(
        chosen.len() <= 1 && chosen.iter().all(|chosen| offers(chosen)),
        "the client must have offered the subprotocol {chosen:?}"
    );
    assert!(
        text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1,
        "the output must end with the 101 response: {text}"
    );
}

/// Checks that each header line is `name: value`, and that its name is known.
///
/// A header line that a client has injected would have another form or another name.
fn check_lines(written: &[u8]) {
    const NAMES: [&str; 10] = [
        "Allow",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Set-Cookie",
        "Upgrade",
        "X-Path",
    ];
    let end = written.windows(4).position(|window| window == b"\r\n\r\n").expect("the output has a complete head");
    for line in written[..end].split(|byte| *byte == b'\n').skip(1) {
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let (name, value) = line.split_once(": ").expect("the line is `name: value`");
        assert!(
            NAMES.contains(&name) && !value.contains(['\r', '\n', '\0']),
            "the header must have a known name, and a value without line breaks: {line:?}"
        );
    }
}

/// Returns whether a request meets the requirements of RFC 6455 section 4.2.1.
fn is_valid_upgrade(request: &Request<'_>) -> bool {
    let only = |name: &str| match &request.values(name).collect::<Vec<_>>()[..] {
        [value] => Some(value.to_ascii_lowercase()),
        _ => None,
    };
    let names = |header: &str, wanted: &[u8]| {
        let lines = request.values(header).collect::<Vec<_>>().join(&b',').to_ascii_lowercase();
        lines.split(|byte| *byte == b',').any(|element| element.trim_ascii() == wanted)
    };
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let key = only("sec-websocket-key").unwrap_or_default();
    request.method() == "GET"
        && request.version() == 1
        && only("host").is_some()
        && names("connection", b"upgrade")
        && names("upgrade", b"websocket")
        && request.values("sec-websocket-version").all(|version| version == b"13")
        && request.values("sec-websocket-version").count() > 0
        && key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(is_base64)
        && is_list_of_tokens(request, "sec-websocket-protocol")
        && request.values("transfer-encoding").count() == 0
        && request.values("content-length").all(|length| length.iter().all(|digit| *digit == b'0'))
}

/// Returns whether the header is absent, or is a list of one or more tokens (RFC 6455 section 4.3).
fn is_list_of_tokens(request: &Request<'_>, name: &str) -> bool {
    let lines: Vec<_> = request.values(name).collect();
    let list = lines.join(&b',');
    let mut elements =
        list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()).peekable();
    let is_separator = |byte: &u8| br#"()<>@,;:\"/[]?={}"#.contains(byte);
    let has_element = elements.peek().is_some();
    lines.is_empty() || has_element && elements.flatten().all(|byte| byte.is_ascii_graphic() && !is_separator(byte))
}

/// Returns whether the origin is allowed.
///
/// To stay simple, the function also accepts some origins that the server refuses.
fn is_origin_allowed(origins: &Origins, request: &Request<'_>) -> bool {
    let values: Vec<_> = request.values("origin").map(<[u8]>::to_ascii_lowercase).collect();
    let origin = match (origins, &values[..]) {
        (Origins::Any, _) | (_, []) => return true,
        (_, [origin]) => String::from_utf8_lossy(origin).into_owned(),
        _ => return false,
    };
    if *origins != Origins::Same {
        return matches!(origin.strip_prefix(LISTED), Some("" | ":" | ":443")) || is_port(&origin, LISTED, 443);
    }
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let host = request.values("host").next().unwrap_or_default().to_ascii_lowercase();
    let host = String::from_utf8_lossy(&host).into_owned();
    let port = if scheme == "https" { 443 } else { 80 };
    let is_loopback_name = |host: &str| {
        let name = without_port(host);
        name.starts_with("127.") || name == "localhost" || name.ends_with(".localhost") || name.starts_with('[')
    };
    // An IPv6 address has many spellings, which are not compared here. The unit tests compare some spellings.
    let is_same = host.starts_with('[') == authority.starts_with('[')
        && (host.starts_with('[') || without_port(&host) == without_port(authority))
        && port_of(&host, port) == port_of(authority, port);
    matches!(scheme, "http" | "https") && is_same && (!request.peer().is_loopback() || is_loopback_name(&host))
}

/// Returns whether `text` is `start` followed by the port. Leading zeros are allowed.
fn is_port(text: &str, start: &str, port: u16) -> bool {
    text.strip_prefix(start).is_some_and(|rest| port_of(rest, 0) == Some(port))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn port_of(authority: &str, default: u16) -> Option<u16> {
    match authority.rsplit_once(':') {
        Some((_, "")) => Some(default),
        Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok(),
        _ => Some(default),
    }
}

fn head_of(request: &Request<'_>) -> Vec<(String, String)> {
    let shown = |value: &[u8]| value.escape_ascii().to_string();
    request.headers().map(|(name, value)| (name.to_owned(), shown(value))).collect()
}
