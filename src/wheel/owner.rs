//! The owners of deadlines.

use crate::fd::Slot;

/// The largest index of an [`Owner`].
///
/// A link in a node uses its top bit for the arena, and one value for "none".
pub const OWNER_INDEX_MAX: u32 = (1 << 31) - 2;

/// The owner of a deadline. An owner has at most one deadline.
///
/// Indices should be dense: the wheel keeps 16 bytes for each index up to the largest armed index, separately for
/// connections and timers. The maximum index is [`OWNER_INDEX_MAX`].
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// A connection, by its slot in the slab.
    Connection(Slot),
    /// A timer of a handler, by its index in the loop's list of timers.
    Timer(u32),
}
