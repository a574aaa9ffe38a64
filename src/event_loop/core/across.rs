//! Pushes to connections of other loops, and changes of these connections.
//!
//! In a server with one loop, which has no [`Siblings`], these functions send nothing.

use compact_str::CompactString;

use crate::connection::{AbortOutcome, Cause, CloseOutcome};
use crate::directory::{Directory, Part};
use crate::event_loop::core::Core;
use crate::event_loop::siblings::Siblings;
use crate::event_loop::siblings::post::{ConnectionChange, ForwardedPush, Post, PostedPush, Target};
use crate::event_loop::timers::Timers;
use crate::fd::{Fd, Slot};
use crate::message::{Delivery, Outcome, Push};
use crate::protocol::close::CloseCode;
use crate::registry::{Change, FormerNames};

impl Core {
    /// Makes this loop one of several loops. The core must have no connections yet.
    pub fn set_siblings(&mut self, siblings: Siblings) {
        self.table.set_numbering(siblings.numbering());
        self.timers = Timers::new(siblings.index(), siblings.loops());
        self.siblings = Some(Box::new(siblings));
    }

    /// Returns the other loops, or `None` if the server has one loop.
    #[inline]
    pub fn siblings(&self) -> Option<&Siblings> {
        self.siblings.as_deref()
    }

    /// Returns the other loops, or `None` if the server has one loop.
    #[inline]
    pub fn siblings_mut(&mut self) -> Option<&mut Siblings> {
        self.siblings.as_deref_mut()
    }

    /// Returns whether an fd belongs to this loop, even if its connection has ended.
    pub fn owns(&self, fd: Fd) -> bool {
        self.table.numbering().local(fd).is_some()
    }

    // The methods below push to connections of other loops.

    /// Pushes to a connection of another loop.
    #[inline(never)]
    pub(super) fn push_elsewhere(&mut self, fd: Fd, push: Push<'_>) -> Outcome {
        let Some(to) = self.other_loop_of(fd).filter(|_| !push.except.contains(&fd)) else { return Outcome::Gone };
        let mut delivery = Delivery::default();
        self.forward((to, 1), Target::Fd(fd), &mut ForwardedPush::new(push), &mut delivery);
        if delivery.forwarded > 0 { Outcome::Forwarded } else { Outcome::Dropped }
    }

    /// Pushes to the connections of a uid on all loops.
    #[inline(never)]
    pub(super) fn push_uid_across(&mut self, uid: &str, push: Push<'_>) -> Delivery {
        let find = |directory: &Directory, parts: &mut Vec<Part>| directory.find_loops_of_uid(uid, parts);
        // The directory is searched only once. If a login on another loop replaces the connection of the uid after the
        // search, the message goes to the replaced connection. With a second search, the message could reach neither of
        // the two connections.
        let push_here = |core: &mut Core| core.push_bound(std::iter::once(uid), push);
        self.push_to_loops(find, push_here, || Target::Uid(uid.into()), push)
    }

    /// Pushes to the members of a group on all loops.
    #[inline(never)]
    pub(super) fn push_group_across(&mut self, group: &str, push: Push<'_>) -> Delivery {
        let find = |directory: &Directory, parts: &mut Vec<Part>| directory.find_loops_of_group(group, parts);
        self.push_to_loops(find, |core| core.push_group_here(group, push), || Target::Group(group.into()), push)
    }

    /// Pushes to the connections on the loops that `find` finds in the directory.
    ///
    /// `push_here` pushes to the connections of this loop.
    fn push_to_loops(
        &mut self,
        find: impl FnOnce(&Directory, &mut Vec<Part>),
        push_here: impl FnOnce(&mut Core) -> Delivery,
        target: impl Fn() -> Target,
        push: Push<'_>,
    ) -> Delivery {
        let Some(siblings) = &mut self.siblings else { return push_here(self) };
        let (own, mut parts) = (siblings.index(), std::mem::take(&mut siblings.parts));
        parts.clear();
        find(&siblings.process().directory, &mut parts);
        siblings.add_pending(&mut parts);
        let is_own = |part: &&Part| usize::from(part.index) == own;
        let mut delivery = if parts.iter().any(|part| is_own(&part)) { push_here(self) } else { Delivery::default() };
        let mut message = ForwardedPush::new(push);
        for part in parts.iter().filter(|part| !is_own(part)) {
            self.forward((part.index.into(), part.count as usize), target(), &mut message, &mut delivery);
        }
        if let Some(siblings) = &mut self.siblings {
            siblings.parts = parts;
        }
        delivery
    }

    /// Pushes to the connections of several uids on all loops.
    pub(super) fn push_uids_across(&mut self, uids: impl Iterator<Item = impl AsRef<str>>, push: Push<'_>) -> Delivery {
        let lists = self.list_names(uids, Directory::find_loops_of_uid);
        self.push_lists(lists, push, |core, uids| core.push_bound(uids.iter(), push), Target::Uids)
    }

    /// Pushes to the members of several groups on all loops.
    pub(super) fn push_groups_across(
        &mut self,
        groups: impl Iterator<Item = impl AsRef<str>>,
        push: Push<'_>,
    ) -> Delivery {
        let lists = self.list_names(groups, Directory::find_loops_of_group);
        self.push_lists(lists, push, |core, groups| core.push_groups_here(groups.iter(), push), Target::Groups)
    }

    /// Pushes to several connections of all loops.
    pub(super) fn push_fds_across(&mut self, fds: impl Iterator<Item = Fd>, push: Push<'_>) -> Delivery {
        let lists = self.list_fds(fds.filter(|fd| !push.except.contains(fd)));
        let lists = lists.into_iter().map(|list| (list.len(), list)).map(|(count, list)| (list, count)).collect();
        self.push_lists(lists, push, |core, fds| core.push_fds_here(fds.iter().copied(), push), Target::Fds)
    }

    /// Returns one list for each loop: the fds that belong to the loop, without duplicates.
    pub(super) fn list_fds(&self, fds: impl Iterator<Item = Fd>) -> Vec<Vec<Fd>> {
        let numbering = self.table.numbering();
        let mut lists: Vec<Vec<Fd>> = vec![Vec::new(); self.loops()];
        fds.for_each(|fd| lists[numbering.loop_of(fd)].push(fd));
        for list in &mut lists {
            list.sort_unstable();
            list.dedup();
        }
        lists
    }

    /// Pushes to every open connection of all loops.
    pub(super) fn broadcast_across(&mut self, push: Push<'_>) -> Delivery {
        let mut delivery = self.broadcast_here(push);
        let Some(siblings) = &self.siblings else { return delivery };
        let (others, process) = (siblings.others(), siblings.process().clone());
        let mut message = ForwardedPush::new(push);
        for to in others {
            let open = process.open(to);
            if open > 0 {
                self.forward((to, open), Target::All, &mut message, &mut delivery);
            }
        }
        delivery
    }

    /// Returns one list for each loop: the names that connections of the loop have, and the number of these
    /// connections.
    ///
    /// A name that connections of several loops have is in the list of each of these loops.
    fn list_names(
        &mut self,
        names: impl Iterator<Item = impl AsRef<str>>,
        find: impl Fn(&Directory, &str, &mut Vec<Part>),
    ) -> Vec<(Vec<CompactString>, usize)> {
        let mut lists = vec![Default::default(); self.loops()];
        let Some(siblings) = &mut self.siblings else { return lists };
        let mut names: Vec<CompactString> = names.map(|name| name.as_ref().into()).collect();
        names.sort_unstable();
        names.dedup();
        let mut parts = Vec::new();
        for name in names {
            parts.clear();
            find(&siblings.process().directory, &name, &mut parts);
            siblings.add_pending(&mut parts);
            for part in &parts {
                let (list, count): &mut (Vec<CompactString>, usize) = &mut lists[usize::from(part.index)];
                list.push(name.clone());
                *count += part.count as usize;
            }
        }
        lists
    }

    /// Pushes to the receivers of all loops. `lists` has the receivers on each loop, and their number.
    fn push_lists<T>(
        &mut self,
        mut lists: Vec<(Vec<T>, usize)>,
        push: Push<'_>,
        push_here: impl FnOnce(&mut Core, &[T]) -> Delivery,
        target: impl Fn(Vec<T>) -> Target,
    ) -> Delivery {
        let own = self.siblings.as_ref().map_or(0, |siblings| siblings.index());
        let own_list = std::mem::take(&mut lists[own].0);
        let mut delivery = push_here(self, &own_list);
        let mut message = ForwardedPush::new(push);
        for (to, (list, count)) in lists.into_iter().enumerate().filter(|(_, (list, _))| !list.is_empty()) {
            self.forward((to, count), target(list), &mut message, &mut delivery);
        }
        delivery
    }

    /// Forwards a push to the loop `to`, which has `count` receivers, and adds the result to `delivery`.
    fn forward(
        &mut self,
        (to, count): (usize, usize),
        target: Target,
        message: &mut ForwardedPush<'_>,
        delivery: &mut Delivery,
    ) {
        // A loop that has ended has no connections.
        let Some(siblings) = self.siblings.as_mut().filter(|siblings| !siblings.process().has_ended(to)) else {
            return;
        };
        if siblings.forward(to, target, message) {
            delivery.forwarded += 1;
            return;
        }
        delivery.matched += count;
        delivery.dropped += count;
        self.table.env_mut().counts.dropped += count as u64;
    }

    /// Carries out a push that another loop has sent, and returns the counts of the push.
    pub fn push_posted(&mut self, posted: &PostedPush, payloads: &[u8]) -> Delivery {
        let push = posted.push(payloads);
        match &posted.target {
            Target::Fd(fd) => {
                let mut delivery = Delivery::default();
                delivery.count(self.push(*fd, push));
                delivery
            }
            Target::Fds(fds) => self.push_fds_here(fds.iter().copied(), push),
            // A login on another loop may have replaced the connection of the uid since the push was sent. The message
            // still goes to the replaced connection.
            Target::Uid(uid) => self.push_bound(std::iter::once(uid), push),
            Target::Uids(uids) => self.push_bound(uids.iter(), push),
            Target::Group(group) => self.push_group_here(group, push),
            Target::Groups(groups) => self.push_groups_here(groups.iter(), push),
            Target::All => self.broadcast_here(push),
        }
    }

    // The methods below change connections of other loops.

    /// Sends a change of a connection to the loop of the connection.
    #[cold]
    pub(super) fn change_elsewhere(&mut self, fd: Fd, change: impl FnOnce() -> ConnectionChange) -> Change {
        match self.forward_change(fd, change) {
            Some(true) => Change::Forwarded,
            Some(false) => Change::Full,
            None => Change::Gone,
        }
    }

    /// Sends a close command to the loop of the connection.
    #[cold]
    pub(super) fn close_elsewhere(&mut self, fd: Fd, code: CloseCode, reason: &str) -> CloseOutcome {
        match self.forward_change(fd, || ConnectionChange::Close(code, reason.into())) {
            Some(true) => CloseOutcome::Forwarded,
            Some(false) => CloseOutcome::Full,
            None => CloseOutcome::Gone,
        }
    }

    /// Sends an abort command to the loop of the connection.
    #[cold]
    pub(super) fn abort_elsewhere(&mut self, fd: Fd) -> AbortOutcome {
        match self.forward_change(fd, || ConnectionChange::Abort) {
            Some(true) => AbortOutcome::Forwarded,
            Some(false) => AbortOutcome::Full,
            None => AbortOutcome::Gone,
        }
    }

    /// Sends a ping command to the loop of the connection.
    #[cold]
    pub(super) fn ping_elsewhere(&mut self, fd: Fd, payload: &[u8]) -> Outcome {
        match self.forward_change(fd, || ConnectionChange::Ping(payload.into())) {
            Some(true) => Outcome::Forwarded,
            Some(false) => Outcome::Dropped,
            None => Outcome::Gone,
        }
    }

    /// Returns whether the change was sent, or `None` if the fd belongs to no other running loop.
    fn forward_change(&mut self, fd: Fd, change: impl FnOnce() -> ConnectionChange) -> Option<bool> {
        let to = self.other_loop_of(fd)?;
        Some(self.siblings.as_mut()?.post(to, Post::Change(fd, change())))
    }

    /// Carries out a change of a connection that another loop has sent.
    pub fn change_posted(&mut self, fd: Fd, change: ConnectionChange) {
        match change {
            ConnectionChange::Bind(uid) => _ = self.bind(fd, &uid),
            ConnectionChange::Unbind => _ = self.unbind(fd),
            ConnectionChange::Join(group) => _ = self.join(fd, &group),
            ConnectionChange::Leave(group) => _ = self.leave(fd, &group),
            ConnectionChange::Close(code, reason) => _ = self.close(fd, code, &reason),
            ConnectionChange::Abort => _ = self.abort(fd),
            ConnectionChange::Ping(payload) => _ = self.ping(fd, &payload),
            ConnectionChange::SetHeartbeat(heartbeat) => _ = self.set_heartbeat(fd, heartbeat),
            ConnectionChange::SetPaused(is_paused) => _ = self.set_paused(fd, is_paused),
            ConnectionChange::Kick(uid) => {
                // A kick has no effect if the connection has another uid now, or has claimed the uid again.
                if let Some(slot) = self.open_slot(fd)
                    && self.registry.uid_of(slot) == Some(&*uid)
                    && self.owner_slot(&uid) != Some(slot)
                {
                    self.kick(slot);
                }
            }
        }
    }

    /// Closes a connection because a later connection has its uid.
    pub(super) fn kick(&mut self, slot: Slot) {
        self.close_slot(slot, CloseCode::KICKED, "uid connected again", Cause::Kicked);
    }

    /// Closes connections of another loop. Returns `false` if the command does not fit into
    /// [`forward_bytes_max`](crate::Limits::forward_bytes_max).
    pub(super) fn close_fds_elsewhere(&mut self, fds: Vec<Fd>, code: CloseCode, reason: &str) -> bool {
        let Some(to) = fds.first().and_then(|fd| self.other_loop_of(*fd)) else { return false };
        self.siblings.as_mut().is_some_and(|siblings| siblings.post(to, Post::CloseFds(fds, code, reason.into())))
    }

    /// Removes all members of a group on the other loops, and returns their number.
    ///
    /// The members on a loop do not count if the command to this loop does not fit into
    /// [`forward_bytes_max`](crate::Limits::forward_bytes_max).
    pub(super) fn ungroup_elsewhere(&mut self, group: &str) -> usize {
        let Some(siblings) = &mut self.siblings else { return 0 };
        let mut parts = Vec::new();
        siblings.process().directory.find_loops_of_group(group, &mut parts);
        siblings.add_pending(&mut parts);
        let own = siblings.index();
        let others = parts.into_iter().filter(|part| usize::from(part.index) != own);
        let sent = others.filter(|part| siblings.post(part.index.into(), Post::Ungroup(group.into())));
        sent.map(|part| part.count as usize).sum()
    }

    /// Records the end of a WebSocket, and releases its uid and groups in the directory.
    pub(super) fn release_names(&mut self, fd: Fd, names: &FormerNames) {
        let Some(siblings) = &self.siblings else { return };
        let (process, index) = (siblings.process(), siblings.index());
        process.count_closed(index);
        if let Some(uid) = &names.uid {
            process.directory.release(uid, fd, index);
        }
        for group in &names.groups {
            process.directory.leave(group, index, 1);
        }
        process.give_memberships(names.groups.len());
    }

    fn loops(&self) -> usize {
        self.siblings.as_ref().map_or(1, |siblings| siblings.loops())
    }

    /// Returns the loop of an fd that belongs to another running loop.
    fn other_loop_of(&self, fd: Fd) -> Option<usize> {
        self.siblings.as_ref()?.other_loop_of(fd)
    }
}
