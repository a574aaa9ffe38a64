//! Payloads of deflated messages, checked by another implementation.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_inflate(data));
