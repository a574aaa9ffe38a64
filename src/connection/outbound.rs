//! A frame that is sent to one or more connections. Its plain form and its deflated form are each encoded at most once.

mod kept;

pub use self::kept::KeptMessage;

use crate::connection::compression::Compression;
use crate::connection::segment::overhead;
use crate::limits::Limits;
use crate::protocol::deflate::Deflater;
use crate::protocol::frame::{Opcode, ServerHeader};
use crate::protocol::shared::{Frame, SharedFrame};

/// The maximum length, in bytes, of a frame to many connections that is copied to each queue.
///
/// The queues share a longer frame. For a shorter frame, a copy takes less time than an additional slice in `writev`.
pub(super) const COPIED_BYTES_MAX: usize = 512;

/// The position of the first byte in the deflated part of the journal.
pub(super) const DEFLATED_START: u32 = 1 << 31;

/// A frame to send to connections, encoded at most once.
pub struct Outbound<'a> {
    source: Source<'a>,
    /// The length of the frame in bytes, with its header.
    bytes: usize,
    shared: Option<SharedFrame>,
    /// The range of the frame in the journal, or `None` before the frame is appended to the journal.
    pub(super) place: Option<Range>,
    /// Whether the frame may go to more than one queue.
    pub(crate) to_many: bool,
    /// The conflation key, if the policy for slow readers is `SlowReader::Conflate`.
    pub(crate) key: Option<&'a str>,
    /// The part of the journal to which this frame is appended.
    pub(super) part: JournalPart,
    /// Whether the message may be deflated.
    pub(crate) may_deflate: bool,
    /// The message in its deflated form, for clients that negotiated permessage-deflate.
    deflated: Option<Box<Outbound<'a>>>,
}

#[derive(Copy, Clone)]
enum Source<'a> {
    Payload(Opcode, &'a [u8]),
    /// An encoded frame.
    Frame(&'a Frame),
    /// A deflated frame, whose bytes are in the field `shared`.
    Deflated,
}

/// A part of the journal.
///
/// Frames for clients that negotiated permessage-deflate are in one part, and frames for all other clients are in the
/// other part. So the output of each client is one range, even if a turn sends several messages to both kinds of
/// clients.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum JournalPart {
    Plain,
    Deflated,
}

impl<'a> Outbound<'a> {
    /// Creates an outbound message or control frame.
    #[inline]
    pub fn message(opcode: Opcode, payload: &'a [u8]) -> Outbound<'a> {
        let bytes = ServerHeader::new(opcode, payload.len()).bytes() + payload.len();
        Outbound::new(Source::Payload(opcode, payload), bytes, false)
    }

    /// Creates an outbound frame from an encoded, shared frame.
    #[inline]
    pub fn frame(frame: &'a Frame) -> Outbound<'a> {
        Outbound::new(Source::Frame(frame), frame.as_bytes().len(), true)
    }

    #[inline]
    fn new(source: Source<'a>, bytes: usize, to_many: bool) -> Outbound<'a> {
        Outbound {
            source,
            bytes,
            shared: None,
            place: None,
            to_many,
            key: None,
            part: JournalPart::Plain,
            may_deflate: true,
            deflated: None,
        }
    }

    /// Returns the form of the message for clients that negotiated permessage-deflate.
    ///
    /// The first call deflates the message. The returned form is plain if deflation is not allowed, if the message is
    /// shorter than `compress_bytes_min`, or if deflation would make it longer.
    pub(super) fn deflated(
        &mut self,
        deflater: &mut Deflater,
        counts: &mut Compression,
        limits: &Limits,
    ) -> &mut Outbound<'a> {
        if self.deflated.is_none() {
            self.deflated = Some(Box::new(self.encode_deflated(deflater, counts, limits)));
        }
        self.deflated.as_deref_mut().unwrap_or_else(|| unreachable!("the deflated frame must be encoded"))
    }

    fn encode_deflated(&self, deflater: &mut Deflater, counts: &mut Compression, limits: &Limits) -> Outbound<'a> {
        let may_deflate = self.may_deflate && limits.compression;
        let is_long = self.source.payload_bytes() >= limits.compress_bytes_min;
        let frame = if may_deflate && is_long { self.source.deflate(deflater, counts) } else { None };
        let (source, bytes) = match &frame {
            Some(frame) => (Source::Deflated, frame.as_bytes().len()),
            None => (self.source, self.bytes),
        };
        let part = JournalPart::Deflated;
        Outbound { part, key: self.key, shared: frame, ..Outbound::new(source, bytes, self.to_many) }
    }

    /// Returns the length of the payload in bytes, or 0 for a deflated frame.
    pub(super) fn payload_bytes(&self) -> usize {
        self.source.payload_bytes()
    }

    /// Returns whether the frame is deflated.
    pub(super) fn is_deflated(&self) -> bool {
        matches!(self.source, Source::Deflated)
    }

    /// Returns the length of the frame in bytes, with its header.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the memory that the frame takes in a queue in addition to its bytes.
    #[inline]
    pub fn overhead(&self) -> usize {
        if self.is_separate() { overhead(self.key.map(str::len)) } else { 0 }
    }

    /// Writes the frame to `out`, which has the length of the frame.
    #[inline(always)]
    pub(super) fn write_to(&self, out: &mut [u8]) {
        match self.source {
            Source::Payload(opcode, payload) => ServerHeader::new(opcode, payload.len()).write_frame(payload, out),
            Source::Frame(frame) => out.copy_from_slice(frame.as_bytes()),
            Source::Deflated => out.copy_from_slice(self.shared.as_ref().map_or(&[], SharedFrame::as_bytes)),
        }
    }

    pub(super) fn append_to(&self, run: &mut Vec<u8>) {
        run.reserve(self.bytes);
        match self.source {
            Source::Payload(opcode, payload) => {
                ServerHeader::new(opcode, payload.len()).append_to(run);
                run.extend_from_slice(payload);
            }
            Source::Frame(frame) => run.extend_from_slice(frame.as_bytes()),
            Source::Deflated => run.extend_from_slice(self.shared.as_ref().map_or(&[], SharedFrame::as_bytes)),
        }
    }

    /// Returns whether a queue stores the frame in its own segment, and not in a run of copied frames.
    #[inline]
    pub(super) fn is_separate(&self) -> bool {
        self.key.is_some() || (self.to_many && self.bytes() > COPIED_BYTES_MAX)
    }

    /// Returns the frame in a form that queues can share. Returns `None` if an allocation fails.
    pub(super) fn share(&mut self) -> Option<SharedFrame> {
        if self.shared.is_none() {
            self.shared = Some(match self.source {
                Source::Payload(opcode, payload) => SharedFrame::encode(opcode, payload)?,
                Source::Frame(frame) => SharedFrame::from_frame(frame),
                Source::Deflated => return None,
            });
        }
        self.shared.clone()
    }
}

impl Source<'_> {
    fn payload_bytes(&self) -> usize {
        match self {
            Source::Payload(_, payload) => payload.len(),
            Source::Frame(frame) => frame.payload().len(),
            Source::Deflated => 0,
        }
    }

    /// Deflates the message. Returns `None` if the message must be sent without deflation.
    fn deflate(&self, deflater: &mut Deflater, counts: &mut Compression) -> Option<SharedFrame> {
        match self {
            Source::Payload(opcode, payload) => {
                let frame = deflater.encode(*opcode, payload)?;
                counts.count_deflated(payload, &frame);
                Some(SharedFrame::from_bytes(frame))
            }
            Source::Frame(frame) => {
                let is_first = !frame.is_tried();
                let deflated = frame.deflate(deflater)?;
                if is_first {
                    counts.count_deflated(frame.payload(), &deflated);
                }
                Some(SharedFrame::from_shared(deflated))
            }
            Source::Deflated => None,
        }
    }
}

/// A range of the journal that holds the output of a connection.
///
/// A range is never empty.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Range {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Range {
    /// Returns the length of the range in bytes.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Returns the part of the journal that contains the range.
    #[inline]
    pub fn part(self) -> JournalPart {
        if self.start < DEFLATED_START { JournalPart::Plain } else { JournalPart::Deflated }
    }
}
