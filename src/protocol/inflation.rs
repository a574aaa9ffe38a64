//! Unfinished deflated messages (RFC 7692 section 7.2.2).
//!
//! The payload of an unfinished message is stored deflated, up to [`KEPT_BYTES_MAX`]. A message with a longer payload
//! gets its own inflater and is inflated part by part, so that no single part takes long. All other messages share the
//! inflater of the pool.

use std::mem;

use crate::protocol::deflate::{InflateError, Inflater};

/// The longest deflated payload that is stored until its message is complete, in bytes.
pub const KEPT_BYTES_MAX: usize = 64 << 10;

/// The inflater that all connections share, and counters of deflated messages.
#[derive(Debug, Default)]
pub struct InflaterPool {
    /// The inflater. The first deflated message creates the inflater.
    inflater: Option<Box<Inflater>>,
    counts: InflatedCounts,
}

/// Counters of deflated messages.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct InflatedCounts {
    /// The number of deflated messages that were received completely and inflated.
    pub messages: u64,
    /// The number of received payload bytes of deflated messages, including incomplete messages.
    pub deflated_bytes: u64,
    /// The number of payload bytes of deflated messages after inflation.
    pub inflated_bytes: u64,
    /// The number of deflated messages that could not be inflated.
    pub failures: u64,
}

/// The received payload of an unfinished deflated message.
#[derive(Debug, Default)]
pub struct DeflatedPayload {
    /// The received payload: deflated if `inflater` is `None`, else already inflated.
    bytes: Vec<u8>,
    inflater: Option<Box<Inflater>>,
}

impl InflaterPool {
    /// Returns the counters since the last call, and resets them.
    pub fn take_counts(&mut self) -> InflatedCounts {
        mem::take(&mut self.counts)
    }

    /// Inflates the complete payload of a message.
    ///
    /// # Errors
    /// Returns an error if the payload is invalid or inflates to more than `bytes_max` bytes, or if memory could not be
    /// allocated.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        let inflater = self.inflater.get_or_insert_default();
        let mut bytes = Vec::new();
        inflater.begin();
        self.counts.push(inflater, payload, &mut bytes, bytes_max)?;
        self.counts.finish(inflater)?;
        Ok(bytes)
    }
}

impl DeflatedPayload {
    /// Returns the allocated memory of the payload, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        let inflater = if self.inflater.is_some() { Inflater::MEMORY_BYTES } else { 0 };
        size_of::<DeflatedPayload>() + self.bytes.capacity() + inflater
    }

    /// Adds a part of the payload. After the last part, returns the inflated message.
    ///
    /// # Errors
    /// Returns an error if the payload is invalid or inflates to more than `bytes_max` bytes, or if memory could not be
    /// allocated.
    pub fn add(
        &mut self,
        part: &[u8],
        is_last: bool,
        bytes_max: usize,
        pool: &mut InflaterPool,
    ) -> Result<Option<Vec<u8>>, InflateError> {
        match &mut self.inflater {
            Some(inflater) => pool.counts.push(inflater, part, &mut self.bytes, bytes_max)?,
            None if is_last && self.bytes.is_empty() => return pool.inflate(part, bytes_max).map(Some),
            None if self.bytes.len() + part.len() <= KEPT_BYTES_MAX => {
                self.bytes.try_reserve(part.len()).map_err(|_| InflateError::OutOfMemory)?;
                self.bytes.extend_from_slice(part);
                if is_last {
                    return pool.inflate(&mem::take(&mut self.bytes), bytes_max).map(Some);
                }
            }
            None => {
                let inflater = self.inflater.insert(Box::default());
                let kept = mem::take(&mut self.bytes);
                pool.counts.push(inflater, &kept, &mut self.bytes, bytes_max)?;
                pool.counts.push(inflater, part, &mut self.bytes, bytes_max)?;
            }
        }
        let Some(mut inflater) = self.inflater.take_if(|_| is_last) else { return Ok(None) };
        pool.counts.finish(&mut inflater)?;
        Ok(Some(mem::take(&mut self.bytes)))
    }
}

impl InflatedCounts {
    fn push(
        &mut self,
        inflater: &mut Inflater,
        part: &[u8],
        bytes: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        let before = bytes.len();
        let inflated = inflater.push(part, bytes, bytes_max);
        self.deflated_bytes += part.len() as u64;
        self.inflated_bytes += (bytes.len() - before) as u64;
        self.count(inflated)
    }

    fn finish(&mut self, inflater: &mut Inflater) -> Result<(), InflateError> {
        let finished = inflater.finish();
        self.count(finished)?;
        self.messages += 1;
        Ok(())
    }

    fn count(&mut self, inflated: Result<(), InflateError>) -> Result<(), InflateError> {
        self.failures += u64::from(inflated.is_err());
        inflated
    }
}
