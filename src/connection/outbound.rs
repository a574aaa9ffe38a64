//! A frame on its way to connections: encoded at most once, for the journal or for queues.

use crate::connection::segment::overhead;
use crate::protocol::frame::{Opcode, ServerHeader};
use crate::protocol::shared::{Frame, SharedFrame};

/// A frame to many that is longer than this is shared, a shorter one copied: below it the copy is cheaper than a slice
/// of its own in `writev`.
pub(super) const COPIED_BYTES_MAX: usize = 512;

/// A frame on its way into queues, encoded at most once.
pub struct Outbound<'a> {
    source: Source<'a>,
    /// Its length on the wire.
    bytes: usize,
    shared: Option<SharedFrame>,
    /// Where it lies in the journal, once it does.
    pub(super) place: Option<Range>,
    /// Whether it may go to more than one queue.
    pub(crate) to_many: bool,
    /// The conflation key, if the server conflates.
    pub(crate) key: Option<&'a str>,
}

#[derive(Copy, Clone)]
enum Source<'a> {
    Payload(Opcode, &'a [u8]),
    /// Encoded already.
    Frame(&'a Frame),
}

impl<'a> Outbound<'a> {
    /// A message, or a control frame.
    pub fn message(opcode: Opcode, payload: &'a [u8]) -> Outbound<'a> {
        let bytes = ServerHeader::new(opcode, payload.len()).bytes() + payload.len();
        Outbound::new(Source::Payload(opcode, payload), bytes, false)
    }

    /// A frame that is encoded already. It is shared with whoever else has it.
    pub fn frame(frame: &'a Frame) -> Outbound<'a> {
        Outbound::new(Source::Frame(frame), frame.as_bytes().len(), true)
    }

    #[inline]
    fn new(source: Source<'a>, bytes: usize, to_many: bool) -> Outbound<'a> {
        Outbound { source, bytes, shared: None, place: None, to_many, key: None }
    }

    /// Its length on the wire.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory that it takes up in a queue besides its bytes.
    #[inline]
    pub fn overhead(&self) -> usize {
        if self.is_separate() { overhead(self.key.map(str::len)) } else { 0 }
    }

    // Always, for the journal: see `ServerHeader::append_to`.
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

    /// Whether it has a place of its own in a queue, whoever's that is.
    #[inline]
    pub(super) fn is_separate(&self) -> bool {
        self.key.is_some() || (self.to_many && self.bytes() > COPIED_BYTES_MAX)
    }

    /// The frame for any number of queues. `None`: there is no memory for it.
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

/// Where in the journal a connection's output lies. Never empty.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Range {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Range {
    /// Its length.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}
