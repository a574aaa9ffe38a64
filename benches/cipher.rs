//! AES-128-GCM alone, as TLS 1.3 uses it: the part of the cipher in the cost of an echo over TLS.
//!
//! An echo opens one record and seals one. `benches/load/tls.sh` measures the whole echo.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Payloads of messages, the two sizes that are measured over TLS.
const SIZES: [usize; 2] = [20, 16 << 10];

/// A frame header of a server, and the content type that TLS 1.3 encrypts.
const MORE_BYTES: usize = 5;

fn open_and_seal(c: &mut Criterion) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("a key of 16 bytes"));
    let nonce = |number: u64| {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(bytes)
    };
    let header = [23, 3, 3, 0, 0];

    let mut group = c.benchmark_group("AES-128-GCM, seal and open");
    for size in SIZES {
        let plaintext = vec![b'x'; size + MORE_BYTES];
        let mut record = plaintext.clone();
        let mut number = 0;
        let mut round = || {
            number += 1;
            record.truncate(plaintext.len());
            key.seal_in_place_append_tag(nonce(number), Aad::from(header), &mut record).expect("a short record");
            key.open_in_place(nonce(number), Aad::from(header), &mut record).expect("the tag of the record").len()
        };
        assert_eq!(round(), plaintext.len());
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(&mut round));
        assert_eq!(record[..plaintext.len()], plaintext, "the record was opened");
    }
}

criterion_group!(benches, open_and_seal);
criterion_main!(benches);
