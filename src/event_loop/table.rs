//! The connections of a loop by slot, with their sockets, their generations, and who has something to write.
//!
//! A slot is freed only by [`Table::remove`], at the end of a turn, so that no event of that turn can meet the slot's
//! next owner.

use std::io::IoSlice;
use std::time::Duration;

use slab::Slab;

use crate::connection::{Connection, Env, Event, Next, Outbound, Sent};
use crate::event_loop::control::Places;
use crate::event_loop::listener::Kind;
use crate::event_loop::slots::SlotSet;
use crate::event_loop::socket::Socket;
use crate::event_loop::unwritten::{FEW_MAX, Unwritten};
use crate::fd::{Fd, Slot};
use crate::message::Outcome;
use crate::peer::Peer;

/// Slots made ready from the start: memory is only touched, and so only used, when a connection comes.
const SLOTS_RESERVED_MAX: usize = 1 << 20;

/// Slices a `writev` takes at most.
const SLICES_MAX: usize = 64;

/// System calls a turn that may be spent on writing to one connection.
const WRITES_PER_TURN_MAX: usize = 16;

/// A frame over this to one connection goes to the socket at once, not at the turn's end: nothing is coalesced with it, and
/// of a burst of such frames the reader can have the first while the others are made. One to many is shared, and is written
/// at the turn's end, in portions.
const EAGER_BYTES: usize = 64 << 10;

/// Bytes of the journal that are copied into queues at most, so that a push to many need not be written in one go.
const UNLOADED_BYTES_MAX: usize = 4 << 20;

/// A connection and its socket.
#[derive(Debug)]
pub struct Entry {
    /// `None`: a retired slot, whose generations are used up.
    socket: Option<Socket>,
    pub connection: Connection,
    /// Listed in `dirty`, or in `unwritten` as a WebSocket.
    pub(super) is_dirty: bool,
    /// Listed as ready to be read.
    pub is_ready: bool,
    /// Epoll has told of bytes that were not all read.
    pub is_readable: bool,
    /// Epoll has told that the peer ended its stream: only a read of 0 bytes ends ours.
    pub is_hung_up: bool,
}

const _: () = assert!(size_of::<Entry>() <= 128, "two cache lines for each connection");

/// The table.
#[derive(Debug)]
pub struct Table {
    pub(super) entries: Slab<Entry>,
    /// By slot, how often it was reused. As long as the most slots ever used at a time.
    generations: Vec<u32>,
    pub env: Env,
    /// Connections that may have something to write, or an end to come to.
    pub(super) dirty: Vec<Slot>,
    /// A spare list, kept for its memory.
    answering: Vec<Slot>,
    /// Those of them that a flush has taken over and not yet written to.
    pub(super) unwritten: Unwritten,
    /// Connections that were closed because their reader turned out too slow, with their end, for the core to record.
    slow: Vec<(Slot, Event<'static>)>,
    /// What queues held when every socket had last been offered what there was for it.
    pub(super) held: usize,
    /// Connections that may hold an unfinished message, head or body.
    pub(super) unfinished: SlotSet,
    /// Connections that may have a queue. One that got it since the last flush is in `dirty`.
    pub(super) queued: SlotSet,
    /// Pushes that pay for themselves before the holders are looked through again, for the last look freed little.
    pub(super) unsearched: usize,
    /// Slots that will never be used again.
    retired: usize,
    /// Control connections among those there are.
    control: usize,
    /// Those of them that have a place.
    places: Places,
}

/// What flushing came to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Flushed {
    /// The connection goes on. `may_resume`: it may read again what it had put off.
    Stays { may_resume: bool },
    /// It is over, and can be removed.
    Over,
    /// The socket broke: the connection has to be told.
    Broken,
}

impl Table {
    /// A table for at most `connections_max` connections.
    pub fn new(connections_max: usize, env: Env) -> Table {
        Table {
            entries: Slab::with_capacity(connections_max.min(SLOTS_RESERVED_MAX)),
            generations: Vec::new(),
            env,
            dirty: Vec::new(),
            answering: Vec::new(),
            unwritten: Unwritten::default(),
            slow: Vec::new(),
            held: 0,
            unfinished: SlotSet::default(),
            queued: SlotSet::default(),
            unsearched: 0,
            retired: 0,
            control: 0,
            places: Places::default(),
        }
    }

    /// The connections there are, in whatever state.
    pub fn len(&self) -> usize {
        self.entries.len() - self.retired
    }

    /// How many of them are control connections.
    pub fn control_len(&self) -> usize {
        self.control
    }

    /// Which of them make room for others.
    pub fn places(&mut self) -> &mut Places {
        &mut self.places
    }

    /// Whether [`take_oldest_place`](Table::take_oldest_place) would find one.
    pub fn has_place_to_take(&self) -> bool {
        let waits = |slot: Slot| self.get(slot).is_some_and(|entry| entry.connection.waits_for_client());
        self.places.others().any(waits)
    }

    /// Takes its place from the oldest control connection that is not kept and that waits for its client.
    pub fn take_oldest_place(&mut self) -> Option<Slot> {
        let Table { places, entries, .. } = self;
        places.take_oldest(|slot| entries.get(slot.index()).is_some_and(|entry| entry.connection.waits_for_client()))
    }

    /// One more than the highest slot ever used.
    pub fn slots_end(&self) -> u32 {
        self.generations.len() as u32
    }

    /// Takes in a connection; `None` when all slots are in use or retired.
    pub fn insert(&mut self, socket: Socket, peer: Peer, kind: Kind) -> Option<Fd> {
        let slot =
            u32::try_from(self.entries.vacant_key()).ok().filter(|slot| *slot < Fd::CONNECTIONS_MAX).map(Slot)?;
        let connection = match kind {
            Kind::Client => Connection::new(peer, &self.env),
            Kind::Proxied => Connection::new_proxied(peer, &self.env),
            Kind::Control => Connection::new_control(peer, &self.env),
        };
        let is_control = connection.is_control();
        self.control += usize::from(is_control);
        self.entries.insert(Entry {
            socket: Some(socket),
            connection,
            is_dirty: false,
            is_ready: false,
            is_readable: false,
            is_hung_up: false,
        });
        if is_control {
            self.places.insert(slot);
        }
        if slot.0 == self.slots_end() {
            self.generations.push(0);
        }
        Some(self.fd_of(slot))
    }

    /// Frees a slot and closes its socket. A slot at its last generation stays occupied for ever.
    pub fn remove(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get_mut(slot.index()).filter(|entry| entry.socket.is_some()) else { return };
        entry.connection.release(&mut self.env);
        if entry.connection.is_control() {
            self.control -= 1;
            self.places.remove(slot);
        }
        match self.generations.get_mut(slot.index()) {
            Some(generation) if *generation < Fd::GENERATION_MAX => {
                *generation += 1;
                self.entries.remove(slot.index());
            }
            _ => {
                entry.socket = None;
                self.retired += 1;
            }
        }
    }

    /// The slot that `fd` names, if its connection still has it.
    pub fn slot_of(&self, fd: Fd) -> Option<Slot> {
        let slot = fd.slot();
        (self.is_current(fd) && self.get(slot).is_some()).then_some(slot)
    }

    /// Whether `fd` is of its slot's current life. Its connection, if there is one at that slot, is then the one it names.
    #[inline]
    pub fn is_current(&self, fd: Fd) -> bool {
        self.generations.get(fd.slot().index()) == Some(&fd.generation())
    }

    /// The fd of the connection that has the slot.
    pub fn fd_of(&self, slot: Slot) -> Fd {
        Fd::new(slot, self.generations.get(slot.index()).copied().unwrap_or(0))
    }

    /// The connection at a slot.
    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.index()).filter(|entry| entry.socket.is_some())
    }

    /// The connection at a slot, to change, and the surroundings that it needs for that.
    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> Option<(&mut Entry, &mut Env)> {
        let entry = self.entries.get_mut(slot.index()).filter(|entry| entry.socket.is_some())?;
        Some((entry, &mut self.env))
    }

    /// All slots in use, lowest first.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.socket.is_some()).map(|(slot, _)| Slot(slot as u32))
    }

    /// Lists a connection as having something to write.
    #[inline]
    pub fn touch(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot.index())
            && !entry.is_dirty
        {
            entry.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// The same for output that nobody was asked about: control frames. One that does not lie beside what came before it
    /// makes a queue of that; where there is no room for it, it goes out now.
    #[inline]
    pub fn touch_unasked(&mut self, slot: Slot) {
        self.touch(slot);
        if self.env.is_over_total(0) {
            self.write(slot);
            self.relieve(None);
        }
    }

    /// Moves the connections that were listed since the last call into a list, and says how many of them are WebSockets: those
    /// come first.
    pub fn take_dirty(&mut self, into: &mut Vec<Slot>) -> usize {
        for slot in self.dirty.drain(..) {
            let Some(entry) = self.entries.get_mut(slot.index()) else { continue };
            if entry.connection.is_http() {
                entry.is_dirty = false;
                self.answering.push(slot);
            } else {
                into.push(slot);
            }
        }
        let web_sockets = into.len();
        into.append(&mut self.answering);
        web_sockets
    }

    /// Puts the WebSockets that were listed for one cause, from index `from` on, behind those that others listed, if they are
    /// many.
    pub fn put_off(&mut self, from: usize) {
        if self.dirty.len().saturating_sub(from) > FEW_MAX {
            self.put_off_all(from);
        }
    }

    /// The same for sockets that have room again. While a push to many is written, they wait for it, however few they are:
    /// they may take long.
    pub fn put_off_writable(&mut self, from: usize) {
        if self.dirty.len() > from && (!self.unwritten.is_empty() || self.dirty.len() - from > FEW_MAX) {
            self.put_off_all(from);
        }
    }

    fn put_off_all(&mut self, from: usize) {
        let Table { dirty, unwritten, entries, .. } = self;
        let mut index = 0;
        dirty.retain(|slot| {
            index += 1;
            let is_http = entries.get(slot.index()).is_some_and(|entry| entry.connection.is_http());
            let is_kept = index <= from || is_http;
            if !is_kept {
                unwritten.add_web_socket(*slot);
            }
            is_kept
        });
    }

    /// Moves what is still to be written from the journal to queues, if that copies little. `false`: it would copy more.
    pub fn unload_unwritten(&mut self) -> bool {
        let mut copied = 0;
        for slot in self.unwritten.web_sockets() {
            copied += self.get(slot).map_or(0, |entry| entry.connection.copied_bytes(&self.env));
            if copied > UNLOADED_BYTES_MAX {
                return false;
            }
        }
        let Table { unwritten, entries, env, .. } = self;
        for slot in unwritten.web_sockets() {
            if env.is_over_total(0) {
                return false;
            }
            if let Some(entry) = entries.get_mut(slot.index()) {
                entry.connection.unload(env);
            }
        }
        true
    }

    /// Sets `TCP_USER_TIMEOUT` of a connection over TCP.
    pub fn set_user_timeout(&self, slot: Slot, timeout: Duration) {
        if let Some(Entry { socket: Some(socket), connection, .. }) = self.get(slot)
            && connection.peer() != Peer::Unix
            && let Err(error) = socket2::SockRef::from(socket).set_tcp_user_timeout(Some(timeout))
        {
            log::debug!("fd {}: TCP_USER_TIMEOUT cannot be set: {error}", self.fd_of(slot));
        }
    }

    /// Whether some connection is listed.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.unwritten.is_empty()
    }

    /// Whether a reader was found too slow.
    #[inline]
    pub fn has_slow(&self) -> bool {
        !self.slow.is_empty()
    }

    /// Whether the connection at `slot` was.
    pub fn has_slow_at(&self, slot: Slot) -> bool {
        self.slow.iter().any(|(slow, _)| *slow == slot)
    }

    /// Readers found too slow since the last call, and how their connection ended.
    pub fn pop_slow(&mut self) -> Option<(Slot, Event<'static>)> {
        self.slow.pop()
    }

    /// Queues a frame for the connection at `slot`. Where its queue is full, the socket is tried before the reader is
    /// called slow and the policy applied.
    #[inline]
    pub fn push(&mut self, slot: Slot, outbound: &mut Outbound<'_>) -> Outcome {
        let Some(entry) = self.entries.get_mut(slot.index()).filter(|entry| entry.socket.is_some()) else {
            return Outcome::Gone;
        };
        match entry.connection.send(outbound, &mut self.env) {
            Sent::Queued => {
                if !entry.is_dirty {
                    entry.is_dirty = true;
                    self.dirty.push(slot);
                }
                // What its socket does not take would be over the bound.
                if self.env.is_over_total(entry.connection.fresh_bytes()) {
                    return self.make_room(slot);
                }
                if outbound.bytes() > EAGER_BYTES && !outbound.to_many {
                    self.write(slot);
                }
                Outcome::Queued
            }
            Sent::NotOpen if self.has_slow() => self.push_to_closed(slot),
            Sent::NotOpen => Outcome::Gone,
            Sent::TooLarge => {
                self.env.counts.too_large += 1;
                Outcome::TooLarge
            }
            Sent::Full => self.push_to_full(slot, outbound),
        }
    }

    /// Takes note that all that was listed has been offered to its sockets.
    pub fn end_flush(&mut self) {
        self.env.end_turn();
        self.held = self.env.queued.frames;
    }

    /// Ends a connection whose reader is too slow. What it held is free at once: others may need the room.
    #[cold]
    pub(super) fn close_slow(&mut self, slot: Slot, kept_max: usize) {
        let Some((entry, env)) = self.get_mut(slot) else { return };
        let event = entry.connection.close_slow(kept_max, env);
        self.slow.extend(event.map(|event| (slot, event)));
        self.touch(slot);
    }

    /// Queues a piece of a response. A client that does not read is let go, so that it sees that the response is not whole.
    pub fn push_piece(&mut self, slot: Slot, piece: &[u8]) -> Outcome {
        for may_retry in [true, false] {
            let Some((entry, env)) = self.get_mut(slot) else { return Outcome::Gone };
            match entry.connection.write_response(piece, env) {
                Sent::Queued if self.relieve_http(slot) => return Outcome::Queued,
                Sent::Full if may_retry => _ = self.write(slot),
                Sent::Queued | Sent::Full => break,
                Sent::NotOpen | Sent::TooLarge => return Outcome::Gone,
            }
        }
        self.drop_response(slot);
        Outcome::Dropped
    }

    /// Sees to it that HTTP keeps its bound. Where a response is over it, it goes out now, or never. `false`: never.
    pub fn relieve_http(&mut self, slot: Slot) -> bool {
        let is_over = |table: &Table| table.env.queued.http > table.env.limits.queue_total_bytes_max;
        if is_over(self) {
            self.write(slot);
        }
        !is_over(self) || self.get(slot).is_none_or(|entry| entry.connection.queued_bytes() == 0)
    }

    /// Ends an HTTP connection in the middle of its response.
    pub fn drop_response(&mut self, slot: Slot) {
        if let Some((entry, env)) = self.get_mut(slot) {
            // It was never open: nobody is to be told.
            let _ = entry.connection.abort(env);
            env.counts.dropped += 1;
            self.touch(slot);
        }
    }

    /// Writes what the connection has, and says what is to become of it.
    pub fn flush(&mut self, slot: Slot) -> Flushed {
        let Some((entry, _)) = self.get_mut(slot) else { return Flushed::Stays { may_resume: false } };
        entry.is_dirty = false;
        let wanted_read = entry.connection.wants_read();
        if !self.write(slot) {
            // What it had will never be written, and the journal it may lie in does not outlast the turn.
            if let Some((entry, env)) = self.get_mut(slot) {
                entry.connection.release(env);
            }
            return Flushed::Broken;
        }
        let Some((entry, env)) = self.get_mut(slot) else { return Flushed::Stays { may_resume: false } };
        match entry.connection.poll_next(env) {
            Next::Drop => return Flushed::Over,
            Next::Shut => {
                if let Some(socket) = &entry.socket {
                    socket.shut();
                }
            }
            Next::Stay => {}
        }
        let (may_resume, has_queue) = (!wanted_read && entry.connection.wants_read(), entry.connection.has_queue());
        if has_queue {
            self.queued.insert(slot);
        }
        Flushed::Stays { may_resume }
    }

    /// Writes until the queue is empty, the socket full, or the turn's share used up. `false`: the socket broke.
    pub(super) fn offer(&mut self, slot: Slot) -> bool {
        for _ in 0..WRITES_PER_TURN_MAX {
            let Some(entry) = self.entries.get_mut(slot.index()) else { return true };
            let Some(socket) = &entry.socket else { return true };
            if !entry.connection.can_write() {
                return true;
            }
            let (offered, taken) = match entry.connection.poll_slice(&self.env) {
                Some(only) => (only.len(), socket.send(only)),
                None => {
                    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                    let filled = entry.connection.poll_slices(&self.env, &mut slices);
                    let slices = &slices[..filled];
                    (slices.iter().map(|slice| slice.len()).sum(), socket.write(slices))
                }
            };
            self.env.counts.writes += 1;
            match taken {
                Ok(taken) => {
                    let written = taken.unwrap_or(0);
                    entry.connection.handle_written(written, written < offered, &mut self.env);
                }
                Err(_) => return false,
            }
        }
        self.touch(slot);
        true
    }

    /// Writes to a socket that was full, in case it has room by now and no event has told of it.
    pub fn retry_write(&mut self, slot: Slot) {
        if let Some((entry, _)) = self.get_mut(slot)
            && entry.connection.handle_writable()
        {
            // Should it have broken, the flush at the turn's end finds that out again.
            self.write(slot);
        }
    }

    /// Writes what the socket takes, and then does something to the connection.
    pub fn write_and<T>(&mut self, slot: Slot, step: impl FnOnce(&mut Connection, &mut Env) -> T) -> Option<T> {
        self.write(slot);
        let (entry, env) = self.get_mut(slot)?;
        Some(step(&mut entry.connection, env))
    }

    /// Reads once into `buf`, as [`Socket::read`] does.
    pub fn read(&self, slot: Slot, buf: &mut [u8]) -> std::io::Result<Option<usize>> {
        match self.get(slot).and_then(|entry| entry.socket.as_ref()) {
            Some(socket) => socket.read(buf),
            None => Ok(None),
        }
    }

    /// The end of a slot's connection as its own doing: a step of its state machine that may say so.
    pub fn step(
        &mut self,
        slot: Slot,
        step: impl FnOnce(&mut Connection, &mut Env) -> Option<Event<'static>>,
    ) -> Option<Event<'static>> {
        let (entry, env) = self.get_mut(slot)?;
        let event = step(&mut entry.connection, env);
        self.touch_unasked(slot);
        event
    }
}
