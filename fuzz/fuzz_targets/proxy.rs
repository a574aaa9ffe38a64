//! The result for a PROXY header does not depend on its split into reads.
//!
//! The bytes after the header do not change the result.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_proxy(data));
