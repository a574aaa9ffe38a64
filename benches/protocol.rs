//! Floor 0: bytes to messages and back, beside tungstenite on the same bytes.
//!
//! Both readers are handed the stream from outside, as a socket would, and pay for that copy. Both writers append to a
//! buffer that has room.

use std::hint::black_box;
use std::io::{self, Read, Write};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fdpush::Peer;
use fdpush::bench::{Assembler, Item, Kind, Opcode, ServerHeader, SharedFrame, Spares, Tick};
use fdpush::bench::{find_head_end, parse_head, unmask};
use tungstenite::Bytes;
use tungstenite::protocol::frame::{Frame, coding};
use tungstenite::protocol::{Role, WebSocket};

const SIZES: [usize; 5] = [16, 125, 1 << 10, 16 << 10, 1 << 20];
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What one read takes from a socket at most, as in `Limits::default()`.
const READ_BYTES: usize = 64 << 10;

/// A client's text messages, all alike, of `size` bytes each: as many as fit into one read, and at least one.
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
            let frame = Frame::message(text.clone(), coding::OpCode::Data(coding::Data::Text), true);
            bytes.extend_from_slice(&masked(frame));
        }
        Stream { text, bytes, messages }
    }
}

/// A client's frame, encoded by tungstenite, so that the measured code has not made its own input.
fn masked(mut frame: Frame) -> Vec<u8> {
    frame.header_mut().mask = Some(MASK);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).expect("a frame in memory");
    bytes
}

/// A socket whose peer sends the same stream whenever it is rewound.
struct Feed<'a> {
    stream: &'a [u8],
    rest: &'a [u8],
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

/// Our reader: what the loop keeps for one connection.
struct Reader {
    buffer: Vec<u8>,
    unfinished: Option<Box<Assembler>>,
    spares: Spares,
}

impl Reader {
    fn new() -> Reader {
        Reader { buffer: vec![0; READ_BYTES], unfinished: None, spares: Spares::new() }
    }

    /// Reads all of `stream`, and tells `message` each text.
    fn read(&mut self, stream: &[u8], mut message: impl FnMut(&str)) {
        for part in stream.chunks(READ_BYTES) {
            let buffer = &mut self.buffer[..part.len()];
            buffer.copy_from_slice(part);
            let mut input = buffer;
            while let Some(item) =
                Assembler::next(&mut self.unfinished, &mut input, 1 << 24, Tick(0), &mut self.spares).expect("valid")
            {
                let Item::Text(text) = item else { panic!("{item:?} where texts were sent") };
                message(&text);
            }
        }
    }
}

/// Tungstenite's reader, likewise.
fn read_tungstenite(socket: &mut WebSocket<Feed<'_>>, mut message: impl FnMut(&str)) {
    let feed = socket.get_mut();
    feed.rest = feed.stream;
    loop {
        match socket.read() {
            Ok(tungstenite::Message::Text(text)) => message(&text),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
            other => panic!("{other:?} where texts were sent"),
        }
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for size in SIZES {
        let stream = Stream::of(size);
        let mut ours = Reader::new();
        let feed = Feed { stream: &stream.bytes, rest: &[] };
        let mut theirs = WebSocket::from_raw_socket(feed, Role::Server, None);

        for _ in 0..2 {
            let (mut texts, mut their_texts) = (Vec::new(), Vec::new());
            ours.read(&stream.bytes, |text| texts.push(text.to_owned()));
            read_tungstenite(&mut theirs, |text| their_texts.push(text.to_owned()));
            assert_eq!(texts, vec![stream.text.clone(); stream.messages]);
            assert!(texts == their_texts, "tungstenite reads something else");
        }

        group.throughput(Throughput::ElementsAndBytes {
            elements: stream.messages as u64,
            bytes: (stream.messages * size) as u64,
        });
        group.bench_function(BenchmarkId::new("fdpush", size), |b| {
            b.iter(|| ours.read(black_box(&stream.bytes), |text| _ = black_box(text)));
        });
        group.bench_function(BenchmarkId::new("tungstenite", size), |b| {
            b.iter(|| read_tungstenite(&mut theirs, |text| _ = black_box(text)));
        });
    }
}

fn mask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for size in SIZES {
        let clear: Vec<u8> = (0..size).map(|index| index as u8).collect();
        let mut payload: Vec<u8> = clear.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        unmask(&mut payload, MASK, 0);
        assert_eq!(payload, clear);

        group.throughput(Throughput::Bytes(size as u64));
        group
            .bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| unmask(black_box(&mut payload), MASK, 0)));
    }
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for size in SIZES {
        let payload = Bytes::from(vec![b'x'; size]);
        let theirs = |out: &mut Vec<u8>| {
            let frame = Frame::message(payload.clone(), coding::OpCode::Data(coding::Data::Text), true);
            frame.format(out).expect("room");
        };
        let ours = |out: &mut Vec<u8>| {
            out.extend_from_slice(ServerHeader::new(Opcode::Text, payload.len()).as_bytes());
            out.extend_from_slice(&payload);
        };
        let shared = || SharedFrame::encode(&ServerHeader::new(Opcode::Text, payload.len()), &payload);

        let (mut out, mut their_out) = (Vec::with_capacity(size + 16), Vec::with_capacity(size + 16));
        ours(&mut out);
        theirs(&mut their_out);
        assert!(out == their_out && shared().as_bytes() == out, "three encoders, three frames");

        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("fdpush", size), |b| {
            b.iter(|| {
                out.clear();
                ours(black_box(&mut out));
            });
        });
        group.bench_function(BenchmarkId::new("fdpush, shared", size), |b| b.iter(|| black_box(shared())));
        group.bench_function(BenchmarkId::new("tungstenite", size), |b| {
            b.iter(|| {
                out.clear();
                theirs(black_box(&mut out));
            });
        });
    }
}

/// A browser's upgrade request: found, parsed, judged, and its `Sec-WebSocket-Accept` reckoned.
fn upgrade(c: &mut Criterion) {
    const HEAD: &str = "GET /chat?uid=10010 HTTP/1.1\r\n\
        Host: example.org\r\n\
        Connection: Upgrade\r\n\
        Pragma: no-cache\r\n\
        Cache-Control: no-cache\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
        Upgrade: websocket\r\n\
        Origin: http://example.org\r\n\
        Sec-WebSocket-Version: 13\r\n\
        Accept-Encoding: gzip, deflate, br, zstd\r\n\
        Accept-Language: en-GB,en;q=0.9\r\n\
        Cookie: sid=0123456789abcdef\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let read = |bytes: &str| {
        let end = find_head_end(bytes.as_bytes(), &mut 0, 8 << 10).expect("a head").expect("a whole one");
        parse_head(bytes.as_bytes()[..end].to_vec(), 64, Peer::Unix).expect("a good one")
    };
    let head = read(HEAD);
    assert_eq!(head.kind, Kind::Upgrade { accept: *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" });
    assert_eq!(head.request.query("uid").as_deref(), Some("10010"));

    let mut group = c.benchmark_group("upgrade");
    group.throughput(Throughput::Elements(1));
    group.bench_function("head", |b| b.iter(|| read(black_box(HEAD))));
}

criterion_group!(benches, decode, mask, encode, upgrade);
criterion_main!(benches);
