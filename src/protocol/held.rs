//! Memory that is counted in a total for as long as its owner lives.
//!
//! The share gives its bytes back when it is dropped, so no path that drops an owner can forget to count it.

use std::cell::Cell;
use std::rc::Rc;

/// The sum of the shares of one loop. A clone counts in the same sum.
#[derive(Clone, Debug, Default)]
pub struct HeldTotal(Rc<Cell<usize>>);

impl HeldTotal {
    /// Bytes in all shares.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    /// A share of 0 bytes.
    pub fn share(&self) -> HeldShare {
        HeldShare { total: self.clone(), bytes: 0 }
    }
}

/// What one owner holds.
#[derive(Debug, Default)]
pub struct HeldShare {
    total: HeldTotal,
    bytes: usize,
}

impl HeldShare {
    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets its bytes, and changes the total by the difference.
    #[inline]
    pub fn set(&mut self, bytes: usize) {
        self.total.0.set(self.total.0.get() - self.bytes + bytes);
        self.bytes = bytes;
    }
}

impl Drop for HeldShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_share_gives_its_bytes_back() {
        let total = HeldTotal::default();
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
