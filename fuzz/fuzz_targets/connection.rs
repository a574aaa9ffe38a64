//! Runs operations on two connections, and compares the output with a naive model of a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_connection(data));
