//! Tests of a table whose transports are TLS sessions. The tests set the time.

use super::*;
use crate::connection::fuzz::Pipe;
use crate::connection::tests::secure_socket::SecureSocket;
use crate::connection::tls::{ReadReport, TlsShared, TlsStream};
use crate::connection::{FlushResult, Io, Table};
use crate::protocol::memory::MemoryTotal;
use crate::tls::{HANDSHAKE, Hello, TLS12_RECORDS_MAX, TestClient, TlsCounts, test_config};

const READ_BYTES: usize = 4096;

/// A server with one connection, and the client of this connection.
struct TlsRig {
    table: Table<SecureSocket>,
    fd: Fd,
    client: TestClient,
    /// The plaintext that the client received.
    received: Vec<u8>,
    /// A description of each event.
    events: Vec<String>,
    is_over: bool,
}

impl TlsRig {
    fn new(limits: Limits, heartbeat: Heartbeat) -> TlsRig {
        let env = Env::new(limits, heartbeat, Origins::Any);
        let shared = TlsShared::new(READ_BYTES, env.inbound.clone());
        let (socket, connection) = (SecureSocket::new(&shared), Connection::new(Peer::Unix, &env));
        let mut table = Table::new(1, env, shared);
        let fd = table.insert(socket, connection).expect("the table has a free slot");
        let client = TestClient::new(Hello::Tls13);
        TlsRig { table, fd, client, received: Vec::new(), events: Vec::new(), is_over: false }
    }

    /// Returns a rig whose connection is an open WebSocket. The client has read all output.
    fn open(limits: Limits, heartbeat: Heartbeat) -> TlsRig {
        let mut rig = TlsRig::new(limits, heartbeat);
        rig.client.write(UPGRADE.as_bytes());
        for _ in 0..3 {
            rig.turn();
        }
        assert!(rig.received.starts_with(b"HTTP/1.1 101 "), "{}", rig.received.escape_ascii());
        rig.received.clear();
        rig
    }

    fn slot(&self) -> Slot {
        self.fd.slot()
    }

    fn connection(&self) -> &Connection {
        self.table.connection(self.slot()).expect("the connection exists")
    }

    fn pipe(&mut self) -> &mut Pipe {
        &mut self.table.transport_mut(self.fd.slot()).expect("the connection has a socket").pipe
    }

    fn timeout(&self) -> Tick {
        self.table.poll_timeout(self.slot())
    }

    /// Sends the client's records to the server, and then reads and writes as the loop does in a turn.
    fn turn(&mut self) {
        let records = self.client.take_records();
        self.turn_with(&records);
    }

    fn turn_with(&mut self, bytes: &[u8]) {
        self.pipe().up.extend_from_slice(bytes);
        self.read();
        self.flush();
    }

    fn read(&mut self) {
        let slot = self.slot();
        let mut buffer = vec![0; READ_BYTES];
        for _ in 0..1000 {
            match self.table.read(slot, &mut buffer) {
                Io::Done(count @ 1..) => self.feed(&mut buffer[..count]),
                Io::WouldBlock if self.pipe().up.is_empty() => return,
                Io::WouldBlock => {}
                end => {
                    let event = self.table.step(slot, |connection, _| connection.handle_end(end == Io::Closed));
                    self.events.extend(event.flatten().as_ref().map(describe));
                    return;
                }
            }
        }
        panic!("the session must at some time have no more to read");
    }

    fn feed(&mut self, bytes: &mut [u8]) {
        let (slot, fd) = (self.slot(), self.fd);
        let mut input = bytes;
        loop {
            let event = match self.table.handle_message(slot, &mut input) {
                Ok(Some(message)) => Some(message.into()),
                Ok(None) => self.table.handle_bytes(slot, &mut input),
                Err(end) => Some(*end),
            };
            let Some(event) = event else { break };
            self.events.push(describe(&event));
            if let Event::Upgrade(request) = event {
                let accept = Accept::default();
                let early = self.table.step(slot, |connection, env| connection.accept(fd, &accept, &request, env));
                early.expect("the connection exists").expect("the answer is valid").expect("the upgrade is pending");
            }
        }
        self.table.end_input(slot);
        self.table.check_invariants();
    }

    /// Writes all output of the table as a flush does, and passes the sent bytes to the client.
    fn flush(&mut self) {
        self.table.begin_flush();
        while let Some((_, flushed)) = self.table.poll_flush() {
            self.is_over |= !matches!(flushed, FlushResult::Stays { .. });
        }
        self.table.end_flush();
        let sent = std::mem::take(&mut self.pipe().down);
        self.received.extend(self.client.receive(&sent).expect("the server follows the TLS protocol"));
    }

    fn push(&mut self, text: &[u8]) {
        self.table.push(self.fd.slot(), &mut Outbound::message(Opcode::Binary, text));
    }

    fn tick(&mut self, now: u64) -> Option<String> {
        let slot = self.slot();
        self.table.env_mut().now = Tick(now);
        let is_late = self.table.has_late_record(slot);
        let tick = if is_late { Connection::handle_late_record } else { Connection::handle_tick };
        self.table.step(slot, tick).flatten().as_ref().map(describe)
    }

    fn frame(&mut self, payload: &[u8]) -> Vec<u8> {
        self.client.write(&frame(true, Opcode::Binary, payload));
        self.client.take_records()
    }
}

fn limits(message_time_max: u64, head_time_max: u64) -> Limits {
    Limits { message_time_max: millis(message_time_max), head_time_max: millis(head_time_max), ..Limits::default() }
}

#[test]
fn head_time_max_starts_again_when_the_hello_is_answered() {
    let mut rig = TlsRig::new(limits(1000, 1000), Heartbeat::Off);
    assert_eq!(rig.timeout(), Tick(1000));
    // The loop has delayed the answer to the hello for nearly the whole `head_time_max`.
    rig.table.env_mut().now = Tick(999);
    rig.turn();
    assert_eq!(rig.timeout(), Tick(1999));
    rig.client.write(UPGRADE.as_bytes());
    rig.table.env_mut().now = Tick(1998);
    rig.turn();
    assert_eq!(rig.events, ["upgrade /chat"]);
}

#[test]
fn later_flights_of_the_client_do_not_restart_head_time_max() {
    let mut rig = TlsRig::new(limits(1000, 1000), Heartbeat::Off);
    rig.client = TestClient::new(Hello::Tls12);
    rig.turn();
    for now in 1..10 {
        rig.table.env_mut().now = Tick(now);
        rig.client.write(b"G");
        rig.turn();
    }
    assert_eq!(rig.timeout(), Tick(1000));
}

#[test]
fn a_client_that_sends_a_part_of_a_record_is_alive() {
    let mut rig = TlsRig::open(limits(60_000, 1000), Heartbeat::Client { idle_max: millis(1000) });
    let record = rig.frame(b"in parts");
    for (index, byte) in record.iter().enumerate() {
        let now = 900 * (index as u64 + 1);
        assert_eq!(rig.tick(now), None, "byte {index}");
        rig.turn_with(&[*byte]);
        assert_eq!(rig.connection().last_seen(), Tick(now));
    }
    assert_eq!(rig.events, ["upgrade /chat", "binary 8"]);
}

#[test]
fn a_record_that_takes_too_long_closes_the_connection() {
    let mut rig = TlsRig::open(limits(1000, 1000), Heartbeat::Off);
    let record = rig.frame(b"too slow");
    let (last, rest) = record.split_last().expect("the record is not empty");
    rig.table.env_mut().now = Tick(5);
    for byte in rest {
        rig.turn_with(&[*byte]);
        assert_eq!(rig.timeout(), Tick(1005));
        let now = rig.table.env().now.0 + 10;
        rig.table.env_mut().now = Tick(now);
    }
    assert_eq!(rig.tick(1004), None);
    assert!(!rig.table.is_overdue(rig.slot()));
    rig.table.env_mut().now = Tick(1005);
    assert!(rig.table.is_overdue(rig.slot()), "the missed deadline must be reported, so that the loop reads once more");
    let end = rig.tick(1005);
    assert_eq!(end.as_deref(), Some("closed 1008 \"message took too long\" (message_timed_out) by Server"));
    rig.turn_with(&[*last]);
    assert!(rig.received.ends_with(b"message took too long"));
}

#[test]
fn the_time_limit_of_a_record_starts_with_its_first_byte() {
    let mut rig = TlsRig::open(limits(1000, 1000), Heartbeat::Off);
    let [first, second] = [rig.frame(b"first"), rig.frame(b"second")];
    let both = [first, second].concat();
    rig.table.env_mut().now = Tick(5);
    rig.turn_with(&both[..3]);
    assert_eq!(rig.timeout(), Tick(1005));
    rig.table.env_mut().now = Tick(500);
    rig.turn_with(&both[3..both.len() - 1]);
    assert_eq!(rig.timeout(), Tick(1500), "the time limit of the second record must start with its first byte");
    rig.turn_with(&both[both.len() - 1..]);
    assert_eq!(rig.timeout(), Tick::NEVER);
    assert_eq!(rig.events, ["upgrade /chat", "binary 5", "binary 6"]);
}

#[test]
fn the_time_limit_of_a_record_starts_again_after_a_pause() {
    let mut rig = TlsRig::open(limits(1000, 1000), Heartbeat::Off);
    let record = rig.frame(b"paused");
    rig.turn_with(&record[..9]);
    assert_eq!(rig.timeout(), Tick(1000));
    let slot = rig.slot();
    assert_eq!(rig.table.set_paused(slot, true), Some(true));
    assert_eq!(rig.timeout(), Tick::NEVER);
    rig.table.env_mut().now = Tick(5000);
    assert_eq!(rig.table.set_paused(slot, false), Some(true));
    assert_eq!(rig.timeout(), Tick(6000));
    rig.turn_with(&record[9..]);
    assert_eq!(rig.timeout(), Tick::NEVER);
}

#[test]
fn a_connection_stays_open_while_the_socket_accepts_earlier_records() {
    let limits = Limits { write_time_max: millis(1000), ..limits(60_000, 1000) };
    let mut rig = TlsRig::open(limits, Heartbeat::Ping { every: millis(900), missed_max: 1 });
    rig.pipe().room = 0;
    rig.push(&[b'x'; 10_000]);
    rig.flush();
    assert_eq!(rig.connection().journal_bytes(), 0);
    assert!(
        rig.connection().queued_bytes() > 10_000,
        "the session must store the records that the socket did not accept"
    );
    let slot = rig.slot();
    for step in 1..50 {
        assert_eq!(rig.tick(450 * step), None, "step {step}");
        rig.pipe().room = 100;
        rig.table.handle_writable(slot);
        rig.flush();
        assert!(rig.connection().queued_bytes() > 0);
    }
    let end = (50..60).find_map(|step| rig.tick(450 * step));
    assert_eq!(
        end.as_deref(),
        Some("closed 1006 (write_timed_out) by Server"),
        "the connection must end because the client reads nothing more"
    );
}

#[test]
fn a_connection_ends_if_the_socket_does_not_accept_its_encrypted_output() {
    let limits = Limits { write_time_max: millis(1000), ..limits(60_000, 1000) };
    let mut rig = TlsRig::open(limits, Heartbeat::Ping { every: millis(900), missed_max: 1 });
    rig.pipe().room = 0;
    // The heartbeat queues a ping before the message is pushed. Then the session encrypts the message, but the socket
    // accepts no bytes.
    rig.table.env_mut().now = Tick(0);
    let pinged = (0..=900).find(|now| rig.tick(*now).is_none() && rig.connection().queued_bytes() > 0);
    let pinged = pinged.expect("the server sent a ping");
    rig.push(&[b'x'; 10_000]);
    rig.flush();
    let end = rig.tick(pinged + 900);
    assert_eq!(end.as_deref(), Some("closed 1006 (heartbeat_missed) by Server"));
}

#[test]
fn records_that_wait_behind_the_101_response_count_as_frames() {
    let mut rig = TlsRig::new(limits(60_000, 1000), Heartbeat::Off);
    rig.client.write(UPGRADE.as_bytes());
    rig.turn();
    // From now on, the client reads no bytes, so the socket accepts no bytes.
    rig.pipe().room = 0;
    rig.turn();
    assert!(rig.connection().is_open());
    assert_eq!(rig.table.env().queued.frames, 0, "the 101 response must not count as frames");
    rig.push(&[b'x'; 10_000]);
    rig.pipe().room = 1;
    let slot = rig.slot();
    rig.table.handle_writable(slot);
    rig.flush();
    rig.table.handle_writable(slot);
    rig.flush();
    let (queued, charge) = (rig.table.env().queued, rig.connection().charge());
    assert_eq!((queued.frames, queued.http > 1000), (charge, false), "{queued:?}");
    assert!(charge > 10_000, "the messages must count, so that they can be freed: {charge} bytes");
    rig.table.step(slot, |connection, env| connection.close_slow(0, env));
    assert_eq!(rig.table.env().queued, Queued::default());
}

#[test]
fn a_cut_response_ends_without_close_notify() {
    for ends_well in [true, false] {
        let mut rig = TlsRig::new(limits(60_000, 1000), Heartbeat::Off);
        rig.client.write(b"GET /old HTTP/1.0\r\n\r\n");
        rig.turn();
        rig.turn();
        assert_eq!(rig.events, ["GET /old"]);
        let slot = rig.slot();
        rig.table.step(slot, |connection, env| {
            assert!(connection.begin_response(&Response::new(200), env));
            assert_eq!(connection.write_response(b"the first part", env), Sent::Queued);
        });
        rig.flush();
        let transition: fn(&mut Connection, &mut Env) = match ends_well {
            true => |connection, env| assert!(connection.end_response(env)),
            false => |connection, env| assert!(connection.abort(env).is_none()),
        };
        rig.table.step(slot, transition);
        rig.flush();
        assert!(rig.received.ends_with(b"the first part"), "{}", rig.received.escape_ascii());
        assert_eq!(rig.client.is_closed(), ends_well);
        let is_reset = rig.table.transport(slot).expect("the connection has a socket").is_reset;
        assert_eq!((is_reset, rig.is_over), (!ends_well, !ends_well));
    }
}

/// In TLS 1.2, the server answers a request for a renegotiation with an alert. The read that sends the alert also sends
/// the records that the session holds.
#[test]
fn a_read_that_sends_the_last_records_lets_the_connection_end() {
    for is_client_first in [false, true] {
        let limits = Limits { close_wait_max: millis(700), ..limits(60_000, 1000) };
        let mut rig = TlsRig::new(limits, Heartbeat::Off);
        rig.client = TestClient::new(Hello::Tls12);
        rig.client.write(UPGRADE.as_bytes());
        (0..4).for_each(|_| rig.turn());
        assert!(rig.connection().is_open());
        rig.pipe().room = 0;
        if is_client_first {
            rig.client.write(&frame(true, Opcode::Close, &[3, 232]));
            rig.turn();
        } else {
            let slot = rig.slot();
            rig.table.step(slot, |connection, env| connection.close(CloseCode::NORMAL, "", Cause::ServerClosed, env));
            rig.flush();
        }
        assert!(rig.connection().queued_bytes() > 0, "the session must store the close frame");
        rig.pipe().room = usize::MAX;
        let hello = TestClient::new(Hello::Tls12).take_records();
        rig.client.write_as(HANDSHAKE, &hello[5..]);
        rig.turn();
        assert_eq!(rig.connection().queued_bytes(), 0);
        match is_client_first {
            true => assert!(rig.is_over, "the connection must end after both close frames"),
            false => assert_eq!(rig.timeout(), Tick(700), "the client must have a deadline for its close frame"),
        }
    }
}

/// A TLS session without a connection, and the state that all sessions share.
struct Bare {
    pipe: Pipe,
    session: TlsStream,
    shared: TlsShared,
    client: TestClient,
}

impl Bare {
    fn new(hello: Hello) -> Bare {
        let shared = TlsShared::new(READ_BYTES, MemoryTotal::default());
        let session = TlsStream::new(&test_config(), false, false, &shared).expect("the settings are valid");
        Bare { pipe: Pipe::new(), session, shared, client: TestClient::new(hello) }
    }

    fn open(hello: Hello) -> Bare {
        let mut bare = Bare::new(hello);
        for _ in 0..3 {
            bare.exchange();
        }
        assert!(bare.session.info().is_some() && !bare.client.is_handshaking());
        bare
    }

    /// Sends the records of the client, reads once, and passes the records of the server back.
    fn exchange(&mut self) -> ReadReport {
        self.pipe.up.extend(self.client.take_records());
        self.session.read(&mut self.pipe, &mut self.shared, &mut [0; READ_BYTES]);
        let sent = std::mem::take(&mut self.pipe.down);
        self.client.receive(&sent).expect("the server follows the TLS protocol");
        std::mem::take(&mut self.shared.last)
    }

    fn write(&mut self, bytes: &[u8]) -> Option<Written> {
        let slices = [IoSlice::new(bytes), IoSlice::new(bytes)];
        self.session.write(&mut self.pipe, &mut self.shared, &slices)
    }
}

#[test]
fn a_retry_request_does_not_count_as_an_answer_to_the_hello() {
    for (hello, retries) in [(Hello::Tls13, 0), (Hello::Tls12, 0), (Hello::Tls13Retried, 1)] {
        let mut bare = Bare::new(hello);
        for retry in 0..retries {
            assert!(bare.session.awaits_hello());
            assert!(!bare.exchange().read.has_answered, "{hello:?}: retry request {retry} must not count as an answer");
        }
        assert!(bare.session.awaits_hello(), "{hello:?}: the next read must be expected to answer the hello");
        assert!(bare.exchange().read.has_answered, "{hello:?}");
        assert!(!bare.session.awaits_hello());
        assert!(!bare.exchange().read.has_answered, "{hello:?}: the client's last flight must not count as a hello");
        assert!(bare.session.info().is_some(), "{hello:?}");
    }
}

#[test]
fn a_hello_is_not_answered_after_the_server_ended_the_connection() {
    for sent_before in [0, 1, 50] {
        let mut bare = Bare::new(Hello::Tls13);
        let hello = bare.client.take_records();
        bare.pipe.up.extend_from_slice(&hello[..sent_before]);
        bare.exchange();
        bare.session.shutdown(&mut bare.pipe, &mut bare.shared);
        bare.pipe.up.extend_from_slice(&hello[sent_before..]);
        bare.exchange();
        assert!(bare.pipe.down.is_empty() && !bare.session.awaits_hello());
        let abandoned = TlsCounts { abandoned: u64::from(sent_before > 0), ..TlsCounts::default() };
        bare.session.count_abandoned(&mut bare.shared.counts);
        assert_eq!(bare.shared.counts, abandoned);
    }
}

#[test]
fn records_of_a_failed_session_are_not_sent_by_the_next_session() {
    let mut bare = Bare::open(Hello::Tls12);
    // Each write encrypts two records. A key of TLS 1.2 may encrypt only a limited number of records, so a later write
    // fails.
    let full = [b'x'; 1 << 14];
    let failed = (0..TLS12_RECORDS_MAX).find(|_| bare.write(&full).is_none());
    assert!(failed.is_some(), "the limit of the keys must be reached");
    bare.shared.check_invariants();
    let mut next = Bare::open(Hello::Tls13);
    std::mem::swap(&mut next.shared, &mut bare.shared);
    next.write(b"twice ").expect("the session is open");
    assert_eq!(next.client.receive(&next.pipe.down), Ok(b"twice twice ".to_vec()));
}

#[test]
fn a_handshake_message_in_tiny_records_ends_an_open_session() {
    let mut bare = Bare::open(Hello::Tls13);
    // The client sends only a part of a key update of 64 KiB, so rustls waits for the remaining bytes.
    let mut header = vec![24, 0, 0xff, 0xff];
    header.resize(8000, 0);
    let mut buffer = [0; READ_BYTES];
    let mut read = Io::WouldBlock;
    for byte in header {
        bare.client.write_as(HANDSHAKE, &[byte]);
        bare.pipe.up = bare.client.take_records();
        read = bare.session.read(&mut bare.pipe, &mut bare.shared, &mut buffer);
        if read != Io::WouldBlock {
            break;
        }
        let written = bare.write(b"still open").expect("the session accepts output");
        assert_eq!(written.bytes, 20, "no output may be dropped while the session is open");
    }
    assert_eq!(read, Io::Closed);
    assert_eq!(bare.write(b"too late"), None, "output must be refused, not dropped");
}

#[test]
fn a_record_that_is_longer_than_the_read_buffer_is_read_as_a_whole() {
    let mut bare = Bare::open(Hello::Tls13);
    bare.client.write(&[b'x'; 1 << 14]);
    bare.pipe.up = bare.client.take_records();
    assert!(bare.pipe.up.len() > 1 << 14);
    let (mut buffer, mut plaintext) = ([0; READ_BYTES], 0);
    while let Io::Done(count @ 1..) = bare.session.read(&mut bare.pipe, &mut bare.shared, &mut buffer) {
        plaintext += count;
        assert!(bare.session.may_have_more() || plaintext == 1 << 14);
    }
    assert_eq!((plaintext, bare.session.inbound_bytes()), (1 << 14, 0));
}

/// Bytes arrive between two reads of one record, and epoll reports them only once. The second read returns stored
/// plaintext and does not read the socket, so a third read must follow.
#[test]
fn bytes_that_arrive_between_two_reads_of_a_record_are_read() {
    let mut bare = Bare::open(Hello::Tls13);
    bare.client.write(&[b'x'; READ_BYTES + 1]);
    bare.pipe.up = bare.client.take_records();
    let mut buffer = [0; READ_BYTES];
    let mut reads = Vec::new();
    for _ in 0..4 {
        reads.push(bare.session.read(&mut bare.pipe, &mut bare.shared, &mut buffer));
        if reads.len() == 1 {
            bare.client.write(b"later");
            bare.pipe.up = bare.client.take_records();
        }
        if !bare.session.may_have_more() {
            break;
        }
    }
    assert_eq!(reads, [Io::Done(READ_BYTES), Io::Done(1), Io::Done(5)]);
}

#[test]
fn close_notify_ends_only_the_stream_of_the_client() {
    for hello in [Hello::Tls12, Hello::Tls13] {
        let mut bare = Bare::open(hello);
        bare.client.write(b"last");
        bare.client.close();
        bare.pipe.up = bare.client.take_records();
        let mut buffer = [0; READ_BYTES];
        assert_eq!(bare.session.read(&mut bare.pipe, &mut bare.shared, &mut buffer), Io::Done(4));
        assert!(bare.session.may_have_more(), "the end must be read without an epoll event");
        assert_eq!(bare.session.read(&mut bare.pipe, &mut bare.shared, &mut buffer), Io::Done(0));
        bare.write(b"still ").expect("the session accepts output");
        bare.session.shutdown(&mut bare.pipe, &mut bare.shared);
        assert_eq!(bare.client.receive(&bare.pipe.down), Ok(b"still still ".to_vec()), "{hello:?}");
        assert!(bare.client.is_closed() && bare.pipe.is_shut);
    }
}

#[test]
fn a_key_update_is_answered_and_the_session_goes_on() {
    let mut bare = Bare::open(Hello::Tls13);
    for round in 0..10_u8 {
        bare.client.update_keys();
        bare.client.write(&[round]);
        bare.pipe.up = bare.client.take_records();
        let mut buffer = [0; READ_BYTES];
        assert_eq!(bare.session.read(&mut bare.pipe, &mut bare.shared, &mut buffer), Io::Done(1));
        assert_eq!(buffer[0], round);
        bare.write(&[round]).expect("the session is open");
        let sent = std::mem::take(&mut bare.pipe.down);
        assert_eq!(bare.client.receive(&sent), Ok(vec![round; 2]));
    }
}

#[test]
fn a_second_hello_ends_an_open_session() {
    let mut bare = Bare::open(Hello::Tls13);
    bare.client.write_as(HANDSHAKE, &[1, 0, 0, 4, 3, 3, 0, 0]);
    bare.pipe.up = bare.client.take_records();
    let mut buffer = [0; READ_BYTES];
    assert_eq!(bare.session.read(&mut bare.pipe, &mut bare.shared, &mut buffer), Io::Closed);
    assert!(bare.shared.last.error.is_some());
    assert!(bare.client.receive(&bare.pipe.down).is_err_and(|error| error.contains("fatal alert")));
}
