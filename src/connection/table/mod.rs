//! The connections of a loop and their transports. The table enforces the bounds of the queues.
//!
//! The table uses neither sockets nor a clock directly. In the server, the transports of the table are sockets. In the
//! simulator and the fuzzer, they are models of sockets.

mod control_quota;
mod eviction;
mod fan_out;
mod fan_outs;
mod fds;
mod flush;
mod push;
mod slots;
mod transport;
mod unwritten;

pub use self::flush::{FlushResult, JournalResult};
pub use self::slots::SlotSet;
pub use self::transport::{Io, Observed, SessionRead, Transport};
pub use self::unwritten::Position;

use std::collections::HashSet;

use slab::Slab;

use self::control_quota::ControlQuota;
use self::fan_outs::FanOuts;
use self::unwritten::{FEW_MAX, Unwritten};
use crate::connection::{Connection, Env, Event};
use crate::fd::{Fd, Numbering, Slot};
use crate::protocol::message::Message;
use crate::tick::Tick;

/// The maximum number of slots for which the table reserves address space at its start.
///
/// The kernel provides the memory of a slot when the slot is first used.
const SLOTS_RESERVED_MAX: usize = 1 << 21;

/// The connections of a loop.
///
/// A table owns all [`Connection`]s and their [`Transport`]s. No call returns a `&mut Connection`: every transition
/// goes through the table, which enforces the queue bounds and adds the connection to the list for the next flush. A
/// turn has these steps, in this order:
///
/// 1. **Transitions.** [`step`](Table::step) applies a transition to a connection: a close, a response, a timeout.
///    Input has its own calls: [`read`](Table::read), then [`handle_message`](Table::handle_message) and
///    [`handle_bytes`](Table::handle_bytes) until neither returns a message or an event, then
///    [`end_input`](Table::end_input). Output is queued with [`push`](Table::push). A transport that is writable again
///    is reported with [`handle_writable`](Table::handle_writable).
/// 2. **Ends.** A transition may return [`Event::Closed`]. The caller then removes the connection from the registry and
///    calls the handler, before the next call for this slot. A call that queues or writes output may also end other
///    connections, to free memory. After such a call, the caller gets these connections from
///    [`poll_ended`](Table::poll_ended).
/// 3. **Flush.** [`begin_flush`](Table::begin_flush) takes the list of connections that were added since the last
///    flush. [`poll_flush`](Table::poll_flush) writes to the next connection. The caller may stop polling when its time
///    is used up: the next turn continues the flush. [`end_flush`](Table::end_flush) ends the flush.
/// 4. **Timeouts.** After a transition, and after input, the caller arms the timer of the connection for
///    [`Connection::poll_timeout`] or an earlier time. After input, the caller can skip this step if
///    [`end_input`](Table::end_input) returns `false` and the connection was a WebSocket before the input. A flush
///    returns the timeout if the flush may have changed it.
/// 5. **Removal.** A slot that a flush reports as [`FlushResult::Over`] or [`FlushResult::Broken`] is freed by
///    [`remove`](Table::remove) at the end of the turn. So no event of this turn can reach the next connection in the
///    slot.
///
/// Bounds: the counted memory of each queue is at most `queue_bytes_max` bytes, and that of all queues together is at
/// most `queue_total_bytes_max` bytes. When a queue is full, the table writes to the transport before it applies
/// `slow_reader`. When the queues together exceed their bound, the connections with the largest queues are evicted: see
/// `eviction.rs`.
#[derive(Debug)]
pub struct Table<T: Transport> {
    entries: Slab<Entry<T>>,
    /// For each slot, the number of times that the slot was reused.
    ///
    /// The length of this list is the largest number of slots ever in use.
    generations: Vec<u32>,
    /// The rule that says which fds belong to this table.
    numbering: Numbering,
    /// The generation of a new slot: 0, unless a test sets another value.
    first_generation: u32,
    env: Env,
    /// The state that the transports share.
    shared: T::Shared,
    /// Connections listed for the next flush, because they may have output.
    dirty: Vec<Slot>,
    /// The connections that were listed when the running flush began.
    listed: Vec<Slot>,
    /// The number of connections at the start of `listed` that were written to.
    flushed: usize,
    /// HTTP connections that the running flush has found in `listed`, and writes to after the WebSockets.
    answering: Vec<Slot>,
    /// Connections to which earlier flushes have not written.
    unwritten: Unwritten,
    /// Pushes to very many connections that are not queued for all receivers.
    fan_outs: FanOuts,
    /// Connections that the table closed as slow consumers, until [`poll_ended`](Table::poll_ended) returns them.
    ended: Vec<(Slot, Event<'static>)>,
    /// The memory of all queues after the last write of all queues. This is output that the sockets did not accept.
    refused_bytes: usize,
    /// Connections that may have an unfinished message, request head or request body.
    unfinished: SlotSet,
    /// Connections that may have a queue.
    ///
    /// A connection that got its queue since the last flush is not in this set, but in the list for the next flush.
    queued: SlotSet,
    /// The remaining number of pushes that make no search for the largest queues, although the queues together exceed
    /// their bound.
    ///
    /// Such a push drops only messages of its own receiver. A search that frees little sets this number.
    pushes_before_search: usize,
    /// The number of slots that are never used again.
    retired: usize,
    /// The number of control connections.
    control: usize,
    /// The quota of control connections.
    control_quota: ControlQuota,
}

/// A connection and its transport.
#[derive(Debug)]
struct Entry<T: Transport> {
    /// The field is `None` if the slot is retired, because its generations are used up.
    transport: Option<T>,
    connection: Connection,
}

impl<T: Transport> Table<T> {
    /// The memory of a connection and its transport, in bytes.
    pub const ENTRY_BYTES: usize = size_of::<Entry<T>>();

    /// Returns an empty table, with address space for up to `reserved` connections.
    pub fn new(reserved: usize, env: Env, shared: T::Shared) -> Table<T> {
        Table {
            entries: Slab::with_capacity(reserved.min(SLOTS_RESERVED_MAX)),
            generations: Vec::new(),
            numbering: Numbering::SINGLE,
            first_generation: 0,
            env,
            shared,
            dirty: Vec::new(),
            listed: Vec::new(),
            flushed: 0,
            answering: Vec::new(),
            unwritten: Unwritten::default(),
            fan_outs: FanOuts::default(),
            ended: Vec::new(),
            refused_bytes: 0,
            unfinished: SlotSet::default(),
            queued: SlotSet::default(),
            pushes_before_search: 0,
            retired: 0,
            control: 0,
            control_quota: ControlQuota::default(),
        }
    }

    /// Returns the number of slots that fit into the reserved address space. While the table has at most this number of
    /// slots, the slots are never copied to other memory.
    pub fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Sets the first generation of new slots, to test slots that reach the last generation.
    #[cfg(any(test, feature = "unstable"))]
    pub fn set_first_generation(&mut self, generation: u32) {
        self.first_generation = generation.min(Fd::GENERATION_MAX);
    }

    // Methods that add, remove and find connections.

    /// Adds a connection. Returns `None` if all slots are in use or retired.
    pub fn insert(&mut self, transport: T, connection: Connection) -> Option<Fd> {
        let slot =
            u32::try_from(self.entries.vacant_key()).ok().filter(|slot| *slot < self.numbering.slots()).map(Slot)?;
        if connection.is_control() {
            self.control += 1;
            self.control_quota.insert(slot);
        }
        self.entries.insert(Entry { transport: Some(transport), connection });
        if slot.0 == self.slots_end() {
            self.generations.push(self.first_generation);
        }
        Some(self.fd_of(slot))
    }

    /// Frees a slot and drops its transport.
    ///
    /// A slot at its last generation is retired.
    pub fn remove(&mut self, slot: Slot) {
        debug_assert_eq!(self.waiting_fan_outs(slot), (0, 0), "a connection must get all messages before its removal");
        let Some(entry) = self.entries.get_mut(slot.index()).filter(|entry| entry.transport.is_some()) else { return };
        entry.connection.release(&mut self.env);
        if let Some(transport) = &mut entry.transport {
            transport.remove(&mut self.shared);
        }
        if entry.connection.is_control() {
            self.control -= 1;
            self.control_quota.remove(slot);
        }
        match self.generations.get_mut(slot.index()) {
            Some(generation) if *generation < Fd::GENERATION_MAX => {
                *generation += 1;
                self.entries.remove(slot.index());
            }
            _ => {
                entry.transport = None;
                self.retired += 1;
            }
        }
    }

    /// Returns the number of connections, in any state.
    pub fn count(&self) -> usize {
        self.entries.len() - self.retired
    }

    /// Returns the number of control connections.
    pub fn control_count(&self) -> usize {
        self.control
    }

    /// Returns the slots of the control connections that count in their quota, in no particular order.
    pub fn control_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.control_quota.slots()
    }

    /// Returns the highest slot that was ever used, plus 1.
    pub fn slots_end(&self) -> u32 {
        self.generations.len() as u32
    }

    /// Returns the slots in use, the lowest first.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.transport.is_some()).map(|(slot, _)| Slot(slot as u32))
    }

    /// Returns the connection at a slot.
    #[inline]
    pub fn connection(&self, slot: Slot) -> Option<&Connection> {
        let entry = self.entries.get(slot.index()).filter(|entry| entry.transport.is_some())?;
        Some(&entry.connection)
    }

    /// Returns the transport at a slot.
    #[inline]
    pub fn transport(&self, slot: Slot) -> Option<&T> {
        self.entries.get(slot.index())?.transport.as_ref()
    }

    /// Returns a mutable reference to the transport at a slot, for data that the caller stores in the transport.
    #[inline]
    pub fn transport_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.entries.get_mut(slot.index())?.transport.as_mut()
    }

    /// Returns the connection and the transport at a slot, and the shared state.
    ///
    /// The call looks up the slot once. The transport is mutable, for data that the caller stores in it.
    #[inline]
    pub fn parts(&mut self, slot: Slot) -> Option<(&Connection, &mut T, &Env)> {
        let entry = self.entries.get_mut(slot.index())?;
        Some((&entry.connection, entry.transport.as_mut()?, &self.env))
    }

    /// Returns the state that the transports share.
    #[inline]
    pub fn shared(&self) -> &T::Shared {
        &self.shared
    }

    /// Returns a mutable reference to the state that the transports share.
    #[inline]
    pub fn shared_mut(&mut self) -> &mut T::Shared {
        &mut self.shared
    }

    /// Returns the limits, the time and the counters that all connections share.
    #[inline]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Returns a mutable reference to the state that all connections share.
    #[inline]
    pub fn env_mut(&mut self) -> &mut Env {
        &mut self.env
    }

    // Methods that change a connection.

    /// Applies a transition to a connection, and lists it for the flush.
    ///
    /// Returns `None` if there is no connection at the slot. Control frames are queued even if the queues together
    /// exceed their bound. Eviction then enforces the bound.
    #[inline]
    pub fn step<R>(&mut self, slot: Slot, transition: impl FnOnce(&mut Connection, &mut Env) -> R) -> Option<R> {
        self.settle(slot);
        let (entry, env) = self.entry_mut(slot)?;
        let result = transition(&mut entry.connection, env);
        self.mark_dirty(slot);
        if self.env.is_over_total(0) {
            self.write(slot);
        }
        Some(result)
    }

    /// Reads once from the transport into `buffer`, and counts the bytes.
    ///
    /// The bytes are then passed to [`handle_message`](Table::handle_message) and
    /// [`handle_bytes`](Table::handle_bytes).
    #[inline]
    pub fn read(&mut self, slot: Slot, buffer: &mut [u8]) -> Io {
        let Table { entries, env, shared, .. } = self;
        let Some(Entry { transport: Some(transport), connection }) = entries.get_mut(slot.index()) else {
            return Io::WouldBlock;
        };
        env.counts.reads += 1;
        let read = transport.read(shared, buffer);
        if let Io::Done(count @ 1..) = read {
            connection.handle_received(count, env);
        }
        if let Some(session_read) = transport.session_read(shared) {
            self.handle_session_read(slot, session_read);
        }
        read
    }

    fn handle_session_read(&mut self, slot: Slot, read: SessionRead) {
        let Table { entries, env, shared, .. } = self;
        let Some(Entry { transport: Some(transport), connection }) = entries.get_mut(slot.index()) else { return };
        if read.has_received {
            connection.handle_alive(env);
        }
        if read.has_answered {
            connection.handle_hello_answered(env);
        }
        if transport.inbound_bytes(shared) > 0 {
            self.unfinished.insert(slot);
            transport.set_reading(shared, connection.reads_at(env));
        }
        if let Some(held) = read.held {
            self.settle(slot);
            let Some((Entry { connection, .. }, env)) = self.entry_mut(slot) else { return };
            connection.handle_held(held, read.has_sent, env);
            // The connection is listed, because the next flush must visit it: the flush drops an ending connection
            // without unsent records, and adds a connection with a queue to `queued`.
            self.mark_dirty(slot);
        }
    }

    /// Takes a whole message from `input`, and lists the connection for the next flush.
    ///
    /// See [`Connection::handle_message`].
    ///
    /// # Errors
    ///
    /// Returns the event that the connection has ended, if the client broke a rule of RFC 6455.
    #[inline]
    pub fn handle_message<'a>(
        &mut self,
        slot: Slot,
        input: &mut &'a mut [u8],
    ) -> Result<Option<Message<'a>>, Box<Event<'static>>> {
        match self.entry_for_input(slot) {
            Some((entry, env)) => entry.connection.handle_message(input, env),
            None => Ok(None),
        }
    }

    /// Reads `input` up to the next event, and lists the connection for the next flush.
    ///
    /// See [`Connection::handle_bytes`].
    #[inline]
    pub fn handle_bytes<'a>(&mut self, slot: Slot, input: &mut &'a mut [u8]) -> Option<Event<'a>> {
        let (entry, env) = self.entry_for_input(slot)?;
        entry.connection.handle_bytes(input, env)
    }

    /// Pauses or resumes reading: see [`Connection::set_paused`]. Returns `None` if there is no connection at the slot.
    pub fn set_paused(&mut self, slot: Slot, is_paused: bool) -> Option<bool> {
        let is_done = self.step(slot, |connection, env| connection.set_paused(is_paused, env));
        let Table { entries, env, shared, .. } = self;
        if let Some(entry) = entries.get_mut(slot.index()) {
            entry.set_reading(env, shared);
        }
        is_done
    }

    /// Returns the time of the next timeout of a connection: see [`Connection::poll_timeout`].
    #[inline]
    pub fn poll_timeout(&self, slot: Slot) -> Tick {
        self.entries.get(slot.index()).map_or(Tick::NEVER, |entry| entry.poll_timeout(&self.env, &self.shared))
    }

    /// Returns whether the client at a slot is late with the remaining bytes of a TLS record.
    ///
    /// If the result is `true`, the caller calls [`Connection::handle_late_record`] in place of
    /// [`Connection::handle_tick`].
    pub fn has_late_record(&self, slot: Slot) -> bool {
        let deadline = |entry: &Entry<T>| entry.record_deadline(&self.env, &self.shared);
        self.entries.get(slot.index()).is_some_and(|entry| deadline(entry) <= self.env.now)
    }

    /// Returns whether a deadline of the connection at a slot is missed: see [`Connection::is_overdue`].
    pub fn is_overdue(&self, slot: Slot) -> bool {
        self.has_late_record(slot) || self.connection(slot).is_some_and(|connection| connection.is_overdue(&self.env))
    }

    /// Ignores further input of an ending connection, and frees the unfinished input in its transport.
    pub fn ignore_input(&mut self, slot: Slot) {
        let Table { entries, shared, .. } = self;
        if let Some(Entry { transport: Some(transport), .. }) = entries.get_mut(slot.index()) {
            transport.ignore_input(shared);
        }
    }

    /// Reports that all input of one read was handled. The last message of the read may be unfinished.
    ///
    /// Returns whether the connection has another deadline than that of its heartbeat. If the result is `true`, the
    /// caller arms the timer of the connection. The deadline of the heartbeat need not be checked here, because input
    /// changes this deadline only when a WebSocket opens.
    #[inline]
    pub fn end_input(&mut self, slot: Slot) -> bool {
        if self.env.is_over_total(0) {
            self.write(slot);
        }
        let Table { entries, env, shared, .. } = self;
        let Some(entry) = entries.get_mut(slot.index()) else { return false };
        entry.set_reading(env, shared);
        if entry.connection.has_only_heartbeat() {
            return false;
        }
        if entry.connection.inbound_bytes() > 0 {
            self.unfinished.insert(slot);
        }
        true
    }

    /// Reports that the transport is writable.
    ///
    /// Lists the connection if it has output.
    #[inline]
    pub fn handle_writable(&mut self, slot: Slot) {
        if let Some((entry, _)) = self.entry_mut(slot)
            && entry.connection.handle_writable()
        {
            self.mark_dirty(slot);
        }
    }

    /// Lists a connection for the next flush.
    #[inline]
    fn mark_dirty(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot.index())
            && !entry.connection.is_listed
        {
            entry.connection.is_listed = true;
            self.dirty.push(slot);
        }
    }

    /// Returns a connection that is about to handle input, and lists it for the next flush.
    ///
    /// The connection may queue a pong, an error or a response when it handles the input. A handler may then push and
    /// cause an eviction before `end_input`. The eviction must find the queue of this connection, so the connection is
    /// listed now.
    #[inline]
    fn entry_for_input(&mut self, slot: Slot) -> Option<(&mut Entry<T>, &mut Env)> {
        self.settle(slot);
        let entry = self.entries.get_mut(slot.index()).filter(|entry| entry.transport.is_some())?;
        if !entry.connection.is_listed {
            entry.connection.is_listed = true;
            self.dirty.push(slot);
        }
        Some((entry, &mut self.env))
    }

    // Connections that the table has closed.

    /// Returns whether [`poll_ended`](Table::poll_ended) would return a connection.
    #[inline]
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Returns the slot of a connection that the table closed as a slow consumer, and the event of its end.
    pub fn poll_ended(&mut self) -> Option<(Slot, Event<'static>)> {
        self.ended.pop()
    }

    /// Closes a slow consumer. The memory of the connection is freed immediately.
    #[cold]
    fn close_slow(&mut self, slot: Slot, kept_max: usize, charge: Option<usize>) {
        let Some((entry, env)) = self.entry_mut(slot) else { return };
        let event = entry.connection.close_slow(kept_max, env);
        entry.observe(Observed::ClosedSlow { kept_max, charge, event: event.as_ref() });
        self.ended.extend(event.map(|event| (slot, event)));
        self.mark_dirty(slot);
    }

    // The quota of control connections.

    /// Returns the quota of control connections.
    pub fn control_quota(&mut self) -> &mut ControlQuota {
        &mut self.control_quota
    }

    /// Returns whether [`take_oldest_control`](Table::take_oldest_control) would return a connection.
    pub fn can_evict_control(&self) -> bool {
        let waits = |slot: Slot| self.connection(slot).is_some_and(Connection::waits_for_client);
        self.control_quota.others().any(waits)
    }

    /// Removes from the quota the oldest control connection that may be closed, and returns its slot.
    ///
    /// The connection stays in the table until the caller ends it. A connection may be closed if it is not kept and
    /// waits for its client.
    pub fn take_oldest_control(&mut self) -> Option<Slot> {
        let Table { control_quota, entries, .. } = self;
        control_quota
            .take_oldest(|slot| entries.get(slot.index()).is_some_and(|entry| entry.connection.waits_for_client()))
    }

    /// Panics if the fields of the table are inconsistent.
    ///
    /// This check is for tests and debug builds.
    pub fn check_invariants(&self) {
        let listed: HashSet<Slot> = self.unflushed().collect();
        for slot in self.slots() {
            let Some(entry) = self.entries.get(slot.index()) else { continue };
            entry.connection.check_invariants();
            let is_listed = listed.contains(&slot) || self.unwritten.answers().any(|answer| answer == slot);
            assert!(
                !entry.connection.is_listed || listed.contains(&slot),
                "{slot} is marked as listed and must be in a list for the flush"
            );
            assert!(
                is_listed || entry.connection.journal_bytes() == 0,
                "{slot} has output in the journal and must be in a list for the flush"
            );
            let is_idle = entry.connection.is_flushed() && !entry.connection.is_listed;
            assert!(
                is_idle || self.waiting_fan_outs(slot) == (0, 0),
                "{slot} waits for a fan-out and must be open, without output, and not listed"
            );
            let has_queue = entry.connection.has_queue();
            assert!(
                !has_queue || is_listed || self.queued.contains(slot),
                "{slot} has a queue and must be in a list for the flush or in the set `queued`"
            );
        }
    }

    #[inline]
    fn entry_mut(&mut self, slot: Slot) -> Option<(&mut Entry<T>, &mut Env)> {
        let entry = self.entries.get_mut(slot.index()).filter(|entry| entry.transport.is_some())?;
        Some((entry, &mut self.env))
    }
}

impl<T: Transport> Entry<T> {
    #[inline]
    fn poll_timeout(&self, env: &Env, shared: &T::Shared) -> Tick {
        self.connection.poll_timeout(env).min(self.record_deadline(env, shared))
    }

    /// Returns the deadline of an unfinished TLS record of a WebSocket.
    ///
    /// Before the upgrade, a record needs no deadline: the phases of HTTP have deadlines that no received byte
    /// postpones.
    #[inline]
    fn record_deadline(&self, env: &Env, shared: &T::Shared) -> Tick {
        match self.transport.as_ref().and_then(|transport| transport.unfinished_since(shared)) {
            Some(since) if self.connection.is_open() => since.after(env.limits.message_time_max),
            _ => Tick::NEVER,
        }
    }

    /// Informs a transport with unfinished input whether the server reads from it now.
    #[inline]
    fn set_reading(&mut self, env: &Env, shared: &mut T::Shared) {
        if let Some(transport) = &mut self.transport
            && transport.inbound_bytes(shared) > 0
        {
            transport.set_reading(shared, self.connection.reads_at(env));
        }
    }

    /// Informs the transport about a change of the connection.
    #[inline]
    fn observe(&mut self, change: Observed<'_>) {
        if let Some(transport) = &mut self.transport {
            transport.observe(&self.connection, change);
        }
    }
}
