//! Tests SIGKILL under load. The event loop writes the messages of a push before the answer to the push. So a message
//! that an answer reports as `queued` is already in the socket of its receiver.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread;

use crate::common::gateway::{Gateway, JSON, read_welcome, request};
use crate::common::{DEADLINE, Raw, Scratch, channel};
use serde_json::json;

const SUBSCRIBERS: usize = 32;
const ANSWER: &str = "{\"matched\":1,\"queued\":1,\"dropped\":0,\"offline\":[]}\n";

/// A subscriber over a unix socket. The subscriber can read bytes as soon as the server has written them.
struct Near(UnixStream);

impl Near {
    fn connect(path: &Path, uid: &str) -> Near {
        let mut stream = UnixStream::connect(path).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
        read_welcome(&mut stream, uid);
        stream.set_nonblocking(true).expect("the socket can be non-blocking");
        Near(stream)
    }

    /// Returns the texts that have arrived, without waiting for more. The texts are short.
    fn texts(&mut self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let count = self.0.read(&mut bytes).unwrap_or_default();
        texts(&bytes[..count]).0
    }
}

/// Returns the texts of the complete short frames at the start of `bytes`, and the total length of these frames.
fn texts(bytes: &[u8]) -> (Vec<String>, usize) {
    let (mut texts, mut read) = (Vec::new(), 0);
    while let Some([0x81, length @ 0..=125, rest @ ..]) = bytes.get(read..) {
        let Some(payload) = rest.get(..usize::from(*length)) else { break };
        texts.push(String::from_utf8(payload.to_vec()).expect("the text is UTF-8"));
        read += 2 + payload.len();
    }
    (texts, read)
}

#[test]
fn an_answer_is_sent_after_the_messages_it_reports() {
    const ROUNDS: usize = 200;
    let scratch = Scratch::new("kill");
    let path = scratch.file("sock");
    let gateway = Gateway::start(&["--listen", &format!("unix:{}", path.display())]);
    let mut subscribers: Vec<Near> =
        (0..SUBSCRIBERS).map(|number| Near::connect(&path, &format!("u{number}"))).collect();
    let mut back_end = Raw::connect(gateway.api);
    for round in 0..ROUNDS {
        let push = |number| json!({"uid": format!("u{number}"), "text": round.to_string()}).to_string();
        // In even rounds, the back end sends one request for each push. In odd rounds, it sends one batch with one
        // chunk for each push.
        if round % 2 == 0 {
            let all = (0..SUBSCRIBERS).map(|number| request("POST", "/api/push", &[JSON], &push(number)));
            back_end.send(all.collect::<String>());
            for subscriber in &mut subscribers {
                assert_eq!(back_end.reply().body, ANSWER);
                assert_eq!(subscriber.texts(), [round.to_string()]);
            }
        } else {
            let head = "POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
            let chunks =
                (0..SUBSCRIBERS).map(|number| format!("{:x}\r\n{}\n\r\n", push(number).len() + 1, push(number)));
            back_end.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.collect::<String>()));
            assert_eq!(back_end.reply_in_chunks().body, ANSWER.repeat(SUBSCRIBERS));
            for subscriber in &mut subscribers {
                assert_eq!(subscriber.texts(), [round.to_string()]);
            }
        }
    }
}

/// A back end that pushes the numbers 0, 1, 2, …: each number to the next subscriber.
struct Pusher {
    stream: TcpStream,
    name: usize,
    sent: usize,
    answered: usize,
}

impl Pusher {
    fn push(&mut self, count: usize) {
        let one = |number| {
            let uid = format!("u{}", number % SUBSCRIBERS);
            let body = json!({"uid": uid, "text": format!("{} {number}", self.name)}).to_string();
            request("POST", "/api/push", &[JSON], &body)
        };
        let all: String = (self.sent..self.sent + count).map(one).collect();
        // If the server was killed, the write fails, and the next read finds the end of the stream.
        let _ = self.stream.write_all(all.as_bytes());
        self.sent += count;
    }

    /// Keeps `depth` requests unanswered until the server ends. Sends a value on `tx` for every answer.
    fn push_to_the_end(mut self, depth: usize, tx: &Sender<()>) -> Pusher {
        self.push(depth);
        let (mut buffer, mut line) = ([0; 16 << 10], Vec::new());
        loop {
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return self,
                Ok(count) => count,
                // The kernel reports a TCP reset only after the last received byte, so this loop has read all received
                // bytes.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return self,
                Err(error) => panic!("expected input before the deadline: {error}"),
            };
            let mut ended = 0;
            for byte in &buffer[..count] {
                line.push(*byte);
                if *byte == b'\n' {
                    assert!(!line.starts_with(b"HTTP/1.1 ") || line.starts_with(b"HTTP/1.1 200 "));
                    ended += usize::from(line == ANSWER.as_bytes());
                    line.clear();
                }
            }
            self.answered += ended;
            (0..ended).for_each(|_| tx.send(()).expect("the test has not dropped the receiver"));
            self.push(ended);
        }
    }
}

#[test]
fn after_sigkill_every_message_reported_as_queued_is_readable() {
    // The number of concurrent requests of each of the four back ends.
    const PUSHERS: [usize; 4] = [1, 1, 7, 32];
    const ANSWERS: usize = 3000;
    let mut gateway = Gateway::start(&[]);
    let readers: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| Raw::upgraded_at(gateway.address, &format!("/?uid=u{number}")))
        .map(|mut raw| thread::spawn(move || texts(&raw.rest()).0))
        .collect();
    let (tx, rx) = channel();
    let pushers: Vec<_> = PUSHERS
        .into_iter()
        .enumerate()
        .map(|(name, depth)| {
            let stream = TcpStream::connect(gateway.api).expect("the server listens");
            stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
            let (pusher, tx) = (Pusher { stream, name, sent: 0, answered: 0 }, tx.clone());
            thread::spawn(move || pusher.push_to_the_end(depth, &tx))
        })
        .collect();
    (0..ANSWERS).for_each(|_| rx.next());
    gateway.signal("-KILL");
    assert!(!gateway.wait().success());
    let pushers: Vec<Pusher> =
        pushers.into_iter().map(|pusher| pusher.join().expect("the thread ends without a panic")).collect();
    for (number, reader) in readers.into_iter().enumerate() {
        let came = reader.join().expect("the thread ends without a panic");
        assert!(came[0].starts_with(r#"{"type":"welcome""#), "{}", came[0]);
        for pusher in &pushers {
            let prefix = format!("{} ", pusher.name);
            let of_it: Vec<usize> = came.iter().filter_map(|text| text.strip_prefix(&prefix)?.parse().ok()).collect();
            // The reader must receive each number of the pusher once and in order. The server may be killed before
            // it answers the last pushes, so the reader may receive more numbers than the pusher got answers.
            let all = (number..).step_by(SUBSCRIBERS);
            assert!(all.clone().zip(&of_it).all(|(sent, came)| sent == *came), "{of_it:?}");
            assert!(of_it.last().is_none_or(|last| *last < pusher.sent));
            let answered = all.take_while(|sent| *sent < pusher.answered).count();
            assert!(
                of_it.len() >= answered,
                "all {answered} messages that an answer reported as queued must arrive, not only {}",
                of_it.len()
            );
        }
    }
}
