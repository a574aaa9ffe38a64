//! The bound on the bytes in datagrams that wait for the loop. The inbox of the loop only bounds the number of
//! datagrams.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum number of bytes in datagrams of one socket that wait for the loop.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// The number of bytes in the datagrams that wait for the loop.
#[derive(Default, Debug)]
pub struct PendingBytes(Arc<AtomicUsize>);

/// A datagram that waits for the loop. Dropping the datagram subtracts its bytes from the total.
#[derive(Debug)]
pub struct Datagram {
    bytes: Box<[u8]>,
    waiting: Arc<AtomicUsize>,
}

impl PendingBytes {
    /// Copies a datagram for the loop. Returns `None` if the bound would be exceeded.
    pub fn admit(&self, datagram: &[u8]) -> Option<Datagram> {
        // Only one thread adds bytes, so the check and the addition need not be one atomic operation.
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
        assert!(waiting.admit(&datagram).is_some(), "a dropped datagram must make room for the next");
        drop(admitted);
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    }
}
