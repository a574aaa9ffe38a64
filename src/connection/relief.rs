//! What a connection gives up when memory that all share runs out, or its own queue.

use crate::connection::{By, Cause, Closed, Connection, Env, Event, Stage};
use crate::protocol::close::CloseCode;

impl Connection {
    /// Memory of what the client has not finished: a message, a head or a body.
    #[inline]
    pub fn inbound_bytes(&self) -> usize {
        match &self.stage {
            Stage::Open(Some(unfinished)) | Stage::Closing(Some(unfinished)) => unfinished.held_bytes(),
            Stage::Http(http) => http.held_bytes(),
            _ => 0,
        }
    }

    /// Ends a connection whose reader is too slow: what it has not begun to read is dropped, so that the close frame
    /// is next. One that was ending already has no more time.
    pub fn close_slow(&mut self, env: &mut Env) -> Option<Event<'static>> {
        if !self.is_open() {
            return self.abort(env);
        }
        match self.output.as_queue() {
            Some(queue) => queue.truncate_to_frame(&mut env.queued),
            None => self.output.clear(env),
        }
        if env.is_over_total(0) {
            // Not even the frame that it is in the middle of can be kept for it, so there is no place for a close frame.
            self.release(env);
            return Some(self.die(By::Server, Cause::SlowConsumer));
        }
        self.close(CloseCode::TRY_AGAIN_LATER, "reading too slowly", Cause::SlowConsumer, env)
    }

    /// Ends a connection whose unfinished message, head or body is among the largest while all are over their bound. Its
    /// memory is free at once.
    pub fn close_overload(&mut self, env: &mut Env) -> Option<Event<'static>> {
        match self.stage {
            Stage::Open(_) => Some(self.fail_overload("too many unfinished messages", env)),
            Stage::Http(_) => Some(self.refuse_overload(env)),
            Stage::Closing(_) | Stage::Lingering | Stage::Finished => {
                self.stage = Stage::Finished;
                None
            }
        }
    }

    /// Ends an open connection for want of memory. As the message is given up, nothing more is read from it.
    pub(super) fn fail_overload(&mut self, reason: &str, env: &mut Env) -> Event<'static> {
        self.push_close(CloseCode::TRY_AGAIN_LATER, reason, env);
        self.linger();
        Event::Closed(Closed::by_server(CloseCode::TRY_AGAIN_LATER, reason, Cause::InboundOverload))
    }
}
