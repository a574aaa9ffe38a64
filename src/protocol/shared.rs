//! Frames that are encoded once and shared by any number of queues.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use crate::protocol::deflate::Deflater;
use crate::protocol::frame::{Opcode, ServerHeader, server_payload};

/// A message encoded as a WebSocket frame (RFC 6455 section 5.2).
///
/// A frame can be pushed any number of times and from any thread. A clone shares the bytes. A frame can have any
/// length, but a push of a frame over [`Limits::queue_bytes_max`](crate::Limits::queue_bytes_max) has the outcome
/// [`TooLarge`](crate::Outcome::TooLarge).
#[derive(Clone)]
pub struct Frame {
    bytes: Arc<[u8]>,
    /// The result of the first call of `deflate`: `None` if the deflated frame would not be shorter.
    ///
    /// If a frame is cloned after this call, the clone has this result, too.
    deflated: OnceLock<Option<Arc<[u8]>>>,
}

impl Frame {
    /// Encodes a text message.
    pub fn text(text: &str) -> Frame {
        Frame::encode(Opcode::Text, text.as_bytes())
    }

    /// Encodes a binary message.
    pub fn binary(bytes: &[u8]) -> Frame {
        Frame::encode(Opcode::Binary, bytes)
    }

    /// Returns the bytes of the frame as the server sends them.
    ///
    /// The frame is unmasked and unfragmented, with its length in the shortest form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the payload of the message.
    pub(crate) fn payload(&self) -> &[u8] {
        server_payload(&self.bytes)
    }

    /// Returns whether [`deflate`](Frame::deflate) was called before.
    pub(crate) fn is_tried(&self) -> bool {
        self.deflated.get().is_some()
    }

    /// Returns the deflated frame. The first call deflates the frame.
    ///
    /// Returns `None` if the deflated frame would not be shorter.
    pub(crate) fn deflate(&self, deflater: &mut Deflater) -> Option<Arc<[u8]>> {
        let is_text = self.bytes.first().is_some_and(|first| first & 0x0f == Opcode::Text as u8);
        let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
        self.deflated.get_or_init(|| deflater.encode(opcode, self.payload()).map(Into::into)).clone()
    }

    /// Encodes a message.
    pub(crate) fn encode(opcode: Opcode, payload: &[u8]) -> Frame {
        Frame { bytes: encode(opcode, payload).into(), deflated: OnceLock::new() }
    }
}

/// Frames are equal if their messages are equal.
impl PartialEq for Frame {
    fn eq(&self, other: &Frame) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Frame {}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Frame").field(&self.bytes).finish()
    }
}

fn encode(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let header = ServerHeader::new(opcode, payload.len());
    let mut bytes = Vec::with_capacity(header.bytes() + payload.len());
    header.append_to(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// The memory of a shared frame in addition to the bytes of the frame.
///
/// This memory consists of counters and the overhead of the allocator.
pub const FRAME_BYTES: usize = size_of::<Inner>() + 32;

/// A frame that several queues of one loop contain without a copy of its bytes.
///
/// The frame counts the queues that contain it, so that its memory is added to the total memory of all queues only
/// once.
#[derive(Clone, Debug)]
pub struct SharedFrame(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Bytes,
    queues: Cell<u32>,
}

#[derive(Debug)]
enum Bytes {
    Encoded(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl SharedFrame {
    /// Encodes a message. Returns `None` if the allocation fails.
    pub fn encode(opcode: Opcode, payload: &[u8]) -> Option<SharedFrame> {
        let header = ServerHeader::new(opcode, payload.len());
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(header.bytes() + payload.len()).ok()?;
        header.append_to(&mut bytes);
        bytes.extend_from_slice(payload);
        Some(SharedFrame::from_bytes(bytes))
    }

    /// Creates a shared frame from a [`Frame`], without a copy of its bytes.
    pub fn from_frame(frame: &Frame) -> SharedFrame {
        SharedFrame::from_shared(Arc::clone(&frame.bytes))
    }

    /// Creates a shared frame from the bytes of an encoded frame.
    pub fn from_bytes(bytes: Vec<u8>) -> SharedFrame {
        SharedFrame::new(Bytes::Encoded(bytes))
    }

    /// Creates a shared frame from the bytes of an encoded frame. Other frames and other loops may use the same bytes.
    pub fn from_shared(bytes: Arc<[u8]>) -> SharedFrame {
        SharedFrame::new(Bytes::Shared(bytes))
    }

    /// Returns the bytes of the frame.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0.bytes {
            Bytes::Encoded(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        }
    }

    /// Counts one more queue that contains the frame.
    ///
    /// Returns the number of bytes to add to the total memory of all queues: the whole memory of the frame for the
    /// first queue, else 0.
    pub fn enter_queue(&self) -> usize {
        let queues = self.0.queues.get();
        self.0.queues.set(queues + 1);
        if queues == 0 { self.as_bytes().len() + FRAME_BYTES } else { 0 }
    }

    /// Counts one queue fewer that contains the frame.
    ///
    /// Returns the number of bytes to subtract from the total memory of all queues: the whole memory of the frame for
    /// the last queue, else 0.
    pub fn leave_queue(&self) -> usize {
        let queues = self.0.queues.get() - 1;
        self.0.queues.set(queues);
        if queues == 0 { self.as_bytes().len() + FRAME_BYTES } else { 0 }
    }

    /// Returns the memory of the frame divided by the number of queues that contain the frame.
    pub fn charge(&self) -> usize {
        (self.as_bytes().len() + FRAME_BYTES) / self.0.queues.get().max(1) as usize
    }

    fn new(bytes: Bytes) -> SharedFrame {
        SharedFrame(Rc::new(Inner { bytes, queues: Cell::new(0) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_encoded_as_in_rfc_6455() {
        assert_eq!(Frame::text("hi").as_bytes(), b"\x81\x02hi");
        assert_eq!(Frame::binary(b"").as_bytes(), b"\x82\x00");
        assert_eq!(Frame::binary(&[0; 126]).as_bytes()[..4], [0x82, 126, 0, 126]);
    }

    #[test]
    fn the_memory_of_a_shared_frame_is_counted_only_for_its_first_queue() {
        let frame = SharedFrame::from_frame(&Frame::text("hello"));
        let all = 7 + FRAME_BYTES;
        assert_eq!(frame.enter_queue(), all);
        assert_eq!(frame.enter_queue(), 0);
        assert_eq!(frame.charge(), all / 2);
        assert_eq!(frame.leave_queue(), 0);
        assert_eq!(frame.leave_queue(), all);
        assert_eq!(frame.enter_queue(), all);
    }
}
