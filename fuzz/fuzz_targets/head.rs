//! Checks that the end of a request head does not depend on how the input is split.
//!
//! If a parsed head is formatted and parsed again, the result must be equal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_head(data));
