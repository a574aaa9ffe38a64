//! A request head in any portions has the same end.
//!
//! A parsed head that is formatted and parsed again has the same values.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_head(data));
