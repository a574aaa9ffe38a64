//! Benchmarks of parsing client frames: fdpush, tungstenite and fastwebsockets on the same bytes.
//!
//! Each reader copies the stream as if it read from a socket. Before the measurement, the messages that each reader
//! returns are checked.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fdpush::bench::{Assembler, AssemblerPool, Item, MessageRules, Tick, take_message};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::{Frame, coding};

const SIZES: [usize; 5] = [16, 125, 1 << 10, 16 << 10, 1 << 20];
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The maximum number of bytes of one read, as in fdpush's `Limits::default()`.
const READ_BYTES: usize = 64 << 10;

const MESSAGE_BYTES_MAX: u64 = 1 << 24;

/// A stream of equal text messages: as many as fit into one read, at least one message.
struct Stream {
    text: String,
    bytes: Vec<u8>,
    messages: usize,
}

impl Stream {
    fn of(size: usize) -> Stream {
        let text: String = ('a'..='z').cycle().take(size).collect();
        let messages = (READ_BYTES / (size + 14)).max(1);
        let mut bytes = Vec::new();
        for _ in 0..messages {
            // tungstenite encodes the frames, so the input is independent of fdpush.
            let mut frame = Frame::message(text.clone(), coding::OpCode::Data(coding::Data::Text), true);
            frame.header_mut().mask = Some(MASK);
            frame.format(&mut bytes).expect("a frame can be written to memory");
        }
        Stream { text, bytes, messages }
    }

    /// Checks that `read` returns the messages of the stream, also when the stream is repeated.
    fn assert_is_read_by(&self, mut read: impl FnMut(&mut dyn FnMut(&[u8]))) {
        for _ in 0..2 {
            let mut texts = Vec::new();
            read(&mut |text| texts.push(text.to_vec()));
            assert!(
                texts == vec![self.text.as_bytes(); self.messages],
                "the decoder must return the messages that were encoded"
            );
        }
    }
}

/// A socket that repeats the same stream after each rewind. Writes are discarded.
struct Feed<'a> {
    stream: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Feed<'a> {
    fn new(stream: &'a Stream) -> Feed<'a> {
        Feed { stream: &stream.bytes, rest: &stream.bytes }
    }
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.rest.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Works like the implementation of `Read`, but repeats the stream by itself, because the reader of fastwebsockets owns
/// its socket.
impl AsyncRead for Feed<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            self.rest = self.stream;
        }
        let (now, rest) = self.rest.split_at(self.rest.len().min(into.remaining()));
        into.put_slice(now);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Feed<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The reader of fdpush: the state of one connection in the loop.
struct Reader {
    buffer: Vec<u8>,
    unfinished: Option<Box<Assembler>>,
    pool: AssemblerPool,
}

impl Reader {
    fn new() -> Reader {
        Reader { buffer: vec![0; READ_BYTES], unfinished: None, pool: AssemblerPool::new() }
    }

    /// Reads all of `stream`, and calls `message` with each text.
    fn read(&mut self, stream: &Stream, mut message: impl FnMut(&[u8])) {
        for part in stream.bytes.chunks(READ_BYTES) {
            let buffer = &mut self.buffer[..part.len()];
            buffer.copy_from_slice(part);
            let mut input = buffer;
            loop {
                if self.unfinished.is_none()
                    && let Some(text) = take_message(&mut input, MESSAGE_BYTES_MAX).expect("the stream is valid")
                {
                    message(text.as_bytes());
                    continue;
                }
                let (unfinished, pool) = (&mut self.unfinished, &mut self.pool);
                match Assembler::next(unfinished, &mut input, MessageRules::plain(MESSAGE_BYTES_MAX), Tick(0), pool)
                    .expect("the stream is valid")
                {
                    Some(Item::Text(text)) => message(text.as_bytes()),
                    Some(item) => panic!("expected a text message, got {item:?}"),
                    None => break,
                }
            }
        }
    }
}

type Tungstenite<'a> = tungstenite::WebSocket<Feed<'a>>;

fn read_tungstenite(socket: &mut Tungstenite<'_>, mut message: impl FnMut(&[u8])) {
    let feed = socket.get_mut();
    feed.rest = feed.stream;
    loop {
        match socket.read() {
            Ok(tungstenite::Message::Text(text)) => message(text.as_bytes()),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
            other => panic!("expected a text message, got {other:?}"),
        }
    }
}

type FastWebSockets<'a> = fastwebsockets::WebSocket<Feed<'a>>;

/// Reads all messages of the stream. No async runtime is needed, because the socket is always ready.
///
/// fastwebsockets checks UTF-8, like the other readers, but returns bytes.
fn read_fastwebsockets(socket: &mut FastWebSockets<'_>, messages: usize, mut message: impl FnMut(&[u8])) {
    let read = pin!(async {
        for _ in 0..messages {
            let frame = socket.read_frame().await.expect("the stream is valid");
            assert!(frame.fin && frame.opcode == fastwebsockets::OpCode::Text);
            message(&frame.payload);
        }
    });
    let Poll::Ready(()) = read.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a read must not wait for the socket");
    };
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for size in SIZES {
        let stream = Stream::of(size);
        let mut ours = Reader::new();
        let mut tungstenite =
            Tungstenite::from_raw_socket(Feed::new(&stream), tungstenite::protocol::Role::Server, None);
        let mut fastwebsockets = FastWebSockets::after_handshake(Feed::new(&stream), fastwebsockets::Role::Server);
        stream.assert_is_read_by(|message| ours.read(&stream, message));
        stream.assert_is_read_by(|message| read_tungstenite(&mut tungstenite, message));
        stream.assert_is_read_by(|message| read_fastwebsockets(&mut fastwebsockets, stream.messages, message));

        group.throughput(Throughput::ElementsAndBytes {
            elements: stream.messages as u64,
            bytes: (stream.messages * size) as u64,
        });
        group.bench_function(BenchmarkId::new("fdpush", size), |b| {
            b.iter(|| ours.read(black_box(&stream), |text| _ = black_box(text)));
        });
        group.bench_function(BenchmarkId::new("tungstenite", size), |b| {
            b.iter(|| read_tungstenite(&mut tungstenite, |text| _ = black_box(text)));
        });
        group.bench_function(BenchmarkId::new("fastwebsockets", size), |b| {
            b.iter(|| read_fastwebsockets(&mut fastwebsockets, stream.messages, |text| _ = black_box(text)));
        });
    }
}

/// Compares unmasking in fdpush and fastwebsockets. The unmasking function of tungstenite is private.
fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for size in SIZES {
        let clear: Vec<u8> = (0..size).map(|index| index as u8).collect();
        let masked: Vec<u8> = clear.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let ours = |payload: &mut [u8]| fdpush::bench::unmask(payload, MASK, 0);
        let theirs = |payload: &mut [u8]| fastwebsockets::unmask(payload, MASK);
        let mut payload = masked.clone();
        ours(&mut payload);
        assert!(payload == clear);
        payload.copy_from_slice(&masked);
        theirs(&mut payload);
        assert!(payload == clear);

        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("fdpush", size), |b| b.iter(|| ours(black_box(&mut payload))));
        group.bench_function(BenchmarkId::new("fastwebsockets", size), |b| b.iter(|| theirs(black_box(&mut payload))));
    }
}

criterion_group!(benches, decode, unmask);
criterion_main!(benches);
