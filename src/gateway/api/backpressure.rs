//! Batches that wait for their receivers: no more of their lines is read until the receivers' queues are shorter.
//!
//! A batch is read a piece at a time. After a piece that left a receiver with a queue of more than half its bound, or all
//! queues with more than half of theirs, the batch is paused. It goes on when those queues are shorter, and at the latest
//! after [`HOLD_TIME_MAX`]: a receiver that does not read must not stop it.

use std::time::{Duration, Instant};

use fdpush::{Context, Fd, TimerId};

use crate::gateway::push::publish::Target;

/// The longest wait of one piece of a batch for its receivers.
const HOLD_TIME_MAX: Duration = Duration::from_secs(1);

/// The interval between two checks of the queues meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Receivers that one batch waits for.
const RECEIVERS_MAX: usize = 1024;

/// The batches that wait.
#[derive(Default, Debug)]
pub struct Holds {
    held: Vec<Held>,
    timer: Option<TimerId>,
    /// Receivers with long queues, of the piece that is being carried out.
    receivers: Vec<Fd>,
}

#[derive(Debug)]
struct Held {
    batch: Fd,
    receivers: Vec<Fd>,
    until: Instant,
}

impl Holds {
    /// A line was carried out: notes the receivers that now have long queues.
    pub fn note(&mut self, ctx: &mut Context<'_>, target: &Target<'_>) {
        let long = ctx.limits().queue_bytes_max / 2;
        if ctx.take_longest_queue() <= long || self.receivers.len() >= RECEIVERS_MAX {
            return;
        }
        let is_long = |fd: &Fd| ctx.queued_bytes(*fd) > long;
        let room = RECEIVERS_MAX - self.receivers.len();
        let receivers = &mut self.receivers;
        match target {
            Target::Uids(uids) => {
                receivers.extend(uids.iter().flat_map(|uid| ctx.fds_of(uid)).filter(is_long).take(room));
            }
            Target::Fds(fds) => receivers.extend(fds.iter().copied().filter(is_long).take(room)),
            Target::Groups(groups) => {
                receivers.extend(groups.iter().flat_map(|group| ctx.members(group)).filter(is_long).take(room));
            }
            Target::All => receivers.extend(ctx.connections().filter(is_long).take(room)),
        }
    }

    /// A piece of `batch` was carried out: pauses it where its receivers need time.
    pub fn pause(&mut self, ctx: &mut Context<'_>, batch: Fd, now: Instant) {
        let receivers = std::mem::take(&mut self.receivers);
        // Without a pause, the piece was the last.
        if (!receivers.is_empty() || is_crowded(ctx)) && ctx.pause(batch).is_done() {
            self.held.push(Held { batch, receivers, until: now + HOLD_TIME_MAX });
            self.arm(ctx);
        }
    }

    /// If the timer is the one of the holds, the batches whose receivers have caught up go on.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId, now: Instant) -> bool {
        if self.timer != Some(timer) {
            return false;
        }
        self.timer = None;
        let short = ctx.limits().queue_bytes_max / 4;
        let is_crowded = is_crowded(ctx);
        self.held.retain(|held| {
            let has_long = held.receivers.iter().any(|fd| ctx.queued_bytes(*fd) > short);
            let waits = (is_crowded || has_long) && now < held.until;
            if !waits {
                ctx.resume(held.batch);
            }
            waits
        });
        if !self.held.is_empty() {
            self.arm(ctx);
        }
        true
    }

    fn arm(&mut self, ctx: &mut Context<'_>) {
        if self.timer.is_none() {
            self.timer = Some(ctx.set_timer(LOOK_EVERY));
        }
    }
}

/// Whether all queues together hold more than half of what they may.
fn is_crowded(ctx: &Context<'_>) -> bool {
    ctx.queued_bytes_total() > ctx.limits().queue_total_bytes_max / 2
}
