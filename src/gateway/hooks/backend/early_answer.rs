//! Answers that arrive before the whole request was sent.
//!
//! A back end that refuses a request body because of its length may answer and close the connection before it has read
//! the body. After such an early answer, the next write of the HTTP client fails, but the client can still read the
//! answer (RFC 9112 section 9.6). Without this module, the HTTP client would give up after a failed write.
//! [`EarlyAnswer`] discards bytes that it cannot write, so the HTTP client continues and reads the answer. If the back
//! end sent no answer, the read of the HTTP client fails.

use std::io;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// A connector in the chain of connectors of the HTTP client. It wraps the transport that the previous connector of the
/// chain returns in an [`EarlyAnswer`].
#[derive(Debug)]
pub struct EarlyAnswers;

/// A transport that can be read after a failed write.
#[derive(Debug)]
pub struct EarlyAnswer<T> {
    inner: T,
    /// Whether a write has failed. After a failed write, the bytes of later writes are discarded.
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
