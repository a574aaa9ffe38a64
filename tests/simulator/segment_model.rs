//! The parts of the output model: frames, the segments of a queue, and the memory of all queues.

use std::collections::{BTreeMap, VecDeque};

use fdpush::sim::{FRAME_BYTES, KEY_BYTES, SEGMENT_BYTES};

/// The number of a push. The number is part of the payload.
pub type PushId = u64;

/// An encoded frame: the number of its push, and whether it is for clients that can inflate the message.
type FrameId = (PushId, bool);

/// A frame up to this size is copied into each queue.
pub const COPIED_BYTES_MAX: usize = 512;

/// A frame that a client must receive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Due {
    /// Bytes of HTTP. The client checks these bytes without this model.
    Raw,
    /// A message, and whether it is deflated.
    Message(PushId, bool),
    Ping,
    Pong(Vec<u8>),
    /// A close frame with this payload.
    Close(Vec<u8>),
}

/// The memory of all queues. Bytes in the journal, the output buffer of the loop, do not count as memory of queues.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The memory of all queues that contain frames. A frame that several queues share counts once. The field `http` is
    /// the memory of all queues of HTTP output.
    pub total: usize,
    pub http: usize,
    /// The number of queues that contain a shared frame, by frame.
    shared: BTreeMap<FrameId, u32>,
}

/// A part of a queue: copied frames, or one shared frame.
#[derive(Debug, Default)]
pub struct Segment {
    pub bytes: usize,
    pub shared: Option<FrameId>,
    pub key: Option<String>,
    /// Whether the segment has bytes of HTTP.
    pub is_raw: bool,
    /// Whether the segment is a pong that a newer pong can replace.
    pub is_pong: bool,
    /// The number of bytes in control frames. The server queues control frames without a check of the bounds.
    pub control: usize,
    /// The number of bytes in frames that were written completely. These frames are in `OutputModel::in_flight`.
    pub flown: usize,
    pub frames: VecDeque<(Due, usize)>,
}

/// A message that is being pushed.
#[derive(Clone, Debug)]
pub struct Posted {
    pub id: PushId,
    /// The length of the frame.
    pub bytes: usize,
    /// The length that the frame would have without compression.
    pub plain_bytes: usize,
    pub encoding: Encoding,
    pub to_many: bool,
    pub key: Option<String>,
}

/// The encoding of a message for one client.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// The client did not negotiate permessage-deflate, or cannot inflate a message of this length.
    Plain,
    /// The client can inflate the message, but the message is too short for compression or would not become shorter.
    NotShorter,
    Deflated,
}

impl Posted {
    fn frame_id(&self) -> FrameId {
        (self.id, self.encoding != Encoding::Plain)
    }

    /// Returns the frame that a client must receive.
    pub fn due(&self) -> Due {
        Due::Message(self.id, self.encoding == Encoding::Deflated)
    }

    /// Returns the memory that the message takes in an empty queue.
    pub fn counted_bytes(&self) -> usize {
        let is_apart = self.key.is_some() || (self.to_many && self.bytes > COPIED_BYTES_MAX);
        self.bytes + if is_apart { overhead(self.key.as_ref()) } else { 0 }
    }
}

/// Returns the memory of a segment with one shared frame, without the bytes of the frame.
fn overhead(key: Option<&String>) -> usize {
    SEGMENT_BYTES + FRAME_BYTES + key.map_or(0, |key| KEY_BYTES + key.len())
}

impl Segment {
    /// Creates the segment of a shared frame.
    pub fn shared(posted: &Posted) -> Segment {
        let frames = VecDeque::from([(posted.due(), posted.bytes)]);
        Segment {
            bytes: posted.bytes,
            shared: Some(posted.frame_id()),
            key: posted.key.clone(),
            frames,
            ..Segment::default()
        }
    }

    /// Adds the memory of this segment to the ledger.
    pub fn enter(&self, ledger: &mut Ledger) {
        assert!(!self.is_raw, "bytes of HTTP must never be in the journal");
        let is_first = self.shared.is_none_or(|id| {
            let queues = ledger.shared.entry(id).or_default();
            *queues += 1;
            *queues == 1
        });
        if is_first {
            ledger.total += self.bytes + self.frame_bytes();
        }
        ledger.total += self.overhead() - self.frame_bytes();
    }

    /// Returns the memory of the segment without the bytes of its frames.
    pub fn overhead(&self) -> usize {
        if self.shared.is_some() { overhead(self.key.as_ref()) } else { 0 }
    }

    /// Returns the memory of the shared frame without its bytes.
    pub fn frame_bytes(&self) -> usize {
        if self.shared.is_some() { FRAME_BYTES } else { 0 }
    }

    /// Returns the part of the segment's memory that is charged to its queue. The memory of a shared frame is divided
    /// among the queues that contain the frame.
    pub fn charge(&self, ledger: &Ledger) -> usize {
        match self.shared {
            _ if self.is_raw => 0,
            None => self.bytes,
            Some(id) => (self.bytes + FRAME_BYTES) / ledger.shared[&id] as usize + self.overhead() - FRAME_BYTES,
        }
    }

    /// Removes the memory of this segment from the ledger.
    pub fn release(&self, ledger: &mut Ledger) {
        let Some(id) = self.shared else {
            *if self.is_raw { &mut ledger.http } else { &mut ledger.total } -= self.bytes;
            return;
        };
        ledger.total -= self.overhead() - FRAME_BYTES;
        let queues = ledger.shared.get_mut(&id).expect("the shared frame is in the ledger");
        *queues -= 1;
        if *queues == 0 {
            ledger.shared.remove(&id);
            ledger.total -= self.bytes + FRAME_BYTES;
        }
    }

    /// Returns the number of bytes up to the end of the partly written frame of this segment. `sent` is the number of
    /// written bytes of this segment.
    pub fn begun_bytes(&self, sent: usize) -> usize {
        match self.frames.front() {
            Some((_, bytes)) if self.flown < sent => self.flown + bytes,
            _ => self.flown,
        }
    }
}
