//! Connections by slot, with their generations: the simulator's own, so that it owes nothing to the loop's.

use std::cell::RefCell;
use std::rc::Rc;

use fdpush::sim::{Connection, Env};
use fdpush::{Fd, Slot};

use crate::wire::Wire;

/// The last generation an fd can write: 53 bits in all, 24 of them the slot's.
const GENERATION_MAX: u32 = (1 << 29) - 1;

/// A connection, its socket, and what the loop remembers of both.
#[derive(Debug)]
pub struct Entry {
    pub connection: Connection,
    pub wire: Rc<RefCell<Wire>>,
    pub is_dirty: bool,
    pub is_ready: bool,
    pub is_readable: bool,
    pub is_hung_up: bool,
}

/// The slots there are.
#[derive(Debug)]
pub struct Slots {
    entries: Vec<Option<Entry>>,
    generations: Vec<u32>,
    /// Freed slots; the last freed is the first reused.
    free: Vec<Slot>,
    slots_max: usize,
    first_generation: u32,
    len: usize,
}

impl Slots {
    /// No connections yet. With `is_old`, slots are about to be used up.
    pub fn new(slots_max: usize, is_old: bool) -> Slots {
        let first_generation = if is_old { GENERATION_MAX - 40 } else { 0 };
        Slots { entries: Vec::new(), generations: Vec::new(), free: Vec::new(), slots_max, first_generation, len: 0 }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// One more than the highest slot.
    pub fn end(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Takes in a connection. `None`: there is no room.
    pub fn insert(&mut self, wire: Rc<RefCell<Wire>>, env: &Env) -> Option<Fd> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.entries.len() < self.slots_max => {
                self.entries.push(None);
                self.generations.push(self.first_generation);
                Slot(self.entries.len() as u32 - 1)
            }
            None => return None,
        };
        let connection = Connection::new(fdpush::Peer::Unix, env);
        let (is_dirty, is_ready, is_readable, is_hung_up) = Default::default();
        self.entries[slot.index()] = Some(Entry { connection, wire, is_dirty, is_ready, is_readable, is_hung_up });
        self.len += 1;
        Some(self.fd_of(slot))
    }

    /// Frees a slot; one at its last generation is not used again.
    pub fn remove(&mut self, slot: Slot, env: &mut Env) {
        let mut entry = self.entries[slot.index()].take().expect("a slot is freed once");
        entry.connection.release(env);
        entry.wire.borrow_mut().drop_server();
        self.len -= 1;
        if self.generations[slot.index()] < GENERATION_MAX {
            self.generations[slot.index()] += 1;
            self.free.push(slot);
        }
    }

    /// Who has a slot, or had it last.
    pub fn fd_of(&self, slot: Slot) -> Fd {
        let generation = u64::from(self.generations[slot.index()]);
        Fd::from_u64(generation << 24 | u64::from(slot.0 + 1)).expect("a slot of 24 bits, a generation of 29")
    }

    /// The slot of an fd, if it is still its.
    pub fn slot_of(&self, fd: Fd) -> Option<Slot> {
        let slot = fd.slot();
        let is_its = self.generations.get(slot.index()) == Some(&fd.generation());
        (is_its && self.get(slot).is_some()).then_some(slot)
    }

    /// The connection at a slot.
    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.index())?.as_ref()
    }

    /// The connection at a slot, to change.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot.index())?.as_mut()
    }

    /// All connections, the lowest slot first.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| Some((Slot(slot as u32), entry.as_ref()?)))
    }
}
