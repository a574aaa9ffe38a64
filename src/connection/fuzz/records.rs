//! Passes TLS records from the clients to the server in the fuzz target `connection`.

use crate::connection::Io;
use crate::connection::fuzz::Rig;
use crate::connection::fuzz::secure::{READ_BYTES, Secure};

impl Rig {
    /// Passes at most `count` bytes of records to the server.
    ///
    /// The client answers each record of the server immediately, so one call can complete a handshake.
    pub(super) fn read_session(&mut self, at: usize, count: usize) {
        let mut left = count.max(1);
        let mut buffer = [0; READ_BYTES];
        while left > 0 {
            if !self.connection(at).wants_read() {
                return;
            }
            let slot = self.slot(at);
            let plaintext = std::mem::take(&mut self.sides[at].pipe);
            let session = self.session(at);
            session.client.write(&plaintext);
            session.outbox.extend(session.client.take_records());
            let sent = left.min(session.outbox.len());
            session.pipe.up.extend(session.outbox.drain(..sent));
            if session.pipe.up.is_empty() && !session.stream.may_have_more() {
                return;
            }
            left -= sent;
            let read = self.table.read(slot, &mut buffer);
            match read {
                Io::Done(bytes @ 1..) => self.feed(at, buffer[..bytes].to_vec()),
                Io::WouldBlock => {}
                Io::Done(_) | Io::Closed => {
                    let event = self.change(at, |connection, _| connection.handle_end(read == Io::Closed));
                    return self.handle_end(at, event);
                }
            }
        }
    }

    /// Ends the client's stream after all its records, with or without `close_notify`.
    pub(super) fn end_session(&mut self, at: usize, is_notified: bool) {
        let session = self.session(at);
        if is_notified && !session.client.is_handshaking() {
            session.client.close();
        }
        session.outbox.extend(session.client.take_records());
        let rest = std::mem::take(&mut session.outbox);
        session.pipe.up.extend(rest);
        session.pipe.is_ended = true;
        self.read_session(at, 1);
    }

    fn session(&mut self, at: usize) -> &mut Secure {
        let slot = self.slot(at);
        self.table
            .transport_mut(slot)
            .expect("the connection has a socket")
            .session
            .as_mut()
            .expect("the socket has a session")
    }
}
