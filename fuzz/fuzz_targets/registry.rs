//! Runs operations on the registry and on its naive model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_registry(data));
