//! Tests pushes to thousands of connections. In each turn of the event loop, the server writes to a part of these
//! connections. Each client gets all of its messages in order. The server sends the answer to the push after these
//! messages. No other client waits for the end of the push.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use crate::common::gateway::{Gateway, json_of, read_welcome, request};
use crate::common::raw::frame;
use crate::common::{DEADLINE, Raw, Scratch};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Thousands of WebSockets that one thread reads at the same time.
struct Crowd {
    poll: Poll,
    readers: Vec<Reader>,
}

struct Reader {
    stream: mio::net::TcpStream,
    /// The number of expected bytes that have arrived.
    read: usize,
}

impl Crowd {
    /// Connects `count` clients with the uids `u0`, `u1`, `u2`, …, and reads their welcome frames.
    fn connect(address: SocketAddr, count: usize) -> Crowd {
        let poll = Poll::new().expect("epoll can be created");
        let connect = |number: usize| {
            let mut stream = TcpStream::connect(address).expect("the server listens");
            stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
            read_welcome(&mut stream, &format!("u{number}"));
            stream.set_nonblocking(true).expect("the socket can be non-blocking");
            let mut stream = mio::net::TcpStream::from_std(stream);
            let interest = Interest::READABLE;
            poll.registry().register(&mut stream, Token(number), interest).expect("the socket can be added to epoll");
            Reader { stream, read: 0 }
        };
        Crowd { readers: (0..count).map(connect).collect(), poll }
    }

    /// Reads until each client has received these bytes. Panics if no client receives a byte for [`DEADLINE`].
    fn read(&mut self, expected: &[u8]) {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 256 << 10];
        let mut left = 0;
        for reader in &mut self.readers {
            reader.read = 0;
            left += usize::from(!reader.take(expected, &mut buffer));
        }
        while left > 0 {
            self.poll.poll(&mut events, Some(DEADLINE)).expect("epoll can wait");
            assert!(!events.is_empty(), "each client must get all messages: {left} clients did not");
            for event in &events {
                let reader = &mut self.readers[event.token().0];
                if reader.read < expected.len() {
                    left -= usize::from(reader.take(expected, &mut buffer));
                }
            }
        }
    }
}

impl Reader {
    /// Reads the bytes that have arrived. Returns whether all expected bytes have arrived.
    fn take(&mut self, expected: &[u8], buffer: &mut [u8]) -> bool {
        while self.read < expected.len() {
            let room = buffer.len().min(expected.len() - self.read);
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => {
                    panic!(
                        "the connection must stay open, but it closed after {} of {} bytes",
                        self.read,
                        expected.len()
                    )
                }
                Ok(count) => {
                    assert!(
                        buffer[..count] == expected[self.read..][..count],
                        "the client must receive the expected frame"
                    );
                    self.read += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    panic!(
                        "the client must be able to read all bytes, but got an error after {} of {} bytes: {error}",
                        self.read,
                        expected.len()
                    )
                }
            }
        }
        true
    }
}

/// Starts a server that sends no ping during the test. The clients compare all bytes, so a ping would be an error.
fn start(flags: &[&str]) -> Gateway {
    Gateway::start(&[&["--ping-every", "1h"], flags].concat())
}

/// Returns a complete text frame of a server.
fn text_frame(text: &str) -> Vec<u8> {
    let header = match text.len() {
        length @ 0..=125 => vec![0x81, length as u8],
        length @ 126..=0xffff => [&[0x81, 126][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[0x81, 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&header, text.as_bytes()].concat()
}

/// Returns the frame that each client gets from a push to all, and the request for the push.
fn push_to_all(data: &str) -> (Vec<u8>, String) {
    let message = text_frame(&format!(r#"{{"type":"message","all":true,"data":"{data}"}}"#));
    (message, request("POST", "/api/push", &[JSON], &json!({"all": true, "data": data}).to_string()))
}

#[test]
fn an_answer_comes_after_thousands_of_messages_and_pushes_keep_their_order() {
    const COUNT: usize = 2000;
    let scratch = Scratch::new("portions");
    let path = scratch.file("clients");
    let gateway = start(&["--listen", &format!("unix:{}", path.display())]);
    // Over a unix socket, a client can read bytes as soon as the server has written them.
    let connect = |number: usize| {
        let mut stream = UnixStream::connect(&path).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
        read_welcome(&mut stream, &format!("u{number}"));
        stream.set_nonblocking(true).expect("the socket can be non-blocking");
        stream
    };
    let mut clients: Vec<UnixStream> = (0..COUNT).map(connect).collect();
    let mut api = Raw::connect(gateway.api);
    let mut buffer = vec![0; 256 << 10];
    for length in [10, 3000, 70_000] {
        let (first, push_first) = push_to_all(&"a".repeat(length));
        let (second, push_second) = push_to_all(&"b".repeat(length));
        let both = [first, second].concat();
        // One write sends both requests, so that the server can execute both in one turn.
        api.send(push_first + &push_second);
        for _ in 0..2 {
            let answer = json_of(&api.reply());
            assert_eq!(answer, json!({"matched": COUNT, "queued": COUNT, "dropped": 0, "offline": []}));
        }
        for client in &mut clients {
            let count = client.read(&mut buffer).expect("the client receives the messages of the answered pushes");
            assert!(buffer[..count] == both, "the client must receive both messages: {count} of {} bytes", both.len());
        }
    }
}

#[test]
fn clients_are_answered_while_a_push_to_thousands_is_written() {
    const READERS: usize = 4000;
    const ACTIVE: usize = 200;
    const ATTEMPTS: usize = 10;
    let gateway = start(&[]);
    let mut crowd = Crowd::connect(gateway.address, READERS);
    let connect = |number| {
        let mut client = Raw::upgraded_at(gateway.address, &format!("/?uid=active{number}"));
        client.frame();
        client
    };
    let mut active: Vec<Raw> = (0..ACTIVE).map(connect).collect();
    let mut api = Raw::connect(gateway.api);
    let heartbeat = frame(1, json!({"type": "heartbeat", "id": "x".repeat(100)}).to_string().as_bytes());
    let is_answered_first = |length: usize, crowd: &mut Crowd, active: &mut [Raw], api: &mut Raw| {
        let uids: Vec<String> = (0..READERS).map(|number| format!("u{number}")).collect();
        let data = "x".repeat(length);
        api.send(request("POST", "/api/push", &[JSON], &json!({"uids": uids, "data": data}).to_string()));
        for _ in 0..3 {
            active.iter_mut().for_each(|client| client.send(&heartbeat));
            active.iter_mut().for_each(|client| assert_eq!(client.frame().0, 0x81));
        }
        // A request of another back end and a health probe also do not wait for the end of the push.
        assert_eq!(gateway.call("GET", "/healthz", &[], "").status, 200);
        assert_eq!(gateway.get("/api/stats")["open"], READERS + ACTIVE);
        let is_first = !api.has_more();
        assert_eq!(json_of(&api.reply())["queued"], READERS);
        crowd.read(&text_frame(&format!(r#"{{"type":"message","data":"{data}"}}"#)));
        is_first
    };
    for length in [60_000, 150_000] {
        // A busy machine may delay the active clients and not the push, so one success in several attempts is enough.
        let is_once = (0..ATTEMPTS).any(|_| is_answered_first(length, &mut crowd, &mut active, &mut api));
        assert!(
            is_once,
            "the server must answer the active clients before a push of {length} bytes ends, in one of {ATTEMPTS} attempts"
        );
    }
}

#[test]
fn a_large_push_to_a_thousand_readers_closes_none_of_them() {
    const COUNT: usize = 1000;
    for policy in ["close", "drop_newest", "conflate"] {
        let gateway = start(&["--slow-reader", policy]);
        let mut crowd = Crowd::connect(gateway.address, COUNT);
        let uids: Vec<String> = (0..COUNT).map(|number| format!("u{number}")).collect();
        for length in [100_000, 1_000_000] {
            let data = "x".repeat(length);
            let mut api = Raw::connect(gateway.api);
            api.send(request("POST", "/api/push", &[JSON], &json!({"uids": uids, "data": data}).to_string()));
            crowd.read(&text_frame(&format!(r#"{{"type":"message","data":"{data}"}}"#)));
            let answer = json_of(&api.reply());
            assert_eq!(answer, json!({"matched": COUNT, "queued": COUNT, "dropped": 0, "offline": []}), "{policy}");
        }
        assert_eq!(gateway.get("/api/stats")["open"], COUNT, "{policy}");
        assert_eq!(gateway.metric(r#"fdpush_closes_total{cause="slow_consumer"}"#), 0.0, "{policy}");
    }
}
