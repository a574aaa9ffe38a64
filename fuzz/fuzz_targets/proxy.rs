//! A PROXY header gives the same result for every division.
//!
//! The bytes after the header do not change the result.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_proxy(data));
