//! Benchmarks of the protocol code: encoding of frames (compared with tungstenite), parsing of upgrades, and inflation
//! of messages.
//!
//! The encoders `fdpush` and `tungstenite` append to a buffer with enough capacity. The encoder `fdpush, shared`
//! allocates each frame. `benches/peers/`, a separate workspace, compares decoders.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fdpush::Peer;
use fdpush::bench::{Inflater, Opcode, RequestKind, ServerHeader, SharedFrame};
use fdpush::bench::{find_head_end, parse_head};
use flate2::{Compress, Compression, FlushCompress};
use tungstenite::Bytes;
use tungstenite::protocol::frame::{Frame, coding};

const SIZES: [usize; 5] = [16, 125, 1 << 10, 16 << 10, 1 << 20];

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for size in SIZES {
        let payload = Bytes::from(vec![b'x'; size]);
        let encode_tungstenite = |out: &mut Vec<u8>| {
            let frame = Frame::message(payload.clone(), coding::OpCode::Data(coding::Data::Text), true);
            frame.format(out).expect("the buffer has enough capacity");
        };
        let encode_fdpush = |out: &mut Vec<u8>| {
            ServerHeader::new(Opcode::Text, payload.len()).append_to(out);
            out.extend_from_slice(&payload);
        };
        let encode_shared = || SharedFrame::encode(Opcode::Text, &payload).expect("memory is available");

        let (mut out, mut tungstenite_out) = (Vec::with_capacity(size + 16), Vec::with_capacity(size + 16));
        encode_fdpush(&mut out);
        encode_tungstenite(&mut tungstenite_out);
        assert!(
            out == tungstenite_out && encode_shared().as_bytes() == out,
            "all encoders must produce the same frame"
        );

        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("fdpush", size), |b| {
            b.iter(|| {
                out.clear();
                encode_fdpush(black_box(&mut out));
            });
        });
        group.bench_function(BenchmarkId::new("fdpush, shared", size), |b| b.iter(|| black_box(encode_shared())));
        group.bench_function(BenchmarkId::new("tungstenite", size), |b| {
            b.iter(|| {
                out.clear();
                encode_tungstenite(black_box(&mut out));
            });
        });
    }
}

/// Parses the upgrade request of a browser.
///
/// The benchmark includes the search for the end of the head, all checks, and `Sec-WebSocket-Accept`.
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
        let end =
            find_head_end(bytes.as_bytes(), &mut 0, 8 << 10).expect("the head is valid").expect("the head is complete");
        parse_head(bytes.as_bytes()[..end].to_vec(), 64, Peer::Unix).expect("the head is valid")
    };
    let head = read(HEAD);
    assert_eq!(head.kind, RequestKind::Upgrade { accept: *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" });
    assert_eq!(head.request.query("uid").as_deref(), Some("10010"));

    let mut group = c.benchmark_group("upgrade");
    group.throughput(Throughput::Elements(1));
    group.bench_function("head", |b| b.iter(|| read(black_box(HEAD))));
}

/// Inflates ordinary payloads, and the payloads that take the most time for each received byte.
///
/// The throughput is in received bytes, because `connection/inflation_pace.rs` limits the received bytes of each
/// client.
fn inflate(c: &mut Criterion) {
    const RECEIVED: usize = 32 << 10;
    const BYTES_MAX: usize = 1 << 20;
    /// A deflate block that defines Huffman codes for 130 literals and 4 distances, and has no content.
    const HUFFMAN_CODES: [u8; 26] = [
        0x04, 0xc4, 0x85, 0x02, 0x00, 0x02, 0x00, 0x43, 0xc1, 0x7b, 0xfb, 0x73, 0xad, 0xb5, 0xd6, 0x5a, 0x6b, 0xad,
        0xb5, 0xd6, 0x5a, 0x6b, 0xad, 0xb9, 0xc5, 0xff,
    ];
    let deflate = |payload: &[u8]| {
        let mut out = Vec::with_capacity(2 * payload.len());
        let mut stream = Compress::new(Compression::default(), false);
        stream.compress_vec(payload, &mut out, FlushCompress::Sync).expect("the payload is deflated");
        out.truncate(out.len() - 4);
        out
    };
    let empty = |block: &[u8]| [block.repeat(RECEIVED / block.len()), vec![0]].concat();
    let number = |at: u32| at.wrapping_mul(2_654_435_761) >> 8;
    let json: String = (0..1000).map(|at| format!("{{\"id\":{},\"name\":\"user{}\"}},", number(at), at % 97)).collect();
    let text: String = (0..20_000).map(|at| char::from(b'0' + (number(at) % 64) as u8)).collect();
    let payloads = [
        ("JSON", deflate(json.as_bytes()), json.len()),
        ("random text", deflate(text.as_bytes()), text.len()),
        ("empty final blocks", empty(&[3, 0]), 0),
        ("empty stored blocks", empty(&[0, 0, 0, 0xff, 0xff]), 0),
        ("empty blocks with Huffman codes", empty(&HUFFMAN_CODES), 0),
    ];
    let (mut inflater, mut out) = (Inflater::new(), Vec::new());
    let mut group = c.benchmark_group("inflate");
    for (name, payload, bytes) in &payloads {
        let mut run = || {
            out.clear();
            inflater.begin();
            inflater
                .push(black_box(payload), &mut out, BYTES_MAX)
                .and_then(|()| inflater.finish())
                .expect("the payload is valid");
            out.len()
        };
        assert_eq!(run(), *bytes, "{name}");
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(*name, |b| b.iter(&mut run));
    }
}

criterion_group!(benches, encode, upgrade, inflate);
criterion_main!(benches);
