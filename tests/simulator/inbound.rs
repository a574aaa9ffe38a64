//! What one client said, and how much of it the server has heard: the naive twin of a connection's input.
//!
//! Everything a client says has its place in the client's stream of bytes. What ends before the byte that the server
//! has read up to must have been told of, in order, once; what begins behind it cannot have been.

use std::collections::VecDeque;

use fdpush::ProtocolError;
use fdpush::sim::Tick;

/// What a client says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame: code and reason, or neither.
    Close(u16, String),
    /// Something that breaks this rule, and gets this close code.
    Bad(ProtocolError, u16),
}

impl Said {
    /// A close frame, if perhaps with a payload that is none.
    fn is_close(&self) -> bool {
        use ProtocolError::{CloseCodeCut, CloseCodeInvalid, CloseReasonNotUtf8};
        matches!(self, Said::Close(..) | Said::Bad(CloseCodeCut | CloseCodeInvalid | CloseReasonNotUtf8, _))
    }
}

/// What was said, and where in the client's stream.
#[derive(Clone, Debug)]
struct Item {
    said: Said,
    start: u64,
    end: u64,
}

/// What one client said.
#[derive(Debug, Default)]
pub struct Inbound {
    /// In the order in which they are to be told, not told yet.
    items: VecDeque<Item>,
    /// All the bytes that the client has made, sent or not.
    pub made: u64,
    /// Of these, how many the server has read.
    pub read: u64,
    /// Where the client's frames begin: behind its request for a WebSocket.
    pub frames_start: u64,
    /// Where the message starts that the server has a part of, and when it got the first.
    unfinished: Option<(u64, Tick)>,
    /// Where the client's close frame ends.
    close_end: Option<u64>,
}

impl Inbound {
    /// The client adds `bytes` to its stream. They say `said` (nothing, where they belong to something later), whose
    /// first byte was at `start`.
    pub fn say(&mut self, said: Option<Said>, start: u64, bytes: usize) {
        self.made += bytes as u64;
        if let Some(said) = said {
            if said.is_close() {
                self.close_end.get_or_insert(self.made);
            }
            self.items.push_back(Item { said, start, end: self.made });
        }
    }

    /// The server tells of something: it has to be what comes next, and all of it must have been read.
    pub fn tell(&mut self, said: &Said) {
        let item = self.items.pop_front().unwrap_or_else(|| panic!("told of {said:?}, which nobody said"));
        assert_eq!(item.said, *said, "told something else than was said, or out of order");
        assert!(item.end <= self.read, "told before it was heard");
    }

    /// The server fails the connection: the client must have broken this rule, and next.
    pub fn tell_bad(&mut self, error: ProtocolError) -> u16 {
        let item = self.items.front().unwrap_or_else(|| panic!("accused of {error:?} for nothing"));
        let Said::Bad(rule, code) = item.said else { panic!("accused of {error:?} for {:?}", item.said) };
        assert_eq!(rule, error, "accused of the wrong thing");
        assert!(item.start < self.read, "accused before it was heard");
        code
    }

    /// The server has taken in all it read: nothing whole may be left, and what is begun was begun now, or before.
    pub fn end_input(&mut self, now: Tick) {
        if let Some(front) = self.items.front() {
            assert!(front.end > self.read, "{:?} was heard whole and not told", front.said);
        }
        // Pings that interrupt a message are told before it.
        let begun = self.items.iter().filter(|item| item.start < self.read).map(|item| item.start).min();
        self.unfinished = begun.map(|start| match self.unfinished {
            Some((before, since)) if before == start => (start, since),
            _ => (start, now),
        });
    }

    /// Since when the server waits for the rest of a message.
    pub fn unfinished_since(&self) -> Option<Tick> {
        self.unfinished.map(|(_, since)| since)
    }

    /// Whether the server has read the client's close frame.
    pub fn is_close_read(&self) -> bool {
        self.close_end.is_some_and(|end| end <= self.read)
    }
}
