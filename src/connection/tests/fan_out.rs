//! Tests of pushes to very many connections, on a table whose clients accept all bytes or none.

use super::*;
use crate::connection::{FlushResult, Io, SlotSet, Table, Transport};
use crate::message::{Delivery, Outcome};

/// The socket of a client, with the bytes that the client has received.
#[derive(Default)]
struct Socket {
    received: Vec<u8>,
    is_full: bool,
}

impl Transport for Socket {
    type Shared = ();

    fn read(&mut self, _: &mut (), _: &mut [u8]) -> Io {
        Io::WouldBlock
    }

    fn write_vectored(&mut self, _: &mut (), slices: &[IoSlice<'_>]) -> Option<Written> {
        if self.is_full {
            return Some(Written::new(0, true));
        }
        let before = self.received.len();
        slices.iter().for_each(|slice| self.received.extend_from_slice(slice));
        Some(Written::new(self.received.len() - before, false))
    }

    fn shutdown(&mut self, _: &mut ()) {}
}

/// A table with open WebSockets at the first slots.
struct Crowd {
    table: Table<Socket>,
    freed: Vec<Slot>,
}

impl Crowd {
    fn open(count: u32, limits: Limits) -> Crowd {
        let table = Table::new(16, Env::new(limits, Heartbeat::Off, Origins::Any), ());
        let mut crowd = Crowd { table, freed: Vec::new() };
        (0..count).for_each(|slot| assert_eq!(crowd.open_one(), Slot(slot)));
        crowd.flush(usize::MAX);
        (0..count).for_each(|slot| assert!(crowd.received(slot).starts_with("HTTP/1.1 101 ")));
        crowd
    }

    fn open_one(&mut self) -> Slot {
        let fd = self.insert();
        let mut bytes = UPGRADE.as_bytes().to_vec();
        let Some(Event::Upgrade(request)) = self.table.handle_bytes(fd.slot(), &mut &mut bytes[..]) else {
            panic!("the upgrade must be valid")
        };
        let accept = Accept::default();
        let accepted = self.table.step(fd.slot(), |connection, env| connection.accept(fd, &accept, &request, env));
        accepted.expect("the connection exists").expect("the answer is valid").expect("the upgrade is pending");
        fd.slot()
    }

    fn insert(&mut self) -> Fd {
        let connection = Connection::new(Peer::Unix, self.table.env());
        self.table.insert(Socket::default(), connection).expect("a slot is free")
    }

    /// Begins a fan-out to the slots below `end`.
    fn fan_out(&mut self, end: u32, text: &str) -> Delivery {
        let mut receivers: SlotSet = (0..end).map(Slot).collect();
        let mut message = Outbound::message(Opcode::Text, text.as_bytes()).to_kept();
        let mut delivery = Delivery::default();
        for slot in self.table.begin_fan_out(&mut receivers, &message) {
            delivery.count(message.lend(|outbound| self.table.push(slot, outbound)));
        }
        delivery += Delivery::new(self.table.add_fan_out(receivers, message), 0);
        while self.table.poll_ended().is_some() {}
        self.table.check_invariants();
        delivery
    }

    fn push(&mut self, slot: u32, text: &str) -> Outcome {
        self.table.push(Slot(slot), &mut Outbound::message(Opcode::Text, text.as_bytes()))
    }

    fn close(&mut self, slot: u32) {
        let close = |connection: &mut Connection, env: &mut Env| {
            connection.close(CloseCode::NORMAL, "", Cause::ServerClosed, env).is_some()
        };
        assert_eq!(self.table.step(Slot(slot), close), Some(true));
    }

    /// Writes to at most `count` connections, and frees the slots of ended connections.
    fn flush(&mut self, count: usize) {
        self.table.begin_flush();
        for _ in 0..count {
            let Some((slot, flushed)) = self.table.poll_flush() else { break };
            if flushed == FlushResult::Over {
                self.table.remove(slot);
                self.freed.push(slot);
            }
        }
        self.table.end_flush();
        self.table.check_invariants();
    }

    /// Returns the new bytes of a client.
    fn received(&mut self, slot: u32) -> String {
        let socket = self.table.transport_mut(Slot(slot)).expect("the connection exists");
        String::from_utf8_lossy(&std::mem::take(&mut socket.received)).into_owned()
    }

    fn messages_out(&self) -> u64 {
        self.table.env().counts.traffic.messages_out
    }
}

/// The fan-outs of a test have the text frames of one letter, without their headers.
fn letters(received: &str) -> String {
    received.chars().filter(char::is_ascii_lowercase).collect()
}

#[test]
fn a_fan_out_counts_at_once_and_is_written_in_portions() {
    let mut crowd = Crowd::open(6, Limits::default());
    let before = crowd.messages_out();
    assert_eq!(crowd.fan_out(6, "a"), Delivery::new(6, 0));
    assert_eq!(crowd.messages_out() - before, 6);
    assert_eq!(crowd.table.waiting_fan_outs(Slot(5)), (1, 3));
    for written in 1..=6 {
        assert!(crowd.table.has_dirty());
        crowd.flush(1);
        let counts: Vec<u64> = (0..6).map(|slot| crowd.table.waiting_fan_outs(Slot(slot)).0).collect();
        assert_eq!(counts.iter().sum::<u64>(), 6 - written);
        let connection = crowd.table.connection(Slot(written as u32 - 1)).expect("the connection exists");
        assert_eq!(connection.traffic().messages_out, 1);
        assert_eq!(crowd.received(written as u32 - 1), "\u{fffd}\u{1}a");
    }
    assert!(!crowd.table.has_dirty());
    assert_eq!(crowd.messages_out() - before, 6);
}

#[test]
fn later_output_of_a_connection_follows_the_fan_out() {
    let mut crowd = Crowd::open(6, Limits::default());
    crowd.fan_out(6, "a");
    crowd.fan_out(5, "b");
    crowd.flush(1);
    assert_eq!(letters(&crowd.received(0)), "ab");
    // A push, a close and a ping.
    assert_eq!(crowd.push(4, "c"), Outcome::Queued);
    crowd.close(3);
    assert_eq!(crowd.table.ping(Slot(2), b"p"), Outcome::Queued);
    assert_eq!(crowd.fan_out(6, "d"), Delivery::new(5, 0));
    crowd.flush(usize::MAX);
    let received: Vec<String> = (0..6).map(|slot| crowd.received(slot)).collect();
    let all: Vec<String> = received.iter().map(|received| letters(received)).collect();
    assert_eq!(all, ["d", "abd", "abpd", "ab", "abcd", "ad"]);
    assert!(received[3].ends_with("\u{fffd}\u{2}\u{3}\u{fffd}"), "the close frame must be the last: {:?}", received[3]);
}

#[test]
fn a_connection_in_a_reused_slot_does_not_get_the_message() {
    let mut crowd = Crowd::open(4, Limits::default());
    crowd.fan_out(4, "a");
    crowd.flush(1);
    let abort = |connection: &mut Connection, env: &mut Env| connection.abort(env).is_some();
    assert_eq!(crowd.table.step(Slot(2), abort), Some(true));
    // The flush takes turns between the receivers and the other connections.
    crowd.flush(2);
    assert_eq!(crowd.freed, [Slot(2)]);
    assert_eq!(crowd.open_one(), Slot(2));
    crowd.flush(usize::MAX);
    assert!(crowd.received(2).ends_with("\r\n\r\n"));
    assert_eq!([1, 3].map(|slot| letters(&crowd.received(slot))), ["a", "a"]);
}

#[test]
fn a_response_follows_all_receivers_of_a_fan_out() {
    let mut crowd = Crowd::open(6, Limits::default());
    let fd = crowd.insert();
    crowd.fan_out(6, "a");
    let mut request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let event = crowd.table.handle_bytes(fd.slot(), &mut &mut request[..]);
    assert!(matches!(event, Some(Event::Request { .. })));
    crowd.table.step(fd.slot(), |connection, env| connection.respond(Response::new(204), env));
    crowd.fan_out(6, "b");
    crowd.flush(4);
    crowd.push(5, "c");
    let is_answered = |crowd: &mut Crowd| !crowd.received(6).is_empty();
    let mut written = 0;
    while !is_answered(&mut crowd) {
        assert!(written < 6, "the response must be written after the fan-outs");
        crowd.flush(1);
        written += 1;
    }
    let all: Vec<String> = (0..6).map(|slot| letters(&crowd.received(slot))).collect();
    assert_eq!(all, ["ab", "ab", "ab", "ab", "ab", "abc"], "all receivers must have the messages before the response");
}

#[test]
fn a_message_without_room_is_queued_at_once() {
    let limits = Limits { queue_bytes_max: 10, queue_total_bytes_max: 1 << 20, ..Limits::default() };
    let mut crowd = Crowd::open(3, limits);
    crowd.table.transport_mut(Slot(1)).expect("the connection exists").is_full = true;
    assert_eq!(crowd.fan_out(3, "aaaa"), Delivery::new(3, 0));
    // The second message does not fit behind the first one, so both are queued, and the full socket is tried.
    assert_eq!(crowd.fan_out(3, "bbbb"), Delivery::new(2, 1));
    assert!((0..3).all(|slot| crowd.table.waiting_fan_outs(Slot(slot)) == (0, 0)));
    crowd.flush(usize::MAX);
    assert_eq!([0, 2].map(|slot| letters(&crowd.received(slot))), ["aaaabbbb", "aaaabbbb"]);
    // A message over the bound is refused for all receivers.
    assert_eq!(crowd.fan_out(3, "ccccccccc"), Delivery::new(0, 2));
}

#[test]
fn a_fan_out_shares_its_frame_among_full_sockets() {
    let mut crowd = Crowd::open(4, Limits::default());
    for slot in 0..4 {
        crowd.table.transport_mut(Slot(slot)).expect("the connection exists").is_full = true;
    }
    let text = "x".repeat(10_000);
    assert_eq!(crowd.fan_out(4, &text), Delivery::new(4, 0));
    // Two flushes, so that the frame is in the journal twice.
    crowd.flush(2);
    crowd.flush(usize::MAX);
    let queued = crowd.table.env().queued.frames;
    assert!(queued > 10_000 && queued < 15_000, "the frame must count once, not {queued} bytes");
}
