//! The command that closes connections.
//!
//! A command usually closes all its connections in one turn of the loop, so a push or a list includes either all of
//! these connections or none. Only a command with more than [`WORK_MAX`] connections and memberships takes several
//! turns.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::vec;

use fdpush::{AbortOutcome, CloseCode, Context, Fd, Response, Ticket};
use serde::Serialize;

use super::command::{self, Command};
use super::error::ApiError;
use super::response::{json_response, uncached};
use super::verbs;

/// The maximum length of a close reason (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// The maximum number of connections and their memberships that one turn of the loop removes.
///
/// Ten thousand connections in two groups each reach this maximum. Their removal takes less than 10 ms.
const WORK_MAX: usize = 30_000;

/// The maximum number of close commands in progress. Each command keeps a list of its connections.
const WAITING_MAX: usize = 16;

/// The close commands in progress, the oldest first.
#[derive(Debug, Default)]
pub struct Closes {
    waiting: VecDeque<(Ticket<Response>, Close)>,
}

/// A close command.
#[derive(Debug)]
struct Close {
    code: CloseCode,
    reason: String,
    is_abort: bool,
    /// The connections that are still to be closed.
    left: vec::IntoIter<Fd>,
    /// The number of connections that the command has closed so far.
    matched: usize,
}

impl Closes {
    /// Executes a close command.
    ///
    /// The command closes the connections that match now. If the closes take several turns, the answer follows the last
    /// close.
    pub fn execute(&mut self, ctx: &mut Context<'_>, fd: Fd, body: &[u8]) -> Result<Response, ApiError> {
        let mut close = Close::read(ctx, body)?;
        if self.waiting.len() >= WAITING_MAX && close.work(ctx) > WORK_MAX {
            return Err(ApiError::busy(format!("limit of close commands in progress reached ({WAITING_MAX})")));
        }
        close.close_portion(ctx);
        if close.left.len() == 0 {
            return close.response();
        }
        let (response, ticket) = ctx.defer_response(fd);
        self.waiting.push_back((ticket, close));
        ctx.request_turn_end();
        Ok(response)
    }

    /// Returns whether any close command is still in progress.
    pub fn is_active(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Closes more connections of the oldest command, or answers it after the last close.
    ///
    /// The answer comes one turn after the last close. By then `on_close` has been called for all connections of the
    /// command.
    pub fn handle_turn_end(&mut self, ctx: &mut Context<'_>) {
        match self.waiting.front_mut() {
            Some((_, close)) if close.left.len() > 0 => close.close_portion(ctx),
            _ => self.answer_first(ctx),
        }
        if self.is_active() {
            ctx.request_turn_end();
        }
    }

    fn answer_first(&mut self, ctx: &mut Context<'_>) {
        let Some((ticket, close)) = self.waiting.pop_front() else { return };
        let response = close.response().unwrap_or_else(|error| error.response(None));
        ctx.answer(ticket, uncached(response));
    }
}

impl Close {
    fn read(ctx: &Context<'_>, body: &[u8]) -> Result<Close, ApiError> {
        let mut command = Command::read(body, &command::CLOSE)?;
        let target = command.take_target(true)?;
        let code = CloseCode::from(command.code.take().unwrap_or(1000));
        let reason = command.reason.take().map_or(Cow::Borrowed(""), |reason| reason.0);
        let is_abort = command.abort.take().unwrap_or(false);
        if !code.is_sendable() {
            let what = format!("code {} must be 1000 to 1003, 1007 to 1014 or 3000 to 4999", code.as_u16());
            return Err(ApiError::bad_request(what));
        }
        if reason.len() > REASON_BYTES_MAX {
            let what = format!("reason limit exceeded ({} of {REASON_BYTES_MAX} bytes)", reason.len());
            return Err(ApiError::bad_request(what));
        }
        let left = verbs::connections(ctx, &target).into_iter();
        Ok(Close { code, reason: reason.into_owned(), is_abort, left, matched: 0 })
    }

    /// Returns the number of remaining connections plus the number of their memberships.
    fn work(&self, ctx: &Context<'_>) -> usize {
        self.left.as_slice().iter().map(|fd| work_of(ctx, *fd)).sum()
    }

    /// Closes connections until [`WORK_MAX`] is reached.
    fn close_portion(&mut self, ctx: &mut Context<'_>) {
        let mut work = 0;
        let mut portion = Vec::new();
        while work < WORK_MAX
            && let Some(fd) = self.left.next()
        {
            work += work_of(ctx, fd);
            portion.push(fd);
        }
        self.matched += match self.is_abort {
            true => portion.into_iter().filter(|fd| ctx.abort(*fd) != AbortOutcome::Gone).count(),
            false => ctx.close_fds(portion, self.code, &self.reason),
        };
    }

    fn response(&self) -> Result<Response, ApiError> {
        #[derive(Serialize)]
        struct Answer {
            matched: usize,
        }
        Ok(json_response(verbs::json(&Answer { matched: self.matched })?))
    }
}

fn work_of(ctx: &Context<'_>, fd: Fd) -> usize {
    1 + ctx.groups_of(fd).len()
}
