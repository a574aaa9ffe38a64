//! Checks that the result for a request body does not depend on how the input is split.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_body(data));
