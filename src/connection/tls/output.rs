//! The output of a TLS session: encryption, the writes of records, and the end of the stream.

use std::io::IoSlice;

use crate::connection::table::Io;
use crate::connection::tls::{RECORD_PLAINTEXT, Stage, Stream, TlsShared, TlsStream};
use crate::connection::written::Written;
use crate::tls::Ciphertext;

/// The maximum length of the plaintext that one write encrypts, in bytes. This limit bounds the unsent ciphertext of a
/// session.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// The maximum length of the plaintext that one write encrypts if the stream did not accept the whole previous write,
/// in bytes.
///
/// This limit is lower than [`WRITE_BYTES_MAX`], because only unencrypted output can be replaced by a newer message or
/// dropped to free memory.
const FULL_WRITE_BYTES_MAX: usize = RECORD_PLAINTEXT;

impl TlsStream {
    /// Encrypts output and writes it once. Returns `None` if the stream is broken.
    ///
    /// Output is encrypted only after all earlier ciphertext is sent. So the session stores the ciphertext of at most
    /// one write. Output before the end of the handshake, such as the response to a timeout, is dropped.
    pub fn write(
        &mut self,
        stream: &mut impl Stream,
        shared: &mut TlsShared,
        slices: &[IoSlice<'_>],
    ) -> Option<Written> {
        let mut sent = 0;
        if !self.unsent.is_empty() {
            sent = self.send_unsent(stream)?;
            if !self.unsent.is_empty() {
                return Some(Written { bytes: 0, held: self.unsent.len(), is_full: true, has_sent: sent > 0 });
            }
        }
        let offered = slices.iter().map(|slice| slice.len()).sum();
        match self.stage {
            Stage::Proxy | Stage::Hello | Stage::Handshake | Stage::Refused => {
                return Some(Written::new(offered, false));
            }
            Stage::Plain => return write_plain(stream, slices),
            Stage::Broken => return None,
            Stage::Open => {}
        }
        let Some(bytes) = self.encrypt(shared, slices) else {
            // `outgoing` is shared: another session must not send the records of this session.
            shared.outgoing.clear();
            // rustls has ended the session, and may panic on further invalid input. So no more input is read.
            self.fail_stream(0);
            return None;
        };
        sent += self.send_output(stream, shared)?;
        self.was_full = !self.unsent.is_empty();
        Some(Written { bytes, held: self.unsent.len(), is_full: self.was_full, has_sent: sent > 0 })
    }

    /// Ends the output: sends `close_notify`, and then ends the stream.
    pub fn shutdown(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) {
        self.close(stream, shared);
        if matches!(self.stage, Stage::Proxy | Stage::Hello | Stage::Handshake) {
            // The server ended the connection during the handshake, so it no longer answers a hello.
            self.count_abandoned(&mut shared.counts);
            self.stage = Stage::Refused;
            self.drop_unfinished();
        }
        stream.shutdown();
    }

    /// Sends `close_notify`, if the stream accepts it.
    pub fn close(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) {
        if self.stage == Stage::Open
            && !self.is_shut
            && self.unsent.is_empty()
            && self.engine.close(&mut self.unfinished, &mut shared.outgoing).is_ok()
        {
            // This record is the last of the session, so the part that the stream does not accept is dropped.
            stream.send(shared.outgoing.as_slice());
        }
        shared.outgoing.clear();
        self.is_shut = true;
        // Errors in further input of the client get no alert, because rustls requires that `close_notify` is the last
        // alert.
        self.ignore_input();
    }

    /// Encrypts the output of one write, and returns the length of the encrypted plaintext.
    ///
    /// Returns `None` if the session's keys must not encrypt any more records.
    fn encrypt(&mut self, shared: &mut TlsShared, slices: &[IoSlice<'_>]) -> Option<usize> {
        let bytes_max = if self.was_full { FULL_WRITE_BYTES_MAX } else { WRITE_BYTES_MAX };
        let mut taken = 0;
        shared.gathered.clear();
        for slice in slices {
            let mut rest = &slice[..slice.len().min(bytes_max - taken)];
            taken += rest.len();
            if shared.gathered.is_empty() {
                // Full records are encrypted without a copy to `gathered`, and so is a single slice.
                let whole = rest.len() - if slices.len() == 1 { 0 } else { rest.len() % RECORD_PLAINTEXT };
                self.encrypt_slice(&rest[..whole], &mut shared.outgoing)?;
                rest = &rest[whole..];
            }
            while !rest.is_empty() {
                let (fits, more) = rest.split_at(rest.len().min(RECORD_PLAINTEXT - shared.gathered.len()));
                shared.gathered.extend_from_slice(fits);
                rest = more;
                if shared.gathered.len() == RECORD_PLAINTEXT {
                    self.encrypt_slice(&shared.gathered, &mut shared.outgoing)?;
                    shared.gathered.clear();
                }
            }
            if taken == bytes_max {
                break;
            }
        }
        self.encrypt_slice(&shared.gathered, &mut shared.outgoing)?;
        Some(taken)
    }

    fn encrypt_slice(&mut self, plaintext: &[u8], outgoing: &mut Ciphertext) -> Option<()> {
        if plaintext.is_empty() {
            return Some(());
        }
        self.engine.encrypt(plaintext, &mut self.unfinished, outgoing).ok()
    }

    /// Sends records, and stores bytes that the stream does not accept. Returns the number of sent bytes, or `None` if
    /// the stream is broken.
    pub(super) fn send_output(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) -> Option<usize> {
        let records = shared.outgoing.as_slice();
        if records.is_empty() || self.is_shut {
            shared.outgoing.clear();
            return Some(0);
        }
        let was_empty = self.unsent.is_empty();
        let sent = if was_empty {
            let sent = match stream.send(records) {
                Io::Done(count) => Some(count),
                Io::WouldBlock => Some(0),
                Io::Closed => None,
            };
            self.unsent.extend_from_slice(records.get(sent.unwrap_or(0)..).unwrap_or_default());
            sent
        } else {
            self.unsent.extend_from_slice(records);
            self.send_unsent(stream)
        };
        shared.outgoing.clear();
        let read = &mut shared.last.read;
        read.has_sent |= sent.is_some_and(|sent| sent > 0);
        if !was_empty || !self.unsent.is_empty() {
            read.held = Some(self.unsent.len());
        }
        sent
    }

    /// Sends unsent ciphertext once. Returns the number of sent bytes, or `None` if the stream is broken.
    fn send_unsent(&mut self, stream: &mut impl Stream) -> Option<usize> {
        match stream.send(&self.unsent) {
            Io::Done(count) => {
                self.unsent.drain(..count);
                // The capacity is reduced to twice the number of unsent bytes, because only these bytes count as
                // queued.
                self.unsent.shrink_to(2 * self.unsent.len());
                Some(count)
            }
            Io::WouldBlock => Some(0),
            Io::Closed => None,
        }
    }
}

fn write_plain(stream: &mut impl Stream, slices: &[IoSlice<'_>]) -> Option<Written> {
    let mut bytes = 0;
    for slice in slices {
        let sent = match stream.send(slice) {
            Io::Done(count) => count,
            Io::WouldBlock => 0,
            Io::Closed => return None,
        };
        bytes += sent;
        if sent < slice.len() {
            return Some(Written::new(bytes, true));
        }
    }
    Some(Written::new(bytes, false))
}
