//! Calls the handler for requests, and sends the handler's answers, immediately or when a deferred answer is ready.

use std::any::Any;
use std::fmt;

use crate::connection::{Connection, Deferred};
use crate::event_loop::EventLoop;
use crate::event_loop::handler::Handler;
use crate::fd::Fd;
use crate::protocol::body_mode::{BodyEvent, BodyMode};
use crate::protocol::deferral::Deferral;
use crate::protocol::http::HttpError;
use crate::protocol::request::Request;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;
use crate::registry::Change;

impl<H: Handler> EventLoop<H> {
    /// Calls `on_head` for a request with a body, and applies the returned [`BodyMode`].
    pub(super) fn answer_head(&mut self, fd: Fd, request: Box<Request<'static>>) {
        let mut mode = None;
        self.call("on_head", Some(fd), |handler, ctx| mode = Some(handler.on_head(ctx, fd, &request)));
        let mode = mode.unwrap_or_else(|| BodyMode::Refuse(self.internal_error(fd)));
        if let Some(slot) = self.core.table().slot_of(fd) {
            self.core.step(slot, |connection, env| connection.receive_body(request, mode, env));
        }
    }

    /// Passes a piece of a body to the handler.
    pub(super) fn deliver_body(&mut self, fd: Fd, bytes: &[u8], is_last: bool, mut state: Box<dyn Any>) {
        let mut is_done = false;
        self.call("on_body", Some(fd), |handler, ctx| {
            if !bytes.is_empty() {
                handler.on_body(ctx, fd, &mut *state, BodyEvent::Data(bytes));
            }
            if is_last {
                handler.on_body(ctx, fd, &mut *state, BodyEvent::End);
            }
            is_done = true;
        });
        if !is_done {
            return self.refuse(fd, self.internal_error(fd), "handler panicked");
        }
        if let Some(slot) = self.core.table().slot_of(fd).filter(|_| !is_last) {
            self.core.change(slot, |connection, _| connection.return_state(state));
        }
    }

    pub(super) fn answer_request(&mut self, fd: Fd, request: &Request<'_>, wanted_upgrade: bool) {
        let mut answered = None;
        let pushed = self.core.table().env().counts.traffic.messages_out;
        self.call("on_request", Some(fd), |handler, ctx| answered = Some(handler.on_request(ctx, fd, request)));
        let is_safe = matches!(request.method(), "GET" | "HEAD");
        let confirms_pushes = !is_safe || self.core.table().env().counts.traffic.messages_out != pushed;
        match answered {
            Some(Some(response)) if let Some(deferral) = response.deferral() => {
                self.defer(fd, Deferred::Plain, deferral);
            }
            Some(Some(response)) if confirms_pushes => self.respond(fd, response),
            Some(Some(response)) => self.respond_at_once(fd, response),
            Some(None) if wanted_upgrade => {
                self.refuse(fd, HttpError::UpgradeRequired.response(self.is_control(fd)), HttpError::UpgradeRequired);
            }
            Some(None) => self.refuse(fd, self.refusal(fd, 404, "not found"), "not found"),
            None => self.refuse(fd, self.internal_error(fd), "handler panicked"),
        }
    }

    fn defer(&mut self, fd: Fd, deferred: Deferred, ticket: Deferral) {
        if let Some(slot) = self.core.table().slot_of(fd) {
            self.core.change(slot, |connection, _| {
                connection.set_ticket(ticket);
                connection.defer(deferred);
            });
        }
    }

    /// Sends the answer to the request of `ticket`. The answer is dropped if the connection no longer waits for it.
    pub(super) fn answer_deferred(&mut self, fd: Fd, ticket: Deferral, answer: Upgrade) {
        let Some(slot) = self.core.table().slot_of(fd).filter(|_| self.core.has_ticket(fd, ticket)) else { return };
        let deferred = self.core.change(slot, |connection, _| connection.take_deferred()).flatten();
        match (deferred, answer) {
            (Some(Deferred::Upgrade(request)), answer) => self.finish_upgrade(fd, answer, request),
            (Some(Deferred::Plain) | None, Upgrade::Refuse(response)) => match response.deferral() {
                Some(deferral) => self.defer(fd, Deferred::Plain, deferral),
                None => {
                    self.respond(fd, response);
                    // The next request may be in the buffer already, and epoll does not report buffered bytes.
                    self.core.make_ready(slot);
                }
            },
            // A plain request can only be answered with a response, so any other answer is ignored.
            (Some(Deferred::Plain) | None, Upgrade::Accept(_) | Upgrade::Later(_)) => {}
        }
    }

    /// Counts a refused request, and sends the response.
    fn refuse(&mut self, fd: Fd, response: Response, reason: impl fmt::Display) {
        if self.core.table().slot_of(fd).is_some() {
            let status = if response.fault().is_some() { 500 } else { response.status() };
            self.core.refuse(fd, status, reason);
            self.respond(fd, response);
        }
    }

    /// Sends a response immediately, even if a push to many connections is still being written.
    ///
    /// The caller must not use this method for a response that reports the result of a push, because the messages of a
    /// push must arrive before that response. For instance, this method sends the response to a health check.
    fn respond_at_once(&mut self, fd: Fd, response: Response) {
        let Some(slot) = self.core.table().slot_of(fd) else { return };
        let is_alone = self.core.table().connection(slot).is_some_and(|connection| connection.queued_bytes() == 0);
        self.respond(fd, response);
        if is_alone && self.core.table().is_flushing() {
            self.core.table_mut().write_at_once(slot);
        }
    }

    fn respond(&mut self, fd: Fd, response: Response) {
        let Some(slot) = self.core.table().slot_of(fd) else { return };
        if let Some(fault) = response.fault() {
            log::error!("fd {fd}: invalid response replaced by status 500: {fault}");
        }
        self.core.respond(slot, response);
    }

    pub(super) fn answer_upgrade(&mut self, fd: Fd, request: Box<Request<'static>>) {
        let mut upgrade = None;
        self.call("on_upgrade", Some(fd), |handler, ctx| upgrade = Some(handler.on_upgrade(ctx, fd, &request)));
        match upgrade {
            Some(upgrade) => self.finish_upgrade(fd, upgrade, request),
            None => self.refuse(fd, self.internal_error(fd), "handler panicked"),
        }
    }

    /// Applies the handler's answer to an upgrade.
    fn finish_upgrade(&mut self, fd: Fd, upgrade: Upgrade, request: Box<Request<'static>>) {
        let Some(slot) = self.core.table().slot_of(fd) else { return };
        let accept = match upgrade {
            Upgrade::Refuse(response) => {
                let reason = response.log_text().map_or_else(String::new, |text| format!(": {text:?}"));
                return self.refuse(fd, response, format_args!("by the handler{reason}"));
            }
            Upgrade::Later(deferral) => return self.defer(fd, Deferred::Upgrade(request), deferral),
            Upgrade::Accept(accept) => accept,
        };
        if let Some(uid) = accept.chosen_uid() {
            match self.core.reserve(slot, uid) {
                Change::Taken => {
                    return self.refuse(fd, Response::text(409, "uid connected already\n"), "uid connected already");
                }
                Change::Full => {
                    let reason = "connection limit of the uid reached";
                    return self.refuse(fd, Response::text(429, format!("{reason}\n")), reason);
                }
                // The client may have chosen the invalid uid, so the status is 400.
                Change::BadName => {
                    return self.refuse(fd, Response::text(400, format!("{}\n", Change::BadName)), "invalid uid");
                }
                _ => {}
            }
        }
        let accepted = self.core.accept(slot, &accept, &request);
        if let (Some(uid), Ok(None) | Err(_)) = (accept.chosen_uid(), &accepted) {
            self.core.release_reserved(slot, uid);
        }
        match accepted {
            Ok(None) => {}
            Ok(Some(mut early)) => {
                if let Some(uid) = accept.chosen_uid() {
                    self.core.bind_reserved(slot, uid);
                }
                self.call("on_open", Some(fd), |handler, ctx| handler.on_open(ctx, fd, &request));
                self.call_on_close();
                let is_http = self.core.connection(fd).is_some_and(Connection::is_http);
                self.feed(slot, is_http, &mut early);
                self.core.make_ready(slot);
            }
            Err(fault) => {
                log::error!("fd {fd}: invalid upgrade answer replaced by status 500: {fault}");
                self.core.refuse(fd, 500, fault);
            }
        }
        self.core.arm(slot);
    }

    fn internal_error(&self, fd: Fd) -> Response {
        self.refusal(fd, 500, "internal error").close()
    }

    fn refusal(&self, fd: Fd, status: u16, reason: &'static str) -> Response {
        Response::refusal(self.is_control(fd), status, reason)
    }

    fn is_control(&self, fd: Fd) -> bool {
        self.core.connection(fd).is_some_and(Connection::is_control)
    }
}
