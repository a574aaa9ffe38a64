//! Carries out the pushes and changes that other loops have sent, and ends all loops together.

use crate::event_loop::handler::Handler;
use crate::event_loop::inbox::Item;
use crate::event_loop::portion::Portion;
use crate::event_loop::siblings::post::{Batch, Post};
use crate::event_loop::{Command, EventLoop};

impl<H: Handler> EventLoop<H> {
    /// Carries out the posts that the loop `from` has sent, until the portion is over. Returns whether all posts are
    /// carried out.
    ///
    /// The next turn first carries out the posts that are left.
    pub(super) fn carry_out(&mut self, from: usize, mut batch: Box<Batch>, portion: &mut Portion) -> bool {
        while let Some(post) = batch.pop() {
            self.handle_post(&batch, post);
            self.handle_pending();
            self.flush_early();
            if portion.is_over() && !batch.is_empty() {
                self.items.push_front(Item::Posts(from, batch));
                return false;
            }
        }
        if let Some(siblings) = self.core.siblings() {
            siblings.process().links.record_carried(from, siblings.index(), batch.bytes());
        }
        self.inbox.recycle(batch);
        true
    }

    fn handle_post(&mut self, batch: &Batch, post: Post) {
        match post {
            Post::Push(posted) => {
                let delivery = self.core.push_posted(&posted, batch.payloads());
                if let Some(report) = posted.report {
                    report.add(delivery);
                    if report.is_kept_until_written() {
                        self.parts.held.insert(Box::new(report));
                    }
                }
            }
            Post::Change(fd, change) => self.core.change_posted(fd, change),
            Post::CloseFds(fds, code, reason) => _ = self.core.close_fds_here(fds.into_iter(), code, &reason),
            Post::Ungroup(group) => _ = self.core.ungroup_here(&group),
            Post::Socket(accepted) => self.acceptor.admit_sent(*accepted, &mut self.core, self.poll.registry()),
        }
    }

    /// Sends the posts of this turn to the other loops, and then a requested shutdown.
    #[inline]
    pub(super) fn send_posts(&mut self) {
        if self.core.siblings().is_some() {
            self.parts.send_posts(&mut self.core);
            self.send_shutdown();
        }
    }

    /// If a shutdown was requested on this loop, sends the shutdown to all loops.
    fn send_shutdown(&mut self) {
        let Some(siblings) = self.core.siblings_mut().filter(|siblings| siblings.has_shutdown_to_send()) else {
            return;
        };
        siblings.has_sent_shutdown = true;
        for sender in self.parts.fleet.senders().unwrap_or_default() {
            // A loop that has ended needs no shutdown.
            let _ = sender.send_last(Command::Shutdown);
        }
    }

    /// Applies the settings that another loop has changed, and records that the loop is in a turn.
    #[inline]
    pub(super) fn begin_turn(&mut self) {
        if self.core.siblings().is_some() {
            self.core.begin_shared_turn();
        }
    }

    /// Returns whether the loop ends: all loops have drained, or were interrupted.
    ///
    /// A loop that has drained serves the commands of other threads until the other loops have drained, too.
    pub(super) fn is_over(&mut self) -> bool {
        let is_drained = self.core.is_drained();
        let Some(siblings) = self.core.siblings_mut() else { return is_drained };
        if is_drained && !siblings.has_drained {
            siblings.has_drained = true;
            siblings.process().record_drained(siblings.index());
        }
        siblings.process().admission.end_turn(siblings.index());
        siblings.process().is_over()
    }
}
