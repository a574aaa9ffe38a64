//! The answers to a batch, in the order of its lines, on a server with several loops.
//!
//! When a piece of the request body arrives, all lines of the piece are executed. Then the server stops reading the
//! request until all these lines are answered and the queues of their receivers are short (see
//! [`backpressure`](super::super::backpressure)).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fdpush::{Context, Fd, ResponseStream};

use super::super::backpressure::{PAUSE_TIME_MAX, find_long_queues, is_crowded};
use super::super::command::{self, PushCommand};
use super::super::parts::ApiParts;
use super::push;
use crate::gateway::runtime::clock;
use crate::gateway::runtime::gather::{Part, gather};
use crate::gateway::runtime::progress::Progress;
use crate::gateway::wire::target::Target;

/// The interval between two checks of the queues of all loops during a pause.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// The answers to one batch. All clones of this value share the same answers.
#[derive(Clone, Debug)]
pub struct Outgoing(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    /// The connection that sends the batch request.
    fd: Fd,
    /// The stream of the response body. `None` after the response has ended.
    stream: Option<ResponseStream>,
    /// The answers that are not written to the response yet, in the order of the lines. `None` for a line that has no
    /// answer yet.
    answers: VecDeque<Option<String>>,
    /// The number of answers that were written to the response so far.
    written: usize,
    /// The targets of the push commands in the current piece of the body.
    targets: Vec<Target<'static>>,
    is_ended: bool,
    /// Whether the server has stopped reading the request.
    is_paused: bool,
    /// The counter of the pushes of this batch that are being executed as calls on all loops.
    calls: Progress,
}

impl Outgoing {
    pub fn new(fd: Fd, stream: Option<ResponseStream>) -> Outgoing {
        Outgoing(Rc::new(RefCell::new(State {
            fd,
            stream,
            answers: VecDeque::new(),
            written: 0,
            targets: Vec::new(),
            is_ended: false,
            is_paused: false,
            calls: Progress::default(),
        })))
    }

    /// Executes the push command in a line of the batch. `line` is the line number of the command.
    pub fn execute(&self, ctx: &mut Context<'_>, parts: &mut ApiParts<'_>, line: u64, json: &[u8]) {
        let (number, calls) = (self.reserve(), self.0.borrow().calls.clone());
        let command = PushCommand::read(json, &command::PUSH);
        if let Ok(command) = &command {
            self.0.borrow_mut().targets.push(command.target.to_owned());
        }
        let outgoing = self.clone();
        push::execute(ctx, parts, (json, command), Some(line), &calls, move |ctx, _, answer| {
            outgoing.fill(ctx, number, answer);
        });
    }

    /// Adds the answer to a line whose command is not executed.
    pub fn add(&self, ctx: &mut Context<'_>, answer: String) {
        let number = self.reserve();
        self.fill(ctx, number, answer);
    }

    /// Handles the end of a piece of the request body. After the last piece, the response ends when all lines are
    /// answered.
    pub fn end_piece(&self, ctx: &mut Context<'_>, is_last: bool) {
        let (fd, is_waiting) = {
            let mut state = self.0.borrow_mut();
            state.is_ended |= is_last;
            (state.fd, !state.answers.is_empty())
        };
        if !is_last && ctx.pause(fd).is_done() {
            self.0.borrow_mut().is_paused = true;
        }
        if !is_waiting {
            self.handle_answered(ctx);
        }
    }

    /// Reserves a place for the answer to the next line. Returns the number of this place, counted from 0.
    fn reserve(&self) -> usize {
        let mut state = self.0.borrow_mut();
        state.answers.push_back(None);
        state.written + state.answers.len() - 1
    }

    /// Stores the answer for the place `number`. Then writes all answers before the first missing answer.
    fn fill(&self, ctx: &mut Context<'_>, number: usize, mut answer: String) {
        answer.push('\n');
        let is_answered = {
            let mut state = self.0.borrow_mut();
            let at = number - state.written;
            if let Some(place) = state.answers.get_mut(at) {
                *place = Some(answer);
            }
            let mut text = String::new();
            while let Some(Some(answer)) = state.answers.front_mut().map(Option::take) {
                text.push_str(&answer);
                state.answers.pop_front();
                state.written += 1;
            }
            if let Some(stream) = state.stream.as_ref().filter(|_| !text.is_empty()) {
                ctx.write_response(stream, text.as_bytes());
            }
            state.answers.is_empty() && (state.is_paused || state.is_ended)
        };
        if is_answered {
            self.handle_answered(ctx);
        }
    }

    /// Handles the state in which all lines so far are answered. If the request body has ended, ends the response.
    /// Otherwise, continues to read the request when the queues of the receivers are short.
    fn handle_answered(&self, ctx: &mut Context<'_>) {
        let (targets, is_ended) = {
            let mut state = self.0.borrow_mut();
            (std::mem::take(&mut state.targets), state.is_ended)
        };
        if is_ended {
            if let Some(stream) = self.0.borrow_mut().stream.take() {
                ctx.end_response(stream);
            }
            return;
        }
        let until = clock::now() + PAUSE_TIME_MAX;
        let targets: Arc<[Target<'static>]> = targets.into();
        let find = move |ctx: &mut Context<'_>, part: Part<(Vec<Fd>, bool)>| {
            let found = find_long_queues(ctx, &targets);
            part.give_at_once((found, is_crowded(ctx)));
        };
        let outgoing = self.clone();
        gather(ctx, find, move |ctx, parts| {
            let (receivers, are_crowded): (Vec<_>, Vec<_>) = parts.unwrap_or_default().into_iter().unzip();
            outgoing.wait(ctx, receivers.concat().into(), are_crowded.contains(&true), until);
        });
    }

    /// Continues to read the request when the queues of `receivers` are short, or at the time `until`. `is_crowded_now`
    /// states that the queues of a loop together are too long.
    fn wait(&self, ctx: &mut Context<'_>, receivers: Arc<[Fd]>, is_crowded_now: bool, until: Instant) {
        let has_long = !receivers.is_empty();
        if !(has_long || is_crowded_now) || clock::now() >= until {
            return self.resume(ctx);
        }
        let outgoing = self.clone();
        ctx.after(CHECK_INTERVAL, move |ctx| {
            let checked = Arc::clone(&receivers);
            let check = move |ctx: &mut Context<'_>, part: Part<(bool, bool)>| {
                let short = ctx.limits().queue_bytes_max / 4;
                let has_long = checked.iter().any(|fd| ctx.queued_bytes(*fd) > short);
                part.give_at_once((has_long, is_crowded(ctx)));
            };
            gather(ctx, check, move |ctx, parts| {
                let parts = parts.unwrap_or_default();
                let has_long = parts.iter().any(|(has_long, _)| *has_long);
                let are_crowded = parts.iter().any(|(_, is_crowded)| *is_crowded);
                let left = if has_long { receivers } else { Arc::default() };
                outgoing.wait(ctx, left, are_crowded, until);
            });
        });
    }

    fn resume(&self, ctx: &mut Context<'_>) {
        let fd = {
            let mut state = self.0.borrow_mut();
            state.is_paused = false;
            state.fd
        };
        ctx.resume(fd);
    }
}
