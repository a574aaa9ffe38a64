//! Runs a list of operations on two connections, and checks them against a naive client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_connection(data));
