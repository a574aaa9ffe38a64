//! A connection table of open WebSockets whose clients accept all bytes. With this table, a broadcast can be measured
//! without system calls.

use std::io::IoSlice;

use fdpush::bench::SlotSet;
use fdpush::sim::{Connection, Env, Event, Io, Opcode, Outbound, Table, Transport, Written, outbound};
use fdpush::{Heartbeat, Limits, Origins, Outcome, Peer, Slot, Upgrade};

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The number of connections that are opened between two flushes, as in a turn of the loop.
const OPENED_A_TURN: u32 = 1024;

/// The connections of a server.
pub struct Server {
    table: Table<Client>,
    open: SlotSet,
    /// The receivers of a broadcast. All broadcasts reuse the memory of this list.
    found: Vec<Slot>,
}

/// The socket of a client that sends an upgrade and accepts all bytes.
struct Client;

impl Transport for Client {
    type Shared = ();

    fn read(&mut self, _: &mut (), buffer: &mut [u8]) -> Io {
        buffer[..UPGRADE.len()].copy_from_slice(UPGRADE);
        Io::Done(UPGRADE.len())
    }

    fn write_vectored(&mut self, _: &mut (), slices: &[IoSlice<'_>]) -> Option<Written> {
        Some(Written::new(slices.iter().map(|slice| slice.len()).sum(), false))
    }

    fn shutdown(&mut self, _: &mut ()) {}
}

impl Server {
    /// Opens this number of WebSockets.
    pub fn open(count: u32) -> Server {
        let env = Env::new(Limits::default(), Heartbeat::default(), Origins::Any);
        let table = Table::new(count as usize, env, ());
        let mut server = Server { table, open: SlotSet::default(), found: Vec::new() };
        let mut buffer = vec![0; 1024];
        for number in 1..=count {
            server.open_one(&mut buffer);
            if number % OPENED_A_TURN == 0 {
                server.flush();
            }
        }
        server.flush();
        server
    }

    fn open_one(&mut self, buffer: &mut [u8]) {
        let Server { table, open, .. } = self;
        let connection = Connection::new(Peer::Unix, table.env());
        let fd = table.insert(Client, connection).expect("a slot is free");
        let slot = fd.slot();
        let Io::Done(count) = table.read(slot, buffer) else { panic!("the client must send its upgrade request") };
        let Some(Event::Upgrade(request)) = table.handle_bytes(slot, &mut &mut buffer[..count]) else {
            panic!("the upgrade request must be valid");
        };
        let accepted =
            table.step(slot, |connection, env| connection.accept(fd, &Upgrade::accept(), &request, env).is_ok());
        assert_eq!(accepted, Some(true));
        table.end_input(slot);
        open.insert(slot);
    }

    /// Pushes a message of 128 bytes to all, as the loop does: the message is queued in portions.
    pub fn fan_out(&mut self) {
        let Server { table, open, .. } = self;
        let mut receivers = open.clone();
        let message = outbound(Outbound::message(Opcode::Text, &[b'x'; 128]), true, None).to_kept();
        assert_eq!(table.begin_fan_out(&mut receivers, &message), []);
        assert_eq!(table.add_fan_out(receivers, message), open.count());
    }

    /// Writes to this number of connections.
    pub fn flush_some(&mut self, count: usize) {
        self.table.begin_flush();
        assert_eq!(std::iter::from_fn(|| self.table.poll_flush()).take(count).count(), count);
        self.table.end_flush();
    }

    /// Adds a message of 128 bytes to all queues, in one call.
    pub fn broadcast(&mut self) {
        let Server { table, open, found } = self;
        found.extend(open.iter());
        let mut message = outbound(Outbound::message(Opcode::Text, &[b'x'; 128]), true, None);
        let (listed, count) = (table.listed_len(), found.len());
        let queued = found.drain(..).filter(|slot| table.push(*slot, &mut message) == Outcome::Queued).count();
        table.defer_listed(listed);
        assert_eq!(queued, count);
    }

    /// Writes all output.
    pub fn flush(&mut self) {
        self.table.begin_flush();
        while self.table.poll_flush().is_some() {}
        self.table.end_flush();
    }
}
