//! A simulated TCP connection: two bounded pipes with edge-triggered readiness.
//!
//! The simulated connection gives only the guarantees that the kernel gives. Bytes arrive in order. Bytes are lost only
//! if the connection is reset. A read returns as many of the arrived bytes as the buffer can hold. A write may accept
//! fewer bytes than the pipe can hold. After a write that did not accept all bytes, the server's socket reports once
//! that it is writable again. After each arrival of bytes, it reports once that it is readable.

use std::collections::VecDeque;
use std::io::IoSlice;

use fdpush::sim::Io;

use crate::coverage::{self, hit};
use crate::rng::Rng;

/// One direction of a simulated connection.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    bytes_max: usize,
    /// Whether the writer has ended the stream.
    is_ended: bool,
}

/// A simulated connection, with a pipe for each direction.
#[derive(Debug)]
pub struct Wire {
    /// The pipe from the client to the server.
    up: Pipe,
    /// The pipe from the server to the client.
    down: Pipe,
    is_reset: bool,
    /// Whether the server has closed its socket.
    is_server_gone: bool,
    /// Whether the server's socket must report that it is writable as soon as its pipe has room.
    owes_room: bool,
    signals: Signals,
    /// Whether the server's TLS session has written `close_notify` completely.
    pub has_notified: bool,
    /// Whether the server's TLS session ended with an error.
    pub has_failed: bool,
}

/// The events of the server's socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Signals {
    pub is_readable: bool,
    pub is_writable: bool,
    /// Whether the client has shut down its write side.
    pub is_hung_up: bool,
    /// Whether the connection was reset.
    pub is_error: bool,
}

impl Pipe {
    fn room(&self) -> usize {
        self.bytes_max - self.bytes.len()
    }
}

impl Wire {
    /// Creates a connection with pipes of these capacities.
    pub fn new(up_bytes_max: usize, down_bytes_max: usize) -> Wire {
        Wire {
            up: Pipe { bytes_max: up_bytes_max, ..Pipe::default() },
            down: Pipe { bytes_max: down_bytes_max, ..Pipe::default() },
            is_reset: false,
            is_server_gone: false,
            owes_room: false,
            signals: Signals { is_writable: true, ..Signals::default() },
            has_notified: false,
            has_failed: false,
        }
    }

    // The server's side.

    /// Returns the events since the last call.
    pub fn take_signals(&mut self) -> Signals {
        if self.owes_room && self.down.room() > 0 {
            self.owes_room = false;
            self.signals.is_writable = true;
        }
        std::mem::take(&mut self.signals)
    }

    /// Returns whether the server's socket must report that it is writable as soon as its pipe has room.
    pub fn owes_room(&self) -> bool {
        self.owes_room
    }

    /// Reads all bytes that fit into `buf`.
    pub fn read(&mut self, buf: &mut [u8]) -> Io {
        if self.is_reset && self.up.bytes.is_empty() {
            return Io::Closed;
        }
        let count = buf.len().min(self.up.bytes.len());
        if count == 0 {
            return if self.up.is_ended { Io::Done(0) } else { Io::WouldBlock };
        }
        let (front, back) = self.up.bytes.as_slices();
        let first = count.min(front.len());
        buf[..first].copy_from_slice(&front[..first]);
        buf[first..count].copy_from_slice(&back[..count - first]);
        self.up.bytes.drain(..count);
        coverage::count("network: bytes to the server", count as u64);
        Io::Done(count)
    }

    /// Writes as many bytes as the pipe can hold, or, at random, fewer.
    pub fn write(&mut self, slices: &[IoSlice<'_>], rng: &mut Rng) -> Io {
        if self.is_reset {
            return Io::Closed;
        }
        assert!(!self.down.is_ended, "nothing may be written after the shutdown of the write side");
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = offered.min(self.down.room());
        if taken > 0 && rng.one_in(8) {
            hit("network: write cut short");
            taken = rng.below(taken + 1);
        }
        let mut left = taken;
        for slice in slices {
            let part = left.min(slice.len());
            self.down.bytes.extend(&slice[..part]);
            left -= part;
        }
        coverage::count("network: bytes to clients", taken as u64);
        if taken < offered {
            hit("network: socket full");
            self.owes_room = true;
        }
        if taken == 0 { Io::WouldBlock } else { Io::Done(taken) }
    }

    /// Shuts down the server's write side.
    pub fn shut(&mut self) {
        self.down.is_ended = true;
    }

    /// Returns whether the server has shut down its write side.
    pub fn is_shut(&self) -> bool {
        self.down.is_ended
    }

    /// Closes the server's socket.
    pub fn drop_server(&mut self) {
        self.down.is_ended = true;
        self.is_server_gone = true;
    }

    // The client's side.

    /// Sends as many of these bytes as the pipe can hold, but at most `max`.
    pub fn send(&mut self, bytes: &mut VecDeque<u8>, max: usize) {
        let count = self.up.room().min(bytes.len()).min(max);
        if count > 0 && !self.up.is_ended {
            self.up.bytes.extend(bytes.drain(..count));
            self.signals.is_readable = true;
        }
    }

    /// Receives at most `max` bytes.
    pub fn receive(&mut self, into: &mut Vec<u8>, max: usize) {
        let count = max.min(self.down.bytes.len());
        into.extend(self.down.bytes.drain(..count));
    }

    /// Returns whether the client has received all bytes and the server has ended its stream.
    pub fn has_ended(&self) -> bool {
        self.down.is_ended && self.down.bytes.is_empty()
    }

    /// Shuts down the client's write side. The client can still receive.
    pub fn end(&mut self) {
        if !self.up.is_ended {
            self.up.is_ended = true;
            (self.signals.is_readable, self.signals.is_hung_up) = (true, true);
        }
    }

    /// Resets the connection from the client's side. The bytes in both pipes are lost. With `keeps_input`, only the
    /// bytes to the client are lost: the server can still read the bytes that its kernel received before the reset.
    pub fn reset(&mut self, keeps_input: bool) {
        self.is_reset = true;
        if !keeps_input {
            self.up.bytes.clear();
        }
        self.down.bytes.clear();
        self.signals.is_error = true;
    }

    /// Returns whether the server has closed its socket.
    pub fn is_server_gone(&self) -> bool {
        self.is_server_gone
    }

    /// Returns whether the client has reset the connection.
    pub fn is_client_reset(&self) -> bool {
        self.is_reset
    }

    /// Returns whether the client has shut down its write side or reset the connection.
    pub fn is_client_gone(&self) -> bool {
        self.up.is_ended || self.is_reset
    }
}
