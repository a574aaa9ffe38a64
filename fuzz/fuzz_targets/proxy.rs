//! A PROXY header in any portions parses to the same value, independent of the bytes after it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_proxy(data));
