//! Measures AES-128-GCM, which is a part of the cost of an echo over TLS 1.3.
//!
//! For each echo, the server decrypts one record and encrypts one record. `benches/load/tls.sh` measures the whole
//! echo.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// The sizes of messages in bytes. `benches/load/tls.sh` measures the same sizes.
const SIZES: [usize; 2] = [20, 16 << 10];

/// The number of encrypted bytes of a record besides the message: 4 bytes of frame header, and 1 byte for the content
/// type of TLS 1.3.
const MORE_BYTES: usize = 5;

fn open_and_seal(c: &mut Criterion) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("the key has 16 bytes"));
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
            key.seal_in_place_append_tag(nonce(number), Aad::from(header), &mut record)
                .expect("the record can be encrypted");
            key.open_in_place(nonce(number), Aad::from(header), &mut record).expect("the record has a valid tag").len()
        };
        assert_eq!(round(), plaintext.len());
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(&mut round));
        assert_eq!(record[..plaintext.len()], plaintext, "the decrypted record must equal the plaintext");
    }
}

criterion_group!(benches, open_and_seal);
criterion_main!(benches);
