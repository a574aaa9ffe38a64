//! Input that is read later.
//!
//! A client whose messages inflate to much waits, and the rest of its input is kept until then.

use std::collections::TryReserveError;

use crate::tick::Tick;

/// Input of a connection that is read later.
#[derive(Debug)]
pub struct HeldInput {
    bytes: Vec<u8>,
    /// The number of bytes that were read.
    read: usize,
    /// The time since which reading waits.
    pub since: Tick,
    /// The time at which reading continues.
    pub until: Tick,
}

impl HeldInput {
    /// Creates an empty one that is read at the time `until`.
    pub fn new(since: Tick, until: Tick) -> HeldInput {
        HeldInput { bytes: Vec::new(), read: 0, since, until }
    }

    /// Returns its memory in bytes.
    pub fn allocated_bytes(&self) -> usize {
        size_of::<HeldInput>() + self.bytes.capacity()
    }

    /// Appends input.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn append(&mut self, input: &[u8]) -> Result<(), TryReserveError> {
        self.bytes.try_reserve_exact(input.len())?;
        self.bytes.extend_from_slice(input);
        Ok(())
    }

    /// Returns the bytes that were not read.
    pub fn rest(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.read..).unwrap_or_default()
    }

    /// Records that all but the last `left` bytes were read.
    pub fn set_left(&mut self, left: usize) {
        self.read = self.bytes.len() - left;
    }

    /// Returns the bytes that were not read, without the others.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.drain(..self.read);
        self.bytes
    }
}
