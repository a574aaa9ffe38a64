//! The engine of a TLS session: converts records to plaintext, and plaintext to records.

use std::fmt;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use crate::tls::config::TlsConfig;
use crate::tls::info::{TlsInfo, TlsVersion};

/// The length of the longest record in bytes (RFC 8446 section 5.2).
pub const RECORD_BYTES_MAX: usize = 5 + (1 << 14) + 256;

/// A buffer for records to send. The loop has one buffer for all sessions.
#[derive(Default)]
pub struct Ciphertext {
    bytes: Vec<u8>,
    filled: usize,
}

/// The result of [`Engine::receive`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// The number of bytes at the start of the input that the call consumed. The next call must get the remaining bytes
    /// again.
    pub used: usize,
    /// Whether the peer ended its stream with `close_notify`.
    pub is_closed: bool,
}

/// An error of the peer or of the TLS session. The text of the error is for the log.
#[derive(Debug)]
pub struct EngineError(rustls::Error);

/// The state of one TLS session.
///
/// The engine stores no unfinished records, no plaintext and no records to send.
pub struct Engine {
    connection: UnbufferedServerConnection,
}

impl Engine {
    /// Creates the session of a connection that was just accepted.
    ///
    /// # Errors
    /// Returns an error if the TLS settings are invalid.
    pub fn new(config: &TlsConfig) -> Result<Engine, EngineError> {
        let connection = UnbufferedServerConnection::new(config.current()).map_err(EngineError)?;
        Ok(Engine { connection })
    }

    /// Reads all whole records of `input`.
    ///
    /// Plaintext is passed to `sink`. Records of the session itself, such as handshake records, are added to `output`.
    /// After an error, `output` may contain an alert. `input` must start with the unused bytes of the last call. The
    /// caller must not change these bytes between the calls.
    ///
    /// # Errors
    /// Returns an error if the peer violated a rule of TLS. The session has then ended.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        output: &mut Ciphertext,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Received, EngineError> {
        let (mut used, mut is_closed) = (0, false);
        loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut input[used..]);
            let mut is_done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(EngineError)?;
                        discard += record.discard;
                        sink(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(output, |buffer| data.encode(buffer)),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => is_closed = true,
                Ok(ConnectionState::Closed) => (is_closed, is_done) = (true, true),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => is_done = true,
                Ok(_) => return Err(EngineError(rustls::Error::General("unexpected state".to_owned()))),
                Err(error) => {
                    self.take_alert(&mut input[used + discard..], output);
                    return Err(EngineError(error));
                }
            }
            used += discard;
            if is_done {
                return Ok(Received { used, is_closed });
            }
        }
    }

    /// Adds the alert about an error of the peer, if rustls has one, to `output`.
    fn take_alert(&mut self, input: &mut [u8], output: &mut Ciphertext) {
        // As long as rustls has a record to send, the call returns this record. Without such a record, the call would
        // read the invalid input again.
        while self.connection.wants_write() {
            match self.connection.process_tls_records(input).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(output, |buffer| data.encode(buffer)),
                _ => return,
            }
        }
    }

    /// Encrypts `plaintext`, and adds the records to `output`. `unfinished` is the input that the last call of
    /// [`receive`] did not use.
    ///
    /// [`receive`]: Engine::receive
    ///
    /// # Errors
    /// Returns an error if the handshake is not complete, or if the session's keys must not encrypt any more records.
    pub fn encrypt(
        &mut self,
        plaintext: &[u8],
        unfinished: &mut [u8],
        output: &mut Ciphertext,
    ) -> Result<(), EngineError> {
        self.write(unfinished, output, |traffic, buffer| traffic.encrypt(plaintext, buffer))
    }

    /// Adds `close_notify`, which ends the stream, to `output`.
    ///
    /// # Errors
    /// Returns the same errors as [`encrypt`](Engine::encrypt).
    pub fn close(&mut self, unfinished: &mut [u8], output: &mut Ciphertext) -> Result<(), EngineError> {
        self.write(unfinished, output, |traffic, buffer| traffic.queue_close_notify(buffer))
    }

    fn write(
        &mut self,
        unfinished: &mut [u8],
        output: &mut Ciphertext,
        mut write: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), EngineError> {
        loop {
            // `unfinished` must be passed because rustls reads the bytes of partly received handshake messages again in
            // each call.
            match self.connection.process_tls_records(unfinished).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => return encrypt(output, |b| write(&mut traffic, b)),
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(output, |buffer| data.encode(buffer)),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(_) => return Err(EngineError(rustls::Error::HandshakeNotComplete)),
                Err(error) => return Err(EngineError(error)),
            }
        }
    }

    /// Returns `true` until the handshake is complete.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Returns whether the client hello was answered. The answer is the costly step of a handshake.
    ///
    /// A HelloRetryRequest (RFC 8446 section 4.1.4) does not count as the answer, because it needs no key exchange, and
    /// the client then sends a second hello.
    pub fn has_answered(&self) -> bool {
        match self.connection.handshake_kind() {
            None => false,
            Some(HandshakeKind::FullWithHelloRetryRequest) => self.connection.negotiated_key_exchange_group().is_some(),
            Some(HandshakeKind::Full | HandshakeKind::Resumed) => true,
        }
    }

    /// Returns whether the session resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Returns the version and the cipher suite, after they were negotiated.
    pub fn info(&self) -> Option<TlsInfo> {
        let version = match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        };
        Some(TlsInfo { version, cipher: name(self.connection.negotiated_cipher_suite()?.suite()) })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("info", &self.info()).finish_non_exhaustive()
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

type Traffic<'a> = rustls::unbuffered::WriteTraffic<'a, rustls::server::ServerConnectionData>;

/// Adds a handshake record to `output`. The buffer grows if the record does not fit.
fn encode(output: &mut Ciphertext, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) {
    loop {
        match encode(output.free()) {
            Ok(bytes) => return output.filled += bytes,
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                output.reserve(required_size)
            }
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

/// Adds encrypted records to `output`. The buffer grows if the records do not fit.
fn encrypt(
    output: &mut Ciphertext,
    mut encrypt: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), EngineError> {
    loop {
        match encrypt(output.free()) {
            Ok(bytes) => {
                output.filled += bytes;
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                output.reserve(required_size);
            }
            Err(EncryptError::EncryptExhausted) => return Err(EngineError(rustls::Error::EncryptError)),
        }
    }
}

impl Ciphertext {
    /// Returns the records in the buffer.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Adds unencrypted bytes to the buffer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        if let Some(free) = self.free().get_mut(..bytes.len()) {
            free.copy_from_slice(bytes);
            self.filled += bytes.len();
        }
    }

    /// Empties the buffer, and keeps its memory.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Returns the free part of the buffer, after the records. These bytes are initialized memory.
    fn free(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    fn reserve(&mut self, more: usize) {
        if self.bytes.len() - self.filled < more {
            self.bytes.resize((self.filled + more).next_power_of_two(), 0);
        }
    }
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ciphertext({} bytes)", self.filled)
    }
}

/// Returns the IANA name of a cipher suite. rustls has other names for the suites of TLS 1.3.
fn name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}
