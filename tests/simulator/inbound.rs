//! The naive model of a connection's input.
//!
//! Each item that a client sends, for example a message or a close frame, has a position in the client's byte stream.
//! The server must deliver each item once and in order, as soon as it has read the last byte of the item.

use std::collections::VecDeque;

use fdpush::sim::Tick;
use fdpush::{Limits, ProtocolError};

use crate::coverage::hit;

/// An item that a client sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SentItem {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame. The code 1005 stands for a close frame without a code.
    Close(u16, String),
    /// Bytes that violate this rule, and the close code of the rule.
    Bad(ProtocolError, u16),
}

impl SentItem {
    /// Returns whether the item is a close frame, with a valid or an invalid payload.
    fn is_close(&self) -> bool {
        use ProtocolError::{CloseCodeCut, CloseCodeInvalid, CloseReasonNotUtf8};
        matches!(self, SentItem::Close(..) | SentItem::Bad(CloseCodeCut | CloseCodeInvalid | CloseReasonNotUtf8, _))
    }
}

/// An item and its position in the client's stream.
#[derive(Clone, Debug)]
struct Item {
    said: SentItem,
    start: u64,
    end: u64,
    /// The length of the deflated payload.
    deflated: Option<usize>,
}

/// The minimum number of bytes that a deflated message counts as for the inflation limit
/// (`inflated_bytes_per_second_max`).
///
/// A message counts as its inflated bytes, plus `CHARGE_FACTOR` bytes for each byte of the deflated payload.
const CHARGE_BYTES_MIN: usize = 1024;
const CHARGE_FACTOR: usize = 16;

/// The model of the input of one connection.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Items that the server has not delivered yet, in the order of delivery.
    items: VecDeque<Item>,
    /// The number of bytes of the client's stream until now, including unsent bytes.
    pub made: u64,
    /// The number of bytes of the stream that the server has read.
    pub read: u64,
    /// The position of the first frame, after the upgrade request.
    pub frames_start: u64,
    /// The position of the first item that the server has read only in part, and the start of its time limit.
    unfinished: Option<(u64, Tick)>,
    /// The position of the end of the client's close frame.
    close_end: Option<u64>,
    /// The time at which the WebSocket opened.
    pub opened: Tick,
    /// The time at which the server stopped reading input, because the client's messages exceed the inflation limit.
    held_since: Option<Tick>,
    /// The number of bytes that all delivered messages but the newest count as for the inflation limit.
    charged: u64,
    /// The number of bytes that the newest message counts as for the inflation limit.
    newest: u64,
}

impl Inbound {
    /// Adds `bytes` bytes to the stream of the client.
    ///
    /// `said` is the item that these bytes complete, and `start` is the position of its first byte. `said` is `None` if
    /// these bytes complete no item.
    pub fn append(&mut self, said: Option<SentItem>, start: u64, bytes: usize) {
        self.append_deflated(said, start, bytes, None);
    }

    /// Works like [`append`](Inbound::append). `deflated` is the length of the deflated payload of a message.
    pub fn append_deflated(&mut self, said: Option<SentItem>, start: u64, bytes: usize, deflated: Option<usize>) {
        self.made += bytes as u64;
        if let Some(said) = said {
            if said.is_close() {
                self.close_end.get_or_insert(self.made);
            }
            self.items.push_back(Item { said, start, end: self.made, deflated });
        }
    }

    /// Handles the delivery of an item. The item must be the next undelivered item, and the server must have read all
    /// of its bytes.
    ///
    /// The server must not deliver deflated messages faster than the inflation limit allows.
    pub fn deliver(&mut self, said: &SentItem, limits: &Limits, now: Tick) {
        let item =
            self.items.pop_front().unwrap_or_else(|| panic!("{said:?} was delivered, but the client did not send it"));
        assert_eq!(item.said, *said, "the delivered item must be the next one that was sent");
        assert!(item.end <= self.read, "the server must read all bytes of an item before it delivers the item");
        if let (Some(deflated), SentItem::Text(_) | SentItem::Binary(_)) = (item.deflated, said) {
            hit("deflate: message inflated");
            let inflated = match said {
                SentItem::Text(text) => text.len(),
                SentItem::Binary(bytes) => bytes.len(),
                _ => 0,
            };
            self.charged +=
                std::mem::replace(&mut self.newest, (inflated + CHARGE_FACTOR * deflated).max(CHARGE_BYTES_MIN) as u64);
            let passed = u128::from(now.0 - self.opened.0) * limits.inflated_bytes_per_second_max as u128 / 1000;
            let allowed = passed + limits.read_budget_bytes as u128;
            assert!(
                u128::from(self.charged) <= allowed,
                "for the inflation limit, the delivered messages may count as at most {allowed} bytes, not {}",
                self.charged
            );
        }
    }

    /// Handles a protocol error, and returns its close code. The next item must violate the rule that the error names.
    pub fn fail(&mut self, error: ProtocolError) -> u16 {
        let item = self
            .items
            .front()
            .unwrap_or_else(|| panic!("{error:?} was reported, but all items of the client were delivered"));
        let SentItem::Bad(rule, code) = item.said else {
            panic!("{error:?} was reported for the valid item {:?}", item.said)
        };
        assert_eq!(rule, error, "the reported error must be the rule that the item violates");
        assert!(item.start < self.read, "the server must read a byte of the invalid item before it reports the error");
        code
    }

    /// Handles the start of a pause: because of the inflation limit, the server reads no input of the client.
    pub fn hold(&mut self, now: Tick) {
        hit("deflate: input held");
        self.pass_hold(now);
        self.held_since = Some(now);
    }

    /// Ends a pause that [`hold`](Inbound::hold) started. The time limit of an unfinished message does not run during a
    /// pause, so the start of this time limit moves by the duration of the pause.
    fn pass_hold(&mut self, now: Tick) {
        if let (Some(held), Some((_, since))) = (self.held_since.take(), &mut self.unfinished) {
            *since = Tick(since.0 + (now.0 - held.0));
        }
    }

    /// Checks after a read that each complete item was delivered.
    pub fn end_input(&mut self, now: Tick) {
        self.pass_hold(now);
        if let Some(front) = self.items.front() {
            assert!(front.end > self.read, "{:?} must be delivered as soon as it is read completely", front.said);
        }
        // A ping between the fragments of a message is delivered before the message, so the items are not sorted by
        // position.
        let begun = self.items.iter().filter(|item| item.start < self.read).map(|item| item.start).min();
        self.unfinished = begun.map(|start| match self.unfinished {
            Some((before, since)) if before == start => (start, since),
            _ => (start, now),
        });
    }

    /// Restarts the time limit of an unfinished message.
    pub fn restart(&mut self, now: Tick) {
        self.unfinished = self.unfinished.map(|(start, _)| (start, now));
        self.held_since = self.held_since.map(|_| now);
    }

    /// Returns the start of the time limit of an unfinished message. Returns `None` if no message is unfinished, and
    /// while the server reads no input because of the inflation limit.
    pub fn unfinished_since(&self) -> Option<Tick> {
        self.unfinished.filter(|_| self.held_since.is_none()).map(|(_, since)| since)
    }

    /// Returns whether the server has read the client's close frame.
    pub fn is_close_read(&self) -> bool {
        self.close_end.is_some_and(|end| end <= self.read)
    }
}
