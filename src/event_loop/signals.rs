//! Turns SIGTERM and SIGINT into bytes in a pipe that epoll watches.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

/// The reading end of the pipe, and the signal handlers. Dropping this value removes the handlers.
#[derive(Debug)]
pub struct Signals {
    pub pipe: mio::net::UnixStream,
    ids: [SigId; 2],
}

impl Signals {
    /// Starts to catch SIGTERM and SIGINT.
    pub fn catch() -> io::Result<Signals> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let term = pipe::register(SIGTERM, writer.try_clone()?)?;
        let int = pipe::register(SIGINT, writer)?;
        Ok(Signals { pipe: mio::net::UnixStream::from_std(reader), ids: [term, int] })
    }

    /// Returns the number of signals since the last call.
    pub fn count(&mut self) -> usize {
        let mut bytes = [0; 16];
        let mut count = 0;
        while let Ok(read @ 1..) = self.pipe.read(&mut bytes) {
            count += read;
        }
        count
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids {
            unregister(id);
        }
    }
}
