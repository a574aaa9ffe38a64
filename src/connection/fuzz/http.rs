//! The HTTP handler of the fuzz target `connection`.

use crate::connection::fuzz::draw::size;
use crate::connection::fuzz::reader::Due;
use crate::connection::fuzz::{Phase, Rig};
use crate::connection::{Connection, Deferred, Sent};
use crate::protocol::body_mode::BodyMode;
use crate::protocol::request::Request;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;

impl Rig {
    pub(super) fn receive_body(&mut self, at: usize, request: Box<Request<'static>>, manner: u8) {
        let mode = match manner % 4 {
            0 | 1 => BodyMode::Collect,
            2 => BodyMode::stream(()),
            _ => return self.respond(at, manner),
        };
        let event = self.change(at, |connection, env| connection.receive_body(request, mode, env));
        self.handle_end(at, event);
    }

    /// Sends a whole response. If a response in pieces has begun, the connection aborts it.
    pub(super) fn respond(&mut self, at: usize, manner: u8) {
        let (status, body): (u16, &'static [u8]) = match manner % 4 {
            0 => (200, b"fine"),
            1 => (204, b""),
            2 => (404, b""),
            _ => (500, &[b'x'; 5000]),
        };
        let mut response = Response::new(status).body(body);
        if manner & 4 != 0 {
            response = response.close();
        }
        let before = self.connection(at).queued_bytes();
        let after = self.change(at, |connection, env| {
            connection.respond(response, env);
            connection.queued_bytes()
        });
        let side = &mut self.sides[at];
        if after > before {
            side.reader.due.push_back(Due::Response { status, body: if side.asked.0 { b"" } else { body } });
        }
        self.replay();
    }

    /// Starts a response in pieces, writes a piece, or ends the response.
    pub(super) fn stream(&mut self, at: usize, argument: u8) {
        match argument % 4 {
            0 => {}
            1 => {
                if self.change(at, |connection, env| connection.begin_response(&Response::new(200), env)) {
                    let side = &mut self.sides[at];
                    side.reader.begin_stream(side.asked);
                }
            }
            2 => {
                let piece = vec![b's'; size(argument)];
                if self.change(at, |connection, env| connection.write_response(&piece, env)) == Sent::Queued {
                    self.sides[at].reader.write_stream(&piece);
                }
            }
            _ => {
                if self.change(at, Connection::end_response) {
                    self.sides[at].reader.end_stream();
                }
            }
        }
        self.replay();
    }

    /// Answers the deferred request, if there is one.
    pub(super) fn answer(&mut self, at: usize, manner: u8) {
        if manner & 128 != 0 {
            return self.stream(at, manner);
        }
        let deferred = self.change(at, |connection, _| connection.take_deferred());
        // While the queues together exceed their bound, the table writes and evicts after each change of a connection.
        // The models must receive these changes before the answer.
        self.replay();
        match deferred {
            Some(Deferred::Upgrade(request)) => self.answer_upgrade(at, &request, manner),
            Some(Deferred::Plain) => self.respond(at, manner),
            None => {}
        }
    }

    pub(super) fn answer_upgrade(&mut self, at: usize, request: &Request<'_>, manner: u8) {
        if manner % 8 == 6 {
            return self.respond(at, manner);
        }
        let mut accept = Upgrade::accept().header("X-Manner", [b'a' + manner % 26]);
        if manner % 8 == 5 {
            accept = accept.subprotocol("not-offered");
        }
        let fd = self.sides[at].fd;
        let accepted = self.change(at, |connection, env| connection.accept(fd, &accept, request, env));
        let side = &mut self.sides[at];
        match accepted {
            Ok(early) => {
                let is_answered = side.reader.is_streaming_last();
                assert!(
                    early.is_some() != is_answered,
                    "an upgrade must be accepted if and only if it was not answered before"
                );
                let Some(early) = early else { return };
                side.phase = Phase::Open;
                side.reader.due.push_back(Due::Opening);
                self.feed(at, early);
            }
            Err(_) => {
                let body = b"the handler's answer cannot be sent\n";
                side.reader.due.push_back(Due::Response { status: 500, body });
            }
        }
    }
}
