//! Checks that the result for a PROXY header does not depend on how the input is split.
//!
//! The result must not depend on the bytes after the header, either.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_proxy(data));
