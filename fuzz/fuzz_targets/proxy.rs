//! A PROXY header in any portions gives the same result.
//!
//! The bytes after the header do not change it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_proxy(data));
