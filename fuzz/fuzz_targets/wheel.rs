//! Runs operations on the timer wheel and on a naive model, and compares the results.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_wheel(data));
