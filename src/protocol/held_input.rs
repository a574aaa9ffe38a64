//! Input that the server stores and processes later.
//!
//! If a client exceeds `inflated_bytes_per_second_max`, the server holds back the following input of this client until
//! the rate allows it.

use std::collections::TryReserveError;

use crate::tick::Tick;

/// Received input of a connection that the server processes later.
#[derive(Debug)]
pub struct HeldInput {
    bytes: Vec<u8>,
    /// The number of processed bytes at the start of `bytes`.
    read: usize,
    /// The time from which the input is held back. If only a part of the input is processed, the value is the time of
    /// this processing.
    pub since: Tick,
    /// The earliest time at which the server processes the input.
    pub until: Tick,
}

impl HeldInput {
    /// Creates a `HeldInput` without bytes. Bytes that are appended later are processed at the time `until` or later.
    pub fn new(since: Tick, until: Tick) -> HeldInput {
        HeldInput { bytes: Vec::new(), read: 0, since, until }
    }

    /// Returns the allocated memory of the input that is held back, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        size_of::<HeldInput>() + self.bytes.capacity()
    }

    /// Appends input.
    ///
    /// # Errors
    /// Returns an error if memory for the input could not be allocated.
    pub fn append(&mut self, input: &[u8]) -> Result<(), TryReserveError> {
        self.bytes.try_reserve_exact(input.len())?;
        self.bytes.extend_from_slice(input);
        Ok(())
    }

    /// Returns the unprocessed bytes.
    pub fn rest(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.read..).unwrap_or_default()
    }

    /// Marks all bytes except the last `left` bytes as processed.
    pub fn set_left(&mut self, left: usize) {
        self.read = self.bytes.len() - left;
    }

    /// Returns a vector of only the unprocessed bytes.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.drain(..self.read);
        self.bytes
    }
}
