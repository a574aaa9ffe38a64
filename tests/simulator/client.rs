//! The clients of a run, of several kinds.
//!
//! A client parses the bytes of the server with a parser that shares no code with the server. The client compares each
//! frame with the frame that the oracle expects next.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use fdpush::Fd;
use fdpush::sim::Hello;

use crate::connection_model::ConnectionModel;
use crate::coverage::hit;
use crate::frame_writer::FrameWriter;
use crate::frames::{Frame, take_frame};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::segment_model::Due;
use crate::session_client::SessionClient;
use crate::setting::Setting;
use crate::wire::Wire;

const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The maximum number of unsent bytes of a client.
const STREAM_BYTES_MAX: usize = 100_000;

/// The kind of a client.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reads, answers pings and close frames, and sends messages.
    Honest,
    /// Sends no messages and answers no pings.
    Unresponsive,
    /// Neither sends nor reads after the upgrade.
    Silent,
    /// Reads a few bytes at a time.
    Slow,
    /// Violates the protocol at some time.
    Malicious,
    /// Requests large HTTP responses before the upgrade, and rarely reads them.
    HttpHeavy,
    /// Sends an incomplete request, an invalid request, or nothing.
    Incomplete,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    pub fd: Fd,
    pub is_done: bool,
    kind: Kind,
    wire: Rc<RefCell<Wire>>,
    /// The TLS session. `None`: a plain client.
    tls: Option<Box<SessionClient>>,
    rng: Rng,
    /// The bytes that the client will send, before a TLS session encrypts them.
    stream: VecDeque<u8>,
    /// Received bytes. The client has already parsed the bytes before `at`.
    inbox: Vec<u8>,
    at: usize,
    is_websocket: bool,
    /// The body lengths of the HTTP responses that have not arrived yet, in order.
    responses: VecDeque<usize>,
    has_sent_close: bool,
    has_received_close: bool,
    /// Whether the client has stopped sending.
    is_silent: bool,
    message_bytes_max: usize,
    /// Whether the client negotiates permessage-deflate.
    deflates: bool,
    /// In each step, the client disconnects with a probability of one in `disconnect_interval`, or never if it is 0.
    disconnect_interval: usize,
}

impl Client {
    /// Creates the client of an accepted connection.
    pub fn new(wire: Rc<RefCell<Wire>>, model: &mut ConnectionModel, mut rng: Rng, setting: &Setting) -> Client {
        use Kind::*;
        let kinds = [
            Honest,
            Honest,
            Honest,
            Honest,
            Unresponsive,
            Silent,
            Slow,
            Slow,
            Malicious,
            Malicious,
            HttpHeavy,
            Incomplete,
        ];
        let kind = *rng.pick(&kinds);
        hit(name_of(kind));
        let disconnect_interval = if setting.is_hasty { rng.within(3..=20) } else { *rng.pick(&[0, 0, 20, 100, 500]) };
        let mut client = Client {
            fd: model.fd,
            is_done: false,
            kind,
            wire,
            tls: None,
            rng,
            stream: VecDeque::new(),
            inbox: Vec::new(),
            at: 0,
            is_websocket: false,
            responses: VecDeque::new(),
            has_sent_close: false,
            has_received_close: false,
            is_silent: false,
            message_bytes_max: setting.limits.message_bytes_max,
            deflates: false,
            disconnect_interval,
        };
        let offer = if setting.limits.compression { client.draw_offer(model) } else { String::new() };
        client.send_requests(model, &offer);
        client
    }

    /// Begins a TLS session. The client sends its requests after the handshake.
    pub fn secure(&mut self, hello: Hello, model: &mut ConnectionModel) {
        self.tls = Some(Box::new(SessionClient::new(hello, model.session.as_mut())));
    }

    /// Runs one step of the client.
    pub fn act(&mut self, oracle: &mut Oracle) {
        let is_server_gone = self.wire.borrow().is_server_gone();
        if self.kind == Kind::Silent && self.is_websocket {
            self.is_done = is_server_gone;
            return;
        }
        self.read(oracle, is_server_gone);
        if self.is_done {
            return;
        }
        self.send_messages(oracle.model(self.fd));
        let most = if self.rng.one_in(3) { self.rng.within(1..=30) } else { usize::MAX };
        self.send(oracle.model(self.fd), most);
        if self.has_sent_close && self.has_received_close && self.stream.is_empty() {
            self.end(oracle.model(self.fd));
        }
        if self.rng.one_in(self.disconnect_interval) {
            self.disconnect_at_random(oracle.model(self.fd));
        }
    }

    /// Makes the client disconnect soon.
    pub fn leave_soon(&mut self) {
        self.disconnect_interval = 3;
    }

    fn writer<'a>(&'a mut self, model: &'a mut ConnectionModel) -> FrameWriter<'a> {
        FrameWriter {
            inbound: &mut model.inbound,
            stream: &mut self.stream,
            rng: &mut self.rng,
            message_bytes_max: self.message_bytes_max,
            deflates: self.deflates && self.is_websocket,
        }
    }

    /// Draws an offer of permessage-deflate, and stores the answer that the server must give.
    fn draw_offer(&mut self, model: &mut ConnectionModel) -> String {
        let bits = self.rng.within(8..=15);
        let (offer, longest) = match self.rng.below(8) {
            0..2 => return String::new(),
            2 => ("permessage-deflate; server_max_window_bits=7".to_owned(), None),
            3 if bits < 15 => (format!("permessage-deflate; server_max_window_bits={bits}"), Some(1 << bits)),
            4 => ("x-other; a=1, permessage-deflate; client_no_context_takeover".to_owned(), Some(usize::MAX)),
            _ => ("permessage-deflate; client_max_window_bits".to_owned(), Some(usize::MAX)),
        };
        (self.deflates, model.deflated_bytes_max) = (longest.is_some(), longest);
        format!("Sec-WebSocket-Extensions: {offer}\r\n")
    }

    /// Writes the HTTP requests of the client to its stream, and then its upgrade request.
    ///
    /// A client of the kind `Incomplete` writes an incomplete or invalid request, or nothing, in place of the upgrade
    /// request.
    fn send_requests(&mut self, model: &mut ConnectionModel, offer: &str) {
        let requests = match self.kind {
            Kind::HttpHeavy => self.rng.within(1..=4),
            _ => usize::from(self.rng.one_in(10)),
        };
        for _ in 0..requests {
            let bytes = self.rng.skewed(if self.kind == Kind::HttpHeavy { 50_000 } else { 300 });
            let body = vec![b'b'; self.rng.below(100)];
            let head = format!("POST /big?bytes={bytes} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
            self.responses.push_back(bytes);
            self.writer(model).write_raw(&[head.as_bytes(), &body].concat());
        }
        if self.kind == Kind::Incomplete {
            let lost: [&[u8]; 5] = [
                b"GET /",
                b"NONSENSE\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx",
                b"",
                b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            ];
            let lost = *self.rng.pick(&lost);
            self.is_silent = true;
            return self.writer(model).write_raw(lost);
        }
        let uid = if self.rng.one_in(3) { format!("?uid=user%20{}", self.rng.below(12)) } else { String::new() };
        let upgrade = format!(
            "GET /ws{uid} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n{offer}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.writer(model).write_raw(upgrade.as_bytes());
        model.inbound.frames_start = model.inbound.made;
        if self.rng.one_in(5) {
            hit("client: frames before the 101");
            self.writer(model).write_random();
        }
    }

    fn send_messages(&mut self, model: &mut ConnectionModel) {
        if !self.is_websocket || self.is_silent || self.stream.len() > STREAM_BYTES_MAX {
            return;
        }
        let talks = match self.kind {
            Kind::Unresponsive => 0,
            Kind::Malicious => 2,
            _ => 4,
        };
        if self.rng.one_in(talks) {
            for _ in 0..self.rng.within(1..=3) {
                self.writer(model).write_random();
            }
        }
        if self.kind == Kind::Malicious && self.rng.one_in(12) {
            self.is_silent = true;
            self.writer(model).write_violation();
            let garbage = vec![0x5a; self.rng.skewed(200)];
            self.writer(model).write_raw(&garbage);
        }
    }

    /// Sends at most `most` bytes: of the stream, or of TLS records if the client has a TLS session.
    fn send(&mut self, model: &mut ConnectionModel, most: usize) {
        let Client { tls, wire, stream, rng, kind, .. } = self;
        let Some(tls) = tls else { return wire.borrow_mut().send(stream, most) };
        tls.encrypt(stream, rng, model.session.as_mut());
        // Key updates and renegotiations are more frequent while the server's session holds unsent records. Otherwise
        // the runs would rarely cover the answer of the server in this state.
        let interval = match model.output.held() {
            0 => 60,
            _ if model.is_closing() => 2,
            _ => 16,
        };
        if rng.one_in(interval) {
            tls.disturb(model.session.as_mut());
        }
        if *kind == Kind::Malicious && rng.one_in(25) {
            tls.break_rule(rng, model.session.as_mut());
        }
        wire.borrow_mut().send(&mut tls.outbox, most);
        if tls.has_ended() {
            wire.borrow_mut().end();
        }
    }

    /// Ends the stream of the client. A TLS client may first send its unsent records and `close_notify`.
    fn end(&mut self, model: &mut ConnectionModel) {
        let is_closing = match &mut self.tls {
            Some(tls) if self.rng.one_in(2) => tls.close(model.session.as_mut()),
            _ => false,
        };
        if !is_closing {
            self.wire.borrow_mut().end();
        }
    }

    fn disconnect_at_random(&mut self, model: &mut ConnectionModel) {
        match self.rng.below(6) {
            0 => {
                hit("client: reset");
                let keeps_input = self.tls.is_some() && self.rng.one_in(2);
                self.wire.borrow_mut().reset(keeps_input);
                self.is_done = true;
            }
            1 => {
                hit("client: half-close");
                self.end(model);
                self.is_silent = true;
            }
            2 => {
                hit("client: falls silent");
                self.kind = Kind::Silent;
                self.is_websocket = true;
            }
            _ if self.is_websocket && !self.is_silent => {
                let (code, reason) = *self.rng.pick(&[(1000, "bye"), (1001, ""), (1005, ""), (4321, "für immer")]);
                self.write_close(model, code, reason);
            }
            _ => {}
        }
    }

    fn write_close(&mut self, model: &mut ConnectionModel, code: u16, reason: &str) {
        if !mem::replace(&mut self.has_sent_close, true) && !self.is_silent {
            hit("client: says close");
            self.is_silent = true;
            self.writer(model).write_close(code, reason);
        }
    }

    // The following functions read and check the output of the server.

    fn read(&mut self, oracle: &mut Oracle, is_server_gone: bool) {
        if self.wire.borrow().is_client_reset() {
            self.is_done = true;
            return;
        }
        let most = match self.kind {
            _ if is_server_gone => usize::MAX,
            Kind::Slow => self.rng.skewed(60),
            Kind::HttpHeavy if !self.is_websocket && !self.rng.one_in(10) => 0,
            _ if self.rng.one_in(4) => self.rng.within(1..=200),
            _ => usize::MAX,
        };
        self.receive(most);
        while !self.is_websocket && self.read_response() {}
        while self.is_websocket
            && let Some(frame) = take_frame(&self.inbox, &mut self.at)
        {
            self.check_frame(frame, oracle);
        }
        self.inbox.drain(..mem::take(&mut self.at));
        if self.wire.borrow().has_ended() {
            self.handle_end(oracle.model(self.fd));
            self.is_done = is_server_gone;
        }
    }

    fn receive(&mut self, most: usize) {
        let Some(tls) = &mut self.tls else { return self.wire.borrow_mut().receive(&mut self.inbox, most) };
        let mut records = Vec::new();
        self.wire.borrow_mut().receive(&mut records, most);
        tls.receive(&records, &mut self.inbox);
    }

    /// Takes a response from the received bytes, if the response is complete.
    fn read_response(&mut self) -> bool {
        let inbox = &self.inbox[self.at..];
        let Some(end) = inbox.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
        let head = String::from_utf8_lossy(&inbox[..end]).into_owned();
        let status = head.split(' ').nth(1).expect("the response has a status line");
        if status == "101" {
            assert!(
                self.responses.is_empty(),
                "all HTTP responses for {} must arrive before the 101 response; missing: {:?}",
                self.fd,
                self.responses
            );
            assert!(head.contains(ACCEPT), "{head}");
            assert_eq!(head.contains("Sec-WebSocket-Extensions: permessage-deflate"), self.deflates, "{head}");
            self.at += end + 4;
            self.is_websocket = true;
            hit("client: open");
            return false;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map(|length| length.parse());
        let length: usize = length.expect("the response has a Content-Length").expect("the value is a number");
        if inbox.len() < end + 4 + length {
            return false;
        }
        self.at += end + 4 + length;
        match status {
            "200" => {
                assert_eq!(Some(length), self.responses.pop_front(), "responses for {} must arrive in order", self.fd)
            }
            "400" | "403" | "404" | "408" | "409" | "426" | "503" => self.is_silent = true,
            status => panic!("{} must not get a response with status {status}", self.fd),
        }
        true
    }

    /// Compares a received frame with the frame that the oracle expects.
    fn check_frame(&mut self, frame: Frame, oracle: &mut Oracle) {
        assert!(!self.has_received_close, "{} must receive no frame after the close frame, not {frame:?}", self.fd);
        let due = match &frame {
            Frame::Message { is_text, is_deflated, payload } => {
                hit(if *is_deflated { "client: deflated message received" } else { "client: message received" });
                assert!(
                    self.deflates || !is_deflated,
                    "{} must get a deflated message only if it negotiated permessage-deflate",
                    self.fd
                );
                Due::Message(oracle.check_receipt(self.fd, payload, *is_text), *is_deflated)
            }
            Frame::Ping(payload) => {
                assert!(payload.is_empty());
                Due::Ping
            }
            Frame::Pong(payload) => Due::Pong(payload.clone()),
            Frame::Close(payload) => Due::Close(payload.clone()),
        };
        let model = oracle.model(self.fd);
        let expected = model.output.in_flight.pop_front();
        assert_eq!(Some(due), expected, "each frame for {} must arrive once and in order", self.fd);
        match frame {
            Frame::Ping(payload) if self.kind != Kind::Unresponsive && !self.is_silent => {
                hit("client: answers a ping");
                self.writer(model).write_pong(payload);
            }
            Frame::Close(payload) => {
                self.has_received_close = true;
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                if !self.rng.one_in(8) {
                    self.write_close(model, code, "");
                }
            }
            _ => {}
        }
    }

    /// Checks at the end of the server's stream that all expected frames have arrived completely.
    fn handle_end(&mut self, model: &ConnectionModel) {
        let wire = self.wire.borrow();
        let is_notified = self.tls.as_mut().map(|tls| tls.is_notified());
        // If the session of the client or of the server has failed, records may be lost, and `close_notify` may be
        // missing.
        if is_notified == Some(None) || wire.has_failed {
            drop(wire);
            return self.wire.borrow_mut().end();
        }
        if let Some(Some(is_notified)) = is_notified {
            assert_eq!(
                is_notified, wire.has_notified,
                "{} must receive close_notify if and only if the server wrote it completely",
                self.fd
            );
            hit(if is_notified { "tls: client receives close_notify" } else { "tls: end without close_notify" });
        }
        drop(wire);
        let (due, missing_max) = (&model.output.in_flight, model.output.missing_max());
        let has_all = due.len() <= missing_max;
        assert!(
            has_all,
            "at most {missing_max} frames for {} may be missing, not {}; the first is {:?}",
            self.fd,
            due.len(),
            due[0]
        );
        let is_cut = self.is_websocket && !self.inbox.is_empty();
        assert!(
            !is_cut || model.output.is_abandoned,
            "the last frame for {} must be complete, because the server dropped no output",
            self.fd
        );
        self.wire.borrow_mut().end();
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Honest => "client: honest",
        Kind::Unresponsive => "client: unresponsive",
        Kind::Silent => "client: silent",
        Kind::Slow => "client: slow",
        Kind::Malicious => "client: malicious",
        Kind::HttpHeavy => "client: http heavy",
        Kind::Incomplete => "client: incomplete",
    }
}
