//! The result of a write.

/// The result of a write to a transport.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The bytes of the output that the transport took.
    pub bytes: usize,
    /// The bytes that the transport holds after the write.
    ///
    /// A transport that encrypts takes output that the socket may not take. It holds the ciphertext until the socket
    /// takes it. A socket holds nothing.
    pub held: usize,
    /// Whether it takes no more until it is writable.
    pub is_full: bool,
    /// Whether the socket took bytes, of this output or of those that the transport held.
    pub has_sent: bool,
}

impl Written {
    /// Returns the result of a write to a transport that holds nothing.
    #[inline]
    pub fn new(bytes: usize, is_full: bool) -> Written {
        Written { bytes, held: 0, is_full, has_sent: bytes > 0 }
    }
}
