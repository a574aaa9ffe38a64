//! The HTTP side of a connection: requests out, answers in, and the step from one to the other kind of life.

use crate::connection::http::Step;
use crate::connection::{Connection, Env, Event, HTTP_OUTPUT_MAX, Opened, Pulse, Stage};
use crate::fd::Fd;
use crate::protocol::http::HttpError;
use crate::protocol::request::Request;
use crate::protocol::response::{CONTINUE, Response};
use crate::protocol::upgrade::Accept;

impl Connection {
    /// Opens the WebSocket that `request` asked for. What the client sent ahead is returned: it is to be handed to
    /// [`handle_bytes`](Connection::handle_bytes). `None`: there is nothing to open any more.
    ///
    /// # Errors
    /// What the handler did wrong, in words; the client then has a 500.
    pub fn accept(
        &mut self,
        fd: Fd,
        accept: &Accept,
        request: &Request,
        env: &mut Env,
    ) -> Result<Option<Vec<u8>>, String> {
        let Stage::Http(http) = &mut self.stage else { return Ok(None) };
        let Some(key) = http.answer_mut().and_then(|answer| answer.accept) else { return Ok(None) };
        let mut response = Vec::with_capacity(256);
        if let Err(fault) = accept.encode(&key, request, &mut response) {
            self.respond(Response::text(500, "the handler's answer cannot be sent\n").close(), env);
            return Err(fault);
        }
        let output = self.output.queue(env);
        output.push_raw(|out| out.extend_from_slice(&response), &mut env.queued);
        output.seal();

        let http = std::mem::take(&mut **http);
        self.stage = Stage::Open(None);
        self.opened = Opened::at(env.now);
        self.deadline = Pulse::first_check(self.heartbeat(env), fd, env.now);
        Ok(Some(http.into_early()))
    }

    /// Answers the request that waits: plain HTTP, or an upgrade that is refused, which ends the connection, so that
    /// nothing sent behind it runs.
    pub fn respond(&mut self, response: Response, env: &mut Env) {
        let Stage::Http(http) = &mut self.stage else { return };
        let Some(answer) = http.end_answer() else { return };
        let keep_alive = answer.keep_alive && answer.accept.is_none() && !self.is_peer_done;
        let stays = keep_alive && !response.closes() && response.fault().is_none();
        self.deadline = http.deadline(env);
        self.push_response(&response, stays, answer.head_only, env);
        if !stays {
            self.linger_after_http(env);
        }
    }

    /// Lets an upgrade wait for an answer from elsewhere.
    pub fn defer(&mut self, request: Box<Request>) {
        if let Stage::Http(http) = &mut self.stage
            && let Some(answer) = http.answer_mut()
        {
            answer.request = Some(request);
        }
    }

    /// The request of the upgrade that waits, to be answered now.
    pub fn take_deferred(&mut self) -> Option<Box<Request>> {
        let Stage::Http(http) = &mut self.stage else { return None };
        http.answer_mut()?.request.take()
    }

    pub(super) fn handle_http<'a>(&mut self, input: &mut &'a mut [u8], env: &mut Env) -> Option<Event<'a>> {
        let is_full = self.queued_bytes() > HTTP_OUTPUT_MAX;
        let Stage::Http(http) = &mut self.stage else { return None };
        http.keep(input);
        *input = &mut [];
        if is_full {
            return None;
        }
        loop {
            let phase = http.phase_name();
            let step = http.step(self.peer, env);
            if http.phase_name() != phase {
                self.deadline = http.deadline(env);
            }
            match step {
                Ok(Step::More) => return None,
                Ok(Step::Continue) => {
                    let output = self.output.queue(env);
                    output.push_raw(|out| out.extend_from_slice(CONTINUE), &mut env.queued);
                }
                Ok(Step::Request { request, wanted_upgrade }) => {
                    return Some(Event::Request { request, wanted_upgrade });
                }
                Ok(Step::Upgrade(request)) => match env.origins.allows(&request) {
                    Ok(()) => return Some(Event::Upgrade(request)),
                    Err(error) => {
                        self.respond(error.response(), env);
                        return None;
                    }
                },
                Err(error) => {
                    self.refuse(error, env);
                    return None;
                }
            }
        }
    }

    pub(super) fn refuse(&mut self, error: HttpError, env: &mut Env) {
        let head_only = matches!(&self.stage, Stage::Http(http) if http.is_head());
        self.push_response(&error.response(), false, head_only, env);
        self.linger_after_http(env);
    }

    /// As `linger`, with as much time for a slow client to fetch a large response as a stalled write would have.
    fn linger_after_http(&mut self, env: &Env) {
        self.stage = Stage::Lingering;
        self.deadline = env.now.after(env.limits.write_time_max).after(env.limits.close_wait_max);
    }

    fn push_response(&mut self, response: &Response, keep_alive: bool, head_only: bool, env: &mut Env) {
        let output = self.output.queue(env);
        let date = &env.date;
        output.push_raw(|out| response.encode(out, date, keep_alive, head_only), &mut env.queued);
    }
}
