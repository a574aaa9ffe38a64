//! A request body, cut anywhere, is the same bytes and leaves the same rest.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_body(data));
