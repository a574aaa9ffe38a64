//! The result for a request body does not depend on its split into reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_body(data));
