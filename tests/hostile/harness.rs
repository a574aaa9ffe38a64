//! The ways in which the same bytes can come, and a server that keeps a log of what it was asked to do.
//!
//! The one idea: a part is only sent when the loop has read the part before, so that a cut is a cut for the server too.
//! Three turns of the loop between two writes see to that, and many connections share them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use fdpush::{Context, Fd, Heartbeat, Limits, Message, Peer, Response, Upgrade};

use crate::common::{PATIENCE, TestServer, echo, serve};
use crate::wire::{Reply, Said, Wire};

/// A body and a message may have so many bytes, so that what is over it need not be long.
pub const BODY_BYTES_MAX: usize = 1000;
pub const MESSAGE_BYTES_MAX: usize = 70_000;

/// Connections that are cut at different places and share the loop's turns.
const BATCH: usize = 128;

/// Inputs of up to so many bytes are cut at every byte, longer ones near their ends and here and there between.
const EVERY_SPLIT_BYTES_MAX: usize = 700;

/// So many bytes of an input are sent a byte a turn of the loop, and so many a byte a write.
const BYTE_A_TURN_MAX: usize = 700;
const BYTE_A_WRITE_MAX: usize = 10_000;

/// A row of a table: what is sent, and what is to come of it.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    /// The statuses of all responses, in order.
    pub statuses: Vec<u16>,
    /// The code of the server's close frame. `None`: it sends none by itself.
    pub code: Option<u16>,
    /// All that handlers were called for, in order. What is not in here must not have been delivered.
    pub ran: Vec<String>,
    /// The server has no handler for plain HTTP.
    pub is_bare: bool,
}

/// A server, and what its handlers were called for, by the client's port.
pub struct LoggingServer {
    pub server: TestServer,
    log: Log,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<HashMap<u16, Vec<String>>>>);

impl LoggingServer {
    /// One that echoes, and answers plain HTTP unless it is `bare`.
    pub fn start(is_bare: bool) -> LoggingServer {
        let log = Log::default();
        let [upgrade, open, message, ping, pong, request] = std::array::from_fn(|_| log.clone());
        // No time is up while hundreds of connections are sent a byte a turn.
        let limits = Limits {
            body_bytes_max: BODY_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            head_time_max: PATIENCE,
            body_time_max: PATIENCE,
            message_time_max: PATIENCE,
            ..Limits::default()
        };
        let server = serve(move |server| {
            let server = server
                .limits(limits)
                .heartbeat(Heartbeat::Off)
                .on_upgrade(move |ctx, fd, request| {
                    upgrade.note(ctx, fd, format!("upgrade {}", request.target()));
                    Upgrade::accept()
                })
                .on_open(move |ctx, fd, _| open.note(ctx, fd, "open".to_owned()))
                .on_message(move |ctx, fd, heard| {
                    message.note(ctx, fd, shown_message(heard));
                    echo(ctx, fd, heard);
                })
                .on_ping(move |ctx, fd, payload| ping.note(ctx, fd, shown("ping", payload)))
                .on_pong(move |ctx, fd, payload| pong.note(ctx, fd, shown("pong", payload)));
            match is_bare {
                true => server,
                false => server.on_request(move |ctx, fd, asked| {
                    let head = format!("{} {}", asked.method(), asked.target());
                    request.note(ctx, fd, shown(&head, asked.body()));
                    Response::text(200, "done\n")
                }),
            }
        });
        LoggingServer { server, log }
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(self.server.address())
    }

    /// What was called for over this connection.
    pub fn ran(&self, wire: &Wire) -> Vec<String> {
        self.log.0.lock().expect("no handler panics").remove(&wire.port).unwrap_or_default()
    }

    /// Returns when the loop has read all that was sent before: one turn may have begun, one reads, one says so.
    pub fn turn(&self) {
        for _ in 0..3 {
            self.server.ask(|_| ());
        }
    }
}

impl Log {
    fn note(&self, ctx: &Context<'_>, fd: Fd, what: String) {
        let Some(Peer::V4 { port, .. }) = ctx.info(fd).map(|info| info.peer) else { panic!("a connection over TCP") };
        self.0.lock().expect("no handler panics").entry(port).or_default().push(what);
    }
}

/// A message in a log: its kind, and its payload if that is short.
fn shown_message(message: Message<'_>) -> String {
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

/// Sends the bytes of all cases in one write each.
pub fn send_whole<'a>(server: &LoggingServer, cases: &'a [Case], prepare: impl Fn(&LoggingServer) -> Wire) -> Sent<'a> {
    let send = |case: &'a Case| {
        let mut wire = prepare(server);
        wire.send(&case.bytes);
        (case, "whole".to_owned(), wire)
    };
    cases.iter().map(send).collect()
}

/// Sends the bytes of all cases one a write, all cases in step, each byte in a turn of its own.
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

/// Sends the bytes of one case in two parts, cut at every place, a batch of connections at a time.
pub fn send_split<'a>(
    server: &LoggingServer,
    case: &'a Case,
    prepare: impl Fn(&LoggingServer) -> Wire,
    mut judge: impl FnMut(Sent<'a>),
) {
    let splits: Vec<usize> = splits(case.bytes.len()).collect();
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
        judge(sent);
    }
}

/// What was sent, how, and over which connection.
pub type Sent<'a> = Vec<(&'a Case, String, Wire)>;

/// The cases, in as many parts as there are threads to send them.
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

/// No two cases of a table may bear the same name.
pub fn assert_named(cases: &[Case], count_min: usize) {
    let names: std::collections::HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
    assert!(cases.len() >= count_min, "{} cases", cases.len());
}

/// Where an input of `length` bytes is cut.
pub fn splits(length: usize) -> impl Iterator<Item = usize> {
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
    /// Holds what came of this case against what should have, and says where they differ.
    fn judge(&self, server: &LoggingServer, way: &str, mut wire: Wire) -> Result<(), String> {
        let is_answered = wire.read_until(|said| said.replies.len() >= self.statuses.len() && self.has_closed_in(said));
        if self.code.is_none() && wire.said().is_kept() {
            // It is ours to end it; else the server must do that by itself.
            wire.shut();
        }
        wire.read_to_end();
        let (said, ran) = (wire.said(), server.ran(&wire));
        let faults = [
            (!is_answered).then(|| "the stream ended early".to_owned()),
            differ("statuses", &said.statuses(), &self.statuses),
            differ("close code", &said.close_code(), &self.code),
            differ("delivered", &ran, &self.ran),
            differ("half an answer", &said.rest, &Vec::new()),
            differ("frames", &said.frame_names(), &self.frame_names()),
            said.replies.iter().find_map(Reply::fault),
        ];
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        let bytes = self.bytes.get(..300).unwrap_or(&self.bytes).escape_ascii();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(format!("{}, {way}: {}\n    {bytes}", self.name, faults.join("; ")))
        }
    }

    fn has_closed_in(&self, said: &Said) -> bool {
        self.code.is_none() || said.close_code().is_some()
    }

    /// What the server has to send: each message echoed, each ping answered, in order, and nothing behind the close frame.
    fn frame_names(&self) -> Vec<String> {
        let answer = |ran: &String| match ran.split(' ').next() {
            Some("text" | "binary") => Some(ran.clone()),
            Some("ping") => Some(ran.replacen("ping", "pong", 1)),
            _ => None,
        };
        self.ran.iter().filter_map(answer).chain(self.code.map(|_| "close".to_owned())).collect()
    }
}

/// Holds what came of cases against what should have.
pub fn judge(server: &LoggingServer, sent: Sent<'_>) {
    const SHOWN_MAX: usize = 8;
    let judged = sent.into_iter().map(|(case, way, wire)| case.judge(server, &way, wire));
    let faults: Vec<String> = judged.filter_map(Result::err).collect();
    let shown = faults.get(..SHOWN_MAX).unwrap_or(&faults).join("\n");
    assert!(faults.is_empty(), "{} faults:\n{shown}", faults.len());
}

fn differ<T: PartialEq + Debug>(what: &str, is: &T, should: &T) -> Option<String> {
    (is != should).then(|| format!("{what}: {is:?}, should be {should:?}"))
}

impl Said {
    /// Whether the server waits for more.
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

impl Reply {
    /// What it lacks of what RFC 9110 wants beside each status.
    fn fault(&self) -> Option<String> {
        let wanted = match self.status {
            101 => Some(("Upgrade", "websocket")),
            405 => Some(("Allow", "GET")),
            426 => Some(("Sec-WebSocket-Version", "13")),
            _ => None,
        };
        // What a handler says, and where there is none, 404, ends nothing; all else does.
        let ends = self.status >= 400 && self.status != 404;
        let says_so = self.header("Connection").is_some_and(|value| value.contains("close"));
        match wanted {
            Some((name, value)) if self.header(name) != Some(value) => Some(format!("{} without {name}", self.status)),
            _ if ends && !says_so => Some(format!("{} without Connection: close", self.status)),
            _ => None,
        }
    }
}
