//! A stream in memory that transports the records of a TLS session.

use crate::connection::{Io, Stream};

/// The server's end of a stream between a client and the server.
#[derive(Debug, Default)]
pub(in crate::connection) struct Pipe {
    /// The bytes that the client sent and the server has not read.
    pub up: Vec<u8>,
    /// The bytes that the server sent and the client has not read.
    pub down: Vec<u8>,
    /// The number of bytes that the pipe still accepts.
    pub room: usize,
    /// Whether the client ended its stream after the bytes in `up`.
    pub is_ended: bool,
    /// Whether the server ended its stream.
    pub is_shut: bool,
}

impl Pipe {
    pub(in crate::connection) fn new() -> Pipe {
        Pipe { room: usize::MAX, ..Pipe::default() }
    }
}

impl Stream for Pipe {
    fn receive(&mut self, buffer: &mut [u8]) -> Io {
        if self.up.is_empty() {
            return if self.is_ended { Io::Done(0) } else { Io::WouldBlock };
        }
        let count = buffer.len().min(self.up.len());
        buffer[..count].copy_from_slice(&self.up[..count]);
        self.up.drain(..count);
        Io::Done(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Io {
        assert!(!self.is_shut, "nothing may be written after the shutdown of the write side");
        let count = bytes.len().min(self.room);
        if self.room != usize::MAX {
            self.room -= count;
        }
        self.down.extend_from_slice(&bytes[..count]);
        if count == 0 { Io::WouldBlock } else { Io::Done(count) }
    }

    fn shutdown(&mut self) {
        self.is_shut = true;
    }
}
