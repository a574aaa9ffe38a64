//! A client's stream, cut anywhere, up to the answer to an upgrade: deserved, right, and the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_upgrade(data));
