//! Tests TLS records: their lengths, records that arrive in parts, key updates, renegotiation, and the end of the
//! stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use fdpush::{By, Cause, Limits, Outcome, Response};
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConnection, StreamOwned};

use crate::common::raw::{BINARY, TEXT, frame};
use crate::common::tls::{AUTHORITY, Socket};
use crate::common::{DEADLINE, Raw, TestServer, channel, echo, limits_with_long_times, raw, report_close, serve};

/// A client that makes and sends its TLS records itself.
struct Records {
    connection: UnbufferedClientConnection,
    stream: TcpStream,
    /// Received bytes that are not a complete TLS record yet.
    incoming: Vec<u8>,
    plaintext: Vec<u8>,
    is_closed: bool,
}

impl Records {
    /// Connects, and opens a WebSocket.
    fn upgraded(server: &TestServer) -> Records {
        let mut client = Records::connect(server);
        client.send_in(raw::UPGRADE.as_bytes(), &[usize::MAX]);
        let head = client.until(|bytes| bytes.ends_with(b"\r\n\r\n"));
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
        client
    }

    fn connect(server: &TestServer) -> Records {
        let stream = TcpStream::connect(server.address()).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        let name = "localhost".try_into().expect("the name is valid");
        let connection = UnbufferedClientConnection::new(Arc::new(AUTHORITY.client_config()), name);
        let connection = connection.expect("the session can be created");
        let mut client = Records { connection, stream, incoming: Vec::new(), plaintext: Vec::new(), is_closed: false };
        while !client.step(|_| {}) {
            client.receive();
        }
        client
    }

    /// Processes the received bytes, and calls `write` if the session can send. Returns whether it has called `write`.
    fn step(
        &mut self,
        mut write: impl FnMut(&mut rustls::unbuffered::WriteTraffic<'_, rustls::client::ClientConnectionData>),
    ) -> bool {
        let mut outgoing = Vec::new();
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.incoming);
            let mut is_done = None;
            match state.expect("the server sends valid records") {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        self.plaintext.extend_from_slice(record.expect("the record is valid").payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut record = vec![0; 20_000];
                    let bytes = data.encode(&mut record).expect("the buffer has enough space");
                    outgoing.extend_from_slice(&record[..bytes]);
                }
                ConnectionState::TransmitTlsData(data) => {
                    self.stream.write_all(&outgoing).expect("the bytes can be sent");
                    outgoing.clear();
                    data.done();
                }
                ConnectionState::BlockedHandshake => is_done = Some(false),
                ConnectionState::WriteTraffic(mut traffic) => {
                    write(&mut traffic);
                    is_done = Some(true);
                }
                ConnectionState::PeerClosed => self.is_closed = true,
                ConnectionState::Closed => is_done = Some(false),
                state => panic!("unexpected {state:?}"),
            }
            self.incoming.drain(..discard);
            if let Some(is_done) = is_done {
                return is_done;
            }
        }
    }

    /// Encrypts `plaintext` into records. `lengths` are the plaintext lengths of the records. If there are more records
    /// than lengths, the lengths are repeated.
    fn encrypt(&mut self, plaintext: &[u8], lengths: &[usize]) -> Vec<u8> {
        let mut records = Vec::new();
        let (mut rest, mut lengths) = (plaintext, lengths.iter().cycle());
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rest.len().min(*lengths.next().expect("the list has a length")));
            let mut record = vec![0; part.len() + (part.len() / 16_384 + 1) * 100 + 200];
            let mut bytes = 0;
            self.step(|traffic| bytes = traffic.encrypt(part, &mut record).expect("the buffer has enough space"));
            records.extend_from_slice(&record[..bytes]);
            rest = more;
        }
        records
    }

    fn send_in(&mut self, plaintext: &[u8], lengths: &[usize]) {
        let records = self.encrypt(plaintext, lengths);
        self.send(&records);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the bytes can be sent");
    }

    fn receive(&mut self) -> usize {
        let mut chunk = [0; 1 << 16];
        let count = self.stream.read(&mut chunk).unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::ConnectionReset => 0,
            _ => panic!("expected bytes of the server before the deadline: {error}"),
        });
        self.incoming.extend_from_slice(&chunk[..count]);
        count
    }

    /// Reads until a condition is true for the received plaintext, and returns this plaintext.
    fn until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        loop {
            self.step(|_| {});
            if is_enough(&self.plaintext) {
                return std::mem::take(&mut self.plaintext);
            }
            assert!(self.receive() > 0, "the stream ended after {}", self.plaintext.escape_ascii());
        }
    }

    fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        let all = self.until(|received| received.len() >= bytes);
        assert_eq!(all.len(), bytes);
        all
    }

    /// Reads up to the end of the stream. Returns whether `close_notify` came first.
    fn is_closed_cleanly(&mut self) -> bool {
        while self.receive() > 0 {
            self.step(|_| {});
        }
        self.is_closed
    }
}

/// Returns the frame of the server that echoes a short message.
fn echoed(message: &[u8]) -> Vec<u8> {
    [&[0x80 | BINARY, u8::try_from(message.len()).expect("the message is short")], message].concat()
}

fn echo_server() -> TestServer {
    serve(|server| server.on_message(echo))
}

#[test]
fn a_record_may_be_cut_at_every_byte() {
    let server = echo_server();
    let mut client = Records::upgraded(&server);
    let message = b"cut at every byte";
    let length = client.encrypt(&frame(BINARY, message), &[usize::MAX]).len();
    // The test does not send the record that `encrypt` has made. So the server would refuse the next record of that
    // client, and the test uses a new client.
    let mut client = Records::upgraded(&server);
    for at in 1..length {
        let records = client.encrypt(&frame(BINARY, message), &[usize::MAX]);
        client.send(&records[..at]);
        server.ask(|_| ());
        server.ask(|_| ());
        client.send(&records[at..]);
        assert_eq!(client.exactly(message.len() + 2), echoed(message), "cut at {at}");
    }
}

#[test]
fn records_of_one_byte_and_records_sent_one_byte_a_turn_are_accepted() {
    let server = echo_server();
    let mut client = Records::upgraded(&server);
    let message = b"one byte each";
    let records = client.encrypt(&frame(BINARY, message), &[1]);
    assert!(records.len() > 20 * message.len(), "the client must send a record for each byte");
    client.send(&records);
    assert_eq!(client.exactly(message.len() + 2), echoed(message));
    for byte in client.encrypt(&frame(BINARY, message), &[1]) {
        client.send(&[byte]);
        server.ask(|_| ());
    }
    assert_eq!(client.exactly(message.len() + 2), echoed(message));
}

#[test]
fn one_record_may_hold_many_frames() {
    let server = echo_server();
    let mut client = Records::upgraded(&server);
    let one = frame(BINARY, b"many in one");
    let count = 16_384 / one.len();
    let records = client.encrypt(&one.repeat(count), &[16_384]);
    assert!(records.len() > 16_000 && records.len() < 16_384 + 100, "all frames must fit into one record");
    client.send(&records);
    assert_eq!(client.exactly(count * 13), echoed(b"many in one").repeat(count));
}

#[test]
fn a_message_may_take_many_records() {
    let server = echo_server();
    let mut client = Records::upgraded(&server);
    let message: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    for lengths in [&[16_384][..], &[1, 16_384, 7, 500], &[1_000]] {
        let records = client.encrypt(&frame(BINARY, &message), lengths);
        let mut stream = client.stream.try_clone().expect("the descriptor can be duplicated");
        std::thread::scope(|scope| {
            scope.spawn(|| stream.write_all(&records).expect("the bytes can be sent"));
            let received = client.exactly(message.len() + 10);
            assert!(received[10..] == message[..], "the server must echo the message");
        });
    }
}

#[test]
fn a_small_read_budget_loses_no_plaintext() {
    let limits = Limits { read_budget_bytes: 1 << 10, ..limits_with_long_times() };
    let server = serve(move |server| server.limits(limits).on_message(echo));
    let mut client = Records::upgraded(&server);
    let one = frame(BINARY, b"more than one read");
    let count = 16_384 / one.len();
    for _ in 0..3 {
        // The first read of the socket takes all bytes into the TLS session, and epoll reports no further event.
        client.send_in(&one.repeat(count), &[16_384]);
        assert_eq!(client.exactly(count * 20), echoed(b"more than one read").repeat(count));
    }
}

/// Epoll reports the end of the stream together with the bytes before it, and reports the end only once. So the server
/// must find the end without another report.
#[test]
fn the_end_of_the_stream_is_found_behind_a_record_longer_than_a_read() {
    let (tx, closed) = channel();
    let limits = Limits { read_budget_bytes: 1 << 10, ..limits_with_long_times() };
    let server = serve(move |server| server.limits(limits).on_close(report_close(tx)));
    for ends_with_notify in [false, true] {
        let before = server.ask(|ctx| ctx.stats().traffic.messages_in);
        let mut client = Records::upgraded(&server);
        let one = frame(BINARY, b"before the end");
        let count = 16_384 / one.len();
        let mut records = client.encrypt(&one.repeat(count), &[16_384]);
        if ends_with_notify {
            let mut notify = [0; 200];
            client.step(|traffic| {
                let bytes = traffic.queue_close_notify(&mut notify).expect("the buffer has enough space");
                records.extend_from_slice(&notify[..bytes]);
            });
        }
        // The loop is blocked until all records and the end of the stream have arrived.
        let (held, release) = server.hold();
        client.send(&records);
        client.stream.shutdown(Shutdown::Write).expect("the connection is open");
        drop(release);
        held.wait_timeout(DEADLINE).expect("the server answers");
        let (_, end) = closed.next();
        assert_eq!((end.by, end.cause), (By::Client, Cause::ConnectionLost));
        assert_eq!(server.ask(|ctx| ctx.stats().traffic.messages_in) - before, count as u64);
    }
}

#[test]
fn a_record_that_does_not_end_closes_the_connection() {
    let (tx, closed) = channel();
    let limits = Limits { message_time_max: Duration::from_millis(50), ..limits_with_long_times() };
    let server = serve(move |server| server.limits(limits).on_message(echo).on_close(report_close(tx)));
    let mut client = Records::upgraded(&server);
    let records = client.encrypt(&frame(BINARY, b"without its last byte"), &[usize::MAX]);
    client.send(&records[..records.len() - 1]);
    let (_, end) = closed.next();
    assert_eq!((end.by, end.cause, end.code.as_u16()), (By::Server, Cause::MessageTimedOut, 1008));
    let close = client.until(|bytes| bytes.len() >= 4);
    assert_eq!((close[0], &close[2..4]), (0x88, &[3, 0xf0][..]), "{}", close.escape_ascii());
}

#[test]
fn a_client_may_update_its_keys_and_ask_the_server_to_update_the_keys_of_the_server() {
    let server = echo_server();
    let mut client = Records::upgraded(&server);
    for round in 0..20 {
        // The client updates its keys, and asks the server to update the server's keys.
        let mut is_asked = false;
        let status = client.connection.process_tls_records(&mut []);
        if let Ok(ConnectionState::WriteTraffic(traffic)) = status.state {
            traffic.refresh_traffic_keys().expect("the session uses TLS 1.3");
            is_asked = true;
        }
        assert!(is_asked);
        let message = format!("after update {round}");
        client.send_in(&frame(BINARY, message.as_bytes()), &[usize::MAX]);
        assert_eq!(client.exactly(message.len() + 2), echoed(message.as_bytes()));
    }
}

#[test]
fn garbage_after_the_handshake_ends_the_connection() {
    let (tx, closed) = channel();
    let server = serve(move |server| server.on_message(echo).on_close(report_close(tx)));
    let mut client = Records::upgraded(&server);
    client.send_in(&frame(BINARY, b"before"), &[usize::MAX]);
    client.send(&[23, 3, 3, 0, 30]);
    client.send(&[0xab; 30]);
    let (_, end) = closed.next();
    assert_eq!((end.by, end.cause), (By::Client, Cause::ConnectionLost));
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    assert_eq!(
        server.ask(|ctx| ctx.stats().traffic.messages_in),
        1,
        "the server must deliver the message before the garbage"
    );
}

#[test]
fn renegotiation_is_refused() {
    // rustls has no renegotiation, so a hello in an open session ends the session.
    let (tx, closed) = channel();
    let server = serve(move |server| server.on_close(report_close(tx)));
    let mut client = Records::upgraded(&server);
    client.send(&[22, 3, 3, 0, 4, 1, 0, 0, 0]);
    assert_eq!(closed.next().1.cause, Cause::ConnectionLost);
}

#[test]
fn the_server_ends_with_close_notify() {
    let server = serve(|server| {
        server
            .on_message(|ctx, fd, message| _ = ctx.push(fd, message))
            .on_request(|_, _, _| Some(Response::text(200, "done").close()))
    });
    // The server ends its side after a close handshake, after a response with `Connection: close`, and after a drain.
    let mut client = Records::upgraded(&server);
    client.send_in(&frame(raw::CLOSE, &1000_u16.to_be_bytes()), &[usize::MAX]);
    assert_eq!(client.exactly(4), [0x88, 2, 3, 0xe8]);
    assert!(client.is_closed_cleanly());
    let mut client = Records::connect(&server);
    client.send_in(raw::GET.as_bytes(), &[usize::MAX]);
    client.until(|bytes| bytes.ends_with(b"done"));
    assert!(client.is_closed_cleanly());
    let mut client = Records::upgraded(&server);
    server.remote.shutdown().expect("the server is running");
    let close = client.until(|bytes| bytes.len() >= 4);
    assert_eq!(close[0], 0x88);
    client.send_in(&frame(raw::CLOSE, &1001_u16.to_be_bytes()), &[usize::MAX]);
    assert!(client.is_closed_cleanly());
}

#[test]
fn a_client_that_has_sent_close_notify_still_gets_its_response() {
    let (tx, closed) = channel();
    let server =
        serve(move |server| server.on_close(report_close(tx)).on_request(|_, _, _| Some(Response::text(200, "late"))));
    let mut client = Records::connect(&server);
    let mut records = client.encrypt(raw::GET.as_bytes(), &[usize::MAX]);
    let mut notify = [0; 200];
    client.step(|traffic| {
        let bytes = traffic.queue_close_notify(&mut notify).expect("the buffer has enough space");
        records.extend_from_slice(&notify[..bytes]);
    });
    client.send(&records);
    client.until(|bytes| bytes.ends_with(b"late"));
    assert!(client.is_closed_cleanly());
    let mut client = Records::upgraded(&server);
    let mut bytes = 0;
    client.step(|traffic| bytes = traffic.queue_close_notify(&mut notify).expect("the buffer has enough space"));
    client.send(&notify[..bytes]);
    assert_eq!(closed.next().1.cause, Cause::ConnectionLost);
}

#[test]
fn a_client_that_has_shut_down_the_write_side_of_its_socket_still_gets_its_response() {
    let server = serve(|server| server.on_request(|_, _, _| Some(Response::text(200, "late"))));
    let mut client = Records::connect(&server);
    client.send_in(raw::GET.as_bytes(), &[usize::MAX]);
    client.stream.shutdown(Shutdown::Write).expect("the connection is open");
    client.until(|bytes| bytes.ends_with(b"late"));
}

#[test]
fn ciphertext_that_the_socket_does_not_accept_counts_as_queued() {
    let server = serve(|server| server);
    let mut client = Records::upgraded(&server);
    let fd = server.ask(|ctx| ctx.connections().next()).expect("the client is connected");
    let message = vec![b'x'; 100_000];
    // The client does not read until the queue is full.
    let mut pushed = 0_usize;
    let push = || {
        server.ask({
            let message = message.clone();
            move |ctx| {
                (
                    ctx.push(fd, &message[..]),
                    ctx.info(fd).expect("the client is connected").queued_bytes,
                    ctx.stats().queued_bytes,
                )
            }
        })
    };
    loop {
        let (outcome, queued, total) = push();
        assert_eq!(outcome, Outcome::Queued);
        pushed += 1;
        assert!(total >= queued, "the total {total} must include the {queued} bytes of this queue");
        if queued > 3_000_000 {
            break;
        }
    }
    let received = client.exactly(pushed * (message.len() + 10));
    assert!(received.chunks(message.len() + 10).all(|one| one[10..] == message[..]));
    server.wait_until("no bytes are queued", |ctx| ctx.stats().queued_bytes == 0);
}

#[test]
fn a_client_that_reads_no_bytes_is_closed_after_write_time_max() {
    let (tx, closed) = channel();
    let limits = Limits { write_time_max: Duration::from_millis(100), ..limits_with_long_times() };
    let server = serve(move |server| server.limits(limits).on_close(report_close(tx)));
    let _client = Records::upgraded(&server);
    // The kernel accepts some MB at first, and may accept more later. So the test pushes until the queue is long.
    server.wait_until("the socket is full", |ctx| {
        let Some(fd) = ctx.connections().next() else { return true };
        ctx.push(fd, &[b'x'; 100_000][..]);
        ctx.info(fd).is_some_and(|info| info.queued_bytes > 3_000_000)
    });
    // The kernel gets the same limit, as TCP_USER_TIMEOUT, and may end the connection before the server does.
    let cause = closed.next().1.cause;
    assert!(matches!(cause, Cause::WriteTimedOut | Cause::ConnectionLost), "{cause:?}");
}

#[test]
fn an_aborted_tls_connection_frees_all_its_stored_bytes() {
    let server = serve(|server| server);
    let clients: Vec<Records> = (0..4).map(|_| Records::upgraded(&server)).collect();
    server.ask(|ctx| {
        let fds: Vec<_> = ctx.connections().collect();
        let message = vec![b'x'; 4_000_000];
        for fd in &fds {
            ctx.push(*fd, &message[..]);
        }
    });
    server.ask(|ctx| {
        for fd in ctx.connections().collect::<Vec<_>>() {
            ctx.abort(fd);
        }
    });
    server.wait_until("no connection and no stored bytes are left", |ctx| {
        let stats = ctx.stats();
        (stats.connections, stats.queued_bytes, stats.inbound_bytes) == (0, 0, 0)
    });
    drop(clients);
}

#[test]
fn unfinished_records_count_as_unfinished_input() {
    let limits = Limits {
        message_bytes_max: 4 << 10,
        body_bytes_max: 4 << 10,
        head_bytes_max: 4 << 10,
        inbound_total_bytes_max: 32 << 10,
        ..limits_with_long_times()
    };
    let server = serve(move |server| server.limits(limits));
    // Each client sends a record of about 15,000 bytes without its last byte.
    let mut clients: Vec<Records> = (0..4).map(|_| Records::upgraded(&server)).collect();
    for client in &mut clients {
        let records = client.encrypt(&frame(BINARY, &[b'x'; 3_000]).repeat(5), &[16_384]);
        client.send(&records[..records.len() - 1]);
        server.ask(|ctx| assert!(ctx.stats().inbound_bytes <= 32 << 10, "{}", ctx.stats().inbound_bytes));
    }
    server.wait_until("the server has closed the connections with the most unfinished input", |ctx| {
        ctx.stats().inbound_bytes <= 32 << 10 && ctx.stats().closed_by_cause.contains_key("inbound_overload")
    });
}

#[test]
fn rustls_as_the_client_accepts_all_records_of_the_server() {
    let server = echo_server();
    let stream = TcpStream::connect(server.address()).expect("the server listens");
    let Socket::Tls(stream) = Socket::secure(stream, AUTHORITY.client_config(), "localhost") else {
        panic!("the socket must use TLS")
    };
    let stream: Box<StreamOwned<ClientConnection, TcpStream>> = stream;
    let mut raw = Raw::over(Socket::Tls(stream));
    raw.send(raw::UPGRADE);
    assert_eq!(raw.reply().status, 101);
    for bytes in [0, 1, 125, 126, 16_300, 16_384, 65_535, 65_536, 1_000_000] {
        let message = vec![b'm'; bytes];
        raw.send_frame(TEXT, &message);
        assert_eq!(raw.frame(), (0x80 | TEXT, message), "{bytes} bytes");
    }
}
