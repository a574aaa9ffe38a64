//! Runs operations on the timer wheel and on its naive model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_wheel(data));
