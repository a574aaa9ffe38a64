//! A frame encoded once, for any number of queues.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::protocol::frame::{Opcode, ServerHeader};

/// A message encoded as a WebSocket frame, ready to be pushed any number of times, from any thread. A clone shares the
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    /// A text message.
    pub fn text(text: &str) -> Frame {
        Frame::encode(Opcode::Text, text.as_bytes())
    }

    /// A binary message.
    pub fn binary(bytes: &[u8]) -> Frame {
        Frame::encode(Opcode::Binary, bytes)
    }

    /// The frame as it goes over the wire: unmasked, unfragmented, its length in the shortest form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn encode(opcode: Opcode, payload: &[u8]) -> Frame {
        Frame(encode(opcode, payload).into())
    }
}

fn encode(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let header = ServerHeader::new(opcode, payload.len());
    let mut bytes = Vec::with_capacity(header.bytes() + payload.len());
    header.append_to(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// A frame in the queues of one loop. It knows in how many, so that the memory that it holds is counted once.
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
    Frame(Frame),
}

impl SharedFrame {
    /// Encodes a message.
    pub fn encode(opcode: Opcode, payload: &[u8]) -> SharedFrame {
        SharedFrame::new(Bytes::Encoded(encode(opcode, payload)))
    }

    /// Shares what is encoded already.
    pub fn from_frame(frame: &Frame) -> SharedFrame {
        SharedFrame::new(Bytes::Frame(frame.clone()))
    }

    /// The frame's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0.bytes {
            Bytes::Encoded(bytes) => bytes,
            Bytes::Frame(frame) => frame.as_bytes(),
        }
    }

    /// One more queue has it. Returns the memory that this takes: all of it for the first queue, else none.
    pub fn enter_queue(&self) -> usize {
        let queues = self.0.queues.get();
        self.0.queues.set(queues + 1);
        if queues == 0 { self.as_bytes().len() } else { 0 }
    }

    /// One queue is done with it. Returns the memory that this gives back: all of it from the last queue, else none.
    pub fn leave_queue(&self) -> usize {
        let queues = self.0.queues.get() - 1;
        self.0.queues.set(queues);
        if queues == 0 { self.as_bytes().len() } else { 0 }
    }

    fn new(bytes: Bytes) -> SharedFrame {
        SharedFrame(Rc::new(Inner { bytes, queues: Cell::new(0) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_goes_over_the_wire() {
        assert_eq!(Frame::text("hi").as_bytes(), b"\x81\x02hi");
        assert_eq!(Frame::binary(b"").as_bytes(), b"\x82\x00");
        assert_eq!(Frame::binary(&[0; 126]).as_bytes()[..4], [0x82, 126, 0, 126]);
    }

    #[test]
    fn shared_memory_is_counted_once() {
        let frame = SharedFrame::from_frame(&Frame::text("hello"));
        assert_eq!(frame.enter_queue(), 7);
        assert_eq!(frame.enter_queue(), 0);
        assert_eq!(frame.leave_queue(), 0);
        assert_eq!(frame.leave_queue(), 7);
        assert_eq!(frame.enter_queue(), 7);
    }
}
