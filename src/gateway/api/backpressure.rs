//! Backpressure for batches: a batch is paused while the queues of its receivers are long.
//!
//! The body of a batch request arrives in pieces. After a piece, the API pauses the batch if the queue of a receiver
//! holds more bytes than half of `queue_bytes_max`, or if all queues together hold more bytes than half of
//! `queue_total_bytes_max`. A paused batch continues when each queue that it waits for holds at most a quarter of
//! `queue_bytes_max`, and all queues together hold at most half of `queue_total_bytes_max`. A pause lasts at most
//! [`PAUSE_TIME_MAX`], so a receiver that does not read cannot stop a batch.

use std::time::{Duration, Instant};

use fdpush::{Context, Fd, Limits, TimerId};

use crate::gateway::wire::target::Target;

/// The maximum duration of one pause of a batch.
pub const PAUSE_TIME_MAX: Duration = Duration::from_secs(1);

/// The interval between two checks of the queues during a pause of a batch.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// The maximum number of receivers whose queues one paused batch waits for.
const RECEIVERS_MAX: usize = 1024;

/// The paused batches, and the timer that checks whether they can continue.
#[derive(Default, Debug)]
pub struct PausedBatches {
    paused: Vec<PausedBatch>,
    timer: Option<TimerId>,
    /// The receivers of all commands in the current piece of the batch, if their queues hold more bytes than half of
    /// `queue_bytes_max`.
    receivers: Vec<Fd>,
}

#[derive(Debug)]
struct PausedBatch {
    /// The connection that sends the batch request.
    batch: Fd,
    /// The receivers whose queues the batch waits for.
    receivers: Vec<Fd>,
    /// The latest time at which the pause of the batch ends.
    until: Instant,
}

impl PausedBatches {
    /// Stores the receivers of a batch line that have long queues.
    ///
    /// A queue is long if it holds more bytes than half of `queue_bytes_max`.
    pub fn record_receivers(&mut self, ctx: &mut Context<'_>, target: &Target<'_>) {
        let long = ctx.limits().queue_bytes_max / 2;
        if ctx.take_longest_queue() > long {
            self.add_receivers(ctx, target, long);
        }
    }

    /// Stores the receivers among `target` whose queues hold more than `long` bytes.
    fn add_receivers(&mut self, ctx: &Context<'_>, target: &Target<'_>, long: usize) {
        let is_long = |fd: &Fd| ctx.queued_bytes(*fd) > long;
        let room = RECEIVERS_MAX.saturating_sub(self.receivers.len());
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

    /// Pauses a batch after a piece of its body, if queues are long.
    ///
    /// `batch` is the connection that sends the batch request. Queues are long if [`record_receivers`] has stored a
    /// receiver, or if all queues together hold more bytes than half of `queue_total_bytes_max`.
    ///
    /// [`record_receivers`]: PausedBatches::record_receivers
    pub fn pause(&mut self, ctx: &mut Context<'_>, batch: Fd, now: Instant) {
        let receivers = std::mem::take(&mut self.receivers);
        // After the last piece of the body, the request is complete, so `ctx.pause` has no effect.
        if (!receivers.is_empty() || is_crowded(ctx)) && ctx.pause(batch).is_done() {
            self.paused.push(PausedBatch { batch, receivers, until: now + PAUSE_TIME_MAX });
            self.arm(ctx);
        }
    }

    /// Resumes the batches that need not wait for long queues any more.
    ///
    /// `handle_timer` also resumes each batch that was paused for [`PAUSE_TIME_MAX`]. Returns `false` if `timer` is not
    /// the timer of the paused batches.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId, now: Instant) -> bool {
        if self.timer != Some(timer) {
            return false;
        }
        self.timer = None;
        let short = ctx.limits().queue_bytes_max / 4;
        let is_crowded = is_crowded(ctx);
        self.paused.retain(|paused| {
            let has_long = paused.receivers.iter().any(|fd| ctx.queued_bytes(*fd) > short);
            let waits = (is_crowded || has_long) && now < paused.until;
            if !waits {
                ctx.resume(paused.batch);
            }
            waits
        });
        if !self.paused.is_empty() {
            self.arm(ctx);
        }
        true
    }

    fn arm(&mut self, ctx: &mut Context<'_>) {
        if self.timer.is_none() {
            self.timer = Some(ctx.set_timer(CHECK_INTERVAL));
        }
    }
}

/// Returns whether the queues of this loop together hold more bytes than half of its share of `queue_total_bytes_max`.
pub fn is_crowded(ctx: &Context<'_>) -> bool {
    ctx.queued_bytes_total() > share_of_loop(ctx.limits(), ctx.loop_count()) / 2
}

/// Returns the share of one of `loops` loops in `queue_total_bytes_max`.
///
/// The share is at least twice `queue_bytes_max`, as for the queues of the loop. So the queue of one client does not
/// pause all batches.
fn share_of_loop(limits: &Limits, loops: usize) -> usize {
    let least = limits.queue_bytes_max.saturating_mul(2).min(limits.queue_total_bytes_max);
    limits.queue_total_bytes_max.div_ceil(loops).max(least)
}

/// Returns the receivers of `targets` on this loop whose queues hold more bytes than half of `queue_bytes_max`, at most
/// [`RECEIVERS_MAX`] receivers.
pub fn find_long_queues(ctx: &mut Context<'_>, targets: &[Target<'_>]) -> Vec<Fd> {
    let mut paused = PausedBatches::default();
    let long = ctx.limits().queue_bytes_max / 2;
    if ctx.take_longest_queue() > long {
        targets.iter().for_each(|target| paused.add_receivers(ctx, target, long));
    }
    paused.receivers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_of_one_client_is_at_most_half_of_the_share_of_a_loop() {
        let limits = Limits { queue_bytes_max: 4 << 20, queue_total_bytes_max: 64 << 20, ..Limits::default() };
        let shares = [1, 2, 8, 16, 256].map(|loops| share_of_loop(&limits, loops) >> 20);
        assert_eq!(shares, [64, 32, 8, 8, 8]);
        let small = Limits { queue_total_bytes_max: 6 << 20, ..limits };
        assert_eq!([1, 2, 16].map(|loops| share_of_loop(&small, loops) >> 20), [6; 3]);
    }
}
