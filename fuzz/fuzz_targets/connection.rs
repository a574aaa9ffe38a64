//! Operations on two connections, checked by a naive client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_connection(data));
