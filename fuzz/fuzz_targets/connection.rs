//! A list of operations on two connections, against what a naive client may expect.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_connection(data));
