//! Answers that come before the request has been read.
//!
//! A back end that refuses a body by its length answers, and closes the connection with the rest of the body unread. The
//! client's next write fails, while the answer waits to be read (RFC 9112 section 9.6). The HTTP client gives up at a
//! failed write. This transport drops what cannot be written, so that the client goes on and reads the answer. If there is
//! none, the read fails.

use std::io;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Puts an [`EarlyAnswer`] around the transport of the connector before it.
#[derive(Debug)]
pub struct EarlyAnswers;

/// A transport that can be read after a write has failed.
#[derive(Debug)]
pub struct EarlyAnswer<T> {
    inner: T,
    /// The other side takes no more bytes.
    is_write_closed: bool,
}

impl<T: Transport> Connector<T> for EarlyAnswers {
    type Out = EarlyAnswer<T>;

    fn connect(&self, _: &ConnectionDetails<'_>, inner: Option<T>) -> Result<Option<EarlyAnswer<T>>, Error> {
        Ok(inner.map(|inner| EarlyAnswer { inner, is_write_closed: false }))
    }
}

impl<T: Transport> Transport for EarlyAnswer<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.is_write_closed {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(Error::Io(error))
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.is_write_closed = true;
                Ok(())
            }
            result => result,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        !self.is_write_closed && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
