//! The answers to a batch, in the order of its lines.
//!
//! The lines of a piece are executed at once. While an answer is missing, the request is paused, and so no further piece is
//! read. When all answers are there, the request stays paused while the queues of receivers are long: see
//! [`backpressure`](super::super::backpressure).

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

/// The answers to a batch. The clones share them.
#[derive(Clone, Debug)]
pub struct Outgoing(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    /// The connection of the batch.
    fd: Fd,
    /// The response. `None` after its end.
    stream: Option<ResponseStream>,
    /// The answers that are not written yet. A missing answer is `None`.
    answers: VecDeque<Option<String>>,
    /// The number of answers that were written.
    written: usize,
    /// The targets of the piece.
    targets: Vec<Target<'static>>,
    is_ended: bool,
    /// Whether the request is paused.
    is_paused: bool,
    /// The calls of this batch in progress.
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

    /// Executes a line.
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

    /// Adds the answer to a line that is not executed.
    pub fn add(&self, ctx: &mut Context<'_>, answer: String) {
        let number = self.reserve();
        self.fill(ctx, number, answer);
    }

    /// Ends a piece of the body, and with the last piece the response.
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

    /// Reserves the place of an answer, and returns its number.
    fn reserve(&self) -> usize {
        let mut state = self.0.borrow_mut();
        state.answers.push_back(None);
        state.written + state.answers.len() - 1
    }

    /// Stores an answer, and writes the answers up to the first that is missing.
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

    /// Ends the response, or continues to read the request, when all lines so far are answered.
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

    /// Continues to read the request when the queues of the receivers are short, or at `until`.
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
