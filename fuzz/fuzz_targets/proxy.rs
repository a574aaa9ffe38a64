//! A PROXY header is the same however it comes, and what follows it changes nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_proxy(data));
