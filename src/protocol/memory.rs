//! Memory accounting: shares that add up to a total.
//!
//! When a share is dropped, its bytes are subtracted from the total. So no code path can forget the subtraction.

use std::cell::Cell;
use std::rc::Rc;

/// The sum of all shares of one loop.
///
/// A clone refers to the same sum.
#[derive(Clone, Debug, Default)]
pub struct MemoryTotal(Rc<Cell<usize>>);

impl MemoryTotal {
    /// Returns the number of bytes of all shares.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    /// Creates a share of 0 bytes.
    pub fn share(&self) -> MemoryShare {
        MemoryShare { total: self.clone(), bytes: 0 }
    }
}

/// The memory of one owner, in bytes: one share of a total.
#[derive(Debug, Default)]
pub struct MemoryShare {
    total: MemoryTotal,
    bytes: usize,
}

impl MemoryShare {
    /// Returns the number of bytes of this share.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the bytes of this share and adjusts the total.
    #[inline]
    pub fn set(&mut self, bytes: usize) {
        self.total.0.set(self.total.0.get() - self.bytes + bytes);
        self.bytes = bytes;
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_share_returns_its_bytes() {
        let total = MemoryTotal::default();
        let (mut one, mut other) = (total.share(), total.share());
        one.set(10);
        other.set(5);
        one.set(3);
        assert_eq!((total.bytes(), one.bytes()), (8, 3));
        drop(one);
        assert_eq!(total.bytes(), 5);
        drop(other);
        assert_eq!(total.bytes(), 0);
    }
}
