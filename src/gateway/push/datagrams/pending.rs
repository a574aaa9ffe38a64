//! Bounds the total bytes of datagrams that wait for the event loop.
//!
//! The inbox of the event loop bounds the number of waiting datagrams, but not their bytes.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum bytes of one socket's datagrams that wait for the loop.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// The total bytes of one socket's datagrams that wait for the loop.
#[derive(Default, Debug)]
pub struct PendingBytes(Arc<AtomicUsize>);

/// A datagram that waits for the event loop. Dropping a `Datagram` subtracts its length from [`PendingBytes`].
#[derive(Debug)]
pub struct Datagram {
    bytes: Box<[u8]>,
    /// The byte counter of the [`PendingBytes`] that admitted the datagram.
    waiting: Arc<AtomicUsize>,
}

impl PendingBytes {
    /// Copies a datagram for the event loop, and counts its bytes.
    ///
    /// Returns `None` if the bytes of all waiting datagrams would exceed [`WAITING_BYTES_MAX`].
    pub fn admit(&self, datagram: &[u8]) -> Option<Datagram> {
        // Only the receiving thread adds bytes, so the check and the addition need not be one atomic operation.
        if self.0.load(Ordering::Relaxed) + datagram.len() > WAITING_BYTES_MAX {
            return None;
        }
        self.0.fetch_add(datagram.len(), Ordering::Relaxed);
        Some(Datagram { bytes: datagram.into(), waiting: Arc::clone(&self.0) })
    }
}

impl Deref for Datagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Datagram {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_bytes_are_bounded() {
        let waiting = PendingBytes::default();
        let datagram = vec![b'x'; 60_000];
        let mut admitted: Vec<Datagram> = std::iter::from_fn(|| waiting.admit(&datagram)).collect();
        assert_eq!(admitted.len(), WAITING_BYTES_MAX / 60_000);
        assert_eq!(*admitted[0], *datagram);
        admitted.pop();
        assert!(waiting.admit(&datagram).is_some(), "a datagram must be admitted after another datagram was dropped");
        drop(admitted);
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    }
}
