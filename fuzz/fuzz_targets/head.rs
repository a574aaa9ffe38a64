//! The end of a request head does not depend on its split into reads.
//!
//! A parsed head that is formatted and parsed again has the same values.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_head(data));
