//! The HTTP requests and responses of a connection, up to the upgrade to WebSocket.

use std::any::Any;
use std::io::Write;

use crate::connection::http::{Awaited, Source, Step};
use crate::connection::inflation_pace::InflationPace;
use crate::connection::pending_request::{Deferred, PendingRequest, ResponseMode};
use crate::connection::{Connection, Env, Event, HTTP_OUTPUT_MAX, HeartbeatState, Opened, Refusal, Sent, Stage};
use crate::fd::Fd;
use crate::protocol::body_mode::BodyMode;
use crate::protocol::deferral::Deferral;
use crate::protocol::extension::{PermessageDeflate, WINDOW_BITS_MAX};
use crate::protocol::http::HttpError;
use crate::protocol::request::Request;
use crate::protocol::response::{CONTINUE, Length, Response};
use crate::protocol::upgrade::Accept;
use crate::tls::TlsInfo;

impl Connection {
    /// Accepts the upgrade of `request`, and returns the bytes that the client sent before the 101 response.
    ///
    /// The caller passes these bytes to [`handle_bytes`](Connection::handle_bytes), like any input. Returns `None` if
    /// the upgrade is no longer pending.
    ///
    /// # Errors
    ///
    /// Returns an error if the handler's answer in `accept` is invalid. The client then gets a response with status
    /// 500.
    pub fn accept(
        &mut self,
        fd: Fd,
        accept: &Accept,
        request: &Request<'_>,
        env: &mut Env,
    ) -> Result<Option<Vec<u8>>, String> {
        let Stage::Http(http) = &mut self.stage else { return Ok(None) };
        let unanswered = http.pending_mut().filter(|answer| answer.reply == ResponseMode::None);
        let Some(key) = unanswered.and_then(|answer| answer.accept) else { return Ok(None) };
        let mut response = Vec::with_capacity(256);
        let deflate = if env.limits.compression { accept.negotiate(request) } else { None };
        if let Err(fault) = accept.encode(&key, request, deflate, &mut response) {
            self.respond(self.refusal(500, "the handler's answer cannot be sent").close(), env);
            return Err(fault);
        }
        let output = self.output.queue(env);
        output.push_http(|out| out.extend_from_slice(&response), &mut env.queued);

        let early = http.take_early_input();
        self.stage = Stage::Open {
            unfinished: None,
            deflates: deflate.is_some(),
            window_bits: deflate.map_or(WINDOW_BITS_MAX, PermessageDeflate::server_window_bits),
            pace: InflationPace::default(),
        };
        env.counts.compression.connections += u64::from(deflate.is_some());
        self.opened = Opened::at(env.now);
        self.deadline = HeartbeatState::first_check(self.heartbeat(env), fd, env.now);
        Ok(Some(early))
    }

    /// Answers the pending request.
    ///
    /// If the pending request is an upgrade, the response refuses the upgrade and ends the connection, so that no later
    /// request is processed. If a response in pieces has begun, `response` is not sent, and the connection ends.
    pub fn respond(&mut self, response: Response, env: &mut Env) {
        let Stage::Http(http) = &mut self.stage else { return };
        let Some(answer) = http.end_pending() else { return };
        http.recount();
        if answer.reply != ResponseMode::None {
            return self.abort_response(answer.reply, env);
        }
        let keep_alive = answer.keep_alive && answer.accept.is_none() && !self.is_peer_done;
        let stays = keep_alive && !response.closes() && response.fault().is_none();
        self.deadline = http.deadline(env);
        match response.fault() {
            None => self.push_response(&response, stays, answer.head_only, env),
            Some(_) => self.push_response(&response.or_fault(self.is_control), stays, answer.head_only, env),
        }
        if !stays {
            self.linger_after_http(env);
        }
    }

    /// Reports that the TLS hello of the client was answered.
    ///
    /// The hello may have waited, because the loop answers only a limited number of hellos in each turn. The client can
    /// send its request only after the answer, so the client then has the whole `head_time_max` again.
    pub fn handle_hello_answered(&mut self, env: &Env) {
        if let Stage::Http(http) = &self.stage
            && http.awaits() == Awaited::Head
        {
            self.deadline = http.deadline(env);
        }
    }

    /// Sets the TLS version and cipher suite that later requests report.
    pub fn set_tls(&mut self, tls: TlsInfo) {
        if let Stage::Http(http) = &mut self.stage {
            http.set_tls(tls);
        }
    }

    /// Begins to receive the body of `request` in the mode that the handler chose.
    pub fn receive_body(
        &mut self,
        request: Box<Request<'static>>,
        mode: BodyMode,
        env: &mut Env,
    ) -> Option<Event<'static>> {
        let state = match mode {
            BodyMode::Refuse(response) => {
                self.respond(response, env);
                return None;
            }
            BodyMode::Collect => None,
            BodyMode::Stream(state) => Some(state),
        };
        let Stage::Http(http) = &mut self.stage else { return None };
        let taken = http.receive_body(request, state, env.limits.body_bytes_max);
        http.recount();
        match taken {
            Ok(must_tell) => {
                self.deadline = http.deadline(env);
                if must_tell {
                    let output = self.output.queue(env);
                    output.push_http(|out| out.extend_from_slice(CONTINUE), &mut env.queued);
                }
                None
            }
            Err(error) => Some(self.refuse(error, env)),
        }
    }

    /// Stores the state of [`Event::Piece`] in the connection until the next piece.
    pub fn return_state(&mut self, state: Box<dyn Any>) {
        if let Stage::Http(http) = &mut self.stage {
            http.return_state(state);
        }
    }

    /// Sets the number of the [`Ticket`](crate::Ticket) for the request that a handler is processing.
    pub fn set_ticket(&mut self, ticket: Deferral) {
        if let Stage::Http(http) = &mut self.stage
            && let Some(answer) = http.pending_mut()
            && answer.deferred.is_none()
            && answer.reply == ResponseMode::None
        {
            answer.ticket = Some(ticket);
        }
    }

    /// Returns whether the [`Ticket`](crate::Ticket) with the number `ticket` may answer the current request.
    pub fn has_ticket(&self, ticket: Deferral) -> bool {
        matches!(&self.stage, Stage::Http(http) if http.ticket() == Some(ticket))
    }

    /// Starts a response whose body follows in pieces.
    ///
    /// The body of `response` itself is not sent. Returns `false` if no request is pending, or if its response has
    /// begun. Also returns `false` if `response` is invalid: the client then gets a response with status 500.
    pub fn begin_response(&mut self, response: &Response, env: &mut Env) -> bool {
        let Stage::Http(http) = &mut self.stage else { return false };
        let Some(answer) = http.pending_mut().filter(|answer| answer.reply == ResponseMode::None) else { return false };
        if response.fault().is_some() {
            self.respond(response.clone().close(), env);
            return false;
        }
        let has_no_body = response.has_no_body();
        answer.ticket = None;
        answer.reply = match (answer.head_only || has_no_body, answer.knows_chunks) {
            (true, _) => ResponseMode::HeadOnly,
            (false, true) => ResponseMode::Chunked,
            (false, false) => ResponseMode::UntilClose,
        };
        answer.keep_alive &= answer.reply != ResponseMode::UntilClose && !response.closes() && answer.accept.is_none();
        let (length, keep_alive) = match answer.reply {
            ResponseMode::UntilClose => (Length::UntilClose, false),
            _ if has_no_body => (Length::Known(0), answer.keep_alive && !self.is_peer_done),
            _ => (Length::Chunked, answer.keep_alive && !self.is_peer_done),
        };
        answer.keep_alive = keep_alive;
        let output = self.output.queue(env);
        let date = &env.date;
        output.push_http(|out| response.encode_head(out, date, length, keep_alive), &mut env.queued);
        true
    }

    /// Queues a piece of the body of a response.
    ///
    /// Returns `NotOpen` if no response in pieces was started for the current request, and `Full` if the queue has no
    /// space for the piece.
    pub fn write_response(&mut self, piece: &[u8], env: &mut Env) -> Sent {
        let queued = self.queued_bytes();
        let Stage::Http(http) = &mut self.stage else { return Sent::NotOpen };
        let Some(&mut PendingRequest { reply, .. }) = http.pending_mut() else { return Sent::NotOpen };
        match reply {
            ResponseMode::None => return Sent::NotOpen,
            ResponseMode::HeadOnly => {}
            _ if queued > 0 && queued + piece.len() > env.limits.queue_bytes_max => return Sent::Full,
            // An empty chunk would end the body.
            ResponseMode::Chunked if piece.is_empty() => {}
            ResponseMode::Chunked => {
                let output = self.output.queue(env);
                output.push_http(|out| push_chunk(out, piece), &mut env.queued);
            }
            ResponseMode::UntilClose => {
                let output = self.output.queue(env);
                output.push_http(|out| out.extend_from_slice(piece), &mut env.queued);
            }
        }
        self.deadline = http.deadline(env);
        Sent::Queued
    }

    /// Ends the response in pieces. Returns `false` if no response in pieces was started.
    ///
    /// The connection ends, too, if no other request may follow on it, for instance because the body of the request is
    /// not complete.
    pub fn end_response(&mut self, env: &mut Env) -> bool {
        let Stage::Http(http) = &mut self.stage else { return false };
        if http.pending_mut().is_none_or(|answer| answer.reply == ResponseMode::None) {
            return false;
        }
        let Some(answer) = http.end_pending() else { return false };
        http.recount();
        self.deadline = http.deadline(env);
        if answer.reply == ResponseMode::Chunked {
            let output = self.output.queue(env);
            output.push_http(|out| out.extend_from_slice(b"0\r\n\r\n"), &mut env.queued);
        }
        if !answer.keep_alive || self.is_peer_done {
            self.linger_after_http(env);
        }
        true
    }

    /// Ends a connection whose response in pieces has begun and is not complete.
    ///
    /// The client sees that the response is incomplete.
    fn abort_response(&mut self, reply: ResponseMode, env: &Env) {
        match reply {
            ResponseMode::UntilClose => self.stage = Stage::Finished { is_cut: true },
            _ => self.linger_after_http(env),
        }
    }

    /// Ends an HTTP connection because the server is shutting down.
    ///
    /// If a handler is processing a request, the response to this request is still sent. Any other request of which
    /// bytes were received gets a response with status 503. If a response in pieces to such a request has begun
    /// already, no 503 is sent, and this response ends incomplete. If no byte of a request was received, the connection
    /// is dropped when its output is written.
    pub fn drain(&mut self, env: &mut Env) -> Option<Event<'static>> {
        let Stage::Http(http) = &mut self.stage else { return None };
        if let Some(answer) = http.handled_request_mut() {
            // The handler of the request is still running. This handler may be the one that started the shutdown. The
            // response to this request is the last response on the connection.
            answer.keep_alive = false;
            return None;
        }
        let response = Response::refusal(self.is_control, 503, "server is shutting down").close();
        if http.pending_mut().is_some() {
            self.respond(response, env);
        } else if http.reply() != ResponseMode::None {
            let reply = http.reply();
            self.abort_response(reply, env);
        } else if http.has_begun() {
            let head_only = http.is_head();
            self.push_response(&response, false, head_only, env);
            self.linger();
        } else {
            match self.output.is_empty() {
                true => self.finish(),
                false => self.stage = Stage::Lingering { is_shut: false },
            }
            self.deadline = env.now.after(env.limits.close_wait_max);
            return None;
        }
        Some(Event::Refused(Refusal::Drained))
    }

    /// Defers the answer to a request.
    pub fn defer(&mut self, deferred: Deferred) {
        if let Stage::Http(http) = &mut self.stage
            && let Some(answer) = http.pending_mut()
        {
            answer.deferred = Some(deferred);
            http.recount();
        }
    }

    /// Removes and returns the deferred request, so that the caller can answer it.
    pub fn take_deferred(&mut self) -> Option<Deferred> {
        let Stage::Http(http) = &mut self.stage else { return None };
        let deferred = http.pending_mut()?.deferred.take();
        http.recount();
        deferred
    }

    /// Returns whether the connection has buffered input that the caller must process before it reads the socket again.
    pub fn has_buffered_input(&self, env: &Env) -> bool {
        match &self.stage {
            Stage::Http(http) => http.has_buffered_input(),
            _ => !self.is_paused && self.held_until().is_some_and(|until| until <= env.now),
        }
    }

    pub(super) fn handle_http<'a>(&mut self, input: &mut &'a mut [u8], env: &mut Env) -> Option<Event<'a>> {
        let is_held = self.is_paused || self.queued_bytes() > HTTP_OUTPUT_MAX;
        let Stage::Http(http) = &mut self.stage else { return None };
        if input.is_empty() && !http.has_buffered_input() {
            return None;
        }
        if is_held {
            let kept = http.buffer(input);
            *input = &mut [];
            http.recount();
            return kept.err().map(|error| self.refuse(error, env));
        }
        let awaited = http.awaits();
        let from = Source { peer: self.peer, is_control: self.is_control, env };
        let mut step = http.step(input, from);
        if let Ok(Step::Proxied(client)) = step {
            // From now on, `peer` is the client address in the PROXY header.
            self.peer = client.unwrap_or(self.peer);
            step = http.step(input, Source { peer: self.peer, ..from });
        }
        http.recount();
        if http.awaits() != awaited {
            self.deadline = http.deadline(env);
        }
        match step {
            Ok(Step::More | Step::Proxied(_)) => None,
            Ok(Step::Head(request)) => Some(Event::Head(request)),
            Ok(Step::Piece { bytes, is_last, state }) => {
                self.deadline = http.deadline(env);
                Some(Event::Piece { bytes, is_last, state })
            }
            Ok(Step::Request { request, wanted_upgrade }) => Some(Event::Request { request, wanted_upgrade }),
            Ok(Step::Upgrade(_)) if self.is_control => {
                self.respond(self.refusal(404, "no WebSocket is served here"), env);
                None
            }
            Ok(Step::Upgrade(request)) => match env.origins.allows(&request) {
                Ok(()) => Some(Event::Upgrade(request)),
                Err(error) => {
                    self.respond(error.response(), env);
                    Some(Event::Refused(Refusal::Origin(error)))
                }
            },
            Err(error) => Some(self.refuse(error, env)),
        }
    }

    /// Handles a passed deadline of a connection that speaks HTTP.
    pub(super) fn handle_http_tick(&mut self, env: &mut Env) -> Option<Event<'static>> {
        let Stage::Http(http) = &mut self.stage else { return None };
        match http.awaits() {
            // The client is still reading a response, so the client gets a new deadline for its next request.
            Awaited::Request if !self.output.is_empty() => self.deadline = http.deadline(env),
            Awaited::Request => self.finish(),
            // The handler has paused reading of the body, so the client gets a new deadline.
            Awaited::Piece if self.is_paused => self.deadline = http.deadline(env),
            Awaited::Response => {
                let response = self.refusal(503, "the request was not answered in time");
                self.respond(response.header("Retry-After", "1").close(), env);
                return Some(Event::Refused(Refusal::Unanswered));
            }
            Awaited::Head | Awaited::Body | Awaited::Piece => return Some(self.refuse(HttpError::Timeout, env)),
        }
        None
    }

    /// Refuses the request because the unfinished input of all connections exceeds `inbound_total_bytes_max`.
    pub(super) fn refuse_overload(&mut self, env: &mut Env) -> Event<'static> {
        let Stage::Http(http) = &mut self.stage else { return Event::Refused(Refusal::Http(HttpError::Overload)) };
        if http.pending_mut().is_some_and(|answer| answer.reply == ResponseMode::None) {
            self.respond(HttpError::Overload.response(self.is_control), env);
            return Event::Refused(Refusal::Http(HttpError::Overload));
        }
        self.refuse(HttpError::Overload, env)
    }

    fn refusal(&self, status: u16, why: &'static str) -> Response {
        Response::refusal(self.is_control, status, why)
    }

    fn refuse(&mut self, error: HttpError, env: &mut Env) -> Event<'static> {
        let (head_only, reply) = match &self.stage {
            Stage::Http(http) => (http.is_head(), http.reply()),
            _ => (false, ResponseMode::None),
        };
        if reply != ResponseMode::None {
            self.abort_response(reply, env);
            return Event::Refused(Refusal::Http(error));
        }
        let is_tls = matches!(&self.stage, Stage::Http(http) if error == HttpError::NotHttp && http.has_tls_hello());
        self.push_response(&error.response(self.is_control), false, head_only, env);
        self.linger_after_http(env);
        Event::Refused(if is_tls { Refusal::TlsHello } else { Refusal::Http(error) })
    }

    /// Begins to flush the output, with a deadline. After the flush, the connection waits until the client ends its
    /// stream.
    ///
    /// The deadline is `write_time_max` plus `close_wait_max` from now, so that the client has time to read a large
    /// response.
    fn linger_after_http(&mut self, env: &Env) {
        self.stage = Stage::Lingering { is_shut: false };
        self.deadline = env.now.after(env.limits.write_time_max).after(env.limits.close_wait_max);
    }

    fn push_response(&mut self, response: &Response, keep_alive: bool, head_only: bool, env: &mut Env) {
        let output = self.output.queue(env);
        let date = &env.date;
        output.push_http(|out| response.encode(out, date, keep_alive, head_only), &mut env.queued);
    }
}

fn push_chunk(out: &mut Vec<u8>, piece: &[u8]) {
    // This write cannot fail, because `out` is a vector.
    let _ = write!(out, "{:x}\r\n", piece.len());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}
