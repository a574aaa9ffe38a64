//! A request head in any portions has the same end, and parses to the same values after formatting.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_head(data));
