//! Benchmarks of layer 0: encoding frames, compared with tungstenite, and parsing upgrades.
//!
//! Both encoders append to a buffer with enough capacity. `benches/peers/`, a separate workspace, compares decoders.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fdpush::Peer;
use fdpush::bench::{Opcode, RequestKind, ServerHeader, SharedFrame};
use fdpush::bench::{find_head_end, parse_head};
use tungstenite::Bytes;
use tungstenite::protocol::frame::{Frame, coding};

const SIZES: [usize; 5] = [16, 125, 1 << 10, 16 << 10, 1 << 20];

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for size in SIZES {
        let payload = Bytes::from(vec![b'x'; size]);
        let encode_tungstenite = |out: &mut Vec<u8>| {
            let frame = Frame::message(payload.clone(), coding::OpCode::Data(coding::Data::Text), true);
            frame.format(out).expect("enough capacity");
        };
        let encode_fdpush = |out: &mut Vec<u8>| {
            ServerHeader::new(Opcode::Text, payload.len()).append_to(out);
            out.extend_from_slice(&payload);
        };
        let encode_shared = || SharedFrame::encode(Opcode::Text, &payload).expect("memory");

        let (mut out, mut tungstenite_out) = (Vec::with_capacity(size + 16), Vec::with_capacity(size + 16));
        encode_fdpush(&mut out);
        encode_tungstenite(&mut tungstenite_out);
        assert!(out == tungstenite_out && encode_shared().as_bytes() == out, "all encoders produce the same frame");

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
/// It finds the end, checks the head, and computes `Sec-WebSocket-Accept`.
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
        let end = find_head_end(bytes.as_bytes(), &mut 0, 8 << 10).expect("a valid head").expect("a complete head");
        parse_head(bytes.as_bytes()[..end].to_vec(), 64, Peer::Unix).expect("a valid head")
    };
    let head = read(HEAD);
    assert_eq!(head.kind, RequestKind::Upgrade { accept: *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" });
    assert_eq!(head.request.query("uid").as_deref(), Some("10010"));

    let mut group = c.benchmark_group("upgrade");
    group.throughput(Throughput::Elements(1));
    group.bench_function("head", |b| b.iter(|| read(black_box(HEAD))));
}

criterion_group!(benches, encode, upgrade);
criterion_main!(benches);
