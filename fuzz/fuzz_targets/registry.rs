//! Runs operations on the registry and on a naive model, and compares the results.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_registry(data));
