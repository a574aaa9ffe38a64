//! Sends the same bytes, cut at different positions, to a server that records its handler calls.
//!
//! The harness sends a part only after the loop has read the part before it. So each read of the server returns one
//! part. The harness waits for three turns of the loop between two writes. Many connections share these turns.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use fdpush::{Context, Fd, Heartbeat, Limits, Message, Peer, Response, Upgrade};

use crate::common::deflated;
use crate::common::{TestServer, echo, serve};
use crate::wire::{HttpResponse, Received, Wire};

/// The maximum length of a request body. This limit is small, so that inputs over the limit are short.
pub const BODY_BYTES_MAX: usize = 1000;
/// The maximum length of a message. This limit is a little over 65,535, the longest length that a frame header with a
/// 16-bit length can contain.
pub const MESSAGE_BYTES_MAX: usize = 70_000;

/// The number of connections that share the turns of the loop. The input of each connection is cut at a different
/// position.
const BATCH: usize = 128;

/// The longest input that is cut at every byte. A longer input is cut near its start, near its end and at a sample of
/// positions.
const EVERY_SPLIT_BYTES_MAX: usize = 700;

/// The number of bytes at the start of an input that are sent one by one, with a turn of the loop after each byte.
const BYTE_A_TURN_MAX: usize = 700;

/// After the first [`BYTE_A_TURN_MAX`] bytes of an input, this number of bytes is sent one by one, without a turn of
/// the loop between them.
const BYTE_A_WRITE_MAX: usize = 10_000;

/// A row of a table: the input and the expected result.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    /// The expected statuses of all responses, in order.
    pub statuses: Vec<u16>,
    /// The expected code of the server's close frame, or `None` if the server sends no close frame.
    pub code: Option<u16>,
    /// The expected handler calls, in order.
    pub ran: Vec<String>,
    /// Whether the server has no handler for plain HTTP.
    pub is_bare: bool,
}

/// A server that records its handler calls by the port of the client.
pub struct LoggingServer {
    pub server: TestServer,
    log: Log,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<HashMap<u16, Vec<String>>>>);

impl LoggingServer {
    /// Starts a server that echoes messages. If `is_bare` is false, the server also answers plain HTTP.
    pub fn start(is_bare: bool) -> LoggingServer {
        let log = Log::default();
        let [upgrade, open, message, ping, pong, plain] = std::array::from_fn(|_| log.clone());
        let limits =
            Limits { body_bytes_max: BODY_BYTES_MAX, message_bytes_max: MESSAGE_BYTES_MAX, ..deflated::limits() };
        let server = serve(move |server| {
            let server = server
                .limits(limits)
                .heartbeat(Heartbeat::Off)
                .on_upgrade(move |ctx, fd, request| {
                    upgrade.note(ctx, fd, format!("upgrade {}", request.target()));
                    Upgrade::accept()
                })
                .on_open(move |ctx, fd, _| open.note(ctx, fd, "open".to_owned()))
                .on_message(move |ctx, fd, received| {
                    message.note(ctx, fd, describe_message(received));
                    echo(ctx, fd, received);
                })
                .on_ping(move |ctx, fd, payload| ping.note(ctx, fd, shown("ping", payload)))
                .on_pong(move |ctx, fd, payload| pong.note(ctx, fd, shown("pong", payload)));
            match is_bare {
                true => server,
                false => server.on_request(move |ctx, fd, request| {
                    let head = format!("{} {}", request.method(), request.target());
                    plain.note(ctx, fd, shown(&head, request.body()));
                    Response::text(200, "done\n")
                }),
            }
        });
        LoggingServer { server, log }
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(self.server.address())
    }

    /// Removes the recorded handler calls of this connection from the log, and returns them.
    pub fn ran(&self, wire: &Wire) -> Vec<String> {
        self.log.0.lock().expect("no handler panics while it holds the lock").remove(&wire.port).unwrap_or_default()
    }

    /// Returns after the loop has read all bytes that were sent before. The first turn may have started before the
    /// bytes arrived. The second turn reads the bytes, and the third turn answers.
    pub fn turn(&self) {
        for _ in 0..3 {
            self.server.ask(|_| ());
        }
    }
}

impl Log {
    fn note(&self, ctx: &Context<'_>, fd: Fd, what: String) {
        let Some(Peer::V4 { port, .. }) = ctx.info(fd).map(|info| info.peer) else {
            panic!("the connection is not over TCP")
        };
        self.0.lock().expect("no handler panics while it holds the lock").entry(port).or_default().push(what);
    }
}

/// Returns the log entry of a message: its type, and its payload, or the length of a long payload.
fn describe_message(message: Message<'_>) -> String {
    match message {
        Message::Text(text) => shown("text", text.as_bytes()),
        Message::Binary(bytes) => shown("binary", bytes),
    }
}

pub fn shown(what: &str, payload: &[u8]) -> String {
    match payload {
        [] => what.to_owned(),
        short if short.len() <= 125 => format!("{what} {}", short.escape_ascii()),
        long => format!("{what} of {} bytes", long.len()),
    }
}

/// Sends the bytes of each case in one write.
pub fn send_whole<'a>(server: &LoggingServer, cases: &'a [Case], prepare: impl Fn(&LoggingServer) -> Wire) -> Sent<'a> {
    let send = |case: &'a Case| {
        let mut wire = prepare(server);
        wire.send(&case.bytes);
        (case, "whole".to_owned(), wire)
    };
    cases.iter().map(send).collect()
}

/// Sends the bytes of all cases one by one.
///
/// Each of the first [`BYTE_A_TURN_MAX`] bytes has its own write and its own turn. Each of the next
/// [`BYTE_A_WRITE_MAX`] bytes has its own write. One write sends the remaining bytes.
pub fn send_bytewise<'a>(
    server: &LoggingServer,
    cases: &'a [Case],
    prepare: impl Fn(&LoggingServer) -> Wire,
) -> Sent<'a> {
    let mut sent: Sent<'a> = cases.iter().map(|case| (case, "byte by byte".to_owned(), prepare(server))).collect();
    let longest = cases.iter().map(|case| case.bytes.len()).max().unwrap_or(0);
    for at in 0..longest.min(BYTE_A_TURN_MAX) {
        for (case, _, wire) in &mut sent {
            wire.send(case.bytes.get(at..=at).unwrap_or_default());
        }
        server.turn();
    }
    for (case, _, wire) in &mut sent {
        let rest = case.bytes.get(BYTE_A_TURN_MAX..).unwrap_or_default();
        let (some, rest) = rest.split_at(rest.len().min(BYTE_A_WRITE_MAX));
        some.iter().for_each(|byte| wire.send(&[*byte]));
        wire.send(rest);
    }
    sent
}

/// Sends the bytes of one case in two parts, for every position of [`cut_positions`]. Several connections, each with
/// another position, run at the same time.
pub fn send_split<'a>(
    server: &LoggingServer,
    case: &'a Case,
    prepare: impl Fn(&LoggingServer) -> Wire,
    mut check: impl FnMut(Sent<'a>),
) {
    let splits: Vec<usize> = cut_positions(case.bytes.len()).collect();
    for batch in splits.chunks(BATCH) {
        let first = |at: &usize| {
            let mut wire = prepare(server);
            wire.send(&case.bytes[..*at]);
            (case, format!("cut at {at}"), wire)
        };
        let mut sent: Sent<'a> = batch.iter().map(first).collect();
        server.turn();
        for (at, (_, _, wire)) in batch.iter().zip(&mut sent) {
            wire.send(&case.bytes[*at..]);
        }
        check(sent);
    }
}

/// The sent cases. Each entry is a case, a text that describes the cuts of its bytes, and the connection that sent it.
pub type Sent<'a> = Vec<(&'a Case, String, Wire)>;

/// Runs the cases on several threads.
pub fn on_threads(
    cases: &[Case],
    start: impl Fn() -> LoggingServer + Sync,
    run: impl Fn(&LoggingServer, &Case) + Sync,
) {
    const THREADS: usize = 4;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (start, run) = (&start, &run);
            scope.spawn(move || {
                let server = start();
                cases.iter().skip(thread).step_by(THREADS).for_each(|case| run(&server, case));
            });
        }
    });
}

/// Checks that there are at least `count_min` cases, and that their names are unique.
pub fn assert_named(cases: &[Case], count_min: usize) {
    let names: std::collections::HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "no two cases may have the same name");
    assert!(cases.len() >= count_min, "there must be at least {count_min} cases, not {}", cases.len());
}

/// Returns the positions at which an input of `length` bytes is cut.
pub fn cut_positions(length: usize) -> impl Iterator<Item = usize> {
    let (near, step) = if length <= EVERY_SPLIT_BYTES_MAX {
        (length, 1)
    } else if length <= BYTE_A_WRITE_MAX {
        (200, 97)
    } else {
        (24, 1_009)
    };
    (1..length).filter(move |at| *at < near || length - at < near / 4 || at % step == 0)
}

impl Case {
    /// Compares the result of this case with the expected result. Returns an error that describes the difference.
    fn check_results(&self, server: &LoggingServer, portions: &str, mut wire: Wire) -> Result<(), String> {
        let is_answered =
            wire.read_until(|received| received.replies.len() >= self.statuses.len() && self.has_closed_in(received));
        if self.code.is_none() && wire.received().is_kept() {
            // The server keeps this connection open, so the client ends it.
            wire.shutdown_write();
        }
        wire.read_to_end();
        let (received, ran) = (wire.received(), server.ran(&wire));
        let faults = [
            (!is_answered).then(|| "the stream ended early".to_owned()),
            differ("statuses", &received.statuses(), &self.statuses),
            differ("close code", &received.close_code(), &self.code),
            differ("handler calls", &ran, &self.ran),
            differ("incomplete output at the end", &received.rest, &Vec::new()),
            differ("frames", &received.frame_names(), &self.frame_names()),
            received.replies.iter().find_map(HttpResponse::missing_headers),
        ];
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        let bytes = self.bytes.get(..300).unwrap_or(&self.bytes).escape_ascii();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(format!("{}, {portions}: {}\n    {bytes}", self.name, faults.join("; ")))
        }
    }

    fn has_closed_in(&self, received: &Received) -> bool {
        self.code.is_none() || received.close_code().is_some()
    }

    /// Returns the expected frames: an echo for each message and a pong for each ping, up to the close frame.
    fn frame_names(&self) -> Vec<String> {
        let answer = |ran: &String| match ran.split(' ').next() {
            Some("text" | "binary") => Some(ran.clone()),
            Some("ping") => Some(ran.replacen("ping", "pong", 1)),
            _ => None,
        };
        self.ran.iter().filter_map(answer).chain(self.code.map(|_| "close".to_owned())).collect()
    }
}

/// Compares the results of cases with the expected results.
pub fn check_results(server: &LoggingServer, sent: Sent<'_>) {
    const SHOWN_MAX: usize = 8;
    let results = sent.into_iter().map(|(case, portions, wire)| case.check_results(server, &portions, wire));
    let faults: Vec<String> = results.filter_map(Result::err).collect();
    let shown = faults.get(..SHOWN_MAX).unwrap_or(&faults).join("\n");
    assert!(faults.is_empty(), "{} faults:\n{shown}", faults.len());
}

fn differ<T: PartialEq + Debug>(what: &str, is: &T, should: &T) -> Option<String> {
    (is != should).then(|| format!("{what}: {is:?}, should be {should:?}"))
}

impl Received {
    /// Returns whether the server waits for more bytes.
    fn is_kept(&self) -> bool {
        let Some(last) = self.replies.last() else { return true };
        last.status == 101 || last.header("Connection") == Some("keep-alive")
    }

    fn frame_names(&self) -> Vec<String> {
        let name = |(first, payload): &(u8, Vec<u8>)| match first {
            0x81 => shown("text", payload),
            0x82 => shown("binary", payload),
            0x8a => shown("pong", payload),
            0x88 => "close".to_owned(),
            other => format!("a frame that begins with {other:#x}"),
        };
        self.frames.iter().map(name).collect()
    }
}

impl HttpResponse {
    /// Returns an error if the response lacks a header that its status requires (RFC 9110), or `Connection: close`.
    fn missing_headers(&self) -> Option<String> {
        let wanted = match self.status {
            101 => Some(("Upgrade", "websocket")),
            405 => Some(("Allow", "GET")),
            426 => Some(("Sec-WebSocket-Version", "13")),
            _ => None,
        };
        // The server keeps the connection open after a response of a handler, and after a 404 without a handler. The
        // server closes the connection after all other error responses.
        let ends = self.status >= 400 && self.status != 404;
        let says_so = self.header("Connection").is_some_and(|value| value.contains("close"));
        match wanted {
            Some((name, value)) if self.header(name) != Some(value) => Some(format!("{} without {name}", self.status)),
            _ if ends && !says_so => Some(format!("{} without Connection: close", self.status)),
            _ => None,
        }
    }
}
