//! A frame to send, encoded at most once.

use crate::connection::segment::overhead;
use crate::protocol::frame::{Opcode, ServerHeader};
use crate::protocol::shared::{Frame, SharedFrame};

/// The longest frame to many connections that is copied to each queue.
///
/// A longer frame is shared. A copy of a shorter one costs less than a slice of its own in `writev`.
pub(super) const COPIED_BYTES_MAX: usize = 512;

/// A frame to send to connections, encoded at most once.
pub struct Outbound<'a> {
    source: Source<'a>,
    /// Its length in bytes, with its header.
    bytes: usize,
    shared: Option<SharedFrame>,
    /// Its range in the journal, after it was appended.
    pub(super) place: Option<Range>,
    /// Whether it may go to more than one queue.
    pub(crate) to_many: bool,
    /// The conflation key, if the server conflates.
    pub(crate) key: Option<&'a str>,
}

#[derive(Copy, Clone)]
enum Source<'a> {
    Payload(Opcode, &'a [u8]),
    /// An encoded frame.
    Frame(&'a Frame),
}

impl<'a> Outbound<'a> {
    /// Returns a message or a control frame.
    pub fn message(opcode: Opcode, payload: &'a [u8]) -> Outbound<'a> {
        let bytes = ServerHeader::new(opcode, payload.len()).bytes() + payload.len();
        Outbound::new(Source::Payload(opcode, payload), bytes, false)
    }

    /// Returns a frame that is encoded already, and is shared.
    pub fn frame(frame: &'a Frame) -> Outbound<'a> {
        Outbound::new(Source::Frame(frame), frame.as_bytes().len(), true)
    }

    #[inline]
    fn new(source: Source<'a>, bytes: usize, to_many: bool) -> Outbound<'a> {
        Outbound { source, bytes, shared: None, place: None, to_many, key: None }
    }

    /// Returns its length in bytes, with its header.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the memory that it takes in a queue besides its bytes.
    #[inline]
    pub fn overhead(&self) -> usize {
        if self.is_separate() { overhead(self.key.map(str::len)) } else { 0 }
    }

    // Always inlined, for the journal: see `ServerHeader::append_to`.
    #[inline(always)]
    pub(super) fn append_to(&self, run: &mut Vec<u8>) {
        run.reserve(self.bytes);
        match self.source {
            Source::Payload(opcode, payload) => {
                ServerHeader::new(opcode, payload.len()).append_to(run);
                run.extend_from_slice(payload);
            }
            Source::Frame(frame) => run.extend_from_slice(frame.as_bytes()),
        }
    }

    /// Returns whether it becomes a segment of its own in a queue.
    #[inline]
    pub(super) fn is_separate(&self) -> bool {
        self.key.is_some() || (self.to_many && self.bytes() > COPIED_BYTES_MAX)
    }

    /// Returns the frame for any number of queues. `None`: out of memory.
    pub(super) fn share(&mut self) -> Option<SharedFrame> {
        if self.shared.is_none() {
            self.shared = Some(match self.source {
                Source::Payload(opcode, payload) => SharedFrame::encode(opcode, payload)?,
                Source::Frame(frame) => SharedFrame::from_frame(frame),
            });
        }
        self.shared.clone()
    }
}

/// A range of the journal that holds the output of a connection.
///
/// It is never empty.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Range {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Range {
    /// Returns its length.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}
