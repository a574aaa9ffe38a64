//! The command of `POST /api/close`, which closes connections.

use std::borrow::Cow;
use std::vec;

use fdpush::{AbortOutcome, CloseCode, Context, Fd, Response};
use serde::Serialize;

use super::command::{self, Command};
use super::error::ApiError;
use super::long_commands::{LongCommand, Outcome};
use super::response::json_response;
use super::verbs;
use crate::gateway::presence::roster::Roster;
use crate::gateway::runtime::portion::{connection_work, take_portion};

/// A close command. The command closes the connections that matched its target when the command was parsed.
#[derive(Debug)]
pub struct Close {
    code: CloseCode,
    reason: String,
    /// Whether the connections are closed without a close frame.
    is_abort: bool,
    /// The connections that the close command has not closed yet.
    left: vec::IntoIter<Fd>,
    /// The number of connections that the close command has closed so far.
    matched: usize,
}

impl Close {
    /// Parses a close command, and finds the connections that match its target.
    ///
    /// # Errors
    /// Returns an error if the close command is invalid.
    pub fn read(ctx: &Context<'_>, body: &[u8]) -> Result<Close, ApiError> {
        let mut command = Command::read(body, &command::CLOSE)?;
        let target = command.take_target(true)?;
        let code = CloseCode::from(command.code.take().unwrap_or(1000));
        let reason = command.reason.take().map_or(Cow::Borrowed(""), |reason| reason.0);
        let is_abort = command.abort.take().unwrap_or(false);
        if !code.is_sendable() {
            let what = format!("code {} must be 1000 to 1003, 1007 to 1014 or 3000 to 4999", code.as_u16());
            return Err(ApiError::bad_request(what));
        }
        if reason.len() > CloseCode::REASON_BYTES_MAX {
            let what = format!("reason limit exceeded ({} of {} bytes)", reason.len(), CloseCode::REASON_BYTES_MAX);
            return Err(ApiError::bad_request(what));
        }
        let left = verbs::connections(ctx, &target).into_iter();
        Ok(Close { code, reason: reason.into_owned(), is_abort, left, matched: 0 })
    }

    /// Returns the response to a close command that has closed `matched` connections.
    pub fn answer(matched: usize) -> Result<Response, ApiError> {
        #[derive(Serialize)]
        struct Answer {
            matched: usize,
        }
        Ok(json_response(verbs::json(&Answer { matched })?))
    }
}

impl LongCommand for Close {
    fn work(&self, ctx: &Context<'_>) -> usize {
        self.left.as_slice().iter().map(|fd| connection_work(ctx, *fd)).sum()
    }

    fn carry_out_portion(&mut self, ctx: &mut Context<'_>, _: &mut Roster) {
        let portion = take_portion(&mut self.left, |fd| connection_work(ctx, *fd));
        self.matched += match self.is_abort {
            true => portion.into_iter().filter(|fd| ctx.abort(*fd) != AbortOutcome::Gone).count(),
            false => ctx.close_fds(portion, self.code, &self.reason),
        };
    }

    fn is_done(&self) -> bool {
        self.left.len() == 0
    }

    fn take_outcome(&mut self) -> Outcome {
        Outcome { matched: self.matched, changed: self.matched, removed: Vec::new() }
    }

    fn response(&self) -> Result<Response, ApiError> {
        Close::answer(self.matched)
    }
}
