//! Memory accounting: the number of bytes of single objects, such as unfinished messages, and the total of these
//! numbers.
//!
//! Each object has a [`MemoryShare`], which contains the number of its bytes. When the share is dropped, this number is
//! subtracted from the total, so no code path can forget the subtraction.

use std::cell::Cell;
use std::rc::Rc;

/// The sum of the bytes of all [`MemoryShare`]s of one loop.
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

/// The number of bytes of one object, such as an unfinished message. A [`MemoryTotal`] includes this number.
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
    fn the_bytes_of_a_dropped_share_are_subtracted_from_the_total() {
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
