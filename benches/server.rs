//! Benchmarks of the whole server through sockets.
//!
//! The benchmarks are echo, fan-out to 100 connections, and point to point by uid. The server runs on one thread, and
//! all clients run on another. The results show changes in the cost of the server, not the maximum rate of the server.
//! `benches/load/run.sh` measures the maximum rate with a load client in another process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fdpush::{Frame, Remote, Server};

const TIMEOUT: Duration = Duration::from_secs(10);
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A server on its own thread, which is shut down when this value is dropped.
struct Running {
    address: SocketAddr,
    remote: Remote,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Running {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let server = Server::bind("127.0.0.1:0").expect("a port is unused").catch_signals(false);
            let address = server.local_addr().expect("the server has a TCP address");
            sender.send((address, server.remote())).expect("the receiver is open");
            serve(server);
        });
        let (address, remote) = receiver.recv_timeout(TIMEOUT).expect("the server starts");
        Running { address, remote, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.remote.shutdown().expect("the server is running");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server thread does not panic");
        }
    }
}

/// Runs the server.
///
/// The query of a connection selects its group (`?group=`) and its uid (`?uid=`). A message `all:…` goes to the group
/// `all`. A message that starts with four digits goes to the uid of these digits. Any other message goes to its sender.
fn serve(server: Server) {
    server
        .on_open(|ctx, fd, request| {
            if let Some(uid) = request.query("uid") {
                ctx.bind(fd, uid);
            }
            if let Some(group) = request.query("group") {
                ctx.join(fd, group);
            }
        })
        .on_message(|ctx, fd, message| {
            let text = message.as_text().unwrap_or_default();
            let delivered = match text.get(..4) {
                Some("all:") => ctx.push_group("all", message).queued,
                Some(uid) if uid.bytes().all(|byte| byte.is_ascii_digit()) => ctx.push_uid(uid, message).queued,
                _ => {
                    ctx.push(fd, message);
                    1
                }
            };
            assert!(delivered > 0, "a connection must receive {message:?}");
        })
        .run()
        .expect("the server ends without an error");
}

/// A client that writes encoded frames and compares the received bytes.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr, query: &str) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a read timeout can be set");
        let mut client = Client { stream, buffer: Vec::new() };
        client.send(
            format!(
                "GET /?{query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .as_bytes(),
        );
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).expect("the server answers");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads its socket");
    }

    /// Reads as many bytes as `bytes` has, and compares them with `bytes`.
    fn expect(&mut self, bytes: &[u8]) {
        self.buffer.resize(bytes.len(), 0);
        self.stream.read_exact(&mut self.buffer).expect("the server answers");
        assert!(self.buffer == bytes, "the server must send the expected bytes");
    }
}

/// Encodes a masked frame, `times` times.
fn masked(text: &str, times: usize) -> Vec<u8> {
    let mut bytes = Frame::text(text).as_bytes().to_vec();
    let header = bytes.len() - text.len();
    bytes[1] |= 0x80;
    for (byte, mask) in bytes[header..].iter_mut().zip(MASK.iter().cycle()) {
        *byte ^= mask;
    }
    bytes.splice(header..header, MASK);
    bytes.repeat(times)
}

/// Encodes an unmasked frame, `times` times.
fn unmasked(text: &str, times: usize) -> Vec<u8> {
    Frame::text(text).as_bytes().repeat(times)
}

/// Measures echo: all clients send, then all clients wait for their answers.
fn echo(c: &mut Criterion) {
    const CLIENTS: usize = 20;
    let server = Running::start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(server.address, "")).collect();

    let mut group = c.benchmark_group("echo");
    for (bytes, in_flight) in [(20, 1), (20, 16), (16 << 10, 1)] {
        let text = "x".repeat(bytes);
        let (request, answer) = (masked(&text, in_flight), unmasked(&text, in_flight));
        let mut round = || {
            clients.iter_mut().for_each(|client| client.send(&request));
            clients.iter_mut().for_each(|client| client.expect(&answer));
        };
        round();
        group.throughput(Throughput::Elements((CLIENTS * in_flight) as u64));
        let shape = BenchmarkId::new(format!("{bytes} bytes, in flight"), in_flight);
        group.bench_function(shape, |b| b.iter(&mut round));
    }
}

/// Measures fan-out: one client sends to 100 subscribers.
fn fan_out(c: &mut Criterion) {
    const SUBSCRIBERS: usize = 100;
    let text = format!("all:{}", "x".repeat(124));
    let server = Running::start();
    let mut publisher = Client::connect(server.address, "");
    let mut subscribers: Vec<Client> = (0..SUBSCRIBERS).map(|_| Client::connect(server.address, "group=all")).collect();

    let mut group = c.benchmark_group("fan-out");
    for outstanding in [1, 16] {
        let (request, expected) = (masked(&text, outstanding), unmasked(&text, outstanding));
        let mut round = || {
            publisher.send(&request);
            subscribers.iter_mut().for_each(|subscriber| subscriber.expect(&expected));
        };
        round();
        group.throughput(Throughput::Elements((SUBSCRIBERS * outstanding) as u64));
        group.bench_function(BenchmarkId::new("128 bytes to 100, outstanding", outstanding), |b| b.iter(&mut round));
    }
}

/// Measures point to point: the two users of a pair send to each other's uid.
fn point_to_point(c: &mut Criterion) {
    const USERS: usize = 20;
    let server = Running::start();
    let uid = |user: usize| format!("{:04}", 1000 + user);
    let mut users: Vec<Client> =
        (0..USERS).map(|user| Client::connect(server.address, &format!("uid={}", uid(user)))).collect();

    let mut group = c.benchmark_group("point to point");
    for depth in [1, 8] {
        let text_to = |user: usize| format!("{} {}", uid(user), "x".repeat(123));
        let requests: Vec<_> = (0..USERS).map(|user| masked(&text_to(user ^ 1), depth)).collect();
        let expected: Vec<_> = (0..USERS).map(|user| unmasked(&text_to(user), depth)).collect();
        let mut round = || {
            users.iter_mut().zip(&requests).for_each(|(user, request)| user.send(request));
            users.iter_mut().zip(&expected).for_each(|(user, expected)| user.expect(expected));
        };
        round();
        group.throughput(Throughput::Elements((USERS * depth) as u64));
        group.bench_function(BenchmarkId::new("128 bytes by uid, depth", depth), |b| b.iter(&mut round));
    }
}

criterion_group!(benches, echo, fan_out, point_to_point);
criterion_main!(benches);
