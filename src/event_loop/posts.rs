//! Carries out the posts of other loops, and ends together with them.

use crate::event_loop::handler::Handler;
use crate::event_loop::portion::Portion;
use crate::event_loop::siblings::post::{Batch, Post};
use crate::event_loop::{Command, EventLoop};

impl<H: Handler> EventLoop<H> {
    /// Applies changed settings, and carries out the posts of other loops for at most one [`Portion`].
    #[inline]
    pub(super) fn handle_posts(&mut self) {
        if self.core.siblings().is_some() {
            self.handle_all_posts();
        }
    }

    #[inline(never)]
    fn handle_all_posts(&mut self) {
        self.core.apply_settings();
        let mut portion = Portion::new();
        self.carry_out_posts(|| portion.is_over());
    }

    /// Carries out all posts that have arrived, and begins a drain that was requested.
    pub(super) fn begin_drain(&mut self) {
        if self.core.wants_drain() {
            self.carry_out_posts(|| false);
            self.core.begin_drain();
        }
    }

    /// Carries out posts until `is_over` returns `true`.
    fn carry_out_posts(&mut self, mut is_over: impl FnMut() -> bool) {
        let Some(siblings) = self.core.siblings() else { return };
        if siblings.mailbox().has_batches() {
            siblings.mailbox().take(&mut self.incoming.batches);
        }
        while let Some(mut received) = self.incoming.batches.pop_front() {
            while !is_over()
                && let Some(post) = received.batch.pop()
            {
                self.handle_post(&received.batch, post);
                self.handle_pending();
                self.flush_early();
            }
            if !received.batch.is_empty() {
                self.incoming.batches.push_front(received);
                break;
            }
            if let Some(siblings) = self.core.siblings() {
                siblings.mailbox().finish(received);
            }
        }
    }

    fn handle_post(&mut self, batch: &Batch, post: Post) {
        match post {
            Post::Push(posted) => self.core.push_posted(&posted, batch.payloads()),
            Post::Change(fd, change) => self.core.change_posted(fd, change),
            Post::Ungroup(group) => _ = self.core.ungroup_here(&group),
            Post::Socket(accepted) => self.acceptor.admit_sent(*accepted, &mut self.core, self.poll.registry()),
        }
    }

    /// Puts the posts of this turn into the mailboxes of the other loops.
    #[inline]
    pub(super) fn send_posts(&mut self) {
        if let Some(siblings) = self.core.siblings_mut() {
            siblings.send_posts();
        }
    }

    /// Returns whether the loop ends: it has drained, and so have all other loops.
    ///
    /// A loop that drains passes the shutdown on. A loop that has drained serves the commands of other threads until the
    /// other loops have drained, too.
    pub(super) fn is_over(&mut self) -> bool {
        let is_drained = self.core.is_drained();
        let is_draining = self.core.is_draining();
        let Some(siblings) = self.core.siblings_mut() else { return is_drained };
        if is_drained && !siblings.has_drained {
            siblings.has_drained = true;
            siblings.process().record_drained(siblings.index());
        }
        let is_over = siblings.process().is_over();
        if is_draining && !self.incoming.has_sent_shutdown {
            self.incoming.has_sent_shutdown = true;
            for sender in self.parts.fleet.senders().unwrap_or_default() {
                // A loop that has ended needs no shutdown.
                let _ = sender.send_last(Command::Shutdown);
            }
        }
        is_over
    }
}
