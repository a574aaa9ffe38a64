//! Inflates payloads of messages, and compares the result with that of another implementation.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_inflate(data));
