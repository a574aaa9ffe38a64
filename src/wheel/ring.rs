//! Circular doubly linked lists of nodes.
//!
//! All lists of the wheel share two arenas of nodes.
//!
//! This module owns the nodes and their links. This module does not know the meaning of a list. A list is identified by
//! its first node. Both ends are reachable from the first node, so concatenation is O(1). The removal of a node that is
//! not the first changes only its two neighbours, so this removal does not need the list of the node.

use crate::fd::Slot;
use std::ops::{Index, IndexMut};

use super::owner::{OWNER_INDEX_MAX, Owner};
use crate::tick::Tick;

const _: () = assert!(size_of::<Node>() == 16);

/// A circular list, identified by its first node.
///
/// The `prev` of the first node is the last node.
#[derive(Copy, Clone, Debug)]
pub(super) struct List {
    pub(super) first: Link,
}

#[derive(Copy, Clone, Debug)]
pub(super) struct Node {
    /// The deadline. The field is valid only while the node is linked.
    pub(super) deadline: Tick,
    /// The previous node of the list. Both links, `prev` and `next`, are `NONE` while the node is in no list.
    ///
    /// Neither link is `NONE` while the node is in a list.
    pub(super) prev: Link,
    pub(super) next: Link,
}

/// An optional [`Owner`] in 32 bits.
///
/// The top bit selects the arena. The other bits are the index.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Link(u32);

/// The two arenas of nodes: the first for connections, the second for timers.
///
/// The length of an arena is the largest used index plus one.
#[derive(Debug)]
pub(super) struct Nodes([Vec<Node>; 2]);

impl List {
    pub(super) const EMPTY: List = List { first: Link::NONE };

    pub(super) fn is_empty(self) -> bool {
        self.first == Link::NONE
    }
}

impl Node {
    const UNLINKED: Node = Node { deadline: Tick(0), prev: Link::NONE, next: Link::NONE };

    pub(super) fn is_linked(&self) -> bool {
        self.next != Link::NONE
    }
}

impl Link {
    pub(super) const NONE: Link = Link(u32::MAX);
    const TIMER: u32 = 1 << 31;

    pub(super) fn to(owner: Owner) -> Link {
        let (arena, index) = match owner {
            Owner::Connection(Slot(index)) => (0, index),
            Owner::Timer(index) => (Link::TIMER, index),
        };
        assert!(index <= OWNER_INDEX_MAX, "the index of {owner:?} must be at most OWNER_INDEX_MAX");
        Link(arena | index)
    }

    pub(super) fn owner(self) -> Option<Owner> {
        let index = self.0 & !Link::TIMER;
        match self {
            Link::NONE => None,
            _ if index == self.0 => Some(Owner::Connection(Slot(index))),
            _ => Some(Owner::Timer(index)),
        }
    }

    /// Returns the arena, and the index in this arena.
    fn split(self) -> (usize, usize) {
        ((self.0 >> 31) as usize, (self.0 & !Link::TIMER) as usize)
    }
}

impl Nodes {
    pub(super) fn new() -> Nodes {
        Nodes([Vec::new(), Vec::new()])
    }

    /// Reserves address space for the nodes of this many connections.
    pub(super) fn reserve(&mut self, connections: usize) {
        let [nodes_of_connections, _] = &mut self.0;
        nodes_of_connections.reserve_exact(connections);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> + '_ {
        self.0.iter().flatten()
    }

    /// Returns the node at `link`, or `None` if the arena has not grown to this node.
    pub(super) fn get(&self, link: Link) -> Option<&Node> {
        let (arena, index) = link.split();
        self.0[arena].get(index)
    }

    /// Grows the arena until the node at `link` exists.
    pub(super) fn grow_to(&mut self, link: Link) {
        let (arena, index) = link.split();
        if self.0[arena].len() <= index {
            self.0[arena].resize(index + 1, Node::UNLINKED);
        }
    }

    /// Appends a node to a list.
    ///
    /// The node must be in no list, or in a list whose nodes are all being moved to other lists.
    pub(super) fn push_back(&mut self, list: &mut List, link: Link) {
        (self[link].prev, self[link].next) = (link, link);
        self.append(list, List { first: link });
    }

    /// Moves all nodes of `tail` to the end of `list`.
    pub(super) fn append(&mut self, list: &mut List, tail: List) {
        if list.is_empty() {
            *list = tail;
        } else if !tail.is_empty() {
            let list_last = self[list.first].prev;
            let tail_last = self[tail.first].prev;
            self[list_last].next = tail.first;
            self[tail.first].prev = list_last;
            self[tail_last].next = list.first;
            self[list.first].prev = tail_last;
        }
    }

    /// Removes a node. If the node is the first node of `list`, `list` is updated.
    pub(super) fn unlink(&mut self, list: &mut List, link: Link) {
        let Node { prev, next, .. } = self[link];
        self[prev].next = next;
        self[next].prev = prev;
        if list.first == link {
            list.first = if next == link { Link::NONE } else { next };
        }
        (self[link].prev, self[link].next) = (Link::NONE, Link::NONE);
    }
}

impl Index<Link> for Nodes {
    type Output = Node;

    fn index(&self, link: Link) -> &Node {
        let (arena, index) = link.split();
        &self.0[arena][index]
    }
}

impl IndexMut<Link> for Nodes {
    fn index_mut(&mut self, link: Link) -> &mut Node {
        let (arena, index) = link.split();
        &mut self.0[arena][index]
    }
}
