//! The result of a write to the transport of a connection.

/// The result of a write to a transport.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The number of output bytes that the transport accepted.
    pub bytes: usize,
    /// The number of unsent bytes in the transport after the write.
    ///
    /// A TLS session may accept more output than its socket. The session then keeps the ciphertext until the socket
    /// accepts it. A plain socket keeps no bytes.
    pub held: usize,
    /// Whether the transport is full, so that it accepts no more bytes until an event says that it is writable.
    pub is_full: bool,
    /// Whether the socket accepted bytes of this output, or unsent bytes of the transport.
    pub has_sent: bool,
}

impl Written {
    /// Creates the result of a write to a transport without unsent bytes.
    #[inline]
    pub fn new(bytes: usize, is_full: bool) -> Written {
        Written { bytes, held: 0, is_full, has_sent: bytes > 0 }
    }
}
